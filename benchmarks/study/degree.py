"""Accuracy against l_max at a constant number of features (claim of Wang et al., ICLR 2024).

The same number of features per atom, (l_max + 1)² channels, is used for few channels with fine
angular detail or for many channels with coarse detail. Everything else, including the number of
steps, is the same.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.sheets import Sheet
from benchmarks.study.trainings import Training, train

FEATURES = 144
DEGREES = (0, 1, 2, 3, 4)
SEEDS = (0, 1, 2)
STEPS = {"Si": 2000, "AcAc": 2500}
MIXINGS = {"Si": 1, "AcAc": 2}
ERRORS = {  # by set: names of the test and of the energy and force errors
    "Si": (("test", "energy_mae", "forces_mae", "MAE, meV/atom and meV/Å"),),
    "AcAc": (
        ("300K", "molecule_energy_rmse", "forces_rmse", "300 K, RMSE, meV and meV/Å"),
        ("600K", "molecule_energy_rmse", "forces_rmse", "600 K, RMSE, meV and meV/Å"),
    ),
}


def channels_of(l_max: int) -> int:
    """Number of channels for the fixed number of features."""
    return round(FEATURES / (l_max + 1) ** 2)


def training(name: str, l_max: int, seed: int) -> Training:
    """Training for a set, a degree and a seed."""
    channels = channels_of(l_max)
    model = {
        "channels": channels,
        "grid_channels": 2 * channels,
        "l_max": l_max,
        "l_max_message": l_max,
        "mixings": MIXINGS[name],
    }
    options = {"model": model, "trainer": {"max_steps": STEPS[name]}}
    return Training(name, f"l_max {l_max}, seed {seed}", options, seed)


def degree_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Run the missing trainings; make a table for each set."""
    sheets = []
    for name in options.sets:
        wanted = [(degree, seed) for degree in DEGREES for seed in SEEDS]
        found = train([training(name, *one) for one in wanted], options, terminal)
        sheet = Sheet(
            f"{name}: {FEATURES} features per atom, {STEPS[name]} steps, {len(SEEDS)} seeds",
            (
                *("l_max", "channels", "weights", "ms a step"),
                *(f"{kind}: {what}" for *_, kind in ERRORS[name] for what in ("energy", "forces")),
            ),
            "Mean and standard deviation over the seeds; ms of CPU time.",
        )
        for l_max in DEGREES:
            results = [
                result
                for (degree, _), result in zip(wanted, found, strict=True)
                if degree == l_max and result is not None
            ]
            if results:
                sheet.rows.append(_row(name, l_max, results))
        sheets.append(sheet)
    return sheets


def _row(name: str, l_max: int, results: list[dict[str, Any]]) -> tuple[str, ...]:
    """Row of a degree."""
    cpu = np.mean([1e3 * result["process"]["cpu"] / STEPS[name] for result in results])
    cells = []
    for test, energy, forces, _ in ERRORS[name]:
        for error in (energy, forces):
            values = [result["errors"][test][error] for result in results]
            cells.append(f"{np.mean(values):.3g} ± {np.std(values):.1g}")
    first = results[0]
    return str(l_max), str(channels_of(l_max)), f"{first['parameters']:,}", f"{cpu:.0f}", *cells
