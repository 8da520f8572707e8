"""Forces where atoms are close, with and without the join to the nuclear repulsion."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.sheets import Sheet, cell, save
from benchmarks.universal.close_structures import KINDS, close_structures
from tesseral.data.graph import AtomicGraph, edge_vectors
from tesseral.deploy.card import ModelCard
from tesseral.deploy.convert import graph_of
from tesseral.deploy.modelfile import build_potential, load_model
from tesseral.potentials.blocks.short_range import square_pairs
from tesseral.potentials.blocks.zbl import NuclearRepulsion
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LABELS = Path(__file__).with_name("close_labels.extxyz")  # made by close_labels.py
SHARE = 0.5  # of the repulsion of the nuclei; that in DFT is more than this
TOLERANCE = 10.0  # eV/Å


class Joined(NamedTuple):
    """A model that is joined to the repulsion of the nuclei, and the same model without."""

    name: str
    card: ModelCard
    plain: MessagePassing
    joined: MessagePassing


def open_joined(path: Path) -> Joined:
    """Load a model that has inner radii.

    Raises:
        ValueError: it has none.
    """
    joined, card = load_model(path)
    if not card.inner_radii:
        raise ValueError(f"{path} has no inner radii; convert it without --no-short-range")
    plain = build_potential(replace(card, inner_radii=()))
    plain.load_state_dict(joined.state_dict())
    return Joined(path.stem, card, plain, joined)


class Pairs(NamedTuple):
    """The P pairs of a structure that are closer than their inner radius."""

    senders: Integers  # (P,)
    receivers: Integers  # (P,)
    directions: Floats  # (P, 3)
    nuclei: Floats  # (P,) eV/Å, by the repulsion of all nuclei; see ``repulsion``


def close_pairs(card: ModelCard, graph: AtomicGraph) -> Pairs:
    """Pairs closer than their inner radius, with the repulsion of all nuclei of the structure."""
    inner = square_pairs(card.inner_radii, len(card.elements))
    vectors = edge_vectors(graph).requires_grad_(True)
    first, second = graph.species[graph.senders], graph.species[graph.receivers]
    energy = 0.5 * NuclearRepulsion(card.elements).repulsion(vectors.norm(dim=1), first, second)
    # Only neighbours count; further away, electrons bind.
    near = vectors.detach().norm(dim=1) < 1.25 * inner[first, second]
    (slope,) = torch.autograd.grad((energy * near).sum(), vectors)
    forces = torch.zeros_like(graph.positions)
    forces = forces.index_add(0, graph.senders, slope).index_add(0, graph.receivers, -slope)
    lengths = vectors.detach().norm(dim=1)
    close = (lengths < inner[first, second]) & (graph.senders != graph.receivers)
    directions = (vectors.detach() / lengths.unsqueeze(1))[close].numpy()
    senders, receivers = graph.senders[close].numpy(), graph.receivers[close].numpy()
    return Pairs(
        senders, receivers, directions, repulsion(senders, receivers, directions, forces.numpy())
    )


def repulsion(senders: Integers, receivers: Integers, directions: Floats, forces: Floats) -> Floats:
    """Half of the difference between the forces on two atoms along the line between them, (P,)."""
    found: Floats = 0.5 * ((forces[receivers] - forces[senders]) * directions).sum(axis=1)
    return found


def shortfall(pairs: Pairs, forces: Floats) -> float:
    """Largest lack of repulsion of a pair (eV/Å) below ``SHARE`` of that of the nuclei."""
    found = repulsion(pairs.senders, pairs.receivers, pairs.directions, forces)
    return float((SHARE * pairs.nuclei - found).max(initial=0.0))


def close_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Tables for each model: structures without reference, and DFT labels of some of them."""
    structures = close_structures(options.number)
    labelled = read(LABELS, ":")
    sheets, numbers = [], {}
    for path in map(Path, options.models):
        model = open_joined(path)
        terminal.print(f"{model.name}: {len(structures)} structures")
        sheet, found = _without_reference(model, structures)
        sheets += [sheet, _against_dft(model, labelled), _lack_in_dft(model, labelled)]
        numbers[model.name] = found
    save(options.output / "close.json", numbers)
    return sheets


def _forces(potential: MessagePassing, graph: AtomicGraph) -> Floats:
    found: Floats = predict(potential, graph).forces.numpy()
    return found


def _without_reference(
    model: Joined, structures: Sequence[Atoms]
) -> tuple[Sheet, dict[str, list[float]]]:
    """Sizes of forces, and lack of repulsion."""
    sheet = Sheet(
        f"{model.name}: {len(structures)} structures, without and with the join",
        ("kind", "structures", "with a close pair", "largest force, eV/Å", "with")
        + ("lack of repulsion", "with", "largest lack, eV/Å", "with"),
        "Close: closer than the inner radius. Lack of repulsion: number of structures in which the "
        f"forces push a close pair apart by {TOLERANCE:g} eV/Å less than {SHARE:g} of what the "
        "nuclei alone would do.",
    )
    rows: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in KINDS}
    for atoms in structures:
        graph = graph_of(model.card, atoms)
        pairs = close_pairs(model.card, graph)
        plain, joined = (_forces(one, graph) for one in (model.plain, model.joined))
        sizes = [float(np.linalg.norm(forces, axis=1).max()) for forces in (plain, joined)]
        lacks = [shortfall(pairs, forces) for forces in (plain, joined)]
        rows[atoms.info["sort"]].append((len(pairs.senders), *sizes, *lacks))
    everything = [row for kind in KINDS for row in rows[kind]]
    for kind, values in {**rows, "all": everything}.items():
        table = np.array(values)
        lacking = (table[:, 3:] > TOLERANCE).sum(axis=0)
        sheet.rows.append(
            (kind, str(len(table)), str(int((table[:, 0] > 0).sum())))
            + tuple(cell(value) for value in table[:, 1:3].max(axis=0))
            + tuple(str(int(value)) for value in lacking)
            + tuple(cell(value) for value in table[:, 3:].max(axis=0))
        )
    return sheet, {kind: [list(row) for row in values] for kind, values in rows.items()}


def _against_dft(model: Joined, labelled: Sequence[Atoms]) -> Sheet:
    """Errors of forces, of structures with and without close pairs."""
    sheet = Sheet(
        f"{model.name}: {len(labelled)} of these structures against DFT",
        ("structures", "number", "mean force, eV/Å", "mean error", "with", "median of largest")
        + ("with", "largest error", "with"),
        "Errors: norm of the difference of the forces on an atom, eV/Å, without and with the join.",
    )
    rows: dict[str, list[tuple[Floats, Floats, Floats]]] = {"with a close pair": [], "others": []}
    for atoms in labelled:
        graph = graph_of(model.card, atoms)
        close = len(close_pairs(model.card, graph).senders) > 0
        reference = atoms.get_forces()
        off = [
            np.linalg.norm(_forces(one, graph) - reference, axis=1)
            for one in (model.plain, model.joined)
        ]
        rows["with a close pair" if close else "others"].append(
            (np.linalg.norm(reference, axis=1), off[0], off[1])
        )
    for name, found in rows.items():
        sizes, plain, joined = (np.concatenate(parts) for parts in zip(*found, strict=True))
        largest = np.array([[row[1].max(), row[2].max()] for row in found])
        numbers = [sizes.mean(), plain.mean(), joined.mean(), *np.median(largest, axis=0)]
        texts = [cell(float(value)) for value in (*numbers, *largest.max(axis=0))]
        sheet.rows.append((name, str(len(found)), *texts))
    return sheet


def _lack_in_dft(model: Joined, labelled: Sequence[Atoms]) -> Sheet:
    """The criterion for lack of repulsion applied to DFT itself."""
    ratios, lacking = [], 0
    for atoms in labelled:
        pairs = close_pairs(model.card, graph_of(model.card, atoms))
        lacking += shortfall(pairs, atoms.get_forces()) > TOLERANCE
        found = repulsion(pairs.senders, pairs.receivers, pairs.directions, atoms.get_forces())
        strong = pairs.nuclei > 2 * TOLERANCE
        ratios += (found[strong] / pairs.nuclei[strong]).tolist()
    sheet = Sheet(
        f"Repulsion of close pairs in DFT, as a share of that of the nuclei ({model.name})",
        ("pairs", "5%", "median", "95%", "structures with lack of repulsion"),
    )
    quantiles = [f"{value:.2f}" for value in np.quantile(ratios, (0.05, 0.5, 0.95))]
    sheet.rows.append((str(len(ratios) // 2), *quantiles, str(lacking)))
    return sheet
