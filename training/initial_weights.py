"""Initial weights of a training: random, or those of an earlier model."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tesseral.data.graph import Batch, edges_of, join_batches
from tesseral.data.loading.statistics import closest_distances, sample, symbols
from tesseral.data.loading.theories import (
    element_counts,
    energy_shift,
    theory_numbers,
    theory_references,
)
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.short_range import flat_pairs, inner_radii, square_pairs
from tesseral.potentials.calibrate import calibrate
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.derivatives import sum_by_structure
from tesseral.potentials.message_passing import MessagePassing
from tesseral.training.batches import FitData

Array = NDArray[np.float64]

INNER = 0.75  # largest inner radius over the sum of contact radii, below all common bonds
CLOSER = 0.95  # inner radius over the smallest distance in the training data
CALIBRATION_STRUCTURES = 32
CALIBRATION_EDGES = 20_000  # limits the memory
MANY = 8  # elements that are named in a message
SHIFT_STRUCTURES = 2_000  # number of structures that determine the shift of E0


class Start(NamedTuple):
    """A potential before its training."""

    card: ModelCard  # for the level of theory of the model file
    potential: MessagePassing  # with all levels of theory
    lines: list[str]  # messages for the user


class Trained(NamedTuple):
    """Model to start from."""

    path: str
    potential: MessagePassing
    card: ModelCard


def open_initial(path: str, model: PotentialConfig, dtype: str) -> Trained:
    """Open the model to start from.

    Args:
        path: model file, or universal.
        model: requested architecture.
        dtype: precision of the training.

    Raises:
        FileNotFoundError: the model does not exist.
        ValueError: the file is not a model, or a different architecture was requested.
    """
    potential, card = load_model(path, dtype=dtype, ops="reference")
    if model not in (FacetConfig(), card.config):
        raise ValueError(
            f"the model to start from, {path}, has its own architecture and size "
            "(train-potential info shows them); leave out all options of the model, or `init_from`"
        )
    return Trained(path, potential, card)


def start(
    data: FitData,
    model: PotentialConfig,
    trained: Trained | None,
    *,
    dtype: str,
    ops: str,
    short_range: bool = True,
) -> Start:
    """Potential to train, with its initial weights.

    Args:
        data: data module, already set up with the elements of the model to start from.
        model: architecture and size.
        trained: model to start from, in the dtype of the training; None for random weights.
        dtype: precision of weights and features.
        ops: see ``build_potential``.
        short_range: join the potential to the repulsion of the nuclei below the distances of the
            training data.
    """
    if trained is None:
        return _random(data, model, dtype, ops, short_range)
    return _fine_tuned(data, trained, dtype, ops, short_range)


def _inner_radii(data: FitData, largest: Tensor) -> tuple[float, ...]:
    """Inner radii of the pairs of elements for the card.

    They are at most ``largest`` (n, n) Å, and below the distances of the training data, where
    nothing may change.
    """
    dataset = data.train_dataset
    reach = float(largest.max()) / CLOSER
    found = closest_distances(dataset.store, dataset.rows, data.elements, reach)
    return flat_pairs(torch.minimum(largest, CLOSER * torch.from_numpy(found)))


def _random(
    data: FitData, model: PotentialConfig, dtype: str, ops: str, short_range: bool
) -> Start:
    """Random weights, calibrated on a sample of the data."""
    largest = inner_radii(data.elements, INNER, model.cutoff)
    statistics = data.statistics
    references = [list(statistics.reference_energies)]
    if data.theories:
        store, rows = data.train_dataset.store, data.train_dataset.rows
        found = theory_references(
            store, rows, data.theories, data.elements, statistics, data.main_level
        )
        references = found.tolist()
    binding = np.zeros(len(data.elements))
    if statistics.binding_energies:
        binding[[data.elements.index(z) for z in statistics.elements]] = statistics.binding_energies
    card = ModelCard(
        config=model,
        elements=data.elements,
        reference_energies=tuple(references[0]),
        binding_energies=tuple(binding.tolist()) if statistics.binding_energies else (),
        inner_radii=_inner_radii(data, largest) if short_range else (),
        energy_scale=statistics.force_rms,
        mean_neighbors=max(statistics.mean_neighbors, 1.0),
        dtype=dtype,
    )
    potential = build_potential(card, ops, references[1:])
    # Not the first ones: they may all be alike, such as nearly perfect crystals, whose fields of
    # higher degree almost vanish.
    order = np.random.default_rng(0).permutation(len(data.train_dataset))
    structures: list[Batch] = []
    for row in order[:CALIBRATION_STRUCTURES].tolist():
        structures.append(data.train_dataset[row])
        if sum(len(batch.graph.senders) for batch in structures) > CALIBRATION_EDGES:
            break
    calibrate(potential, join_batches(structures).graph)
    return Start(card, potential, [])


def _fine_tuned(data: FitData, trained: Trained, dtype: str, ops: str, short_range: bool) -> Start:
    """Weights of a model, with E0 shifted by the difference of its energies from the data.

    Inner radii of the model are kept where the data have no shorter distances. A model without
    them gets none, since the distances that it was trained on are unknown.
    """
    old = trained.card
    references = np.zeros(len(data.elements))
    binding = np.zeros(len(data.elements))
    place = [data.elements.index(z) for z in old.elements]
    references[place] = old.reference_energies
    if old.binding_energies:
        binding[place] = old.binding_energies
    radii: tuple[float, ...] = ()
    if old.inner_radii and short_range:
        largest = inner_radii(data.elements, INNER, old.config.cutoff)
        largest[np.ix_(place, place)] = square_pairs(old.inner_radii, len(old.elements))
        radii = _inner_radii(data, largest)
    levels = max(1, len(data.theories))
    card = replace(
        old,
        elements=data.elements,
        reference_energies=tuple(references.tolist()),
        binding_energies=tuple(binding.tolist()) if old.binding_energies else (),
        inner_radii=radii,
        dtype=dtype,
        training={},
        errors={},
        uncertainty={},
    )
    others = [list(card.reference_energies)] * (levels - 1)
    potential = build_potential(card, ops, others)
    _take_weights(potential, trained.potential.state_dict(), place)
    shifts = _shifts(potential, data)
    card = replace(card, reference_energies=tuple((references + shifts[0]).tolist()))
    with torch.no_grad():
        energies = torch.from_numpy((references + shifts).flatten())
        potential.scale.reference_energies.copy_(energies)
    return Start(card, potential, _told(data, trained, shifts))


@torch.no_grad()
def _take_weights(potential: MessagePassing, weights: dict[str, Tensor], place: list[int]) -> None:
    """Copy weights; rows of elements move to their new places, new elements keep random weights.

    E0 is not copied, since it is on the card.
    """
    for name, target in potential.state_dict().items():
        if name not in weights or name == "scale.reference_energies":
            continue
        value = weights[name]
        other = [k for k in range(value.ndim) if value.shape[k] != target.shape[k]]
        if other:  # axis of the elements
            target.index_copy_(other[0], torch.tensor(place), value)
        else:
            target.copy_(value)


@torch.no_grad()
def _shifts(potential: MessagePassing, data: FitData) -> Array:
    """Shifts of E0 at each level of theory, (T, n_elements) eV.

    Least-squares fit to the difference between DFT and model energies. Elements with a given
    isolated-atom energy use exactly that energy at the level of the model file; elements that are
    not in the data keep theirs.
    """
    dataset, elements = data.train_dataset, data.elements
    levels = max(1, len(data.theories))
    numbers = np.zeros(len(dataset.store), dtype=np.int64)
    if data.theories:
        numbers = theory_numbers(dataset.store, data.theories)
    counts = element_counts(dataset.store, elements)
    shifts = np.zeros((levels, len(elements)))
    given = np.full_like(shifts, np.nan)
    for symbol, energy in (data.config.isolated_energies or {}).items():
        if symbol in symbols(elements):
            column = symbols(elements).index(symbol)
            given[0, column] = energy - float(potential.scale.reference_energies[column])
    for level in range(levels):
        some = sample(np.nonzero(numbers[dataset.rows] == level)[0], SHIFT_STRUCTURES)
        rest = np.array([_residual(potential, dataset[int(number)]) for number in some])
        used = counts[dataset.rows[some]]
        fitted = energy_shift(used, rest, given[level])
        shifts[level] = np.where(used.any(axis=0) | np.isfinite(given[level]), fitted, 0.0)
    return shifts


def _residual(potential: MessagePassing, batch: Batch) -> float:
    """DFT energy minus model energy of one structure, eV; NaN without a label."""
    graph = batch.graph
    energies = potential(graph.species, edges_of(graph))
    total = sum_by_structure(energies, graph.structure, 1)
    return float(batch.labels.energy[0] - total[0])


def _told(data: FitData, trained: Trained, shifts: Array) -> list[str]:
    """Messages about which weights were reused and which are new."""
    old = trained.card
    new = [z for z in data.elements if z not in old.elements]
    named = symbols(data.elements)
    present = set(data.statistics.elements)
    lines = [f"starts from {trained.path}"]
    for level, row in enumerate(shifts):
        parts = [
            f"{symbol} {shift:+.4g}"
            for symbol, z, shift in zip(named, data.elements, row, strict=True)
            if z in present
        ]
        where = f" of {data.theories[level]!r}" if data.theories else ""
        lines.append(f"reference energies{where} shifted by {', '.join(parts)} eV")
    if new:
        lines.append(f"new elements, with random weights: {', '.join(symbols(new))}")
    kept = [z for z in old.elements if z not in present]
    if kept:
        lines.append(
            f"{_list(kept)} not in the data: the model still supports them, with their old "
            "reference energies, but may forget what it learned about them (`data.replay` helps)"
        )
    return lines


def _list(elements: list[int]) -> str:
    """Names of elements that something is said of, or their number if there are many."""
    if len(elements) > MANY:
        return f"{len(elements)} elements are"
    return f"{', '.join(symbols(elements))} {'are' if len(elements) > 1 else 'is'}"
