"""DFT labels (GPAW, PBE) of some structures with short distances: close_labels.extxyz.

    python -m benchmarks.universal.close_labels [--limit SECONDS] [--number 14]

Needs ``gpaw`` and ``gpaw-data``. Structures that are in the file are not computed again; those that
do not converge in the time limit are left out. A plane-wave cutoff of 350 eV and few k-points are
enough to compare forces of tens of eV/Å.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write

from benchmarks.universal.close import LABELS
from benchmarks.universal.close_structures import KINDS, close_structures, closest

REACH = 7.0  # Å, number of k-points times length of a cell vector
CLOSE, MIDDLE = 0.6, 0.8  # distances over the sum of the covalent radii


def chosen(number: int) -> list[tuple[int, Atoms]]:
    """Structures to label: of each kind, with close and with less close pairs, in turn."""
    structures = close_structures()
    nearest = [closest(atoms) for atoms in structures]
    lists = [
        [
            (place, atoms)
            for place, atoms in enumerate(structures)
            if atoms.info["sort"] == kind and low <= nearest[place] < high
        ]
        for low, high in ((0.0, CLOSE), (CLOSE, MIDDLE))
        for kind in KINDS
    ]
    return [found[turn] for turn in range(number) for found in lists if turn < len(found)]


def calculator(atoms: Atoms) -> Any:
    """GPAW with the data of its package."""
    gpaw = importlib.import_module("gpaw")
    data = Path(str(importlib.import_module("gpaw_data").__file__)).parent
    for folder in sorted({path.parent for path in data.rglob("*.PBE.gz")}):
        if str(folder) not in gpaw.setup_paths:
            gpaw.setup_paths.insert(0, str(folder))
    points = [max(1, int(np.ceil(REACH / length))) for length in atoms.cell.lengths()]
    return gpaw.GPAW(
        mode=gpaw.PW(350),
        xc="PBE",
        kpts={"size": points, "gamma": True},
        occupations=gpaw.FermiDirac(0.2),
        symmetry={"point_group": False},
        convergence={"forces": 0.02, "energy": 5e-3, "density": 1e-3, "eigenstates": 1e-5},
        maxiter=120,
        txt=None,
    )


def _stop(*_: object) -> None:
    raise TimeoutError("time limit")


def main() -> int:
    """Label what is missing; returns 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=400, help="seconds for one structure")
    parser.add_argument("--number", type=int, default=14, help="structures of a kind")
    options = parser.parse_args()
    done = {atoms.info["place"] for atoms in iread(LABELS)} if LABELS.exists() else set()
    signal.signal(signal.SIGALRM, _stop)
    for place, atoms in chosen(options.number):
        if place in done:
            continue
        trial = atoms.copy()
        trial.calc = calculator(trial)
        signal.alarm(options.limit)
        try:
            energy = trial.get_potential_energy(force_consistent=True)
            forces = trial.get_forces()
        except Exception as error:  # GPAW's own kinds of errors, if it does not converge
            sys.stderr.write(f"{place} {atoms.symbols}: {error}\n")
            continue
        finally:
            signal.alarm(0)
        atoms.info["place"] = place
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        write(LABELS, atoms, format="extxyz", append=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
