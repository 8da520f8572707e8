"""Comparison of a potential with a dataset: predictions, errors, parity plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tesseral.data.graph import Batch
from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.store.read import Store, open_store
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.deploy.modelfile import load_model
from tesseral.files import check_writable, make_folder, write_json
from tesseral.potentials.derivatives import Prediction, stress_from_virial
from tesseral.potentials.message_passing import MessagePassing
from tesseral.training.metrics import UNITS, UPPER, ErrorSums
from tesseral.training.plots import plot_parity
from tesseral.training.validation import predictions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Compare a model with a dataset.

    Args:
        model: model file (.safetensors), or universal.
        data: dataset file (.h5).
        json: file to write the errors to.
        plots: folder to write parity plots to.
        dtype: float32 or float64. Default: that of the model.
        device: cpu, cuda, cuda:1, …. Default: a GPU if available.
        batch_edges: number of edges (neighbour pairs) computed at once; limits the memory.
    """

    model: str
    data: str
    json: str | None = None
    plots: str | None = None
    dtype: str | None = None
    device: str | None = None
    batch_edges: int = 20_000

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.batch_edges < 1:
            raise ValueError(f"`batch_edges` is {self.batch_edges}; it must be 1 or more")


class Predictions(NamedTuple):
    """Labels and predictions of a dataset of G structures with N atoms; a missing label is NaN.

    The arrays are empty if they were not kept, see ``evaluate``.
    """

    errors: dict[str, Any]  # MAE and RMSE, see ErrorSums.summary
    energy_label: Floats  # (G,)   eV
    energy: Floats  # (G,)   eV
    forces_label: Floats  # (N, 3) eV/Å
    forces: Floats  # (N, 3) eV/Å
    stress_label: Floats  # (G, 6) GPa, xx xy xz yy yz zz, positive under tension
    stress: Floats  # (G, 6) GPa; NaN without a cell
    numbers: Integers  # (N,)   atomic numbers
    structure: Integers  # (N,)   row of the dataset
    n_atoms: Integers  # (G,)
    config_types: tuple[str, ...]  # (G,)

    @property
    def force_error(self) -> Floats:
        """Length of the force error of each atom, (N,) eV/Å."""
        lengths: Floats = np.linalg.norm(self.forces - self.forces_label, axis=1)
        return lengths


def evaluate(
    potential: MessagePassing,
    store: Store,
    elements: Sequence[int],
    *,
    keep: bool = True,
    batch_edges: int = 20_000,
    show: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Compare a potential with all structures of a dataset.

    Args:
        potential: as ``load_model`` returns it, on any device.
        store: the dataset, as ``open_store`` returns it.
        elements: atomic numbers supported by the potential, in the order of its species
            (``elements`` of the model card).
        keep: whether to keep the labels and predictions, about 120 bytes per atom. Without them
            ``batch_edges`` limits the memory, however large the dataset is.
        batch_edges: number of edges (neighbour pairs) computed at once.
        show: callback after each batch, with the number of completed structures and the total.

    Returns:
        The errors, and the values if they are kept, in the order of the dataset.

    Raises:
        ValueError: the dataset has an element that the potential does not support.
    """
    device = potential.embedding.device
    elements = tuple(elements)
    types = store.texts("config_type")
    names = sorted(set(types))
    sums = ErrorSums(elements, names, torch.tensor([names.index(kind) for kind in types]))
    parts = [_EMPTY]
    done = 0
    batches = evaluation_loader(store, elements, potential.cutoff, batch_edges)
    for batch, prediction in predictions(potential, batches, device):
        sums.add(batch, prediction)
        if keep:
            parts.append(_values(batch, prediction))
        done += len(batch.index)
        if show is not None:
            show(done, len(store))
    columns = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return Predictions(
        errors=sums.summary(),
        energy_label=columns[0],
        energy=columns[1],
        forces_label=columns[2],
        forces=columns[3],
        stress_label=columns[4],
        stress=columns[5],
        numbers=np.array(elements, dtype=np.int64)[columns[6]],
        structure=columns[7],
        n_atoms=store.n_atoms,
        config_types=tuple(types),
    )


_EMPTY: tuple[NDArray[Any], ...] = (  # in the order of `_values`
    *(np.empty(0), np.empty(0)),
    *(np.empty((0, 3)), np.empty((0, 3))),
    *(np.empty((0, 6)), np.empty((0, 6))),
    *(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)),
)


def _values(batch: Batch, prediction: Prediction) -> tuple[NDArray[Any], ...]:
    """Labels and predictions of a batch in the order of ``Predictions``, species, rows."""
    graph, labels = batch.graph, batch.labels
    stress = stress_from_virial(prediction.virial, graph.cell)
    upper = (slice(None), *UPPER)
    values = (
        labels.energy,
        prediction.energy,
        labels.forces,
        prediction.forces,
        labels.stress[upper] * EV_PER_A3_IN_GPA,
        stress[upper] * EV_PER_A3_IN_GPA,
        graph.species,
        batch.index[graph.structure],
    )
    return tuple(value.cpu().numpy() for value in values)


def evaluate_file(
    config: EvaluateConfig, show: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Errors of a model file on a dataset file; also written as JSON and plots on request.

    Args:
        config: options of the comparison.
        show: callback after each batch, with the number of completed structures and the total.

    Returns:
        ``ErrorSums.summary`` with the names of model and data.

    Raises:
        FileNotFoundError: the model or dataset does not exist.
        ValueError: a file cannot be read, or the model does not support an element of the data.
    """
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    potential, card = load_model(config.model, device=device, dtype=config.dtype)
    store = open_store(config.data)
    for output in (config.json, config.plots):
        if output is not None:
            check_writable(output)
    found = evaluate(
        potential,
        store,
        card.elements,
        keep=config.plots is not None,
        batch_edges=config.batch_edges,
        show=show,
    )
    errors = {
        "model": str(config.model),
        "data": str(config.data),
        "content_hash": store.content_hash,
        "units": UNITS,
        **found.errors,
    }
    if config.json is not None:
        make_folder(Path(config.json).parent)
        write_json(config.json, errors, indent=2)
    if config.plots is not None:
        plot_predictions(found, Path(config.plots))
    return errors


def plot_predictions(found: Predictions, folder: Path) -> None:
    """Write energy.png, forces.png and stress.png to a folder, for the labels that exist."""
    make_folder(folder)
    n_atoms = found.n_atoms
    for name, label, value, text, unit, factor in (
        ("energy", found.energy_label / n_atoms, found.energy / n_atoms, "energy", "eV/atom", 1e3),
        ("forces", found.forces_label, found.forces, "force component", "eV/Å", 1e3),
        ("stress", found.stress_label, found.stress, "stress component", "GPa", 1.0),
    ):
        known = np.isfinite(label)
        if known.any() and np.isfinite(value[known]).all():
            path = folder / f"{name}.png"
            plot_parity(label[known], value[known], path, name=text, unit=unit, factor=factor)
