"""`train-potential evaluate`: how well a model reproduces a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tesseral.data.graph import Batch, atom_counts
from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.store.read import open_store
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.deploy.modelfile import load_model
from tesseral.files import write_json
from tesseral.potentials.derivatives import Prediction, stress_from_virial
from tesseral.training.metrics import UNITS, UPPER, ErrorSums
from tesseral.training.plots import plot_parity
from tesseral.training.validation import predict_frozen, to_device

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Compare a model with a dataset.

    Args:
        model: model file, ….safetensors, or universal.
        data: dataset file, ….h5.
        json: file to write the errors to.
        plots: folder to write parity plots to.
        dtype: float32 or float64; that of the model if not given.
        device: cpu, cuda, cuda:1 …; a GPU where there is one if not given.
        batch_edges: edges (neighbour pairs) that are computed at once; bounds the memory.
    """

    model: str
    data: str
    json: str | None = None
    plots: str | None = None
    dtype: str | None = None
    device: str | None = None
    batch_edges: int = 20_000


def evaluate(
    config: EvaluateConfig, show: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Errors of a model on a dataset; written as JSON and plots where asked for.

    Args:
        config: what to compare.
        show: told the number of structures done and of all.

    Returns:
        ``ErrorSums.summary`` with the names of model and data.

    Raises:
        FileNotFoundError: no such model or dataset.
        ValueError: files that cannot be read, or elements that the model does not know.
    """
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    potential, card = load_model(config.model, device=device, dtype=config.dtype)
    store = open_store(config.data)
    kinds = store.texts("config_type")
    names = sorted(set(kinds))
    sums = ErrorSums(card.elements, names, torch.tensor([names.index(kind) for kind in kinds]))
    pairs = _Pairs()
    done = 0
    for batch in evaluation_loader(store, card.elements, potential.cutoff, config.batch_edges):
        batch = to_device(batch, torch.device(device))
        prediction = predict_frozen(potential, batch)
        sums.add(batch, prediction)
        if config.plots is not None:
            pairs.add(batch, prediction)
        done += len(batch.index)
        if show is not None:
            show(done, len(store))
    errors = {
        "model": str(config.model),
        "data": str(config.data),
        "content_hash": store.content_hash,
        "units": UNITS,
        **sums.summary(),
    }
    if config.json is not None:
        Path(config.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(config.json, errors, indent=2)
    if config.plots is not None:
        pairs.plot(Path(config.plots))
    return errors


class _Pairs:
    """Labels and predictions for the parity plots."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[Array, Array]]] = {
            "energy": [],
            "forces": [],
            "stress": [],
        }

    def add(self, batch: Batch, prediction: Prediction) -> None:
        """Take in the labels of a batch that are known."""
        graph, labels = batch.graph, batch.labels
        n_atoms = atom_counts(graph)
        stress = stress_from_virial(prediction.virial, graph.cell)
        upper = (slice(None), UPPER[0], UPPER[1])
        for name, label, value in (
            ("energy", labels.energy / n_atoms, prediction.energy / n_atoms),
            ("forces", labels.forces, prediction.forces),
            ("stress", labels.stress[upper] * EV_PER_A3_IN_GPA, stress[upper] * EV_PER_A3_IN_GPA),
        ):
            known = torch.isfinite(label)
            self.parts[name].append((label[known].cpu().numpy(), value[known].cpu().numpy()))

    def plot(self, folder: Path) -> None:
        """Write energy.png, forces.png and stress.png, as far as there are labels."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text, unit, factor in (
            ("energy", "energy", "eV/atom", 1e3),
            ("forces", "force component", "eV/Å", 1e3),
            ("stress", "stress component", "GPa", 1.0),
        ):
            label, value = (np.concatenate(side) for side in zip(*self.parts[name], strict=True))
            if len(label) > 0 and np.isfinite(value).all():
                plot_parity(
                    label, value, folder / f"{name}.png", name=text, unit=unit, factor=factor
                )
