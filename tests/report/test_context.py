"""What a report looks for: crystals, references, the training set, the logs."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.stress import voigt_6_to_full_3x3_stress

from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import make_structure
from tesseral.report.config import ReportConfig
from tesseral.report.crystal_search import (
    classify,
    conventional,
    find_candidates,
    read_candidates,
    relax_crystals,
)
from tesseral.report.references import find_references
from tesseral.report.sections.crystals import _kept
from tesseral.report.sections.learning import find_run, learning, read_history

EXAMPLES = Path(str(files("tesseral.data.examples")))


def structure(atoms, energy, forces=None):
    """With an energy per atom."""
    zeros = np.zeros((len(atoms), 3))
    return make_structure(
        atoms.numbers,
        atoms.positions,
        cell=atoms.cell.array if atoms.pbc.any() else None,
        energy=energy * len(atoms),
        forces=zeros if forces is None else forces,
    )


@pytest.fixture
def store(tmp_path):
    """Two phases of Al, one of them strained too, a shaken one, a hot one and a molecule."""
    fcc, bcc = bulk("Al", "fcc", a=4.0, cubic=True), bulk("Al", "bcc", a=3.2)
    strained, shaken = fcc.copy(), fcc.copy()
    strained.set_cell(fcc.cell.array * [1, 1, 1.03], scale_atoms=True)
    shaken.rattle(0.1, seed=0)
    structures = [
        structure(fcc, -3.6),
        structure(bulk("Al", "fcc", a=4.1), -3.7),
        structure(strained, -3.65),
        structure(bcc, -3.68),
        structure(bulk("Al", "sc", a=2.7), -3.0),
        structure(shaken, -3.9),
        structure(fcc, -4.0, forces=np.full((4, 3), 0.3)),
        structure(molecule("H2"), -5.0),
    ]
    write_store(tmp_path / "al.h5", structures)
    return open_store(tmp_path / "al.h5")


def test_crystals_are_the_lowest_of_each_symmetry(store):
    found = find_candidates([("al.h5", store)])
    assert [(c.formula, c.number, c.source) for c in found] == [
        ("Al", 225, "structure 1 of al.h5"),
        ("Al", 229, "structure 3 of al.h5"),
        ("Al", 139, "structure 2 of al.h5"),
    ]
    assert all(len(c.atoms) == 1 for c in found)


def test_a_strained_cell_relaxes_to_the_crystal_and_is_dropped(store):
    found = relax_crystals(find_candidates([("al.h5", store)]), EMT(), most=3)
    assert [crystal.name for crystal in found] == ["Al (Fm-3m)", "Al (Im-3m)"]
    assert found[0].converged and found[0].cubic and not found[0].problem
    assert conventional(found[0].atoms).cell.lengths() == pytest.approx([3.994] * 3, abs=2e-3)
    assert found[0].volume_change == pytest.approx(100 * (3.994**3 / 4.1**3 - 1), abs=0.2)


def test_a_cell_under_stress_may_change_its_volume(tmp_path):
    squeezed = bulk("Al", "fcc", a=3.6)
    squeezed.calc = EMT()
    stress = voigt_6_to_full_3x3_stress(squeezed.get_stress())
    made = structure(squeezed, squeezed.get_potential_energy())._replace(stress=stress)
    write_store(tmp_path / "al.h5", [made])
    (found,) = find_candidates([("al.h5", open_store(tmp_path / "al.h5"))])
    (crystal,) = relax_crystals([found], EMT(), most=1)
    verdict = _kept(crystal)
    print(verdict)
    assert crystal.strained and crystal.volume_change > 30 and verdict.level == "pass"


def test_a_slab_is_no_crystal(tmp_path):
    slab = fcc111("Al", (1, 1, 6), a=4.0, vacuum=4.0, periodic=True)
    write_store(tmp_path / "slab.h5", [structure(slab, -3.5)])
    assert find_candidates([("slab", open_store(tmp_path / "slab.h5"))]) == []


def test_formulas_are_as_chemists_write_them():
    found = classify(bulk("SiC", "zincblende", a=4.4), "here", 0.0)
    assert found is not None and (found.formula, found.group) == ("SiC", "F-43m")


def test_crystals_of_files(tmp_path):
    bulk("Si", cubic=True).write(tmp_path / "si.cif")
    (found,) = read_candidates([str(tmp_path / "si.cif")])
    assert (found.formula, found.number, len(found.atoms)) == ("Si", 227, 2)
    molecule("H2").write(tmp_path / "h2.xyz")
    with pytest.raises(ValueError, match="not a crystal"):
        read_candidates([str(tmp_path / "h2.xyz")])
    with pytest.raises(ValueError, match="cannot be read"):
        read_candidates([__file__])


def test_references_of_the_shipped_data():
    found = find_references(None, open_store(EXAMPLES / "sic_pbe_test.h5"), ("C", "Si"))
    assert set(found.crystals) == {"SiC", "Si", "C"}
    assert len(found.phonons["SiC"]) == 24
    assert "same theory" in found.why


def test_no_references_for_other_elements_or_an_unknown_theory(store, own_data):
    assert not find_references(None, store, ("Al",)).crystals
    assert not find_references(None, open_store(own_data), ("C", "Si")).crystals


def test_references_beside_the_data_and_given(store, tmp_path):
    path = tmp_path / "references.json"
    path.write_text(json.dumps({"Al": {"a0_A": 4.0}, "E0": {"a0_A": 1}, "x": 3}))
    (tmp_path / "phonon_Al.json").write_text("[3.0, 1.0]")
    for found in (
        find_references(None, store, ("Al",)),
        find_references(str(path), store, ("C",)),
    ):
        assert list(found.crystals) == ["Al"]
        assert found.phonons["Al"] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, FileNotFoundError, "there is no reference file"),
        ("{", ValueError, "is not JSON"),
        ("[]", ValueError, "holds no crystals"),
        ('{"Al": {}}', ValueError, "no crystal with an a0_A"),
    ],
)
def test_wrong_references_are_refused(store, tmp_path, text, error, message):
    path = tmp_path / "given.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=message):
        find_references(str(path), store, ("Al",))


def test_the_training_set_is_named_by_the_card_or_given(make_context, own_data):
    assert make_context().train.store is None
    assert "trained" in make_context().train.why or "names no" in make_context().train.why
    given = make_context(train=str(own_data)).train
    assert given.store is not None and "names another" in given.why


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures": [300.0, -1.0]}, "`temperatures` is"),
        ({"temperatures": []}, "`temperatures` is"),
        ({"hot": 0.0}, "`hot` is 0"),
        ({"threads": 0}, "`threads` is 0"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ReportConfig(model="m", data="d", output="o", **changes)


LOG = """lr,seconds,step,train/forces_mae,train/loss,validation/forces_mae,validation/loss
0.1,2.0,10,50,0.5,,
,,15,,,40,0.4
0.1,4.0,20,30,0.3,,
,,20,,,25,0.2
"""


def test_learning_curves_of_the_logs(tmp_path, make_context, small_model):
    folder = tmp_path / "runs" / "m" / "csv" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(LOG)
    run = find_run(tmp_path / "m.safetensors")
    assert run == tmp_path / "runs" / "m"
    train, validation = read_history(run)
    assert [entry["train_forces"] for entry in train] == [50, 30]
    assert [(entry["seconds"], entry["forces"]) for entry in validation] == [(3.0, 40), (4.0, 25)]
    (tmp_path / "m.safetensors").write_bytes(small_model.read_bytes())
    section = learning(make_context(model=str(tmp_path / "m.safetensors")))
    assert section.numbers["validation"][1]["loss"] == 0.2


def test_missing_logs_are_said_to_be_missing(make_context):
    section = learning(make_context())
    assert "no logs of the training" in section.blocks[0].text
