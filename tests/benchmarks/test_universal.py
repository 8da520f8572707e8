"""The measurements of the universal potential: what they compare, and how."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from benchmarks.universal import __main__ as universal
from benchmarks.universal import intervals as study
from benchmarks.universal import nequix
from benchmarks.universal.interval_sheets import Sizes
from benchmarks.universal.predictions import Predictions, difference
from benchmarks.universal.programs import ours
from benchmarks.universal.relax import crystals
from benchmarks.universal.speed import speed_sheet
from benchmarks.universal.structures import structures
from benchmarks.universal.zero_shot import errors
from tesseral.deploy.modelfile import ModelCard, build_potential
from tesseral.potentials.architectures.nequip import NequIPConfig

SORTS = {"bulk", "compound", "strained", "small cell", "slab", "molecule", "alloy", "hot"}


def test_there_are_200_structures_of_many_elements_and_sorts():
    made = structures()
    elements = {symbol for atoms in made for symbol in atoms.symbols}
    sorts = Counter(atoms.info["sort"] for atoms in made)
    print(f"{len(made)} structures, {len(elements)} elements, {dict(sorts)}")
    assert len(made) == 200
    assert len(elements) >= 40
    assert set(sorts) == SORTS | {"dimer", "atom"}
    assert min(sorts.values()) >= 2


def test_the_structures_are_the_same_in_every_run():
    first, second = structures(), structures()
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(first, second, strict=True))
    assert all(
        np.array_equal(a.cell.array, b.cell.array) for a, b in zip(first, second, strict=True)
    )


def test_small_cells_are_neighbours_of_their_images_and_dimers_are_close():
    made = structures()
    small = [atoms for atoms in made if atoms.info["sort"] == "small cell"]
    assert all(1 <= len(atoms) <= 4 for atoms in small)
    assert all(min(atoms.cell.lengths()) < 5.0 for atoms in small)
    dimers = [atoms.get_distance(0, 1) for atoms in made if atoms.info["sort"] == "dimer"]
    assert min(dimers) < 1.0 and max(dimers) < 5.0


def predictions(energy, forces, stress):
    return Predictions(np.array(energy), np.array(forces), np.array(stress))


def test_differences_are_per_structure():
    frames = [Atoms("Si"), Atoms("Si2", [(0, 0, 0), (2, 0, 0)])]
    zero = predictions([0.0, 0.0], np.zeros((3, 3)), np.full((2, 6), np.nan))
    forces = np.zeros((3, 3))
    forces[0, 1], forces[2, 2] = 0.003, -0.005
    stress = np.stack([np.full(6, np.nan), np.arange(6) * units.GPa])
    other = predictions([0.001, -0.004], forces, stress)
    apart = difference(frames, zero._replace(stress=np.zeros((2, 6))), other)
    assert apart.energy == pytest.approx([1.0, 2.0])
    assert apart.forces == pytest.approx([3.0, 5.0])
    assert np.isnan(apart.stress[0]) and apart.stress[1] == pytest.approx(5.0)


def test_a_shift_of_all_energies_is_no_error():
    frames = []
    for symbol in ("Si4", "Si2"):
        atoms = Atoms(symbol)
        zeros = {"forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
        atoms.calc = SinglePointCalculator(atoms, energy=-5.0 * len(atoms), **zeros)
        frames.append(atoms)
    forces = np.full((6, 3), 0.02)
    found = predictions([-4 * 4.2, -2 * 4.2], forces, np.full((2, 6), 0.5 * units.GPa))
    assert errors(frames, found) == pytest.approx((0.0, 20.0, 0.5), abs=1e-9)


@pytest.fixture
def model():
    """A small model of the kind that is converted, in float64."""
    torch.manual_seed(0)
    config = NequIPConfig(
        **{"channels": 4, "channels_by_degree": [4, 2], "l_max": 1},
        **{"layers": 2, "spline_intervals": 40, "kinks": [4.5, 5.0], "cutoff": 5.0},
    )
    card = ModelCard(
        config=config,
        elements=(14,),
        reference_energies=(0.0,),
        energy_scale=1.0,
        mean_neighbors=20.0,
        dtype="float64",
    )
    potential = build_potential(card, "reference").double()
    return potential, replace(card, parameters=sum(p.numel() for p in potential.parameters()))


def radial(model, layer, radii):
    convolution = model[0].layers[layer].convolution
    return convolution.basis(radii) @ torch.cat(list(convolution.coefficients), dim=1)


def test_coarser_splines_are_nearer_the_more_intervals_there_are(model):
    radii = torch.linspace(0.1, 4.99, 200, dtype=torch.float64)
    exact = radial(model, 0, radii)
    gaps = [
        float((radial(study.with_intervals(model, k), 0, radii) - exact).detach().abs().max())
        for k in (10, 20, 40)
    ]
    print(gaps)
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-9


def test_one_layer_alone_is_made_coarse_and_exactly_so(model):
    radii = torch.linspace(0.1, 4.99, 200, dtype=torch.float64)
    coarse = study.with_intervals(model, 20)
    mixed = study.with_coarse_layer(model, coarse, 1)
    assert torch.equal(radial(mixed, 0, radii), radial(model, 0, radii))
    gap = (radial(mixed, 1, radii) - radial(coarse, 1, radii)).detach().abs().max()
    apart = (radial(mixed, 1, radii) - radial(model, 1, radii)).detach().abs().max()
    print(f"to the coarse one {gap:.1e}, to the fine one {apart:.1e}")
    assert gap < 1e-9 < 1e-3 < apart


def test_weights_are_those_of_a_model_of_that_size(model):
    sizes = study.sizes_of(model, original=1000)
    for intervals in (10, 20):
        other, _ = study.with_intervals(model, intervals)
        assert sizes.converted(intervals) == sum(p.numel() for p in other.parameters())
    assert Sizes(0, 100, [10, 20], 0, 3).factored(8) == 100 + 8 * 3 * 2 + 3 * 30


def test_there_are_50_different_crystals_to_relax():
    made = crystals()
    assert len(made) == len({atoms.info["label"] for atoms in made}) == 50
    assert all(atoms.pbc.all() for atoms in made)


def test_ratios_are_over_the_first_program():
    def row(name, seconds, megabytes):
        step = {"wall_median": seconds, "cpu_median": seconds}
        return {"name": name, "material": "Si", "atoms": 64, "step": step, "peak_mb": megabytes}

    failed = {"name": "broken", "material": "Si", "atoms": 64, "step": {"error": "no memory"}}
    sheet = speed_sheet([row("ours", 0.064, 100.0), row("theirs", 0.64, 350.0), failed])
    assert [cells[5] for cells in sheet.rows] == ["1.00", "10.0", ""]
    assert sheet.rows[1][7] == "3.50"
    assert sheet.rows[2][3] == "no memory"


def test_a_missing_model_is_answered_with_the_command_that_makes_it(tmp_path, capsys):
    assert universal.main(["agreement", "--output", str(tmp_path), "--envs", str(tmp_path)]) == 2
    assert "benchmarks.peers install --only sevenn" in capsys.readouterr().err
    options = universal.parse(["speed", "--output", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="train-potential convert sevennet-0"):
        ours(options)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["speed", "--sizes", "65"], "such as 64"),
        (["relax", "--number", "0"], "--number is 0; it must be positive"),
        (["finetune", "--rates", "0.001,-1"], "rates must be positive"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(words, hint, capsys):
    with pytest.raises(SystemExit):
        universal.parse(words)
    assert hint in capsys.readouterr().err


def test_structures_for_nequix_are_sorted_by_their_edges(tmp_path):
    options = universal.parse(["nequix-agreement", "--edges", "40", "--output", str(tmp_path)])
    _, frames = nequix.frames_of(options)
    assert 10 < len(frames) < 200
    assert all(atoms.pbc.all() or not atoms.pbc.any() for atoms in frames)
    edges = [nequix._edges(atoms) for atoms in frames]
    assert edges == sorted(edges) and edges[-1] < 40


def test_a_model_of_nequix_that_is_missing_is_named(tmp_path):
    weights = tmp_path / "some.nqx"
    weights.touch()
    words = ["nequix-speed", "--weights", str(weights), "--output", str(tmp_path)]
    with pytest.raises(FileNotFoundError, match="train-potential convert .*some.nqx -o"):
        nequix.model_file(universal.parse(words))
