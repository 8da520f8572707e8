"""The sections on a random model, whose laws hold and whose chemistry does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.build import molecule as build_molecule

from tesseral.calculators.properties.atoms import repeated
from tesseral.data.loading.splits import split_store
from tesseral.data.neighbors import atomic_graph
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import make_structure
from tesseral.deploy.modelfile import build_potential, load_model, save_model
from tesseral.potentials.derivatives import predict
from tesseral.report.crystal_search import conventional
from tesseral.report.fingerprints import fingerprints
from tesseral.report.sections import (
    accuracy,
    consistency,
    crystals,
    data_map,
    dimer,
    distance,
    dynamics,
    force,
    molecule,
    speed,
)
from tesseral.report.sections.distance import distances

from .conftest import labelled, shaken


def levels(section):
    """Levels by key."""
    return {verdict.key: verdict.level for verdict in section.verdicts}


def test_a_model_makes_no_error_on_its_own_labels(make_context):
    context = make_context()
    section = accuracy.accuracy(context)
    assert set(levels(section).values()) == {"pass"}
    assert levels(section).keys() == {"force-error", "energy-error", "stress-error", "worst-type"}
    assert section.numbers["forces"]["mae"] == pytest.approx(0, abs=1e-2)
    assert levels(force.force_size(context)) == {"large-forces": "pass"}


@pytest.fixture
def wrong_data(small_model, tmp_path):
    """Labels with the opposite sign, no stress, one structure."""
    (made,) = labelled(small_model, shaken(1))
    made = made._replace(
        forces=-made.forces, energy=made.energy + 3.0, stress=np.full((3, 3), np.nan)
    )
    write_store(tmp_path / "wrong.h5", [made])
    return str(tmp_path / "wrong.h5")


def test_wrong_forces_fail_and_missing_stress_is_said(make_context, wrong_data):
    section = accuracy.accuracy(make_context(data=wrong_data))
    assert levels(section) == {"force-error": "fail", "energy-error": "fail"}
    assert "no stress" in section.blocks[-1].text
    assert levels(force.force_size(make_context(data=wrong_data))) == {"large-forces": "fail"}


def test_data_without_forces(small_model, tmp_path, make_context):
    made = labelled(small_model, shaken(2))
    write_store(tmp_path / "e.h5", [s._replace(forces=np.full((8, 3), np.nan)) for s in made])
    context = make_context(data=str(tmp_path / "e.h5"))
    assert levels(accuracy.accuracy(context)) == {
        "energy-error": "pass",
        "stress-error": "pass",
    }
    assert "no forces" in force.force_size(context).lead


def test_references_stand_beside_as_far_as_they_go(make_context, tmp_path, monkeypatch):
    bulk("SiC", "zincblende", a=4.4).write(tmp_path / "sic.cif")
    given = tmp_path / "given.json"
    given.write_text('{"SiC": {"a0_A": 4.4, "C11_GPa": 400.0}}')
    context = make_context(structures=[str(tmp_path / "sic.cif")], references=str(given))
    crystal = context.crystals[0]
    monkeypatch.setitem(
        context.__dict__, "crystals", [crystal._replace(number=216, group="F-43m", problem="")]
    )
    lattice = conventional(crystal.atoms).cell.lengths()[0]
    section = crystals.equations_of_state(context)
    assert {"eos-minimum", "lattice"} <= levels(section).keys()
    off = section.numbers[context.crystals[0].name]["against_reference"]
    assert off == {"a_percent": pytest.approx(100 * (lattice / 4.4 - 1), abs=0.5)}
    assert "elastic-reference" not in levels(crystals.elastic_section(context))


def test_a_crystal_that_cannot_be_relaxed_fails(make_context, tmp_path, monkeypatch):
    bulk("SiC", "zincblende", a=4.4).write(tmp_path / "sic.cif")
    context = make_context(structures=[str(tmp_path / "sic.cif")])
    lost = context.crystals[0]._replace(problem="its volume changes by +80% when it is relaxed")
    monkeypatch.setitem(context.__dict__, "crystals", [lost])
    assert levels(crystals.crystals(context)) == {"crystal-kept": "fail"}
    assert crystals.equations_of_state(context) is None


def test_copies_of_training_structures_are_found(make_context, own_data):
    section = distance.distance(make_context(train=str(own_data)))
    assert levels(section)["duplicates"] == "fail"
    assert section.numbers["copies"] == [0, 1, 2, 3]


def test_other_structures_are_no_copies_and_far_ones_are_seen(make_context, small_model, tmp_path):
    cells = shaken(30, seed=1)
    write_store(tmp_path / "train.h5", labelled(small_model, cells))
    section = distance.distance(make_context(train=str(tmp_path / "train.h5")))
    assert levels(section)["duplicates"] == "pass"
    strange = shaken(2, seed=2)
    for atoms in strange:
        atoms.set_cell(0.7 * atoms.cell.array, scale_atoms=True)
    write_store(tmp_path / "far.h5", labelled(small_model, strange))
    far = make_context(train=str(tmp_path / "train.h5"), data=str(tmp_path / "far.h5"))
    assert levels(distance.distance(far))["extrapolation"] == "fail"


def test_without_the_training_set_the_section_says_why(make_context):
    section = distance.distance(make_context())
    assert levels(section) == {"extrapolation": "warn"}
    assert "`train`" in section.blocks[0].text


def test_fingerprints_do_not_turn_with_the_structure(small_model, tmp_path):
    potential, card = load_model(small_model)
    atoms, turned = shaken(2)
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    structures = [
        make_structure(a.numbers, a.positions, cell=a.cell.array, energy=0.0, forces=a.positions)
        for a in (atoms, turned, *shaken(3, seed=3))
    ]
    write_store(tmp_path / "two.h5", structures)
    found = fingerprints(potential, card, open_store(tmp_path / "two.h5"))
    np.testing.assert_allclose(found.features[:8], found.features[8:16], rtol=2e-5, atol=1e-4)
    rest = found._replace(**{k: getattr(found, k)[16:] for k in found._fields})
    both = distances(found, rest)
    np.testing.assert_allclose(both.test[16:], 0, atol=1e-6)
    assert both.test[:16].min() > 0.01 and both.train.min() > 0.01


def test_the_map_has_all_parts_of_the_data(make_context, small_model, tmp_path):
    structures = labelled(small_model, shaken(12, seed=1))
    write_store(tmp_path / "train.h5", structures)
    context = make_context(train=str(tmp_path / "train.h5"))
    store = context.train.store
    split = split_store(store, method="random", fraction=0.25, seed=3)
    data = {
        "train": {"content_hash": store.content_hash},
        "validation": {"structures": 3},
        "split": "random",
        "seed": 3,
    }
    settings = {"data.validation_fraction": 0.25}
    context.card = replace(context.card, training={"data": data, "settings": settings})
    assert data_map.validation_rows(store, context.card).tolist() == split.validation.tolist()
    section = data_map.data_map(context)
    counts = {"training": 9, "validation": 3, "test": 4}
    assert section.numbers["structures"] == counts
    assert 0.5 < sum(section.numbers["variance"]) <= 1
    assert "triangles" in section.blocks[0].caption


def test_the_map_does_not_depend_on_the_order_of_the_atoms(make_context):
    context = make_context()
    found, store = context.test_fingerprints, context.test
    turned = found._replace(features=found.features[::-1], structure=found.structure[::-1])
    there = data_map.points_of("test", turned, store)
    here = data_map.points_of("test", found, store)
    np.testing.assert_allclose(here.features, there.features, rtol=1e-12)
    assert here.types.tolist() == ["kind 0", "kind 1"] * 2


def test_the_plane_is_that_in_which_most_features_vary():
    u, v = np.random.default_rng(0).normal(size=(2, 500))
    features = np.stack([9 * u, u, -u, v, v, 0 * u], axis=1) + 5
    center, axes, shares = data_map.principal_plane(features)
    first, second = ((features - center) @ axes).T
    assert abs(np.corrcoef(first, u)[0, 1]) > 0.99 and abs(np.corrcoef(second, v)[0, 1]) > 0.99
    assert shares == pytest.approx([3 / 5, 2 / 5], abs=0.03)
    assert data_map.principal_plane(features[:1]) is None
    assert data_map.principal_plane(np.ones((5, 3))) is None


def test_the_laws_hold_for_any_weights(make_context):
    section = consistency.consistency(make_context())
    assert set(levels(section).values()) == {"pass"}
    assert {"rotation", "stress-derivative", "precision", "extensivity"} <= levels(section).keys()
    assert section.numbers["float64"]["rotation"] < 1e-6 < section.numbers["float32"]["rotation"]


def test_laws_in_float64_stand_in_one_column(make_context) -> None:
    section = consistency.consistency(make_context(dtype="float64"))
    (table,) = section.blocks
    assert table.columns == ("law", "in float64", "unit")
    assert {len(row) for row in table.rows} == {3}
    assert {row[2] for row in table.rows} <= {"meV/Å", "meV/atom", "GPa"}


def test_a_doubled_graph_is_that_of_a_doubled_cell(small_model):
    potential, card = load_model(small_model, dtype="float64")
    (atoms,) = shaken(1)
    graph = atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, card.elements, 4.0
    )
    double = consistency.doubled(graph, graph.cell[0])
    large = atoms.repeat((2, 1, 1))
    other = atomic_graph(
        large.numbers, large.positions, large.cell.array, large.pbc, card.elements, 4.0
    )
    assert len(double.senders) == len(other.senders)
    mine, theirs = predict(potential, double), predict(potential, other)
    torch.testing.assert_close(mine.forces, theirs.forces, rtol=1e-9, atol=1e-9)


def test_energy_and_force_are_smooth_at_the_cutoff(make_context):
    section = consistency.cutoff_section(make_context())
    assert set(levels(section).values()) == {"pass"}


def test_an_untrained_model_has_no_wall(make_context):
    section = dimer.dimers(make_context())
    assert levels(section)["wall"] == "fail"
    assert set(section.numbers) == {"C–C", "C–Si", "Si–Si"}
    assert section.numbers["Si–Si"]["closest_in_data_A"] > 1.5


def test_runs_have_a_drift_and_a_hot_run_a_closest_distance(make_context):
    context = make_context(temperatures=[200.0], hot=300.0)
    section = dynamics.dynamics(context)
    assert {"drift", "order"} == levels(section).keys()
    assert {"200 K, 1 fs", "200 K, 2 fs"} == section.numbers.keys()
    hot = dynamics.hot(context)
    assert 0.3 < hot.numbers["closest"] < 1.2


def test_a_run_that_explodes_fails_with_its_reason(small_model, tmp_path, make_context):
    _, card = load_model(small_model)
    torch.manual_seed(1)
    wild = replace(card, energy_scale=3000 * card.energy_scale)
    save_model(tmp_path / "wild.safetensors", build_potential(wild), wild)
    context = make_context(model=str(tmp_path / "wild.safetensors"), temperatures=[300.0])
    section = dynamics.dynamics(context)
    assert levels(section) == {"drift": "fail"}
    assert "MD ended at step" in section.verdicts[0].shown
    assert levels(dynamics.hot(context)) == {"hot": "fail"}


def test_a_molecule_takes_the_place_of_crystals(small_model, tmp_path, make_context):
    atoms = build_molecule("CH4")
    atoms.numbers[1:] = 14
    atoms.positions *= 1.7
    write_store(tmp_path / "m.h5", labelled(small_model, [atoms, Atoms("C")]))
    context = make_context(data=str(tmp_path / "m.h5"))
    section = molecule.molecule(context)
    assert section is not None and "no crystals" in section.lead
    assert {"molecule-kept", "modes"} == levels(section).keys()
    assert len(section.numbers["frequencies_per_cm"]) == 9
    assert "extensivity" in levels(consistency.consistency(context))
    cell = speed.base_cell(context)
    assert cell.pbc.all() and len(repeated(cell, 11)) >= 11


def test_bonds_that_break_fail(make_context):
    atoms = Atoms("CSi", positions=[(0, 0, 0), (0, 0, 1.8)])
    end = molecule.Relaxed(Atoms("CSi", positions=[(0, 0, 0), (0, 0, 4)]), True, 3, 0.0)
    verdict = molecule._kept(atoms, end, [(0, 1)], 2.2)
    assert (verdict.level, verdict.shown) == ("fail", "C0–Si1 breaks")
