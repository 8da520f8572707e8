"""Comparison of a potential with a dataset: predictions, errors, parity plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from tesseral.data.graph import Batch, edge_vectors
from tesseral.data.imports.importer import open_dataset
from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.loading.statistics import fit_energies
from tesseral.data.store.read import Store
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.deploy.closest import Approach, KnownPairs, known_pairs
from tesseral.deploy.modelfile import load_model
from tesseral.files import check_writable, make_folder, write_json
from tesseral.potentials.derivatives import Prediction, stress_from_virial, sum_by_structure
from tesseral.potentials.message_passing import MessagePassing
from tesseral.training.evaluate_config import EvaluateConfig
from tesseral.training.metrics import UNITS, UPPER, ErrorSums
from tesseral.training.plots import plot_parity, plot_uncertainty
from tesseral.training.uncertainty import (
    calibration_errors,
    energy_calibration_errors,
    roc_area,
)
from tesseral.training.validation import predictions

CHECKED = 1_000_000  # atoms, the first ones, whose expected errors are compared with the true ones
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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
    uncertainty: Floats  # (N,)   eV/Å, expected lengths of the force errors; NaN if unknown
    energy_uncertainty: Floats  # (G,)   eV, expected errors of the energies; NaN if unknown

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
    shift_energies: bool = False,
    known: Mapping[str, Any] | None = None,
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
        shift_energies: subtract the fitted difference of the zeros of energy of potential and
            dataset, see `energy_shifts`, from the predictions.
        known: ``uncertainty`` of the model card, for the bound of energies and the closest pairs of
            elements in the training set.
        show: callback after each batch, with the number of completed structures and the total.

    Returns:
        The errors, and the values if they are kept, in the order of the dataset. If the potential
        knows its uncertainty, the errors also have ``uncertainty``: that of forces (see
        `calibration_errors`), ``energy`` (see `energy_calibration_errors`), and ``closer``, the
        pairs of elements that are closer than in its training set, in words. Unless there are too
        few structures to fit them, they have ``energy_shifts`` (eV by symbol), and
        ``shifted_energy_per_atom``, the errors of energies with these shifts.

    Raises:
        ValueError: the dataset has an element that the potential does not support, or too few
            structures to fit shifts.
    """
    device = potential.embedding.device
    checked: list[tuple[NDArray[Any], ...]] = []
    elements, known = tuple(elements), known or {}
    pairs, closer = known_pairs(known, elements, potential.cutoff), list[Approach]()
    types = store.texts("config_type")
    names = sorted(set(types))
    sums = ErrorSums(elements, names, torch.tensor([names.index(kind) for kind in types]))
    parts = [_EMPTY]
    differences = np.full(len(store), np.nan)  # eV, prediction minus label
    expected_energies = np.full(len(store), np.nan)  # eV, their expected sizes
    done = 0
    batches = evaluation_loader(store, elements, potential.cutoff, batch_edges)
    for batch, prediction in predictions(potential, batches, device):
        sums.add(batch, prediction)
        rows = batch.index.cpu().numpy()
        differences[rows] = (prediction.energy - batch.labels.energy).cpu().numpy()
        if prediction.uncertainty is not None:
            expected_energies[rows] = _energy_uncertainty(potential, batch, prediction)
            if sum(len(part[0]) for part in checked) < CHECKED:
                checked.append(_force_errors(batch, prediction))
        if pairs is not None:
            closer += _closer(pairs, batch)
        if keep:
            parts.append(_values(batch, prediction))
        done += len(batch.index)
        if show is not None:
            show(done, len(store))
    columns = [np.concatenate(part) for part in zip(*parts, strict=True)]
    calibration = None
    if checked and potential.uncertainty is not None:
        expected, true, owners = (np.concatenate(part) for part in zip(*checked, strict=True))
        bound = potential.uncertainty.calibration.bound
        calibration = calibration_errors(expected, true, owners, bound)
        if pairs is not None:
            calibration["closer"] = pairs.words(closer, "in structure")
    counts, n_atoms = store.compositions(), store.n_atoms
    shifts = energy_shifts(counts, differences)
    if shifts is None:
        if shift_energies:
            raise ValueError(
                f"`shift_energies` fits a constant to each of {len(store.elements)} elements; "
                f"{np.isfinite(differences).sum()} structures with energies are too few for it"
            )
        errors = sums.summary()
    else:
        moved = torch.from_numpy((differences - counts @ shifts) / n_atoms)
        shifted = ErrorSums.of_energies(moved, names, sums.type_of_row)
        if shift_energies:
            sums.replace_energies(shifted)
            if keep:
                columns[1] = columns[1] - counts @ shifts
            differences = differences - counts @ shifts
        errors = sums.summary()
        errors["shifted_energy_per_atom"] = shifted.summary()["energy_per_atom"]
        errors["energy_shifts"] = {
            chemical_symbols[z]: float(shift)
            for z, shift in zip(store.elements, shifts, strict=True)
        }
    if calibration is not None:
        calibration["energy"] = energy_calibration_errors(
            expected_energies, np.abs(differences), n_atoms, known.get("energy_bound")
        )
        errors["uncertainty"] = calibration
    return Predictions(
        errors=errors,
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
        uncertainty=columns[8],
        energy_uncertainty=expected_energies if keep else np.empty(0),
    )


def energy_shifts(counts: Integers, differences: Floats) -> Floats | None:
    """Constants per element that explain most of the differences of energies, (n_elements,) eV.

    Args:
        counts: (G, n_elements) atoms of each element in each structure.
        differences: (G,) eV, prediction minus label; NaN where there is no label.

    Returns:
        The least-squares fit, or None for fewer than twice as many structures as elements.
    """
    known = np.isfinite(differences)
    if known.sum() < 2 * counts.shape[1]:
        return None
    n_atoms = counts[known].sum(axis=1)
    return fit_energies(counts[known] / n_atoms[:, None], differences[known] / n_atoms)


def _energy_uncertainty(
    potential: MessagePassing, batch: Batch, prediction: Prediction
) -> NDArray[Any]:
    """Expected errors of the energies of a batch, (G,) eV."""
    assert potential.uncertainty is not None and prediction.uncertainty is not None
    structure, count = batch.graph.structure.to(prediction.uncertainty.device), len(batch.index)
    found = potential.uncertainty.energy(prediction.uncertainty, structure, count)
    return found.detach().cpu().numpy()


def _closer(pairs: KnownPairs, batch: Batch) -> list[Approach]:
    """Pairs of elements in a batch that are closer than in the training set."""
    graph = batch.graph
    lengths = edge_vectors(graph).norm(dim=1)
    kinds = graph.species[graph.senders], graph.species[graph.receivers]
    rows = batch.index[graph.structure[graph.receivers]]
    return pairs.closer(*(part.cpu().numpy() for part in (*kinds, lengths, rows)))


def _force_errors(batch: Batch, prediction: Prediction) -> tuple[NDArray[Any], ...]:
    """Expected and true lengths of the force errors of a batch, float32, and rows."""
    true = (prediction.forces - batch.labels.forces).norm(dim=1)
    values = _uncertainty(prediction).float(), true.float(), batch.index[batch.graph.structure]
    return tuple(value.cpu().numpy() for value in values)


_EMPTY: tuple[NDArray[Any], ...] = (  # in the order of `_values`
    *(np.empty(0), np.empty(0)),
    *(np.empty((0, 3)), np.empty((0, 3))),
    *(np.empty((0, 6)), np.empty((0, 6))),
    *(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)),
    np.empty(0),
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
        _uncertainty(prediction),
    )
    return tuple(value.cpu().numpy() for value in values)


def _uncertainty(prediction: Prediction) -> Tensor:
    """Expected lengths of the force errors, NaN if unknown."""
    if prediction.uncertainty is None:
        return torch.full_like(prediction.atomic_energies, torch.nan)
    return prediction.uncertainty


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
    potential, card = load_model(
        config.model, device=device, dtype=config.dtype, level=config.level
    )
    if config.outside is not None and potential.uncertainty is None:
        raise ValueError(
            f"{config.model} does not know its uncertainty, which `outside` needs; add it with "
            "train-potential calibrate"
        )
    for output in (config.json, config.plots):
        if output is not None:
            check_writable(output)
    with TemporaryDirectory() as folder:
        store = open_dataset(config.data, Path(folder))
        try:
            found = evaluate(
                potential,
                store,
                card.elements,
                keep=config.plots is not None,
                batch_edges=config.batch_edges,
                shift_energies=config.shift_energies,
                known=card.uncertainty,
                show=show,
            )
        except ValueError as error:  # it may name the temporary dataset
            raise ValueError(str(error).replace(str(store.path), str(config.data))) from None
        if config.outside is not None:
            apart = Path(folder, "outside")  # both files may have the same name
            apart.mkdir()
            other = open_dataset(config.outside, apart)
            areas = [
                expected_errors(potential, each, card.elements, config.batch_edges)
                for each in (store, other)
            ]
            outside = {"outside": str(config.outside), "roc_area": roc_area(*areas)}
            found.errors.setdefault("uncertainty", {}).update(outside)
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


def expected_errors(
    potential: MessagePassing, store: Store, elements: Sequence[int], batch_edges: int
) -> Floats:
    """Mean expected force error of each structure of a dataset, (G,) eV/Å."""
    means = np.zeros(len(store))
    batches = evaluation_loader(store, tuple(elements), potential.cutoff, batch_edges)
    for batch, prediction in predictions(potential, batches, potential.embedding.device):
        rows, count = batch.index.cpu().numpy(), len(batch.index)
        sums = sum_by_structure(_uncertainty(prediction), batch.graph.structure, count)
        means[rows] = sums.cpu().numpy() / store.n_atoms[rows]
    return means


def plot_predictions(found: Predictions, folder: Path) -> None:
    """Write energy.png, forces.png and stress.png to a folder, for the labels that exist."""
    make_folder(folder)
    n_atoms = found.n_atoms
    if np.isfinite(found.uncertainty).any() and np.isfinite(found.force_error).any():
        plot_uncertainty(found.uncertainty, found.force_error, folder / "uncertainty.png")
    for name, label, value, text, unit, factor in (
        ("energy", found.energy_label / n_atoms, found.energy / n_atoms, "energy", "eV/atom", 1e3),
        ("forces", found.forces_label, found.forces, "force component", "eV/Å", 1e3),
        ("stress", found.stress_label, found.stress, "stress component", "GPa", 1.0),
    ):
        known = np.isfinite(label)
        if known.any() and np.isfinite(value[known]).all():
            path = folder / f"{name}.png"
            plot_parity(label[known], value[known], path, name=text, unit=unit, factor=factor)
