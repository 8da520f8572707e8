"""Choice of the best validation on few structures, judged on others.

    python -m benchmarks.best_step SET.h5 [--time 2m] [--every 120] [--output runs/best_step]
        [--seed 0] [--energy-weight-final W]

One training by CPU time holds out three of ten folds and keeps the errors of each held-out
structure at every validation. Then validation structures are drawn from these many times, each
rule chooses a step by them, and the model of that step is judged on the rest of the held-out
structures. A training that exists in the output folder is not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.sheets import Sheet, console
from tesseral.data.graph import Batch
from tesseral.data.loading.config import DataConfig
from tesseral.data.loading.splits import split_folds
from tesseral.data.store.read import open_store, write_store
from tesseral.training import callback
from tesseral.training.config import FitConfig, LossConfig, TrainerConfig
from tesseral.training.fit import fit
from tesseral.training.folds import structure_errors
from tesseral.training.loss import loss_weights
from tesseral.training.validation import predictions

Floats = NDArray[np.float64]
Rule = Callable[[Floats, Floats, Floats], int]  # from energy and force errors and loss, (V,) each

FOLDS, HELD_OUT = 10, 3
DRAWS = 500


class Curves(NamedTuple):
    """Errors of G structures at V validations."""

    energy: Floats  # (V, G) meV/atom
    forces: Floats  # (V, G) meV/Å, RMSE
    force_rms: float  # eV/Å, of the training set
    energy_weight: float  # of the loss

    def means(self, chosen: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """MAE of energies, RMSE of forces and loss without stress of some structures, (V,) each."""
        energy, squares = self.energy[:, chosen], np.square(self.forces[:, chosen]).mean(1)
        loss = squares + self.energy_weight * np.square(energy).mean(1)
        return np.abs(energy).mean(1), np.sqrt(squares), loss / (1e3 * self.force_rms) ** 2


def within(share: float) -> Rule:
    """The lowest energy error of those whose loss is at most this share above the lowest."""
    return lambda energy, forces, loss: int(
        np.where(loss <= (1 + share) * loss.min(), energy, np.inf).argmin()
    )


RULES: dict[str, Rule] = {
    "lowest loss": lambda energy, forces, loss: int(loss.argmin()),
    "lowest energy error within 2% of the lowest loss": within(0.02),
    "lowest energy error within 5%": within(0.05),
    "lowest energy error within 10%": within(0.1),
    "lowest product of energy and force error": lambda energy, forces, loss: int(
        (energy * forces).argmin()
    ),
    "last": lambda energy, forces, loss: len(loss) - 1,
}


def train(options: argparse.Namespace) -> Curves:
    """Train with held-out structures, and keep their errors at every validation."""
    store, folder, seed = open_store(options.data), options.output, options.seed
    loss = LossConfig(energy_weight_final=options.energy_weight_final)
    folds = split_folds(store, folds=FOLDS, method="auto", seed=seed)[:HELD_OUT]
    held_out = sorted(int(row) for fold in folds for row in fold.validation)
    rest = sorted({*range(len(store))} - {*held_out})
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "fit.h5", folder / "held_out.h5"
    for path, rows in zip(files, (rest, held_out), strict=True):
        path.unlink(missing_ok=True)
        write_store(path, (store[row] for row in rows))
    seen: list[tuple[list[float], list[float]]] = []
    rms = 0.0
    validate = callback.validate

    def watched(potential: Any, batches: Iterable[Batch], *more: Any, **options: Any) -> Any:
        nonlocal rms
        every_batch, rms = list(batches), options["force_rms"]
        energies: list[float] = []
        forces: list[float] = []
        for each in predictions(potential, every_batch, torch.device("cpu")):
            energy, force = structure_errors(*each)
            energies += energy
            forces += force
        seen.append((energies, forces))
        return validate(potential, every_batch, *more, **options)

    callback.validate = watched
    try:
        fit(
            FitConfig(
                data=DataConfig(train=str(files[0]), validation=str(files[1]), seed=seed),
                output=str(folder / "model.safetensors"),
                loss=loss,
                trainer=TrainerConfig(
                    max_time=options.time,
                    clock="cpu",
                    validate_every=options.every,
                    accelerator="cpu",
                ),
                seed=seed,
            ),
            console(),
        )
    finally:
        callback.validate = validate
    energy, forces = (np.array([each[i] for each in seen]) for i in (0, 1))
    return Curves(energy, forces, rms, loss_weights(loss, 1.0)[0])


def judged(curves: Curves, number: int, draws: int = DRAWS) -> dict[str, Floats]:
    """Place of the chosen validation (0 to 1), and errors on the rest, for each rule and draw.

    Args:
        curves: errors of the held-out structures.
        number: of structures to choose by.
        draws: number of draws.

    Returns:
        (draws, 3) by rule: place, MAE of energies (meV/atom), RMSE of forces (meV/Å).
    """
    generator = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in RULES}
    for _ in range(draws):
        order = generator.permutation(curves.energy.shape[1])
        chosen, rest = curves.means(order[:number]), curves.means(order[number:])
        for name, rule in RULES.items():
            at = rule(*chosen)
            found[name].append((at / max(1, len(chosen[2]) - 1), rest[0][at], rest[1][at]))
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    """Train if needed, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.best_step", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--time", default="2m")
    parser.add_argument("--every", type=int, default=120, help="steps between validations")
    parser.add_argument("--number", type=int, default=14, help="validation structures of a draw")
    parser.add_argument("--output", type=Path, default=Path("runs/best_step"))
    parser.add_argument("--seed", type=int, default=0, help="of held-out structures and weights")
    parser.add_argument("--energy-weight-final", type=float, help="loss.energy_weight_final")
    options = parser.parse_args()
    path = options.output / "curves.npz"
    if not path.exists():
        np.savez(path, **train(options)._asdict())
    with np.load(path) as content:
        curves = Curves(
            content["energy"],
            content["forces"],
            float(content["force_rms"]),
            float(content["energy_weight"]),
        )
    sheet = Sheet(
        f"Best validation of {len(curves.energy)}, chosen on {options.number} structures",
        ["rule", "part of the training", "energy MAE (meV/atom)", "force RMSE (meV/Å)"],
        f"mean ± standard deviation over {DRAWS} draws, on the other "
        f"{curves.energy.shape[1] - options.number} structures",
    )
    for name, values in judged(curves, options.number).items():
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        cells = [f"{mean[0]:.0%}"] + [f"{mean[i]:.2f} ± {deviation[i]:.2f}" for i in (1, 2)]
        sheet.rows.append([name, *cells])
    console().print(sheet.table())


if __name__ == "__main__":
    main()
