"""JSON of CHGNet, pymatgen's Trajectory and NOMAD; mlearn and MPtrj are in test_importer.py."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
from ase import units
from monty.json import MontyEncoder
from pymatgen.core import Lattice
from pymatgen.core import Structure as Crystal
from pymatgen.core.trajectory import Trajectory
from two_atoms import CELL, ENERGY, FORCES, POSITIONS, STRESS, SYMBOLS, assert_read

from tesseral.data.labels import LabelKeys
from tesseral.data.sources.common import UNCONVERGED
from tesseral.data.sources.json_files import read_json
from tesseral.data.sources.nomad import NO_SIGN
from tesseral.data.structures import atoms_from_structure, structure_from_atoms

CRYSTAL = Crystal(CELL, SYMBOLS, POSITIONS, coords_are_cartesian=True)
KBAR = -STRESS / (0.1 * units.GPa)
GPA = {"stress_unit": "GPa", "stress_sign": 1}


def keys(given, convention):
    known = {name: value for name, value in given.items() if name in vars(convention)}
    return LabelKeys(**{**vars(convention), **known})


def read(folder, data, **given):
    """Atoms in tesseral's units, and what was left out."""
    (folder / "a.json").write_text(json.dumps(data, cls=MontyEncoder))
    left_out = Counter()
    found = read_json(folder / "a.json", partial(keys, given), left_out, given)
    frames = [atoms_from_structure(structure_from_atoms(a, found.keys)) for a in found.frames]
    return frames, left_out


def columns(**changes):
    lists = {
        "structure": [CRYSTAL.as_dict()] * 2,
        "uncorrected_total_energy": [ENERGY] * 2,
        "energy_per_atom": [ENERGY / 2] * 2,
        "force": [FORCES.tolist()] * 2,
        "stress": [KBAR.tolist()] * 2,
        "magmom": [None, [0.0, 0.0]],
    }
    lists |= changes
    return {name: values for name, values in lists.items() if values is not None}


def test_chgnet_as_it_reads_vasp(tmp_path):
    frames, _ = read(tmp_path, columns())
    assert len(frames) == 2
    assert_read(frames[1])


def test_chgnet_of_unknown_origin_needs_the_unit_of_its_stress(tmp_path):
    stress = [(STRESS / units.GPa).tolist()] * 2
    data = columns(uncorrected_total_energy=None, stress=stress)
    for given in ({}, {"stress_unit": "GPa"}):
        with pytest.raises(ValueError, match="give `stress_unit` and `stress_sign`"):
            read(tmp_path, data, **given)
    assert_read(read(tmp_path, data, **GPA)[0][0])
    frames, _ = read(tmp_path, columns(uncorrected_total_energy=None, stress=None))
    assert_read(frames[0], stress=False)


def test_lists_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one entry for each structure"):
        read(tmp_path, columns(force=[FORCES.tolist()]))


def test_frames_at_the_top_with_energies_per_atom(tmp_path):
    entry = {"structure": CRYSTAL.as_dict(), "energy_per_atom": ENERGY / 2, "stress": KBAR.tolist()}
    data = {"mp-1-0": {**entry, "force": FORCES.tolist()}}
    with pytest.raises(ValueError, match="give `stress_unit`"):
        read(tmp_path, data)
    assert_read(read(tmp_path, data, stress_unit="kbar", stress_sign=-1)[0][0])
    with pytest.raises(ValueError, match="energy per atom; leave `energy_key` out"):
        read(tmp_path, data, energy_key="energy_per_atom")


def trajectory(**labels):
    places = [CRYSTAL.frac_coords.tolist()] * 2
    return Trajectory(
        SYMBOLS, places, lattice=Lattice(CELL), frame_properties=[labels] * 2
    ).as_dict()


def test_trajectory_of_vasp(tmp_path):
    data = trajectory(
        e_0_energy=ENERGY,
        e_fr_energy=ENERGY - 1,
        e_wo_entrp=ENERGY + 1,
        forces=FORCES.tolist(),
        stress=KBAR.tolist(),
    )
    frames, _ = read(tmp_path, data)
    assert len(frames) == 2
    assert_read(frames[1])


def test_trajectory_of_unknown_origin(tmp_path):
    data = trajectory(energy=ENERGY, forces=FORCES.tolist(), stress=(STRESS / units.GPa).tolist())
    with pytest.raises(ValueError, match="give `stress_unit`"):
        read(tmp_path, data)
    assert_read(read(tmp_path, data, **GPA)[0][0])


def archive(**changes):
    system = {
        "atoms": {
            "labels": SYMBOLS,
            "positions": (POSITIONS * 1e-10).tolist(),
            "lattice_vectors": (CELL * 1e-10).tolist(),
            "periodic": [True] * 3,
        }
    }
    electronvolt = 1 / units.J
    calculation = {
        "system_ref": "#/run/0/system/1",
        "energy": {
            "total": {"value": ENERGY * electronvolt},
            "free": {"value": (ENERGY - 1) * electronvolt},
        },
        "forces": {"total": {"value": (FORCES * electronvolt * 1e10).tolist()}},
        "stress": {"total": {"value": (1e8 * KBAR).tolist()}},
        **changes,
    }
    other = {"atoms": {**system["atoms"], "positions": np.zeros((2, 3)).tolist()}}
    return {"run": [{"system": [other, system], "calculation": [calculation]}]}


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"entry_id": "x", "data": {"archive": a}}])
def test_nomad_in_si_units(tmp_path, wrap):
    frames, left_out = read(tmp_path, wrap(archive()), stress_sign=-1)
    assert_read(frames[0])
    assert not left_out


def test_nomad_without_the_sign_of_the_stress(tmp_path):
    frames, left_out = read(tmp_path, archive())
    assert_read(frames[0], stress=False)
    assert left_out[NO_SIGN] == 1


def test_nomad_calculations_that_did_not_converge_are_counted(tmp_path):
    frames, left_out = read(tmp_path, archive(single_configuration_calculation_converged=False))
    assert not frames
    assert left_out[UNCONVERGED] == 1


@pytest.mark.parametrize(
    "data, message",
    [
        ([], "empty"),
        ([1, 2], "none of the forms"),
        ({"a": {"b": 1}}, "none of the forms"),
        ({"@module": "pymatgen", "@class": "Vasprun"}, "only pymatgen's Trajectory"),
        ({"metadata": {}, "results": {}}, "has no section `run`"),
    ],
)
def test_other_json_is_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, data)
