"""Comparison of all systems after the same training: errors, speed, rotation error, size."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.plots import MARKERS
from benchmarks.sheets import Sheet
from benchmarks.silicon import noise, supercell
from benchmarks.study.trainings import Training, model_of, read_config, train
from tesseral.data.graph import AtomicGraph
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.testing import rotation_errors

SETS = ("Si", "AcAc")
ATOMS = 216  # rounds of the timing
BURST = 0.5  # s, consecutive calls
ROUNDS = 5


def settings(architecture: str, name: str) -> dict[str, Any]:
    """Options of ``train-potential fit`` for an architecture on a set, from its config file."""
    if architecture == "facet":
        content = read_config("molecules.yaml") if name == "AcAc" else {"model": {}}
    else:
        content = read_config(f"{architecture}.yaml")
    for part in ("trainer", "data", "loss"):
        content.pop(part, None)
    return content


def system_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Run the missing trainings, time and rotate the models; make two tables and a figure."""
    trainings = {
        (system, name): Training(name, system, settings(system, name), 0, options.minutes)
        for system in options.systems
        for name in options.sets
    }
    results = dict(zip(trainings, train(list(trainings.values()), options, terminal), strict=True))
    models = {
        system: load_model(model_of(trainings[system, name], options))[0]
        for system, name in trainings
        if name == "Si" and results[system, name] is not None
    }
    microseconds = speeds(models)
    silicon = Sheet(
        f"mlearn Si, {options.minutes:g} minutes on one core each",
        (
            *("system", "weights", "epochs", "energy", "forces", "stress"),
            *("rotation", "µs/atom"),
        ),
        "Test MAE of energy (meV/atom), forces (meV/Å), stress (GPa); RMS change of the forces "
        f"under rotations of the structure (meV/Å); time of energy and forces of {ATOMS} atoms of "
        "silicon, minimum of alternating bursts.",
    )
    molecule = Sheet(
        f"Acetylacetone, {options.minutes:g} minutes on one core each",
        ("system", "weights", "epochs", "300 K: energy", "forces", "600 K: energy", "forces"),
        "Test RMSE of the energy of the molecule (meV) and of the forces (meV/Å).",
    )
    for (system, name), result in results.items():
        if result is None:
            continue
        errors = result["errors"]
        row = [system, f"{result['parameters']:,}", f"{result['epochs']:,.0f}"]
        if name == "Si":
            test = errors["test"]
            row += [f"{test[f'{what}_mae']:.3g}" for what in ("energy", "forces", "stress")]
            row += [f"{rotation(models[system]):.2g}", f"{microseconds[system]:,.0f}"]
            silicon.rows.append(tuple(row))
        else:
            for test in (errors["300K"], errors["600K"]):
                row += [f"{test['molecule_energy_rmse']:.3g}", f"{test['forces_rmse']:.3g}"]
            molecule.rows.append(tuple(row))
    plot_systems(results, microseconds, options.output / "systems.png")
    return [sheet for sheet in (silicon, molecule) if sheet.rows]


def warm_silicon(n_atoms: int, cutoff: float, seed: int = 0) -> AtomicGraph:
    """Graph of silicon with displaced atoms."""
    atoms = supercell(n_atoms)
    atoms.positions += noise(n_atoms, np.random.default_rng(seed))
    return atomic_graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (14,), cutoff)


def rotation(potential: MessagePassing) -> float:
    """RMS change (meV/Å) of the forces on warm silicon under random rotations."""
    return 1e3 * rotation_errors(potential, warm_silicon(8, potential.cutoff))[1]


def speeds(models: Mapping[str, MessagePassing]) -> dict[str, float]:
    """Time (µs per atom) of energy and forces; bursts of all models alternate."""
    graphs = {name: warm_silicon(ATOMS, model.cutoff) for name, model in models.items()}
    best = dict.fromkeys(models, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(ROUNDS):
            for name, model in models.items():
                start = time.perf_counter()
                while time.perf_counter() - start < BURST:
                    before = time.perf_counter()
                    predict(model, graphs[name])
                    best[name] = min(best[name], time.perf_counter() - before)
    finally:
        torch.set_num_threads(threads)
    return {name: 1e6 * seconds / ATOMS for name, seconds in best.items()}


def plot_systems(
    results: Mapping[tuple[str, str], Mapping[str, Any] | None],
    microseconds: Mapping[str, float],
    path: Path,
) -> None:
    """Plot validation error against training time on each set; on Si, test error against speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    systems, names = (list(dict.fromkeys(part)) for part in zip(*results, strict=True))
    width = len(names) + ("Si" in names)
    figure, grid = pyplot.subplots(
        1, width, figsize=(5 * width, 4.6), layout="constrained", squeeze=False
    )
    panels = dict(zip([*names, "speed"], grid[0], strict=False))
    for number, system in enumerate(systems):
        style = {"color": f"C{number}", "marker": MARKERS[number], "label": system}
        for name in names:
            result = results[system, name]
            if result is None:
                continue
            curve = [(point["seconds"], point["forces"]) for point in result["curve"]]
            panels[name].loglog(*zip(*curve, strict=True), markersize=3, **style)
            if name == "Si":
                point = microseconds[system], result["errors"]["test"]["forces_mae"]
                panels["speed"].loglog(*[[value] for value in point], linestyle="", **style)
                panels["speed"].annotate(
                    system, point, xytext=(5, 4), textcoords="offset points", fontsize="small"
                )
    for name, axes in panels.items():
        axes.set(xlabel="CPU s of training", ylabel="validation MAE of forces (meV/Å)", title=name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(True, which="major", alpha=0.4)
        axes.grid(True, which="minor", alpha=0.12)
    if "speed" in panels:
        panels["speed"].set(
            xlabel="µs per atom (energy and forces)",
            ylabel="test MAE of forces (meV/Å)",
            title="Si",
        )
    panels[names[0]].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
