"""Structures and labels from published JSON files, plain or gzipped.

* mlearn and its relatives: a list of ``{"structure": …, "outputs": {"energy", "forces",
  "virial_stress" or "stress"}, "tags" or "tag" or "group": …}``. The labels may also be in
  ``"data"`` (with ``energy_per_atom``) or next to the structure.
* MPtrj: ``{mp-id: {frame-id: {"structure": …, "uncorrected_total_energy",
  "corrected_total_energy", "force", "stress"}}}``. The two energies differ by the corrections of
  the Materials Project; if they do, one must be chosen. The mp-id becomes the group. The frames may
  also be at the top.
* CHGNet: ``{"structure": […], "uncorrected_total_energy" or "energy_per_atom": […], "force": […],
  "stress": […]}``, one entry for each frame.
* pymatgen's Trajectory, with ``energy`` or ``e_0_energy``, ``forces`` and ``stress`` of each frame.
* NOMAD's archives (``nomad``).

Energies are in eV, forces in eV/Å. The stress of mlearn is VASP's: kB, positive under compression,
six components in the order xx yy zz xy yz zx or a matrix. In the other forms it is VASP's if the
energies have VASP's names; otherwise its unit and sign must be given.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
from ase import Atoms
from pymatgen.core.structure import Molecule
from pymatgen.core.structure import Structure as Crystal
from pymatgen.core.trajectory import Trajectory

from tesseral.data.labels import KNOWN_NAMES, LabelKeys
from tesseral.data.sources import nomad
from tesseral.data.sources.json_stream import iterate_json
from tesseral.data.sources.pymatgen import atoms_from_pymatgen

VASP_KEYS = LabelKeys(stress_unit="kbar", stress_sign=-1, stress_order="vasp")
MPTRJ_ENERGIES = ("uncorrected_total_energy", "corrected_total_energy")
VASP_ENERGIES = {"e_0_energy": "energy", "e_fr_energy": "free_energy"}
COLUMNS = {"structure", "energy", "energy_per_atom", "force", "stress", "magmom", *MPTRJ_ENERGIES}
FORMS = "mlearn, MPtrj, CHGNet, pymatgen's Trajectory, NOMAD and ASE's databases"


class Found(NamedTuple):
    """Frames of a JSON file."""

    frames: Iterator[Atoms]
    keys: LabelKeys  # of their labels


def read_json(
    path: str | os.PathLike[str],
    keys: Callable[[LabelKeys], LabelKeys],
    left_out: Counter[str],
    given: Mapping[str, Any],
) -> Found | None:
    """Atoms with labels, in the file's units.

    Args:
        path: the file.
        keys: function that completes the user's keys and units with those of the format.
        left_out: counter of the omissions.
        given: options of the import, of which the unit and the sign of stresses are used.

    Returns:
        The structures, or None if the file is a database of ASE.

    Raises:
        ValueError: the file is not valid JSON or has another form, or an entry cannot be read.
    """
    members = iterate_json(path)
    first = next(members, None)
    if first is None:
        raise ValueError("it is empty")
    key, value = first
    members = chain([first], members)
    frames: Iterator[Atoms] | None
    if key in nomad.SECTIONS:
        frames = nomad.read_nomad(_whole(members), left_out, given)  # it applies the sign
        return Found(frames, replace(keys(LabelKeys()), stress_sign=1))
    chosen = keys(VASP_KEYS)
    if str(chosen.energy_key).endswith("per_atom"):
        raise ValueError(
            f"`energy_key={chosen.energy_key!r}` is an energy per atom; leave `energy_key` out, "
            "and it is multiplied by the number of atoms"
        )
    frames = None
    if key in COLUMNS and isinstance(value, list):
        frames = _columns(_whole(members), chosen, given)
    elif key is not None and key.startswith("@"):
        frames = _trajectory(_whole(members), chosen, given)
    elif isinstance(value, Mapping):
        if key is None and "structure" in value:
            frames = (_mlearn_atoms(entry) for _, entry in members)
        elif key is not None and "structure" in value:
            frames = (_frame(entry, chosen, given) for _, entry in members)
        elif key is not None and value and all(_is_frame(entry) for entry in value.values()):
            frames = (
                _mptrj_atoms(entry, str(group), chosen, given)
                for group, entries in members
                for entry in entries.values()
            )
    if frames is None and (key is None or not (key.isdigit() or key in ("ids", "nextid"))):
        raise ValueError(f"its JSON has none of the forms that are read: {FORMS}")
    return None if frames is None else Found(frames, chosen)


def _whole(members: Iterable[tuple[str | None, Any]]) -> dict[str, Any]:
    """Object of which the members were read."""
    return {str(key): value for key, value in members}


def _is_frame(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "structure" in entry


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


def _mptrj_atoms(
    entry: Mapping[str, Any], group: str, keys: LabelKeys, given: Mapping[str, Any]
) -> Atoms:
    """Atoms of one frame of a file in the form of MPtrj."""
    atoms = _frame(entry, keys, given)
    atoms.info.setdefault("mp_id", group)
    atoms.info["group"] = group
    return atoms


def _frame(entry: Mapping[str, Any], keys: LabelKeys, given: Mapping[str, Any]) -> Atoms:
    """Atoms of a frame with the names of MPtrj.

    Raises:
        ValueError: the energies differ, or the unit of the stress is not known.
    """
    atoms = _atoms(entry)
    if not any(name in entry for name in MPTRJ_ENERGIES):
        _require_stress_unit(entry.get("stress"), given)
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
    elif keys.energy_key is None and "energy" not in entry and "energy_per_atom" in entry:
        atoms.info["energy"] = atoms.info.pop("energy_per_atom") * len(atoms)
    return atoms


def _columns(columns: dict[str, Any], keys: LabelKeys, given: Mapping[str, Any]) -> Iterator[Atoms]:
    """Frames of a file of CHGNet, which has a list for each label."""
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    counts = {name: len(values) for name, values in lists.items() if values}
    if "structure" not in counts or len(set(counts.values())) > 1:
        raise ValueError(f"its lists should have one entry for each structure; it has {counts}")
    for i in range(counts["structure"]):
        yield _frame({name: lists[name][i] for name in counts}, keys, given)


def _trajectory(
    members: dict[str, Any], keys: LabelKeys, given: Mapping[str, Any]
) -> Iterator[Atoms]:
    """Frames of pymatgen's Trajectory."""
    if members.get("@class") != "Trajectory":
        raise ValueError(
            f"it is a {members.get('@class')} of {members.get('@module')}; of single objects only "
            "pymatgen's Trajectory is read"
        )
    trajectory = cast(Trajectory, Trajectory.from_dict(members))
    for i in range(len(trajectory)):
        atoms = atoms_from_pymatgen(trajectory[i])
        labels = dict((trajectory.frame_properties or [{}] * len(trajectory))[i])
        if not VASP_ENERGIES.keys() & labels.keys():
            _require_stress_unit(labels.get("stress"), given)
        for name, label in VASP_ENERGIES.items():
            if name in labels:
                labels.setdefault(label, labels.pop(name))
        labels.pop("e_wo_entrp", None)  # not consistent with the forces
        _attach(atoms, labels)
        yield atoms


def _require_stress_unit(stress: Any, given: Mapping[str, Any]) -> None:
    """Reject a stress whose unit or sign is neither known nor given."""
    if stress is not None and None in (given.get("stress_unit"), given.get("stress_sign")):
        raise ValueError(
            "the unit and the sign of its stress are not known; give `stress_unit` and "
            "`stress_sign`: 'kbar' and -1 if it is as VASP prints it, 'GPa' and 1 if it was "
            "converted for CHGNet, 'eV/A^3' and 1 if it comes from ASE"
        )


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
