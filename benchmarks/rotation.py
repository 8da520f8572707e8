"""Rotation error of a trained potential against the size of its grid on the sphere.

    python -m benchmarks.rotation MODEL.safetensors SET.h5 [--structures 8] [--rotations 8]

The weights do not depend on the grid, so one trained model is evaluated on all grids; that of its
training is marked. The table has, for each grid, the RMS change of energies and forces under random
rotations, the latter also in per cent of the force error in validation; the force error against DFT
for the original and the randomly rotated structures; and the time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tesseral.data.graph import AtomicGraph, atom_counts, join_graphs
from tesseral.data.neighbors import atomic_graph
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.table import field_names
from tesseral.potentials.blocks.mixing import exact_grid_points
from tesseral.potentials.derivatives import Potential, predict
from tesseral.potentials.testing import random_rotations, transformed

GRIDS = (6, 14, 26, 38, 50, 86, 110, 194)
SIZES = ("orientations", "grid_points")  # options for the number of points
COLUMNS = (
    *("energy (meV/atom)", "forces (meV/Å)", "of the error (%)"),
    *("force RMSE (meV/Å)", "turned (meV/Å)", "µs/atom"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("store")
    parser.add_argument("--structures", type=int, default=8)
    parser.add_argument("--rotations", type=int, default=8)
    parser.add_argument("--grids", type=int, nargs="+", default=GRIDS)
    options = parser.parse_args(arguments)
    trained, card = load_model(options.model)
    config = card.config
    name = next((size for size in SIZES if size in field_names(config.architecture)), None)
    if name is None:
        parser.error(f"{config.architecture} has no grid on the sphere; its rotation error is 0")
    store = open_store(options.store)
    step = max(1, len(store) // options.structures)  # a set may be sorted by type
    structures = [store[i] for i in range(0, len(store), step)[: options.structures]]
    graph = join_graphs(
        [
            atomic_graph(s.numbers, s.positions, s.cell, s.pbc, card.elements, config.cutoff)
            for s in structures
        ]
    )
    labels = torch.cat([torch.as_tensor(s.forces) for s in structures])
    known = card.errors.get("validation", {}).get("forces", {}).get("rmse", float("nan"))
    own = getattr(config, name)  # None where each mixing has its smallest exact grid
    table = Table(title=f"{options.model} ({config.architecture}, {card.dtype})")
    for column in (name.replace("_", " "), *COLUMNS):
        table.add_column(column, justify="right")
    for points in options.grids:
        if is_too_coarse(card, points):
            continue
        potential = build_potential(replace(card, config=replace(config, **{name: points})))
        potential.load_state_dict(trained.state_dict())
        potential.eval().requires_grad_(False)
        values = errors(potential, graph, labels, options.rotations)
        energy, forces, straight, turned, seconds = (f"{1e3 * value:.4g}" for value in values)
        part = f"{1e5 * values[1] / known:.3g}"
        mark = " *" if points == own else ""
        table.add_row(f"{points}{mark}", energy, forces, part, straight, turned, seconds)
    Console().print(table)


def errors(
    potential: Potential, graph: AtomicGraph, labels: Tensor, rotations: int
) -> tuple[float, float, float, float, float]:
    """RMS over random rotations.

    Returns:
        change of the energy (eV/atom) and of the forces (eV/Å); error of the forces (eV/Å) for the
        original and the rotated structures; ms per atom.
    """
    start = time.perf_counter()
    reference = predict(potential, graph)
    elapsed = time.perf_counter() - start
    matrices = random_rotations(rotations)
    turned = [predict(potential, transformed(graph, matrix)) for matrix in matrices]
    energies = torch.stack([prediction.energy for prediction in turned])
    forces = torch.stack([p.forces @ matrix for p, matrix in zip(turned, matrices, strict=True)])
    return (
        rms((energies - reference.energy) / atom_counts(graph)),
        rms(forces - reference.forces),
        rms(reference.forces - labels),
        rms(forces - labels),
        1e3 * elapsed / len(labels),
    )


def is_too_coarse(card: ModelCard, points: int) -> bool:
    """Whether the potential cannot be built on this grid."""
    config = card.config
    product = isinstance(config, FacetConfig) and config.activation == "product"
    return product and points < exact_grid_points(config.l_max, config.order)


def rms(values: Tensor) -> float:
    """Root of the mean square."""
    return float(values.square().mean().sqrt())


if __name__ == "__main__":
    main()
