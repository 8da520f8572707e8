"""The study of the architectures: its pairs are what they claim, and are seen as theory says."""

import json
from itertools import combinations, product

import numpy as np
import pytest
import torch

from benchmarks.study import __main__ as study
from benchmarks.study import degree, denoising, field, pairs, systems
from benchmarks.study.expressivity import difference, highest_fold, layers_for_chain, separates
from benchmarks.study.trainings import Training, job_of
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.schnet import SchNetConfig
from tesseral.potentials.architectures.table import ARCHITECTURES, make_config


def config(**options):
    sizes = {"channels": 8, "grid_channels": 8, "cutoff": 1.5 * pairs.RADIUS, "layers": 1}
    return FacetConfig(**{**sizes, **options})


def fingerprint(graph, order):
    """Distances within all sets of ``order`` neighbours and the central atom, sorted."""
    positions = graph.positions.numpy()
    sets = [
        sorted(
            np.linalg.norm(positions[a] - positions[b]) for a, b in combinations((0, *chosen), 2)
        )
        for chosen in combinations(range(1, len(positions)), order)
    ]
    return np.array(sorted(np.round(np.array(sets), 9).tolist()))


@pytest.mark.parametrize(
    ("pair", "order"), [(pairs.same_distances(), 1), (pairs.same_angles(), 2)], ids=str
)
def test_environments_differ_only_in_higher_orders(pair, order):
    same = np.abs(fingerprint(pair.first, order) - fingerprint(pair.second, order)).max()
    more = np.abs(fingerprint(pair.first, order + 1) - fingerprint(pair.second, order + 1)).max()
    print(f"{order} neighbours: {same:.1e} Å, {order + 1}: {more:.2f} Å")
    assert same < 1e-8
    assert more > 0.1


def test_triples_are_the_same_and_the_environments_are_not():
    pair = pairs.same_triples()
    same = np.abs(fingerprint(pair.first, 3) - fingerprint(pair.second, 3)).max()
    assert same < 1e-8
    four = np.abs(fingerprint(pair.first, 4) - fingerprint(pair.second, 4)).max()
    assert four > 0.1


def test_all_atoms_of_a_pair_have_edges_of_one_length():
    made = [pairs.triangles_and_hexagon(), pairs.chain(4), *map(pairs.two_rings, (2, 5))]
    for graph, pair in product((0, 1), made):
        one = pair[graph]
        lengths = (one.positions[one.receivers] - one.positions[one.senders]).norm(dim=1)
        assert float((lengths - pairs.RADIUS).abs().max()) < 1e-9
        assert torch.equal(one.receivers, one.receivers.sort()[0])


def test_distances_alone_see_none_of_the_pairs():
    schnet = SchNetConfig(channels=8, layers=3, cutoff=3.0)
    for pair in (pairs.same_distances(), pairs.triangles_and_hexagon(), pairs.chain(4)):
        apart, _ = difference(schnet, pair)
        print(f"{apart:.1e}")
        assert apart < 1e-12


def test_one_product_sees_angles_but_not_which_ones_stand_together():
    assert separates(config(l_max=2), pairs.same_distances())
    assert not separates(config(l_max=4), pairs.same_angles())


def test_rings_need_the_degree_of_their_axis():
    assert highest_fold(config(l_max=3, l_max_message=3)) == "2, 3"


def test_a_chain_needs_layers_that_reach_its_middle():
    assert layers_for_chain(config(l_max=1)) == "3"


def test_features_are_constant():
    for l_max in degree.DEGREES:
        features = degree.channels_of(l_max) * (l_max + 1) ** 2
        assert abs(features - degree.FEATURES) <= 0.05 * degree.FEATURES


def test_a_training_has_the_data_of_the_recipe_and_options_of_its_own():
    options = {"model": {"channels": 6}, "trainer": {"max_steps": 7}}
    recipe, setting, program = job_of(Training("AcAc", "six", options, 3), threads=1)
    assert recipe.fit["model"] == {"channels": 6}
    assert recipe.fit["data"] == {"batch_structures": 10}  # of configs/molecules.yaml
    assert recipe.config is None
    assert recipe.fit["trainer"]["max_steps"] == 7
    assert recipe.fit["loss"] == {"stress_weight": 0.0}
    assert recipe.fit["seed"] == 3
    assert (setting.threads, program.name) == (1, "six")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_a_config_file_that_makes_it(architecture):
    model = systems.settings(architecture, "AcAc")["model"]
    assert make_config(**model).architecture == architecture


def test_a_field_adds_forces_along_it_that_sum_to_zero():
    without, within = (field.structures(4, size, seed=0) for size in (0.0, 0.1))
    for before, after in zip(without, within, strict=True):
        added = after.forces - before.forces
        assert np.abs(added[:, :2]).max() < 1e-12
        assert abs(added.sum()) < 1e-12
        assert np.abs(added).max() > 0.01


def test_springs_pull_displaced_atoms_back():
    first, second = denoising.displaced(field.structures(1, 0.0, seed=0), 2, seed=1)
    moves = first.forces / denoising.STIFFNESS
    np.testing.assert_allclose(
        first.positions + moves, second.positions + second.forces / denoising.STIFFNESS
    )
    assert 0.3 * denoising.SIZE < np.abs(moves).mean() < 3 * denoising.SIZE


def test_displacements_are_learned_from_features_of_degree_1(tmp_path, monkeypatch):
    monkeypatch.setattr(denoising, "BEFORE", 100)
    molecules = field.structures(30, 0.0, seed=0)
    path = tmp_path / "before.safetensors"
    denoising.pretrain("features", molecules[:24], molecules[24:], path, "AcAc", seed=0)
    error = json.loads(path.with_suffix(".json").read_text())["rmse"]
    held = open_store(tmp_path / "before" / "validation.h5")
    forces = np.concatenate([held[row].forces for row in range(len(held))])
    size = float(np.square(forces).mean()) ** 0.5 / denoising.STIFFNESS
    print(f"RMSE {error:.3f} Å of displacements of {size:.3f} Å")
    assert error < 0.97 * size
    assert load_model(path)[1].elements == (1, 8)


def test_the_table_of_the_field_has_means_and_groups():
    found = [
        {"forces": 20.0, "kept": 0.0, "broken": 30.0, "group": "C∞v", "axis": 0.4},
        {"forces": 22.0, "kept": 0.0, "broken": 32.0, "group": "Cs", "axis": None},
    ]
    sheet = field.number_sheet(10, {("relaxed", 10): found, ("relaxed", 30): found})
    assert sheet.rows == [("relaxed", "21", "0", "31", "C∞v, Cs", "0.4")]


def test_a_wrong_part_is_named(capsys):
    with pytest.raises(SystemExit):
        study.parse(["degre"])
    assert "there are expressivity" in capsys.readouterr().err


def test_a_wrong_set_is_named(capsys):
    with pytest.raises(SystemExit):
        study.parse(["systems", "--sets", "Mo"])
    assert "there are Si, AcAc" in capsys.readouterr().err


def test_a_wrong_system_is_named(capsys):
    with pytest.raises(SystemExit):
        study.parse(["systems", "--systems", "facet,painnn"])
    assert "there is no system painnn; there are facet" in capsys.readouterr().err


def test_the_figure_has_a_panel_for_each_set_and_one_of_speed(tmp_path, monkeypatch):
    """And leaves out trainings that failed."""
    widths = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, *_, **__: widths.append(figure.axes)
    )
    result = {
        "curve": [{"seconds": 1.0, "forces": 90.0}],
        "errors": {"test": {"forces_mae": 80.0}},
    }
    both = {("facet", "Si"): result, ("facet", "AcAc"): None}
    for results in (both, {("facet", "Si"): result}):
        systems.plot_systems(results, {"facet": 50.0}, tmp_path / "systems.png")
    assert [[axes.get_title() for axes in some] for some in widths] == [
        ["Si", "AcAc", "Si"],
        ["Si", "Si"],
    ]
