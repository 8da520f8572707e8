"""Calculations of NOMAD's archives (JSON), in SI units: metres, joules, newtons, pascals.

``run[*].calculation[*]`` contain the labels and refer to ``run[*].system[*]``. The energy is
``energy.total_t0`` if there is one (extrapolated to zero smearing), otherwise ``energy.total``. The
sign of the stress is that of the code which was read; it must be given, or the stress is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ase import Atoms, units

from tesseral.data.sources.common import UNCONVERGED, Array, labelled_atoms
from tesseral.data.units import STRESS_UNITS, stress_tensor

# Names at the top of an archive, or of what its download wraps it in.
SECTIONS = {"run", "metadata", "results", "workflow", "workflow2", "m_def", "definitions"}
SECTIONS |= {"processing_logs", "archive", "entry_id", "required", "m_ref_archives"}
NO_SIGN = (
    "stresses left out (in NOMAD's archive they have the sign of the code; give `stress_sign`, "
    "which is -1 for VASP)"
)
METRE = units.m
JOULE = units.J
NEWTON = units.J / units.m


def read_nomad(
    archive: Mapping[str, Any], left_out: Counter[str], given: Mapping[str, Any]
) -> Iterator[Atoms]:
    """Converged calculations of an archive.

    Args:
        archive: the content of the file.
        left_out: counter of the omissions.
        given: options of the import, of which the sign of stresses is used.

    Raises:
        ValueError: the archive has no calculations.
    """
    for name in ("data", "archive"):
        archive = archive.get(name, archive) if "run" not in archive else archive
    runs = archive.get("run")
    if not runs:
        raise ValueError(
            "the archive has no section `run` with calculations (NOMAD's new schema is not read); "
            "import the output of the code, which NOMAD keeps as a raw file"
        )
    for number, run in enumerate(runs):
        for calculation in run.get("calculation", []):
            if calculation.get("single_configuration_calculation_converged") is False:
                left_out[UNCONVERGED] += 1
            elif "energy" in calculation:
                yield _atoms(runs, number, calculation, left_out, given.get("stress_sign"))


def _atoms(
    runs: Any,
    number: int,
    calculation: Mapping[str, Any],
    left_out: Counter[str],
    sign: int | None,
) -> Atoms:
    """Atoms of a calculation."""
    atoms = _system(runs, number, calculation)["atoms"]
    stress = _value(calculation, "stress", "total")
    if stress is not None and sign is not None:
        stress = sign * STRESS_UNITS["Pa"] * stress_tensor(stress)
    elif stress is not None:
        left_out[NO_SIGN] += 1
        stress = None
    energy = _value(calculation, "energy", "total_t0")  # extrapolated to zero smearing
    energy = _value(calculation, "energy", "total") if energy is None else energy
    free = _value(calculation, "energy", "free")
    forces = _value(calculation, "forces", "total")
    cell = atoms.get("lattice_vectors")
    return labelled_atoms(
        atoms["labels"],
        METRE * np.array(atoms["positions"], dtype=float),
        np.zeros((3, 3)) if cell is None else METRE * np.array(cell, dtype=float),
        pbc=atoms.get("periodic", cell is not None),
        stress=stress,
        energy=None if energy is None else JOULE * float(energy),
        free_energy=None if free is None else JOULE * float(free),
        forces=None if forces is None else NEWTON * forces,
    )


def _system(runs: Any, number: int, calculation: Mapping[str, Any]) -> Any:
    """Structure that a calculation refers to, such as ``#/run/0/system/2``."""
    reference = calculation.get("system_ref")
    systems = runs[number].get("system", [])
    if reference is None and len(systems) == 1:
        return systems[0]
    path = str(reference).lstrip("#").strip("/").split("/")
    if len(path) != 4 or path[0] != "run" or path[2] != "system":
        raise ValueError(f"a calculation refers to the structure {reference!r}, which is not there")
    return runs[int(path[1])]["system"][int(path[3])]


def _value(calculation: Mapping[str, Any], section: str, name: str) -> Array | None:
    """Value of an entry such as ``forces.total.value``."""
    entry = (calculation.get(section) or {}).get(name)
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return None if value is None else np.array(value, dtype=float)
