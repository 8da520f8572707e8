"""Several processes do what one process does with batches as large as theirs together."""

from dataclasses import replace

import pytest
import torch

from tesseral.data.store.read import open_store, write_store
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.training.fit import fit


@pytest.fixture
def uneven(fit_config, emt_files, tmp_path):
    """Eleven structures of unequal size, some without labels, so that no two ranks are alike."""
    structures = list(open_store(emt_files[0]))[:11]
    nan = float("nan")
    structures[2] = structures[2]._replace(energy=nan)
    structures[5] = structures[5]._replace(forces=structures[5].forces * nan)
    structures[7] = structures[7]._replace(
        numbers=structures[7].numbers[:3],
        positions=structures[7].positions[:3],
        forces=structures[7].forces[:3],
    )
    write_store(tmp_path / "uneven.h5", structures)

    def make(name, **settings):
        config = fit_config(name, **settings)
        return replace(config, data=replace(config.data, train=str(tmp_path / "uneven.h5")))

    return make


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_equal_one_with_the_joined_batch(uneven, start_fit, processes):
    """Eleven structures in batches of four: in the last step of an epoch one of four has none."""
    one = uneven(
        "one",
        optimization={"relaxed_weight_decay": 0.0},
        batch_structures=4,
        max_steps=7,
        validate_every=3,
    )
    one = replace(one, model=replace(one.model, relaxed=True))
    two = uneven("several")
    process = start_fit(
        two,
        *("--model.relaxed", "true", "--optimization.relaxed_weight_decay", "0"),
        *("--trainer.max_steps", "7", "--trainer.validate_every", "3"),
        *("--trainer.devices", str(processes), "--trainer.strategy", "ddp"),
        *("--data.batch_structures", str(4 // processes)),
    )
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    fit(one)
    (first, card), (second, other) = load_model(one.output), load_model(two.output)
    assert other.training["processes"] == processes
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name], rtol=1e-5, atol=1e-12)
    assert card.errors["validation"]["forces"]["mae"] == pytest.approx(
        other.errors["validation"]["forces"]["mae"], rel=1e-9
    )
    assert other.errors["validation"]["n_structures"] == 4


@pytest.mark.slow
def test_divergence_in_two_processes_ends_both_with_one_sentence(uneven, start_fit):
    config = uneven("wild")
    process = start_fit(
        config,
        *("--trainer.max_steps", "9", "--trainer.validate_every", "1", "--trainer.devices", "2"),
        *("--optimization.learning_rate", "1e200"),
    )
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 1, text
    assert text.count("became nan or infinite") == 1
    assert "Traceback" not in text


@pytest.mark.slow
def test_epochs_are_counted_for_all_processes_together(uneven, start_fit):
    config = uneven("epochs")
    process = start_fit(
        config,
        *("--trainer.max_epochs", "2", "--trainer.devices", "2", "--data.batch_structures", "3"),
    )
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    last = torch.load(config.run_directory / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4  # 11 structures in batches of 2 × 3
    assert read_card(config.output).training["epochs"] <= 2
