"""D3(BJ) dispersion for any model, computed by the package ``dftd3`` of its authors.

Pairs only (C6 and C8, no three-body term), with rational damping: S. Grimme, S. Ehrlich and
L. Goerigk, J. Comput. Chem. 32, 1456 (2011).
"""

from __future__ import annotations

import importlib
import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from ase.geometry import complete_cell
from ase.units import Bohr, Hartree
from numpy.typing import NDArray

from tesseral.potentials.derivatives import Prediction

Floats = NDArray[np.float64]

CUTOFF = 60 * Bohr  # Å, of pairs; the defaults of dftd3
COUNTING_CUTOFF = 40 * Bohr  # Å, of pairs that contribute to coordination numbers
LAST_ELEMENT = 94  # D3 has parameters from H to Pu
AUTO = "auto"  # the functional of the model's level of theory
COMMON = (
    *("pbe", "pbesol", "revpbe", "rpbe", "pw91", "scan", "rscan", "r2scan", "tpss", "blyp", "bp"),
    *("pbe0", "hse06", "b3lyp", "wb97x", "wb97m", "hf"),
)
# Dispersion in the name of a level of theory: corrections, functionals that have it, composite
# methods.
CONTAINED = re.compile(
    r"d[234](?!\d)|dft-?d|vdw|vv10|mbd|xdm|\bts\b|b97[mx]?-[dv]\b|b97d\b|optb8|optpbe|3c\b",
    re.IGNORECASE,
)


def theory_with(theory: str, dispersion: Dispersion | None) -> str:
    """A level of theory and its correction, ``PBE+U + D3(BJ, pbe)``."""
    added = "" if dispersion is None else str(dispersion)
    return " + ".join(part for part in (theory, added) if part)


class Contribution(NamedTuple):
    """Dispersion of a structure of N atoms."""

    energy: float  # eV
    forces: Floats  # (N, 3) eV/Å
    virial: Floats  # (3, 3) eV, -dE/dε


@dataclass(frozen=True)
class Dispersion:
    """D3(BJ) with the parameters of a functional.

    Args:
        functional: name of the functional in any case, such as ``pbe``; ``dftd3`` lists them.
        cutoff: largest distance (Å) of a pair. Coordination numbers are counted to the same
            distance, but at most to 40 Bohr.

    Raises:
        ValueError: ``dftd3`` is not installed, has no parameters for the functional, or the cutoff
            is not a positive number.
    """

    functional: str
    cutoff: float = CUTOFF

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "functional", self.functional.strip().lower())
        if not 0 < self.cutoff < math.inf:
            raise ValueError(
                f"`dispersion_cutoff` is {self.cutoff} Å; it must be a positive number"
            )
        if not has_parameters(self.functional):
            raise ValueError(
                f"there are no D3(BJ) parameters for `dispersion={self.functional!r}`; use the "
                f"functional of the model's training data, one of {', '.join(COMMON)} or another "
                "that dftd3 lists"
            )

    def __str__(self) -> str:
        """Name of the correction."""
        shorter = "" if self.cutoff == CUTOFF else f", {self.cutoff:g} Å"
        return f"D3(BJ, {self.functional}{shorter})"

    @property
    def counting_cutoff(self) -> float:
        """Largest distance (Å) of pairs that contribute to coordination numbers."""
        return min(self.cutoff, COUNTING_CUTOFF)

    def evaluate(
        self,
        numbers: NDArray[np.integer[Any]],
        positions: Floats,
        cell: Floats,
        pbc: NDArray[np.bool_],
    ) -> Contribution:
        """Energy, forces and virial of a structure.

        Args:
            numbers: (N,) atomic numbers.
            positions: (N, 3) Å.
            cell: (3, 3) Å, rows are lattice vectors; only those of periodic directions matter.
            pbc: (3,) periodic directions.

        Raises:
            ValueError: an element has no parameters.
        """
        check_elements(numbers)
        periodic = np.asarray(pbc, dtype=bool)
        positions, cell = boxed(positions, cell, periodic)
        interface = _interface()
        model = interface.DispersionModel(numbers, positions / Bohr, cell / Bohr, periodic)
        counting = self.counting_cutoff / Bohr
        model.set_realspace_cutoff(disp2=self.cutoff / Bohr, disp3=counting, cn=counting)
        found = model.get_dispersion(_parameters(self.functional), grad=True)
        return Contribution(
            float(found["energy"]) * Hartree,
            found["gradient"] * (-Hartree / Bohr),
            found["virial"] * -Hartree,
        )

    def add(
        self,
        prediction: Prediction,
        numbers: NDArray[np.integer[Any]],
        positions: Floats,
        cells: Floats,
        pbc: NDArray[np.bool_],
        counts: NDArray[np.integer[Any]],
        wanted: NDArray[np.bool_] | None = None,
    ) -> Prediction:
        """The prediction of a model with dispersion; the energies of atoms remain the model's.

        Args:
            prediction: prediction for G structures of N atoms in all.
            numbers: (N,) atomic numbers.
            positions: (N, 3) Å.
            cells: (G, 3, 3) Å.
            pbc: (3,) periodic directions.
            counts: (G,) number of atoms of each structure.
            wanted: (G,) structures to which dispersion is added. Default: all.

        Raises:
            ValueError: an element has no parameters.
        """
        energy, virial = np.zeros(len(counts)), np.zeros((len(counts), 3, 3))
        forces = np.zeros((len(numbers), 3))
        ends = np.cumsum(counts)
        for number in range(len(counts)) if wanted is None else np.flatnonzero(wanted):
            atoms = slice(ends[number] - counts[number], ends[number])
            part = self.evaluate(numbers[atoms], positions[atoms], cells[number], pbc)
            energy[number], forces[atoms], virial[number] = part
        return prediction._replace(
            energy=prediction.energy + torch.from_numpy(energy).to(prediction.energy),
            forces=prediction.forces + torch.from_numpy(forces).to(prediction.forces),
            virial=prediction.virial + torch.from_numpy(virial).to(prediction.virial),
        )


def choose_dispersion(
    functional: str | None, theory: str, cutoff: float | None = None
) -> Dispersion | None:
    """The correction that a user asks for, checked against the level of theory of the model.

    Args:
        functional: a functional, ``auto`` for that of the level of theory, or None for none.
        theory: level of theory of the model; empty if unknown.
        cutoff: largest distance (Å) of a pair. Default: 60 Bohr.

    Raises:
        ValueError: the level of theory contains dispersion, no functional is known, ``dftd3`` is
            not installed, or a value is wrong.
    """
    if functional is None:
        if cutoff is not None:
            raise ValueError(f"`dispersion_cutoff={cutoff:g}` needs `dispersion`")
        return None
    if CONTAINED.search(theory):
        raise ValueError(
            f"the level of theory of this model, {theory}, contains dispersion; leave `dispersion` "
            "out"
        )
    if functional.strip().lower() == AUTO:
        functional = functional_of(theory)
    return Dispersion(functional) if cutoff is None else Dispersion(functional, cutoff)


def functional_of(theory: str) -> str:
    """The functional in a level of theory, such as ``pbe`` in ``VASP PBE + U 520 eV``.

    Raises:
        ValueError: it names none with D3(BJ) parameters, or a hybrid made from one.
    """
    words: list[str] = re.findall(r"[\w-]+", theory.lower())
    found = [word for word in words if "hybrid" not in words and has_parameters(word)]
    if not found:
        what = f"is {theory}" if theory else "is not in its file"
        raise ValueError(
            f"the level of theory of this model {what}, which does not tell the D3(BJ) parameters; "
            "name the functional, like `dispersion='pbe'`"
        )
    return str(found[0])


def has_parameters(functional: str) -> bool:
    """Whether ``dftd3`` has D3(BJ) parameters for a functional, in any case.

    Raises:
        ValueError: ``dftd3`` is not installed.
    """
    if not functional or not functional.isascii():
        return False
    try:
        _parameters(functional)
    except RuntimeError:
        return False
    return True


def boxed(positions: Floats, cell: Floats, pbc: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Positions and cell as dftd3 needs them in directions that do not repeat.

    It moves atoms into the cell in all directions, and counts images by the heights of the cell.
    So the vectors that do not repeat are replaced by perpendicular ones around all atoms.

    Args:
        positions: (N, 3) Å.
        cell: (3, 3) Å.
        pbc: (3,) periodic directions.
    """
    cell = np.array(complete_cell(np.where(pbc[:, None], cell, 0.0)))
    for axis in np.flatnonzero(~pbc):
        along = positions @ cell[axis]
        positions = positions + (1.0 - along.min()) * cell[axis]
        cell[axis] *= 2.0 + np.ptp(along)
    return positions, cell


def check_elements(numbers: NDArray[np.integer[Any]]) -> None:
    """Check that D3 has parameters for all elements.

    Raises:
        ValueError: it has none for one of them.
    """
    largest = int(max(numbers, default=0))
    if largest > LAST_ELEMENT:
        raise ValueError(
            f"D3 has no parameters for {chemical_symbols[largest]}, only for elements up to "
            f"{chemical_symbols[LAST_ELEMENT]}; leave `dispersion` out"
        )


def _parameters(functional: str) -> Any:
    return _interface().RationalDampingParam(method=functional)


def _interface() -> Any:
    """The module of ``dftd3``; it is optional."""
    try:
        return importlib.import_module("dftd3.interface")
    except ImportError as error:
        raise ValueError(
            f"`dispersion` needs the package dftd3 ({error}); run: pip install dftd3"
        ) from None
