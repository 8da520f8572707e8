"""Pairs of structures that each architecture can distinguish, tested with random weights.

If the energies of two structures agree within rounding errors for every choice of the weights, no
training can separate them. Otherwise random weights give equal energies with probability zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from benchmarks.sheets import Sheet
from benchmarks.study.pairs import (
    RADIUS,
    Pair,
    chain,
    same_angles,
    same_distances,
    same_triples,
    triangles_and_hexagon,
    two_rings,
)
from tesseral.data.graph import Edges, edges_of, join_graphs
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.calibrate import calibrate
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.testing import random_rotations, transformed

CHANNELS = 12
SEEDS = 5
SEEN = 1e-9  # relative to the energy due to the neighbours
MOST_LAYERS = 5
CHAIN = 4
FOLDS = (2, 3, 4, 5, 6)
ENVIRONMENTS: dict[str, Callable[[], Pair]] = {
    "distances": same_distances,
    "angles": same_angles,
    "triples": same_triples,
    "△△ / ⬡": triangles_and_hexagon,
}
SYSTEMS: dict[str, dict[str, Any]] = {
    **{
        f"facet, l_max {degree}": {"l_max": degree, "l_max_message": degree}
        for degree in (1, 2, 3, 4)
    },
    "facet, l_max 4, order 3": {"l_max": 4, "l_max_message": 4, "order": 3},
    "facet, l_max 4, two mixings": {"l_max": 4, "l_max_message": 4, "mixings": 2},
    "mace, l_max 2": {"architecture": "mace", "l_max": 2},
    "mace, l_max 3": {"architecture": "mace", "l_max": 3},
    "mace, l_max 2, (((A A) A) A) too": {
        **{"architecture": "mace", "l_max": 2},
        **{"trees": ["A", "(A A)", "((A A) A)", "(((A A) A) A)"]},
    },
    "mace, l_max 2, A, (A x), (x x)": {
        **{"architecture": "mace", "l_max": 2, "l_max_message": 2},
        **{"trees": ["A", "(A x)", "(x x)"]},
    },
    "nequip, l_max 2": {"architecture": "nequip", "l_max": 2},
    "segnn, l_max 2": {"architecture": "segnn", "l_max": 2},
    "se3transformer, l_max 2": {"architecture": "se3transformer", "l_max": 2},
    "ponita, 26 orientations": {
        **{"architecture": "ponita", "l_max": 2},
        **{"orientations": 26, "random_orientations": False},
    },
    "lieconv, 120 orientations": {"architecture": "lieconv", "random_orientations": False},
    "dimenet, l_max 3": {"architecture": "dimenet", "l_max": 3},
    "frames, l_max 2": {"architecture": "frames", "frame_cutoff": 1.4 * RADIUS},
    "painn": {"architecture": "painn"},
    "egnn": {"architecture": "egnn"},
    "schnet": {"architecture": "schnet"},
}


def difference(config: PotentialConfig, pair: Pair) -> tuple[float, float]:
    """Largest energy difference over random weights, relative to the binding energy.

    Returns:
        Difference between the two structures, and between the first one and its rotated copy.
    """
    largest, rotated = 0.0, 0.0
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        potential = MessagePassing(config, [14], mean_neighbors=4.0, dtype=torch.float64)
        calibrate(potential, join_graphs(list(pair)))
        for readout in potential.readouts:  # set to zero by calibrate
            torch.nn.init.normal_(readout.linear.weight)
            torch.nn.init.normal_(readout.output.weight)
        turned = transformed(pair.first, random_rotations(1, seed)[0])
        with torch.no_grad():
            first, second, other = (
                float(potential(g.species, edges_of(g)).sum())
                for g in (pair.first, pair.second, turned)
            )
            g = pair.first
            none = Edges(*(part[:0] for part in edges_of(g)))
            alone = float(potential(g.species, none).sum())
        largest = max(largest, abs(first - second) / abs(first - alone))
        rotated = max(rotated, abs(first - other) / abs(first - alone))
    return largest, rotated


def separates(config: PotentialConfig, pair: Pair) -> bool:
    """Whether the two structures differ by more than a structure and its rotated copy."""
    apart, noise = difference(config, pair)
    return apart > max(SEEN, 3 * noise)


def mark(seen: bool) -> str:
    """Text for a table."""
    return "yes" if seen else "no"


def layers_for_chain(config: PotentialConfig) -> str:
    """The smallest number of layers that distinguishes the two chains."""
    pair = chain(CHAIN)
    for layers in range(1, MOST_LAYERS + 1):
        if separates(replace(config, layers=layers), pair):
            return str(layers)
    return f"> {MOST_LAYERS}"


def highest_fold(config: PotentialConfig) -> str:
    """Orders of the axis for which eclipsed and staggered rings are distinguished."""
    seen = [str(fold) for fold in FOLDS if separates(config, two_rings(fold))]
    return ", ".join(seen) or "none"


def expressivity_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """The table of all systems; takes a few minutes."""
    sheet = Sheet(
        "Structures that can be distinguished",
        ("potential", *ENVIRONMENTS, f"chain of {CHAIN}: layers", "two rings: orders of axis"),
        "Energies for random weights in float64 differ by more than a fraction of 1e-9 (or three "
        "times the change under rotation if that is more); one layer / two layers. distances, "
        "angles, triples: environments of one atom that have these in common; △△ / ⬡: two "
        "triangles and a hexagon; chain: the smallest number of layers that detects whether its "
        "ends are bent to the same side; two rings: orders of the axis for which eclipsed and "
        "staggered are distinguished.",
    )
    for name, model in SYSTEMS.items():
        terminal.print(name, style="dim")
        config = make_config(**{"channels": CHANNELS, "layers": 2, **model}, cutoff=1.5 * RADIUS)
        seen = []
        for make in ENVIRONMENTS.values():
            layers = [separates(replace(config, layers=n), make()) for n in (1, 2)]
            seen.append(" / ".join(mark(one) for one in layers))
        sheet.rows.append((name, *seen, layers_for_chain(config), highest_fold(config)))
    return [sheet]
