"""Rotation error of a trained potential against the size of its grid on the sphere.

    python -m benchmarks.rotation MODEL.safetensors SET.h5 [--structures 8] [--rotations 8]

The weights do not depend on the grid, so one trained model is evaluated on all of them. For each:
RMS change of energies and forces under random rotations, error of the forces against DFT, and time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from tesseral.data.graph import join_graphs
from tesseral.data.neighbors import atomic_graph
from tesseral.data.store import open_store
from tesseral.deploy.modelfile import build_potential, load_model
from tesseral.potentials.derivatives import predict
from tesseral.potentials.mixing import exact_grid_points
from tesseral.potentials.testing import rotation_errors

GRIDS = (14, 26, 38, 50, 86, 110, 194)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("store")
    parser.add_argument("--structures", type=int, default=8)
    parser.add_argument("--rotations", type=int, default=8)
    options = parser.parse_args(arguments)
    trained, card = load_model(options.model)
    store = open_store(options.store)
    structures = [store[i] for i in range(min(options.structures, len(store)))]
    graph = join_graphs(
        [
            atomic_graph(s.numbers, s.positions, s.cell, s.pbc, card.elements, card.config.cutoff)
            for s in structures
        ]
    )
    labels = torch.cat([torch.as_tensor(s.forces) for s in structures])
    table = Table(title=f"{options.model} ({card.config.activation}, {card.dtype})")
    for column in (
        "grid points",
        "energy (meV/atom)",
        "forces (meV/Å)",
        "force RMSE (meV/Å)",
        "µs/atom",
    ):
        table.add_column(column, justify="right")
    for points in GRIDS:
        config = card.config
        exact = exact_grid_points(config.l_max, config.order)
        if config.activation == "product" and points < exact:
            continue
        potential = build_potential(replace(card, config=replace(config, grid_points=points)))
        potential.load_state_dict(trained.state_dict())
        energy, forces, _ = rotation_errors(potential, graph, options.rotations)
        start = time.perf_counter()
        rmse = (predict(potential, graph).forces - labels).square().mean().sqrt()
        elapsed = time.perf_counter() - start
        table.add_row(
            str(points),
            f"{1e3 * energy:.4f}",
            f"{1e3 * forces:.4f}",
            f"{1e3 * float(rmse):.1f}",
            f"{1e6 * elapsed / len(labels):.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
