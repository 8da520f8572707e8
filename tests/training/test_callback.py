"""What is left when a training is stopped: by numbers that are not finite, by signals."""

import signal
import time
from dataclasses import replace

import ase.io
import pytest
import torch

from tesseral.deploy.modelfile import load_model, read_card
from tesseral.training.batches import FitData
from tesseral.training.callback import BAD_BATCH, FitRun
from tesseral.training.fit import fit
from tesseral.training.module import DivergenceError


@pytest.fixture
def poisoned(monkeypatch):
    """Structure 5 of the training set gets an energy whose square overflows."""
    setup = FitData.setup

    def poison(self, stage=None):
        setup(self, stage)
        batch = self.train_dataset[5]
        labels = batch.labels._replace(energy=torch.full_like(batch.labels.energy, 1e200))
        self.train_dataset._cache[5] = batch._replace(labels=labels)

    monkeypatch.setattr(FitData, "setup", poison)


def test_an_infinite_loss_stops_and_names_the_structure(fit_config, poisoned):
    with pytest.raises(DivergenceError, match=r"loss became nan or infinite .* rows 5 of") as error:
        fit(fit_config(batch_structures=1, max_steps=12))
    assert error.value.rows == [5]


def test_the_structures_of_the_batch_are_kept(fit_config, poisoned):
    config = fit_config(batch_structures=1, max_steps=12)
    with pytest.raises(DivergenceError):
        fit(config)
    (atoms,) = ase.io.read(config.run_directory / BAD_BATCH, ":")
    assert len(atoms) == 4


def test_the_last_good_weights_are_exported(fit_config, poisoned):
    config = fit_config(batch_structures=1, max_steps=12, validate_every=1)
    with pytest.raises(DivergenceError):
        fit(config)
    assert all(torch.isfinite(value).all() for value in load_model(config.output)[0].parameters())


def test_a_model_is_left_even_without_a_validation(fit_config, poisoned):
    config = fit_config(batch_structures=1, max_steps=12, validate_every=100)
    with pytest.raises(DivergenceError):
        fit(config)
    assert read_card(config.output).training["steps"] < 12


def wait_for(path, seconds=60.0):
    """Until a file is there."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_model_and_tells_how_to_resume(fit_config, start_fit, number):
    config = fit_config()
    process = start_fit(config, "--trainer.max_time", "300s", "--trainer.validate_every", "20")
    wait_for(config.run_directory / "last.ckpt")
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, text
    assert "--ckpt_path last" in text
    steps = read_card(config.output).training["steps"]
    load_model(config.output)
    last = torch.load(config.run_directory / "last.ckpt", weights_only=True)
    assert last["global_step"] >= steps
    resumed = replace(
        fit_config(max_steps=last["global_step"] + 2, max_time=None), ckpt_path="last"
    )
    assert fit(resumed).history[-1]["step"] == last["global_step"] + 2


def chosen(*entries: dict[str, float], energies: bool = True) -> list[int]:
    """Numbers of the validations that were the best when they were made."""
    run = FitRun.__new__(FitRun)
    run.history, run.best, found = [], {}, []
    for number, entry in enumerate(entries):
        run.history.append(entry)
        if run._is_better(energies):
            run.best = entry
            found.append(number)
    return found


def test_among_nearly_equal_losses_the_energies_decide():
    pairs = (4.0, 9.0), (1.0, 3.0), (1.03, 2.0), (1.2, 1.0), (0.99, 4.0), (0.9, 8.0)
    entries = [{"loss": loss, "energy_per_atom_mae": energy} for loss, energy in pairs]
    assert chosen(*entries) == [0, 1, 2, 5]
    assert chosen(*entries, energies=False) == [0, 1, 4, 5]


def test_without_energies_the_loss_decides():
    assert chosen(*({"loss": loss} for loss in (2.0, 1.0, 1.01, 0.99))) == [0, 1, 3]
    assert chosen({"loss": 1.0}, {"loss": 1.01, "energy_per_atom_mae": 1.0}) == [0]


def test_a_loss_that_is_not_finite_is_never_the_best():
    bad = [{"loss": loss, "energy_per_atom_mae": 1.0} for loss in (float("inf"), float("nan"))]
    assert chosen(*bad, {"loss": 2.0, "energy_per_atom_mae": 2.0}, *bad) == [2]
