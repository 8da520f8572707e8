"""What a training starts from: random weights, or those of a model that was trained before."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tesseral.data.graph import Batch, edges_of, join_batches
from tesseral.data.loading.statistics import sample, symbols
from tesseral.data.loading.theories import (
    element_counts,
    energy_shift,
    theory_numbers,
    theory_references,
)
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model, read_card
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.calibrate import calibrate
from tesseral.potentials.derivatives import sum_by_structure
from tesseral.potentials.message_passing import MessagePassing
from tesseral.training.batches import FitData
from tesseral.training.config import FitConfig

Array = NDArray[np.float64]

CALIBRATION_STRUCTURES = 32
CALIBRATION_EDGES = 20_000  # bounds the memory
SHIFT_STRUCTURES = 2_000  # whose energies decide the shift of E0


class Start(NamedTuple):
    """A potential before its training."""

    card: ModelCard  # for the level of theory that the model file is for
    potential: MessagePassing  # with all levels
    lines: list[str]  # what the user should know


def model_to_train(config: FitConfig) -> FitConfig:
    """The configuration with the architecture of the model to start from, if there is one.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is not a model file, or the configuration asks for another architecture.
    """
    if config.init_from is None:
        return config
    card = read_card(config.init_from)
    if config.model not in (FacetConfig(), card.config):
        raise ValueError(
            f"the model to start from, {config.init_from}, has an architecture and size of its own "
            "(train-potential info shows them); leave out the options model.…, or init_from"
        )
    return replace(config, model=card.config)


def known_elements(config: FitConfig) -> tuple[int, ...]:
    """Atomic numbers that the model knows before the training."""
    return () if config.init_from is None else read_card(config.init_from).elements


def start(config: FitConfig, data: FitData) -> Start:
    """The potential to train.

    Args:
        config: with the architecture in it; see ``model_to_train``.
        data: set up, with the elements of the model to start from.
    """
    if config.init_from is None:
        return _from_nothing(config, data)
    return _from_model(config, data)


def _from_nothing(config: FitConfig, data: FitData) -> Start:
    """Random weights, calibrated on a sample of the data."""
    statistics = data.statistics
    references = [list(statistics.reference_energies)]
    if data.theories:
        store, rows = data.train_dataset.store, data.train_dataset.rows
        found = theory_references(store, rows, data.theories, data.elements, statistics)
        references = found.tolist()
    binding = np.zeros(len(data.elements))
    if statistics.binding_energies:
        binding[[data.elements.index(z) for z in statistics.elements]] = statistics.binding_energies
    card = ModelCard(
        config=config.model,
        elements=data.elements,
        reference_energies=tuple(references[0]),
        binding_energies=tuple(binding.tolist()) if statistics.binding_energies else (),
        energy_scale=statistics.force_rms,
        mean_neighbors=max(statistics.mean_neighbors, 1.0),
        dtype=config.optimization.dtype,
    )
    potential = build_potential(card, config.trainer.ops, references[1:])
    structures: list[Batch] = []
    while len(structures) < min(CALIBRATION_STRUCTURES, len(data.train_dataset)):
        structures.append(data.train_dataset[len(structures)])
        if sum(len(batch.graph.senders) for batch in structures) > CALIBRATION_EDGES:
            break
    calibrate(potential, join_batches(structures).graph)
    return Start(card, potential, [])


def _from_model(config: FitConfig, data: FitData) -> Start:
    """The weights of a model; E0 shifted by what its energies differ from those of the data."""
    assert config.init_from is not None
    trained, old = load_model(config.init_from, dtype=config.optimization.dtype, ops="reference")
    references = np.zeros(len(data.elements))
    binding = np.zeros(len(data.elements))
    place = [data.elements.index(z) for z in old.elements]
    references[place] = old.reference_energies
    if old.binding_energies:
        binding[place] = old.binding_energies
    levels = max(1, len(data.theories))
    card = replace(
        old,
        elements=data.elements,
        reference_energies=tuple(references.tolist()),
        binding_energies=tuple(binding.tolist()) if old.binding_energies else (),
        dtype=config.optimization.dtype,
        training={},
        errors={},
    )
    others = [list(card.reference_energies)] * (levels - 1)
    potential = build_potential(card, config.trainer.ops, others)
    _take_weights(potential, trained.state_dict(), place)
    shifts = _shifts(potential, data, config)
    card = replace(card, reference_energies=tuple((references + shifts[0]).tolist()))
    with torch.no_grad():
        energies = torch.from_numpy((references + shifts).flatten())
        potential.scale.reference_energies.copy_(energies)
    return Start(card, potential, _told(config, data, old, shifts))


@torch.no_grad()
def _take_weights(potential: MessagePassing, weights: dict[str, Tensor], place: list[int]) -> None:
    """Copy weights; rows of elements go to their places, and those of new elements stay random.

    E0 is on the card.
    """
    for name, target in potential.state_dict().items():
        if name not in weights or name == "scale.reference_energies":
            continue
        value = weights[name]
        other = [k for k in range(value.ndim) if value.shape[k] != target.shape[k]]
        if other:  # the axis of the elements
            target.index_copy_(other[0], torch.tensor(place), value)
        else:
            target.copy_(value)


@torch.no_grad()
def _shifts(potential: MessagePassing, data: FitData, config: FitConfig) -> Array:
    """What to add to E0 at each level of theory, (T, n_elements) eV.

    Least squares of what the model's energies lack; elements whose isolated atoms are given get
    just those.
    """
    dataset, elements = data.train_dataset, data.elements
    levels = max(1, len(data.theories))
    numbers = np.zeros(len(dataset.store), dtype=np.int64)
    if data.theories:
        numbers = theory_numbers(dataset.store, data.theories)
    counts = element_counts(dataset.store, elements)
    shifts = np.zeros((levels, len(elements)))
    for level in range(levels):
        some = sample(np.nonzero(numbers[dataset.rows] == level)[0], SHIFT_STRUCTURES)
        rest = np.array([_residual(potential, dataset[int(number)]) for number in some])
        shifts[level] = energy_shift(counts[dataset.rows[some]], rest)
    given = config.data.isolated_energies or {}
    for symbol, energy in given.items():
        if symbol in symbols(elements):
            column = symbols(elements).index(symbol)
            shifts[:, column] = energy - float(potential.scale.reference_energies[column])
    return shifts


def _residual(potential: MessagePassing, batch: Batch) -> float:
    """Energy of one structure by DFT without that of the model, eV; NaN without a label."""
    graph = batch.graph
    energies = potential(graph.species, edges_of(graph))
    total = sum_by_structure(energies, graph.structure, 1)
    return float(batch.labels.energy[0] - total[0])


def _told(config: FitConfig, data: FitData, old: ModelCard, shifts: Array) -> list[str]:
    """What was taken over and what is new."""
    new = [z for z in data.elements if z not in old.elements]
    named = symbols(data.elements)
    trained = set(data.statistics.elements)
    lines = [f"starts from {config.init_from}"]
    for level, row in enumerate(shifts):
        parts = [
            f"{symbol} {shift:+.4g}"
            for symbol, z, shift in zip(named, data.elements, row, strict=True)
            if z in trained
        ]
        where = f" of {data.theories[level]!r}" if data.theories else ""
        lines.append(f"reference energies{where} shifted by {', '.join(parts)} eV")
    if new:
        lines.append(f"new elements, with random weights of their own: {', '.join(symbols(new))}")
    kept = [z for z in old.elements if z not in trained]
    if kept:
        lines.append(
            f"{', '.join(symbols(kept))} are not in the data: the model still takes them, but may "
            "forget what it knew of them (data.replay helps)"
        )
    return lines
