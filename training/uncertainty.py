"""Uncertainty of a trained potential: distances to its training set, calibrated on other data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import halfnorm, maxwell, rankdata, spearmanr
from scipy.stats import t as student
from torch import Tensor

from tesseral.data.graph import edges_of
from tesseral.data.loading.datasets import EvaluationLoader, GraphDataset, check_elements
from tesseral.data.loading.splits import split_store
from tesseral.data.loading.statistics import closest_distances, sample
from tesseral.data.store.read import open_store
from tesseral.deploy.card import CLOSEST
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model, read_card, save_model
from tesseral.files import check_writable
from tesseral.potentials.blocks.short_range import flat_pairs
from tesseral.potentials.blocks.uncertainty import Calibration, Uncertainty
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.training.evaluate_config import CalibrateConfig

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_ATOMS = 30_000  # whose features are kept; a random part of a larger set
MIN_ATOMS = 10  # with forces that calibrate
BATCH_EDGES = 20_000
RIDGE = 1e-5  # of the mean variance of the features, added to all; less is noise of training
LANDMARKS = 128  # of each element
ALL_LANDMARKS = 1024  # at most
CLUSTER = 8  # atoms for a landmark, at least
OWN = 0.5  # weight of the squared errors near a landmark, compared with squared distances to it
ROUNDS = 10  # of k-means
BINS = 12  # of validation atoms, by distance
EXPONENTS = 0.5, 4.0  # allowed
COVERAGE = 0.9
KNOWN = 0.995  # part of the training atoms, by distance, that counts as known; others may be odd
MARGIN = 2.5  # a simulation stops at this many times the largest expected error of known atoms,
LIMIT = 1.0  # eV/Å, or at this one, if none of them reaches it
MEAN_BY_MEDIAN = 1.18  # of the lengths of a normal distribution
FAR = 100.0  # times the reach, the distance of an element that the training set does not have


def calibrate_file(
    config: CalibrateConfig, show: Callable[[int, int], None] = lambda done, total: None
) -> ModelCard:
    """Write a copy of a model that knows its uncertainty; returns its card.

    Args:
        config: files and options.
        show: callback with the number of completed structures and their total.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be used, or there are too few forces to calibrate with.
    """
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    potential, card = load_model(config.model, device=device)
    check_writable(config.output)
    store = open_store(config.data)
    if config.validation is None:
        fraction, seed = config.validation_fraction, config.seed
        split = split_store(store, method="auto", fraction=fraction, seed=seed)
        parts = [(store, split.train), (store, split.validation)]
    else:
        other = open_store(config.validation)
        parts = [(store, np.arange(len(store))), (other, np.arange(len(other)))]
    for each, _ in parts:
        check_elements(each, card.elements)
    train, validation = (
        GraphDataset(each, rows, card.elements, potential.cutoff) for each, rows in parts
    )
    potential, card = with_uncertainty(potential, card, train, validation, show)
    save_model(config.output, potential, card, other_levels(config.model))
    return card


def other_levels(path: str | Path) -> list[tuple[MessagePassing, ModelCard]]:
    """The potentials of the further levels of theory of a model file, which stay without it."""
    return [load_model(path, level=level) for level in read_card(path).other_levels]


PLAIN = Calibration(1.0, 1.0, 1.0, 1.0, 1.0)


class Errors(NamedTuple):
    """Distances and errors of the N atoms of G validation structures; a missing error is NaN."""

    distances: Floats  # (N,)
    forces: Floats  # (N,) eV/Å, lengths of the force errors
    energy: Floats  # (G,) eV, absolute errors
    structure: Integers  # (N,) from 0


class HeldOut(NamedTuple):
    """A potential, its training structures, and others."""

    potential: MessagePassing
    train: GraphDataset
    validation: GraphDataset


class Evaluated(NamedTuple):
    """Features and errors of the N atoms of G structures; a missing error is NaN."""

    features: Tensor  # (N, D)
    species: Tensor  # (N,)
    bonded: Tensor  # (N,) whether an atom has neighbours
    forces: Tensor  # (N,) eV/Å, lengths of the force errors
    energy: Tensor  # (G,) eV, absolute errors
    structure: Tensor  # (N,) from 0


def with_uncertainty(
    potential: MessagePassing,
    card: ModelCard,
    train: GraphDataset,
    validation: GraphDataset | Errors,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[MessagePassing, ModelCard]:
    """A potential with its uncertainty, and its card with the calibration.

    Args:
        potential: trained potential with one level of theory, on any device.
        card: its card.
        train: structures that it was trained on.
        validation: structures that it was not trained on, with forces; or `errors_of_folds`.
        show: callback with the number of completed structures and their total.

    Raises:
        ValueError: there are too few forces to calibrate with.
    """
    known = bounded(train)
    total = len(known) + (0 if isinstance(validation, Errors) else len(bounded(validation)))
    potential = potential.eval()
    near = evaluated(potential, known, lambda done: show(done, total))
    uncertainty = metric(near.features, near.species, near.forces, len(card.elements))
    # Isolated atoms are as far from all others as a simulation never should be.
    distances = uncertainty.distances(near.features[near.bonded], near.species[near.bonded])
    furthest = float(np.quantile(distances, KNOWN)) if len(distances) else 1.0
    if not isinstance(validation, Errors):
        held_out = bounded(validation)
        new = evaluated(potential, held_out, lambda done: show(len(known) + done, total))
        validation = _errors(uncertainty, new)
    values = calibrated(validation, furthest)
    landmarks = uncertainty.calibration.landmarks
    missing = torch.bincount(near.species, minlength=len(card.elements)) == 0
    away = FAR * max(values["reach"], 1.0)
    uncertainty.center[missing.repeat_interleave(landmarks), 0] += away
    closest = closest_pairs(train, card.config.cutoff)
    card = replace(card, uncertainty={**values, "landmarks": landmarks, CLOSEST: closest})
    made = build_potential(card)
    weights = {k: v for k, v in potential.state_dict().items() if not k.startswith("uncertainty.")}
    own = {f"uncertainty.{name}": value for name, value in uncertainty.state_dict().items()}
    made.load_state_dict({**weights, **own})
    return made.to(potential.embedding.device).eval(), card


def errors_of_folds(folds: Iterable[HeldOut]) -> Errors:
    """Distances and errors of structures that several potentials were not trained on, together.

    Each distance is one to the training set of the potential that made the error. All distances
    have the unit of the mean of a training set, so that they are those of the same potential
    trained on all structures, as far as one left-out part matters.
    """
    parts, done = [], 0
    for fold in folds:
        potential = fold.potential.eval()
        near, new = (
            evaluated(potential, bounded(each), lambda done: None)
            for each in (fold.train, fold.validation)
        )
        uncertainty = metric(near.features, near.species, near.forces, len(fold.train.elements))
        found = _errors(uncertainty, new)
        parts.append(found._replace(structure=found.structure + done))
        done += len(found.energy)
    return Errors(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _errors(uncertainty: Uncertainty, new: Evaluated) -> Errors:
    """Distances of atoms to a training set, and their errors."""
    distances = uncertainty.distances(new.features, new.species)
    return Errors(*(part.numpy() for part in (distances, new.forces, new.energy, new.structure)))


def closest_pairs(dataset: GraphDataset, cutoff: float) -> list[float]:
    """Smallest distance (Å) of each pair of elements, as `CLOSEST` on the card."""
    found = closest_distances(dataset.store, dataset.rows, dataset.elements, cutoff)
    return list(flat_pairs(torch.from_numpy(np.where(np.isfinite(found), found, 0.0))))


def bounded(dataset: GraphDataset) -> GraphDataset:
    """A random part of a dataset that has about ``MAX_ATOMS`` atoms at most."""
    atoms = dataset.store.n_atoms[dataset.rows]
    structures = max(1, int(MAX_ATOMS / max(1.0, float(atoms.mean()))))
    if len(dataset) <= structures:
        return dataset
    rows = sample(dataset.rows, structures)
    return GraphDataset(dataset.store, rows, dataset.elements, dataset.cutoff)


def metric(features: Tensor, species: Tensor, errors: Tensor, n_species: int) -> Uncertainty:
    """Distances to a training set, without a calibration.

    The first direction is not one of the features. All atoms are at 0 there, and each landmark is
    away from it in proportion to the error of the training atoms near it, so that the distance is
    larger where the model errs more.

    Args:
        features: (N, D) of atoms of the training set.
        species: (N,) their elements.
        errors: (N,) lengths of their force errors; NaN without a label.
        n_species: number of elements. Those without atoms have the mean of all as a landmark.
    """
    features = features.double()
    count = torch.bincount(species, minlength=n_species).double().unsqueeze(1)
    sums = torch.zeros(n_species, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, species, features)
    mean = torch.where(count > 0, sums / count.clamp(min=1), features.mean(dim=0))
    rest = features - mean[species]
    variances, directions = torch.linalg.eigh(rest.T @ rest / len(rest))
    ridge = RIDGE * float(variances.mean()) + 1e-30
    factor = directions / (variances.clamp(min=0) + ridge).sqrt()
    landmarks = max(1, min(LANDMARKS, ALL_LANDMARKS // n_species))
    made = Uncertainty(n_species, features.shape[1], PLAIN._replace(landmarks=landmarks))
    factor = factor[:, -made.factor.shape[1] :]
    factor[:, 0] = 0  # the direction of least variance makes room
    center = (mean @ factor).repeat_interleave(landmarks, dim=0)
    squares = errors.double().square()
    squares = squares / squares.nanmean().clamp(min=1e-30)
    spread = torch.zeros(len(features), dtype=torch.float64)
    for kind in sorted(set(species.tolist())):
        mine = species == kind
        places = features[mine] @ factor
        points = clusters(places, landmarks)
        nearest = torch.cdist(places, points).min(dim=1)
        spread[mine] = nearest.values.square()
        points[:, 0] = _means(squares[mine], nearest.indices, len(points)).sqrt()
        repeated = torch.arange(landmarks) % len(points)
        center[kind * landmarks : (kind + 1) * landmarks] = points[repeated]
    center[:, 0] *= (OWN * spread.mean()).sqrt()
    made.factor.copy_(factor)
    made.center.copy_(center)
    scale = made.distances(features, species).square().mean().sqrt().clamp(min=1e-30)
    made.factor.div_(scale)
    made.center.div_(scale)
    return made


def _means(values: Tensor, group: Tensor, number: int) -> Tensor:
    """Means (number,) of the known values of groups, as if ``CLUSTER`` more had the mean of all."""
    known = values.isfinite()
    overall = values[known].mean() if known.any() else values.new_ones(())
    count = torch.bincount(group[known], minlength=number)
    sums = values.new_zeros(number).index_add_(0, group[known], values[known])
    return (sums + CLUSTER * overall) / (count + CLUSTER)


def clusters(places: Tensor, number: int) -> Tensor:
    """Centres (M, K) of groups of at least about ``CLUSTER`` of the points (N, K), by k-means.

    They are at most ``number``, and fewer for few points.
    """
    shuffled = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    different = max(1, min(number, len(places) // CLUSTER))
    centers = places[shuffled[:different]].clone()
    for _ in range(ROUNDS):
        nearest = torch.cdist(places, centers).argmin(dim=1)
        count = torch.bincount(nearest, minlength=different).unsqueeze(1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, places)
        centers = torch.where(count > 0, sums / count.clamp(min=1), centers)
    return centers


def calibrated(errors: Errors, furthest: float) -> dict[str, Any]:
    """Calibration, the factors of bounds, and the limit of simulations, for the model card.

    The expected error follows a power of the distance, fitted to the errors of groups of atoms at
    similar distances. A bound is larger by a factor such that the stated part of the validation set
    is below it (split conformal prediction). Simulations stop at ``MARGIN`` times the largest
    expected error of a known atom, but at ``LIMIT`` if that is less and known atoms are below it.

    Args:
        errors: of the validation set.
        furthest: largest distance of an atom that is known. Some of the validation set are further
            away, because nothing like them is in the training set.

    Raises:
        ValueError: there are too few forces.
    """
    known = np.isfinite(errors.forces) & (errors.distances > 0)
    distances, forces = errors.distances[known], errors.forces[known]
    if len(forces) < MIN_ATOMS:
        raise ValueError(
            f"the validation set has forces of {len(forces)} atoms; {MIN_ATOMS} are needed to "
            "calibrate the uncertainty"
        )
    reach = float(errors.distances.max())
    exponent = _exponent(distances, forces)
    scale = float(forces.mean() / (distances**exponent).mean())
    expected = scale * errors.distances**exponent
    bound = conformal(forces / expected[known])
    edge = scale * min(furthest, reach) ** exponent * max(1.0, furthest / reach)
    count = len(errors.energy)
    found = Calibration(scale, exponent, reach, 1.0, bound, size=len(errors.structure) / count)
    tensors = torch.from_numpy(expected), torch.from_numpy(errors.structure)
    labelled = np.isfinite(errors.energy)
    sums = Uncertainty(1, 1, found).energy(*tensors, count).numpy()[labelled]
    energies = errors.energy[labelled]
    energy = 1.0
    if len(energies):  # a mean by the median, which single structures do not move
        energy = max(MEAN_BY_MEDIAN * float(np.median(energies / sums)), 1e-12)
    return {
        **found._replace(energy=energy)._asdict(),
        "coverage": COVERAGE,
        "energy_bound": energy_bound(energies / (energy * sums)) if len(energies) else None,
        "stop": max(edge, min(MARGIN * edge, LIMIT)),
        "atoms": len(forces),
        "structures": len(energies),
    }


def calibration_errors(
    expected: Floats, true: Floats, structure: Integers, bound: float
) -> dict[str, Any]:
    """Expected force errors compared with true ones.

    Args:
        expected: (N,) expected lengths of the errors.
        true: (N,) true lengths, in the same unit; NaN without a label.
        structure: (N,) row of the structure of each atom.
        bound: factor of `Calibration`.

    Returns:
        ``ratio`` of the mean true and expected errors; ``rank_correlation`` (Spearman) of atoms and
        ``rank_correlation_structures`` of the means of structures; ``coverage``, the part of the
        errors below ``bound`` times the expected one; ``miscalibration_area``, between the coverage
        of all bounds of a Maxwell distribution and a perfect one, 0 to 0.5. Only the number of
        ``atoms`` if there are no labels.
    """
    known = np.isfinite(true) & (expected > 0)
    expected, true, structure = expected[known], true[known], structure[known]
    if len(true) < 2:
        return {"atoms": len(true)}
    _, row = np.unique(structure, return_inverse=True)
    sizes = np.bincount(row)
    means = [np.bincount(row, values) / sizes for values in (expected, true)]
    found = {"atoms": len(true), **_compared(expected, true, bound, maxwell)}
    return found | {"rank_correlation_structures": _rank_correlation(*means)}


def energy_calibration_errors(
    expected: Floats, true: Floats, n_atoms: Integers, bound: float | None
) -> dict[str, Any]:
    """Expected errors of the energies of structures compared with true ones.

    Args:
        expected: (G,) eV, expected errors.
        true: (G,) eV, absolute errors; NaN without a label.
        n_atoms: (G,) sizes of the structures.
        bound: factor for the stated coverage; None if it is not known.

    Returns:
        The numbers of `calibration_errors` for ``structures``, with a normal distribution; ranks
        are those of errors per atom. Only the number of structures if there are too few labels.
    """
    known = np.isfinite(true) & (expected > 0)
    expected, true = (values[known] / n_atoms[known] for values in (expected, true))
    if len(true) < 2:
        return {"structures": len(true)}
    found = {"structures": len(true), **_compared(expected, true, bound or np.nan, halfnorm)}
    return found if bound else found | {"coverage": None}


def coverages(expected: Floats, true: Floats, distribution: Any) -> tuple[Floats, Floats]:
    """Parts of the errors that a distribution expects below its bounds, and those that are there.

    Args:
        expected: (n,) mean errors that are expected, above 0.
        true: (n,) errors.
        distribution: of ``scipy.stats``: ``maxwell`` for lengths of vectors, ``halfnorm`` for
            absolute values.
    """
    levels = np.linspace(0.01, 0.99, 99)
    bounds = distribution.ppf(levels) / distribution.mean()
    return levels, np.searchsorted(np.sort(true / expected), bounds) / len(true)


def _compared(expected: Floats, true: Floats, bound: float, distribution: Any) -> dict[str, Any]:
    """Numbers of a comparison that forces and energies have in common."""
    levels, covered = coverages(expected, true, distribution)
    return {
        "ratio": float(true.mean() / expected.mean()),
        "rank_correlation": _rank_correlation(expected, true),
        "coverage": float((true < expected * bound).mean()),
        "miscalibration_area": float(np.abs(covered - levels).mean()),
    }


def roc_area(inside: Floats, outside: Floats) -> float:
    """Probability that a value outside is larger than one inside: the area under the ROC curve."""
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    count = len(outside)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(inside)))


def _rank_correlation(one: Floats, other: Floats) -> float | None:
    """Spearman's coefficient; None if it is not defined."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def conformal(ratios: Floats, coverage: float = COVERAGE) -> float:
    """Factor below which a new ratio of error and expected error lies with this probability."""
    rank = math.ceil((len(ratios) + 1) * coverage)
    return float(np.sort(ratios)[min(rank, len(ratios)) - 1])


def energy_bound(ratios: Floats, coverage: float = COVERAGE) -> float:
    """The same for energies, of which there may be too few for that coverage.

    It is then at least that of a normal distribution whose width these few determine (Student's t).
    """
    found = conformal(ratios, coverage)
    if math.ceil((len(ratios) + 1) * coverage) <= len(ratios):
        return found
    quantile = student.ppf((1 + coverage) / 2, len(ratios))
    return max(found, float(quantile * np.sqrt(np.square(ratios).mean())))


def _exponent(distances: Floats, errors: Floats) -> float:
    """Slope of the logarithm of the mean error over that of the distance, within limits."""
    order = np.argsort(distances)
    groups = np.array_split(order, min(BINS, len(order) // 10 or 1))
    x = np.log([distances[group].mean() for group in groups])
    y = np.log([max(errors[group].mean(), 1e-12) for group in groups])
    if np.ptp(x) == 0:
        return 1.0
    return float(np.clip(np.polyfit(x, y, 1)[0], *EXPONENTS))


def evaluated(
    potential: MessagePassing, dataset: GraphDataset, show: Callable[[int], None]
) -> Evaluated:
    """Features and errors of a dataset, on the CPU."""
    parts: list[tuple[Tensor, ...]] = []
    device = potential.embedding.device
    done = 0
    for batch in EvaluationLoader(dataset, BATCH_EDGES):
        graph = type(batch.graph)(*(part.to(device) for part in batch.graph))
        found = predict(potential, graph)
        with torch.no_grad():
            features = potential.with_features(graph.species, edges_of(graph))[1]
        neighbors = torch.bincount(batch.graph.receivers, minlength=len(features))
        parts.append(
            (
                features.float().cpu(),
                batch.graph.species,
                neighbors > 0,
                (found.forces.cpu() - batch.labels.forces).norm(dim=1),
                (found.energy.cpu() - batch.labels.energy).abs(),
                batch.graph.structure + done,
            )
        )
        done += len(batch.index)
        show(done)
    return Evaluated(*(torch.cat(part) for part in zip(*parts, strict=True)))
