"""What the model says about the test set, beside its labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tesseral.data.graph import Batch, atom_counts
from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.store.read import Store
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.deploy.modelfile import ModelCard
from tesseral.potentials.derivatives import Prediction, stress_from_virial
from tesseral.potentials.message_passing import MessagePassing
from tesseral.training.metrics import UPPER, ErrorSums
from tesseral.training.validation import predict_frozen, to_device

Floats = NDArray[np.float64]


class Predictions(NamedTuple):
    """G structures with N atoms; a missing label is NaN."""

    energy_label: Floats  # (G,)   eV/atom above the reference energies
    energy: Floats  # (G,)   the same of the model
    forces_label: Floats  # (N, 3) eV/Å
    forces: Floats  # (N, 3) eV/Å
    stress_label: Floats  # (G, 6) GPa
    stress: Floats  # (G, 6) GPa
    symbols: tuple[str, ...]  # (N,)
    structure: NDArray[np.int64]  # (N,)   row of the store
    n_atoms: NDArray[np.int64]  # (G,)
    types: tuple[str, ...]  # (G,)   config types
    errors: dict[str, Any]  # ErrorSums.summary

    @property
    def force_error(self) -> Floats:
        """Length of the force's error of each atom, (N,) eV/Å."""
        lengths: Floats = np.linalg.norm(self.forces - self.forces_label, axis=1)
        return lengths


def predict_store(
    potential: MessagePassing, card: ModelCard, store: Store, batch_edges: int = 20_000
) -> Predictions:
    """Run the model over a dataset.

    Raises:
        ValueError: the dataset has an element that the model does not know.
    """
    device = potential.embedding.device
    types = store.texts("config_type")
    names = sorted(set(types))
    sums = ErrorSums(card.elements, names, torch.tensor([names.index(kind) for kind in types]))
    parts: list[tuple[Floats, ...]] = []
    for batch in evaluation_loader(store, card.elements, potential.cutoff, batch_edges):
        batch = to_device(batch, device)
        prediction = predict_frozen(potential, batch)
        sums.add(batch, prediction)
        parts.append(_numbers(batch, prediction, card))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Predictions(
        energy_label=columns[0],
        energy=columns[1],
        forces_label=columns[2],
        forces=columns[3],
        stress_label=columns[4],
        stress=columns[5],
        symbols=tuple(card.symbols[i] for i in columns[6]),
        structure=columns[7],
        n_atoms=store.n_atoms,
        types=tuple(types),
        errors=sums.summary(),
    )


def _numbers(batch: Batch, prediction: Prediction, card: ModelCard) -> tuple[Any, ...]:
    """Labels and predictions of a batch in the order of ``Predictions``."""
    graph, labels = batch.graph, batch.labels
    n_atoms = atom_counts(graph)
    references = torch.tensor(card.reference_energies, dtype=torch.float64, device=n_atoms.device)
    zero = torch.zeros_like(labels.energy).index_add_(0, graph.structure, references[graph.species])
    stress = stress_from_virial(prediction.virial, graph.cell)
    upper = (slice(None), *UPPER)
    values = (
        (labels.energy - zero) / n_atoms,
        (prediction.energy - zero) / n_atoms,
        labels.forces,
        prediction.forces,
        labels.stress[upper] * EV_PER_A3_IN_GPA,
        stress[upper] * EV_PER_A3_IN_GPA,
        graph.species,
        batch.index[graph.structure],
    )
    return tuple(value.cpu().numpy() for value in values)
