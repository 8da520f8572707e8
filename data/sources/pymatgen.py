"""Structures and labels from pymatgen objects and published JSON files.

Two forms of JSON are read, plain or gzipped, one member at a time:

* mlearn and its relatives: a list of ``{"structure": …, "outputs": {"energy", "forces",
  "virial_stress" or "stress"}, "tags" or "tag" or "group": …}``. The labels may also be in
  ``"data"`` (with ``energy_per_atom``) or next to the structure.
* MPtrj: ``{mp-id: {frame-id: {"structure": …, "uncorrected_total_energy",
  "corrected_total_energy", "force", "stress"}}}``. The two energies differ by the corrections of
  the Materials Project; if they do, one must be chosen. The mp-id becomes the group.

Energies are in eV, forces in eV/Å; a stress is VASP's: kB, positive under compression, six
components in the order xx yy zz xy yz zx or a matrix. Other units need to be stated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Molecule
from pymatgen.core.structure import Structure as Crystal

from tesseral.data.labels import KNOWN_NAMES, LabelKeys
from tesseral.data.sources.json_stream import iterate_json
from tesseral.data.structures import Structure, make_structure

VASP_KEYS = LabelKeys(stress_unit="kbar", stress_sign=-1, stress_order="vasp")
MPTRJ_ENERGIES = ("uncorrected_total_energy", "corrected_total_energy")


def structure_from_pymatgen(
    structure: Crystal | Molecule,
    *,
    energy: float | None = None,
    forces: ArrayLike | None = None,
    stress: ArrayLike | None = None,
) -> Structure:
    """`Structure` from pymatgen's Structure or Molecule.

    Args:
        structure: structure with one element on every site.
        energy: eV.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å³, positive under tension.

    Raises:
        ValueError: sites are disordered, or shapes do not match.
    """
    atoms = atoms_from_pymatgen(structure)
    return make_structure(
        atoms.numbers,
        atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        energy=energy,
        forces=forces,
        stress=stress,
    )


def pymatgen_from_structure(structure: Structure) -> Crystal | Molecule:
    """Convert to pymatgen's Structure, or Molecule if nothing is periodic, without labels."""
    if not structure.pbc.any():
        return Molecule(structure.numbers.tolist(), structure.positions)
    a, b, c = (bool(periodic) for periodic in structure.pbc)
    lattice = Lattice(structure.cell, pbc=(a, b, c))
    return Crystal(
        lattice, structure.numbers.tolist(), structure.positions, coords_are_cartesian=True
    )


def atoms_from_pymatgen(structure: Crystal | Molecule) -> Atoms:
    """ASE's atoms from pymatgen's Structure or Molecule, without labels.

    Raises:
        ValueError: sites are disordered.
    """
    if not structure.is_ordered:
        raise ValueError("the structure has sites shared by several elements")
    lattice = getattr(structure, "lattice", None)
    return Atoms(
        numbers=[site.specie.Z for site in structure],
        positions=structure.cart_coords,
        cell=None if lattice is None else lattice.matrix,
        pbc=False if lattice is None else lattice.pbc,
    )


def atoms_from_json(
    path: str | os.PathLike[str], keys: LabelKeys = VASP_KEYS
) -> Iterator[Atoms] | None:
    """Atoms with labels, in the file's units, from JSON in the form of mlearn or MPtrj.

    Returns:
        The structures, or None if the file has another form.

    Raises:
        ValueError: the file is not valid JSON, or an entry cannot be read.
    """
    members = iterate_json(path)
    first = next(members, None)
    if first is None:
        return None
    key, value = first
    if not isinstance(value, Mapping):
        return None
    members = chain([first], members)
    if key is None and "structure" in value:
        return (_mlearn_atoms(entry) for _, entry in members)
    if key is not None and all(isinstance(v, Mapping) and "structure" in v for v in value.values()):
        return (
            _mptrj_atoms(entry, str(group), keys)
            for group, frames in members
            for entry in frames.values()
        )
    return None


def _mlearn_atoms(entry: Mapping[str, Any]) -> Atoms:
    """Atoms of one entry of a file in the form of mlearn."""
    atoms = _atoms(entry)
    labels = entry.get("outputs", entry.get("data", entry))
    if "energy_per_atom" in labels and "energy" not in labels:
        labels = {**labels, "energy": labels["energy_per_atom"] * len(atoms)}
    _attach(atoms, labels)
    if "virial_stress" in labels:
        atoms.info["stress"] = atoms.info.pop("virial_stress")
    # Its "group" is a configuration type, not a group that a split must keep together.
    for name in ("config_type", "tags", "tag", "group"):
        if isinstance(entry.get(name), str) and entry[name] not in ("train", "test"):
            atoms.info.setdefault("config_type", entry[name])
    return atoms


def _mptrj_atoms(entry: Mapping[str, Any], group: str, keys: LabelKeys) -> Atoms:
    """Atoms of one frame of a file in the form of MPtrj."""
    atoms = _atoms(entry)
    _attach(atoms, entry)
    energies = [entry[name] for name in MPTRJ_ENERGIES if entry.get(name) is not None]
    if keys.energy_key is None and energies:
        if max(energies) - min(energies) > 1e-6:
            raise ValueError(
                f"{' and '.join(MPTRJ_ENERGIES)} differ; choose one with `energy_key`: the "
                "uncorrected one is DFT's, the corrected one fits the Materials Project's phase "
                "diagrams"
            )
        atoms.info["energy"] = energies[0]
    atoms.info.setdefault("mp_id", group)
    atoms.info["group"] = group
    return atoms


def _atoms(entry: Mapping[str, Any]) -> Atoms:
    """Atoms of the structure of an entry."""
    structure = entry.get("structure") if isinstance(entry, Mapping) else None
    if not isinstance(structure, Mapping):
        raise ValueError("the entry has no structure in pymatgen's form")
    kind = Crystal if "lattice" in structure else Molecule
    return atoms_from_pymatgen(kind.from_dict(dict(structure)))


def _attach(atoms: Atoms, labels: Mapping[str, Any]) -> None:
    """Store the labels of an entry where `structure_from_atoms` looks for them."""
    for name, value in labels.items():
        if isinstance(value, bool | str | Mapping) or value is None:
            continue
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "fi":
            continue
        # The stress of six atoms could pass for an array of atoms: only forces go there.
        if numbers.shape == (len(atoms), 3) and name.lower() not in KNOWN_NAMES["stress"]:
            if name != "virial_stress":
                atoms.arrays[name] = numbers.astype(np.float64)
                continue
        atoms.info[name] = numbers if numbers.ndim else float(numbers)
