"""Starting from a trained model, and several levels of theory in one training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.store.read import write_store
from tesseral.data.structures import structure_from_atoms
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.short_range import square_pairs
from tesseral.potentials.derivatives import predict
from tesseral.potentials.testing import isolated_atom
from tesseral.training.config import FitConfig, OptimizationConfig, TrainerConfig
from tesseral.training.evaluate import evaluate_file
from tesseral.training.evaluate_config import EvaluateConfig
from tesseral.training.fit import fit
from tesseral.training.module import part_groups

MODEL = FacetConfig(cutoff=3.6, layers=1, channels=8, grid_channels=8, l_max=2)
SHIFT = {29: 3.0, 13: -2.0, 47: 5.0}  # eV an atom between the two theories
SCALE = 1.15


def structure(rng, symbols, theory):
    """A cell of four atoms by EMT, or by another theory with scaled and shifted energies."""
    atoms = bulk("Cu", "fcc", a=3.75, cubic=True)
    atoms.symbols[:] = symbols
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), True)
    atoms.rattle(0.12, rng=rng)
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    stress = atoms.get_stress()
    if theory == "high":
        energy = SCALE * energy + sum(SHIFT[z] for z in atoms.numbers)
        forces, stress = SCALE * forces, SCALE * stress
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
    return structure_from_atoms(atoms)._replace(theory=theory)


def structures(number, theory, seed, kinds=("Cu4", "Al2Cu2", "Al4")):
    rng = np.random.default_rng(seed)
    return [structure(rng, kinds[i % len(kinds)], theory) for i in range(number)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Stores by name, and a model trained on many structures of the low theory."""
    folder = tmp_path_factory.mktemp("finetune")
    contents = {
        "low": structures(48, "low", 0),
        "low_validation": structures(8, "low", 1),
        "high": structures(6, "high", 2),
        "high_validation": structures(12, "high", 3),
        "both": structures(48, "low", 0) + structures(6, "high", 2),
        "silver": structures(6, "low", 4, ("Ag2Cu2", "Ag4", "AgCu3")),
        "copper": structures(6, "high", 5, ("Cu4",)),
    }
    for name, content in contents.items():
        write_store(folder / f"{name}.h5", content)
    fit(config_of(folder, "low", "low", 300))
    return folder


def config_of(folder, name, train, steps, *, validation=None, data=None, **options):
    optimization = {"learning_rate": 0.01, "ema_decay": 0.9, **options.pop("optimization", {})}
    return FitConfig(
        data=DataConfig(
            train=str(folder / f"{train}.h5"),
            validation=str(folder / f"{validation or train + '_validation'}.h5"),
            batch_structures=6,
            **(data or {}),
        ),
        model=options.pop("model", MODEL if "init_from" not in options else FacetConfig()),
        optimization=OptimizationConfig(**optimization),
        trainer=TrainerConfig(
            accelerator="cpu", max_steps=steps, enable_progress_bar=False, validate_every=30
        ),
        output=str(folder / f"{name}.safetensors"),
        **options,
    )


def force_error(path):
    return read_card(path).errors["validation"]["forces"]["mae"]


def pretrained(folder):
    return str(folder / "low.safetensors")


@pytest.mark.slow
def test_fine_tuning_beats_the_same_steps_from_scratch(files):
    scratch = fit(config_of(files, "scratch", "high", 60))
    tuned = fit(config_of(files, "tuned", "high", 60, init_from=pretrained(files)))
    errors = force_error(scratch.model), force_error(tuned.model)
    print(f"forces from scratch {errors[0]:.1f} meV/Å, fine-tuned {errors[1]:.1f}")
    assert errors[1] < 0.6 * errors[0]
    low, high = read_card(pretrained(files)), read_card(tuned.model)
    found = np.array(high.reference_energies) - np.array(low.reference_energies)
    print(f"E0 moved by {found} eV for {high.symbols}")
    assert high.config == low.config
    assert high.training["started from"] == pretrained(files)


def test_the_start_is_validated_and_kept_if_the_training_does_not_improve_it(files):
    harmful = {"optimization": {"learning_rate": 1.0, "warmup": 0.0}}
    config = config_of(files, "kept", "low", 30, init_from=pretrained(files), **harmful)
    result = fit(config)
    before, after = result.history
    print(f"forces {before['forces_mae']:.1f} meV/Å, after the training {after['forces_mae']:.1f}")
    assert (before["step"], after["step"]) == (0, 30)
    assert before["forces_mae"] == pytest.approx(force_error(pretrained(files)), rel=1e-3)
    assert after["loss"] > before["loss"] and result.best["step"] == 0
    started, kept = (
        load_model(path)[0].state_dict() for path in (pretrained(files), config.output)
    )
    torch.testing.assert_close(kept["embedding"], started["embedding"].to(kept["embedding"].dtype))
    best = torch.load(config.run_directory / "best.ckpt", weights_only=True)
    assert best["global_step"] == 0
    longer = replace(config, trainer=replace(config.trainer, max_steps=60), ckpt_path="last")
    assert [entry["step"] for entry in fit(longer).history] == [0, 30, 60]


def test_the_reference_energy_of_an_element_that_is_not_in_the_data_is_kept(files):
    start = pretrained(files)
    config = config_of(files, "copper", "copper", 1, validation="copper", init_from=start)
    fit(config)
    before, after = read_card(start), read_card(config.output)
    shift = np.array(after.reference_energies) - np.array(before.reference_energies)
    print(f"E0 moved by {shift} eV for {after.symbols}")
    assert shift[0] == 0 != shift[1]


@pytest.mark.slow
def test_two_theories_in_one_model_beat_the_small_set_alone(files):
    together = config_of(
        files, "together", "both", 300, validation="high_validation", data={"theory": "high"}
    )
    both, alone = fit(together), fit(config_of(files, "alone", "high", 300))
    errors = force_error(alone.model), force_error(both.model)
    print(
        f"forces with 6 structures {errors[0]:.4f} eV/Å, with 48 of another theory {errors[1]:.4f}"
    )
    assert errors[1] < 0.8 * errors[0]
    assert read_card(both.model).training["data"]["theories"] == ["high", "low"]
    potential, card = load_model(both.model)  # an ordinary model, of the one theory
    assert potential.levels == 1 and card.level == "high"
    assert read_card(both.model).levels == ("high", "low")
    data = str(files / "low_validation.h5")
    right, wrong = (
        evaluate_file(EvaluateConfig(model=both.model, data=data, level=level))["forces"]["mae"]
        for level in ("low", "high")
    )
    print(f"forces on the other theory with its level {right:.4f} eV/Å, with the first {wrong:.4f}")
    assert right < 0.5 * wrong


def test_inner_radii_of_the_model_are_kept_and_those_of_a_new_element_added(files):
    config = config_of(
        files, "radii", "silver", 1, validation="silver", init_from=pretrained(files),
    )  # fmt: skip
    fit(config)
    old, new = read_card(pretrained(files)), read_card(config.output)
    before, after = (square_pairs(card.inner_radii, len(card.elements)) for card in (old, new))
    assert (after[:2, :2] <= before).all() and (after > 1.0).all()
    fit(replace(config, short_range=False))
    assert not read_card(config.output).inner_radii


def test_a_new_element_keeps_what_is_known_of_the_others(files):
    config = config_of(
        files, "silver", "silver", 1, validation="silver", init_from=pretrained(files),
        optimization={"learning_rate": 1e-9},
    )  # fmt: skip
    fit(config)
    (old, _), (new, card) = load_model(pretrained(files)), load_model(config.output)
    assert card.symbols == ("Al", "Cu", "Ag")
    copper = [predict(p, isolated_atom(1)) for p in (old, new)]
    before, after = (p.embedding[:2].detach() for p in (old, new))
    assert float((before - after).abs().max()) < 1e-6
    assert float(new.embedding[2].detach().norm()) > 0.1
    shift = card.reference_energies[1] - read_card(pretrained(files)).reference_energies[1]
    assert float(copper[1].energy - copper[0].energy) == pytest.approx(shift, abs=1e-4)


def test_energies_are_right_from_the_start(files):
    """E0 is shifted so that the mean energies are those of the new theory."""
    config = config_of(files, "zero", "high", 1, init_from=pretrained(files))
    fit(config)
    error = read_card(config.output).errors["validation"]["energy_per_atom"]["mae"]
    print(f"{error:.0f} meV/atom before any training; the shifts are some eV")
    assert error < 300


def test_replay_adds_structures_and_names_their_file(files):
    data = {"replay": str(files / "low.h5"), "replay_ratio": 2.0}
    config = config_of(files, "replayed", "high", 1, data=data, init_from=pretrained(files))
    fit(config)
    training = read_card(config.output).training["data"]
    assert training["train"]["structures"] == 18
    assert training["replay"] == "low.h5"


def test_another_architecture_is_refused(files):
    wrong = replace(MODEL, channels=4)
    with pytest.raises(ValueError, match="leave out all options of the model"):
        fit(config_of(files, "wrong", "high", 1, init_from=pretrained(files), model=wrong))


def test_a_theory_that_is_not_there_is_named(files):
    with pytest.raises(ValueError, match="'medium'; there are high, low"):
        fit(config_of(files, "no", "both", 1, validation="low", data={"theory": "medium"}))


def test_frozen_parts_stay_and_slow_parts_move_less(files):
    rates = {"embedding": 0.0, "layers": 0.1}
    config = config_of(
        files, "frozen", "high", 5, init_from=pretrained(files), optimization={"part_rates": rates}
    )
    fit(config)
    old, new = load_model(pretrained(files))[0], load_model(config.output)[0]
    assert torch.equal(old.embedding, new.embedding)
    moved = (old.readouts[0].hidden.weight - new.readouts[0].hidden.weight).abs().max()
    assert float(moved.detach()) > 0


def test_a_part_that_is_not_there_is_named(files):
    potential, _ = load_model(pretrained(files))
    with pytest.raises(ValueError, match="names layer, which .* parts are embedding, layers.0"):
        part_groups(potential, {"layer": 0.5})
    with pytest.raises(ValueError, match="freezes all"):
        part_groups(potential, {"embedding": 0, "layers": 0, "readouts": 0})


def test_the_longest_name_of_a_part_counts(files):
    potential, _ = load_model(pretrained(files))
    groups = part_groups(potential, {"layers": 0.1, "layers.0.mixings": 0.5})
    rates = {group["rate"]: len(group["params"]) for group in groups}
    inside = len(list(potential.layers[0].mixings.parameters()))
    assert rates[0.5] == inside
    assert set(rates) == {0.1, 0.5, 1.0}


def test_a_star_in_the_name_of_a_part_stands_for_any_text(files):
    potential, _ = load_model(pretrained(files))
    part_groups(potential, {"layers.*.convolution": 0})
    frozen = [name for name, weight in potential.named_parameters() if not weight.requires_grad]
    convolutions = [name for name, _ in potential.named_parameters() if ".convolution." in name]
    assert frozen == convolutions != []
