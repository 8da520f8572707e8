"""Which way to learn a broken symmetry needs the fewest data: molecules in an electric field.

Energies are those of Morse springs plus charges q_i in a field E along z, -Σ q_i E·(r_i - r_0). An
ion would feel a net force, which a potential of relative positions cannot give; relative to its
centre of mass r_0 it is gone, and the forces q_i E - (m_i / M) Q E are left. The symmetry of the
energy is C∞v.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy.spatial.transform import Rotation

from benchmarks.plots import MARKERS
from benchmarks.sheets import Sheet, save
from tesseral.data.graph import AtomicGraph, join_graphs
from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.neighbors import atomic_graph
from tesseral.data.store.read import write_store
from tesseral.data.structures import Structure, make_structure
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.frames import FramesConfig
from tesseral.potentials.blocks.point_groups import group_elements
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.derivatives import predict
from tesseral.potentials.symmetry import remaining_group
from tesseral.potentials.testing import orthogonal_errors, rotation_errors
from tesseral.training.config import FitConfig, LossConfig, OptimizationConfig, TrainerConfig
from tesseral.training.fit import fit

Z = np.array([0.0, 0.0, 1.0])
FIELD = 0.1  # V/Å
NUMBERS = (10, 30, 100)  # structures
SEEDS = (0,)
STEPS = 250
TESTS = 100
ROUNDING = 1e-2  # meV/Å
TOLERANCE = 0.3  # of the point group
AROUND_Z = "C7v"  # has no element but the identity in common with grids on the sphere
ELEMENTS = (1, 8)
MASSES = {1: 1.0, 8: 16.0}
MOLECULES = [  # numbers, positions in Å, charges
    ([8, 1, 1], [[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]], [-0.8, 0.4, 0.4]),
    ([8, 1], [[0, 0, 0], [0.97, 0, 0]], [-1.2, 0.2]),  # an ion
]


def structures(number: int, field: float, seed: int, direction: Any = Z) -> list[Structure]:
    """Molecules in random orientations, atoms displaced by 0.06 Å, in a field of V/Å."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(number):
        numbers, places, charges = MOLECULES[k % 2]
        rest, charge = torch.tensor(places, dtype=torch.float64), torch.tensor(charges).double()
        mass = torch.tensor([MASSES[z] for z in numbers], dtype=torch.float64)
        rotation = torch.from_numpy(Rotation.random(random_state=rng).as_matrix())
        shaken = (rest + 0.06 * torch.from_numpy(rng.normal(size=rest.shape))) @ rotation.T
        positions = shaken.requires_grad_(True)
        first, second = torch.triu_indices(len(numbers), len(numbers), 1)
        stretch = (positions[first] - positions[second]).norm(dim=1)
        stretch = stretch - (rest[first] - rest[second]).norm(dim=1)
        centre = (mass / mass.sum()) @ positions
        dipole = charge @ (positions - centre)
        springs = (1 - torch.exp(-1.5 * stretch)).square().sum()
        energy = springs - field * dipole @ torch.from_numpy(direction)
        (slope,) = torch.autograd.grad(energy, positions)
        made.append(
            make_structure(
                numbers,
                positions.detach().numpy(),
                energy=float(energy.detach()),
                forces=-slope.numpy(),
            )
        )
    return made


class Method:
    """A way to learn: a potential, and options of its loss and its optimiser."""

    def __init__(
        self, potential: PotentialConfig, *, penalty: float = 0.0, **optimization: Any
    ) -> None:
        """``penalty`` is the weight of the change of the forces under rotations."""
        self.potential = potential
        self.loss = LossConfig(stress_weight=0.0, symmetry_weight=penalty)
        self.optimization = OptimizationConfig(**optimization)


def _facet(**options: Any) -> FacetConfig:
    return FacetConfig(cutoff=4.0, layers=2, channels=8, grid_channels=16, l_max=2, **options)


def _mean(group: str) -> FramesConfig:
    return FramesConfig(cutoff=4.0, layers=2, channels=8, l_max=2, group=group)


METHODS = {
    "not relaxed": Method(_facet()),
    "relaxed": Method(_facet(relaxed=True)),
    "relaxed, group C∞v": Method(_facet(relaxed=True, group="C∞v")),
    "group C∞v, quadratic penalty": Method(
        _facet(relaxed=True, group="C∞v"),
        relaxed_shrinkage="proportional",
        relaxed_weight_decay=1.0,
    ),
    "quadratic penalty of the weights": Method(
        _facet(relaxed=True), relaxed_shrinkage="proportional", relaxed_weight_decay=1.0
    ),
    "penalty of rotated forces": Method(
        _facet(relaxed=True), penalty=0.1, relaxed_weight_decay=0.0
    ),
    "no symmetry": Method(_mean("1")),
    "mean over C4v": Method(_mean("C4v")),
}


def field_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Run the missing trainings; make a table for each number of structures, and a figure."""
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for seed in SEEDS:
        for number in NUMBERS:
            for name, method in METHODS.items():
                folder = options.output / "field" / f"{name}, {number}, seed {seed}"
                if not (folder / "result.json").exists():
                    terminal.print(f"{name}: {number} structures, seed {seed}", soft_wrap=True)
                    save(folder / "result.json", learn(method, number, seed, folder))
                result = json.loads((folder / "result.json").read_text())
                results.setdefault((name, number), []).append(result)
    plot_field(results, options.output / "field.png")
    return [number_sheet(number, results) for number in NUMBERS]


def number_sheet(number: int, results: dict[tuple[str, int], list[dict[str, Any]]]) -> Sheet:
    """Table for a number of structures."""
    sheet = Sheet(
        f"Molecules in a field, {number} structures, {len(SEEDS)} seeds",
        ("method", "forces", "change by C∞v", "change by rotations", "group", "axis"),
        "Test MAE of the forces; RMS change of the forces under C∞v (exact: 0) and under all "
        "rotations (meV/Å); point group found, and angle of its axis to the field (°).",
    )
    for (name, own), found in results.items():
        if own == number:
            axes = [one["axis"] for one in found if one["axis"] is not None]
            sheet.rows.append(
                (
                    name,
                    *(_mean_of(found, key) for key in ("forces", "kept", "broken")),
                    ", ".join(str(one["group"] or "–") for one in found),
                    ", ".join(f"{axis:.2g}" for axis in axes) or "–",
                )
            )
    return sheet


def _mean_of(found: list[dict[str, Any]], key: str) -> str:
    """Mean over the seeds; what is below the rounding of float32 is 0."""
    mean = np.mean([one[key] for one in found])
    return f"{mean:.3g}" if mean > ROUNDING else "0"


def plot_field(results: dict[tuple[str, int], list[dict[str, Any]]], path: Path) -> None:
    """Plot the force error, and the change by symmetries of the data, against the structures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for number, name in enumerate(METHODS):
        style = {"color": f"C{number}", "marker": MARKERS[number], "label": name}
        for axes, key in zip(panels, ("forces", "kept"), strict=True):
            values = np.array([np.mean([one[key] for one in results[name, n]]) for n in NUMBERS])
            axes.loglog(NUMBERS, np.where(values > ROUNDING, values, np.nan), **style)
    panels[0].set(ylabel="test MAE of the forces (meV/Å)")
    panels[1].set(ylabel="change of the forces under C∞v (meV/Å)")
    for axes in panels:
        axes.set(xlabel="training structures", xticks=NUMBERS)
        axes.set_xticklabels(NUMBERS)
        axes.minorticks_off()
        axes.grid(True, alpha=0.4)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


def learn(method: Method, number: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train on so many structures and test.

    Returns:
        ``forces`` MAE (meV/Å), RMS change of the forces (meV/Å) under C∞v (``kept``) and under all
        rotations (``broken``), ``group`` that remains and ``axis`` (its angle to the field, °).
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_store(folder / "train.h5", structures(number, FIELD, 100 + seed))
    write_store(folder / "validation.h5", structures(20, FIELD, 1))
    result = fit(
        FitConfig(
            data=DataConfig(
                train=str(folder / "train.h5"),
                validation=str(folder / "validation.h5"),
                batch_structures=max(1, number // 10),
            ),
            model=method.potential,
            loss=method.loss,
            optimization=method.optimization,
            trainer=TrainerConfig(
                max_steps=STEPS, accelerator="cpu", enable_progress_bar=False, validate_every=50
            ),
            seed=seed,
            output=str(folder / "model.safetensors"),
        )
    )
    potential, _ = load_model(result.model)
    tests = structures(TESTS, FIELD, 2)
    graph = joined(tests)
    labels = torch.from_numpy(np.concatenate([one.forces for one in tests]).astype(np.float64))
    facet = isinstance(method.potential, FacetConfig)
    found = remaining_group(potential, TOLERANCE) if facet else None
    axis = None if found is None or found.axis is None else min(1.0, abs(found.axis[2]))
    return {
        "forces": 1e3 * float((predict(potential, graph).forces - labels).abs().mean()),
        "kept": 1e3 * orthogonal_errors(potential, graph, group_elements(AROUND_Z)[1:])[1],
        "broken": 1e3 * rotation_errors(potential, graph, 4)[1],
        "group": None if found is None else found.name,
        "axis": None if axis is None else float(np.degrees(np.arccos(axis))),
    }


def joined(some: list[Structure]) -> AtomicGraph:
    """Molecules as one graph."""
    nothing = np.zeros((3, 3)), np.zeros(3, bool)
    return join_graphs(
        [atomic_graph(one.numbers, one.positions, *nothing, ELEMENTS, 4.0) for one in some]
    )
