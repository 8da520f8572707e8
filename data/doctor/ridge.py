"""Linear model of energies, forces and stresses, fitted in seconds, that predicts the labels.

All labels are derivatives of one energy. A model fitted to some of them predicts the others, and
so reveals wrong units and signs. In a robust fit to all of them wrong labels appear as outliers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from tesseral.data.doctor.descriptors import describe, force_atoms, has_zero_forces
from tesseral.data.doctor.sample import Array, Integers, Sample, has_forces, has_stress, median
from tesseral.data.loading.statistics import fit_energies

ENERGY_WEIGHT = 10.0  # Å⁻¹: energies per atom are predicted ten times as well as forces times 1 Å
STRESS_WEIGHT = 10.0
RIDGE = 1e-6
ROUNDS = 6  # rounds of reweighting
SOFT = 3.0  # typical residuals above which a structure has less weight
GROSS = 30.0  # times the usual size of a label
CLOSEST = 5
ALIKE = 25  # structures whose residuals define the usual size


# Rows (R, F), values (R,) and the structure of each row (R,)
Block = tuple[NDArray[np.floating[Any]], Array, Integers]


class Labels(NamedTuple):
    """Labels in the order of the linear model; NaN where they are missing or unused."""

    energy: Array  # (S,) eV/atom relative to the fitted energies of the elements
    forces: Array  # (R,) eV/Å
    stress: Array  # (S, 9) eV/Å³


class Design(NamedTuple):
    """Rows of S structures in the linear model."""

    energy: Array  # (S, F)
    forces: NDArray[np.float32]  # (R, F)
    owner: Integers  # (R,) structure of each force component
    stress: Array  # (S, 9, F)
    volumes: Array  # (S,) Å³/atom
    alike: Array  # (S, 3) features that measure the similarity of structures; see `alike`


class Prediction(NamedTuple):
    """Predictions for each structure from the labels of the other structures."""

    energy: Array  # (S,) eV/atom relative to the fitted energies of the elements
    forces: Array  # (R,) eV/Å; their own labels are included in the fit
    stress: Array  # (S, 9) eV/Å³
    reach: Array  # (S,) leverage of the energy: large for structures unlike those fitted


def composition_energies(sample: Sample) -> Array:
    """Energies per atom of the compositions, fitted without outliers, (S,) eV.

    NaN for all if no structure has an energy.
    """
    known = np.isfinite(sample.energies) & ~sample.alone
    if not known.any():
        return np.full(len(sample.rows), np.nan)
    fractions = sample.counts / sample.n_atoms[:, None]
    # Medians represent the structures of each composition: up to half of them may be wrong.
    _, kind = np.unique(sample.counts[known], axis=0, return_inverse=True)
    target = sample.energies[known]
    medians = np.array([np.median(target[kind == k]) for k in range(kind.max() + 1)])[kind]
    weight = np.ones(len(target))
    for _ in range(ROUNDS):
        root = np.sqrt(weight)[:, None]
        fitted = fit_energies(fractions[known] * root, medians * root[:, 0])
        residual = np.abs(medians - fractions[known] @ fitted)
        weight = 1 / (1 + (residual / max(SOFT * np.median(residual), 1e-3)) ** 2)
    energies: Array = fractions @ fitted
    return energies


def make_design(sample: Sample) -> Design:
    """Compute the rows of all structures; the only step that takes seconds."""
    parts = [describe(structure, sample.elements) for structure in sample.structures]
    size = [
        np.sqrt(np.nanmean(structure.forces**2)) if known else 0.0
        for structure, known in zip(sample.structures, has_forces(sample), strict=True)
    ]
    volumes = np.nan_to_num(sample.volumes)
    alike = [np.array(size), volumes, np.nan_to_num(sample.energies)]
    return Design(
        energy=np.stack([part.energy for part in parts]),
        forces=np.concatenate([part.forces for part in parts]),
        owner=np.repeat(np.arange(len(parts)), [len(part.forces) for part in parts]),
        stress=np.stack([part.stress for part in parts]),
        volumes=volumes,
        alike=np.stack([rankdata(column) / len(parts) for column in alike], axis=1),
    )


def read_labels(sample: Sample, references: Array) -> Labels:
    """Labels of the structures; forces that are wrongly zero (`has_zero_forces`) are left out.

    Args:
        sample: the structures.
        references: (S,) eV/atom, subtracted from the energies.
    """
    forces = []
    for structure in sample.structures:
        rows = force_atoms(len(structure.numbers))
        lost = np.nan if has_zero_forces(structure) else 1.0
        forces.append(lost * structure.forces[rows].ravel())
    stress = np.stack([structure.stress.ravel() for structure in sample.structures])
    stress[~has_stress(sample)] = np.nan
    energies = np.where(sample.alone, np.nan, sample.energies - references)
    return Labels(energies, np.concatenate(forces), stress)


def fit_labels(design: Design, labels: Labels, *, stress: bool) -> Prediction:
    """Fit the model robustly and predict all labels.

    Energies, and stresses if they are fitted, are leave-one-out predictions.

    Args:
        design: rows of the structures.
        labels: labels to fit; NaN are ignored.
        stress: whether to fit stresses too.
    """
    virial = design.stress * (STRESS_WEIGHT * design.volumes)[:, None, None]
    target = labels.stress * (STRESS_WEIGHT * design.volumes)[:, None]
    blocks: list[Block] = [
        (design.energy * ENERGY_WEIGHT, labels.energy * ENERGY_WEIGHT, np.arange(len(virial))),
        (design.forces, labels.forces, design.owner),
    ]
    if stress:
        rows = np.repeat(np.arange(len(virial)), 9)
        blocks.append((virial.reshape(len(rows), -1), target.ravel(), rows))
    inverse, coefficients, weights = _reweighted(blocks, len(virial))
    energy = _left_out(
        (design.energy * ENERGY_WEIGHT)[:, None],
        blocks[0][1][:, None],
        inverse,
        coefficients,
        weights[0],
    )
    predicted = np.nan_to_num(virial) @ coefficients
    if stress:
        predicted = _left_out(np.nan_to_num(virial), target, inverse, coefficients, weights[2])
    with np.errstate(divide="ignore", invalid="ignore"):
        return Prediction(
            energy=energy[:, 0] / ENERGY_WEIGHT,
            forces=design.forces @ coefficients,
            stress=predicted / (STRESS_WEIGHT * design.volumes)[:, None],
            reach=_reach(design.energy * ENERGY_WEIGHT, inverse, weights[0]),
        )


def energy_scale(design: Design, labels: Labels) -> float:
    """Factor of the energies that makes the forces their gradients; NaN if unknown.

    The factor f minimises the residual of a joint fit to f · energies and forces, which is a
    quadratic function of f.
    """
    known, felt = np.isfinite(labels.energy), np.isfinite(labels.forces)
    if known.sum() < 2 or not felt.any():
        return float("nan")
    energy, forces = design.energy[known] * ENERGY_WEIGHT, design.forces[felt]
    target = labels.energy[known] * ENERGY_WEIGHT
    share = 1 / np.sqrt(np.bincount(design.owner[felt]))[design.owner[felt], None]
    components = labels.forces[felt] * share[:, 0]
    shared = forces * share
    width = _column_scale([energy, shared])
    energy, shared = energy / width, shared / width
    normal = energy.T @ energy + shared.T @ shared
    right = np.stack([energy.T @ target, shared.T @ components], axis=1)
    solved = np.linalg.solve(_ridged(normal), right)
    curvature = target @ target - right[:, 0] @ solved[:, 0]
    return float(right[:, 0] @ solved[:, 1] / curvature) if curvature > 0 else float("nan")


def without_gross(design: Design, labels: Labels, times: float = GROSS) -> Labels:
    """Labels without those many times larger than usual, so that one cannot spoil a fit."""
    size = np.abs(labels.energy - median(labels.energy))
    energy = np.where(size > times * median(size), np.nan, labels.energy)
    felt = force_norms(design, labels.forces)
    large = (felt > times * median(felt))[design.owner]
    pressed = np.linalg.norm(labels.stress, axis=1)
    stressed = (pressed > times * median(pressed))[:, None]
    return Labels(
        energy,
        np.where(large, np.nan, labels.forces),
        np.where(stressed, np.nan, labels.stress),
    )


def local_scale(design: Design, norms: Array) -> Array:
    """Usual size of a residual among structures similar to each one, (S,).

    The median over the structures that are closest in the ranks of force, volume and energy.

    Args:
        design: rows of the structures.
        norms: (S,) residuals; NaN where there is none.
    """
    known = np.isfinite(norms)
    if known.sum() == 0:
        return np.full(len(norms), np.nan)
    tree = cKDTree(design.alike[known])
    _, near = tree.query(design.alike, k=min(ALIKE, int(known.sum())))
    usual = np.median(norms[known][near.reshape(len(norms), -1)], axis=1)
    # A few structures that the model happens to fit exactly must not set the scale.
    floor = 0.2 * float(np.median(norms[known]))
    return np.where(usual > floor, usual, floor)


def local_center(design: Design, norms: Array) -> Array:
    """Median residual of the few structures most similar to each one, (S,); see `local_scale`."""
    known = np.isfinite(norms)
    if known.sum() == 0:
        return np.full(len(norms), np.nan)
    _, near = cKDTree(design.alike[known]).query(design.alike, k=min(CLOSEST, int(known.sum())))
    center: Array = np.median(norms[known][near.reshape(len(norms), -1)], axis=1)
    return center


def weighted_median(values: Array, weights: Array) -> float:
    """Value with half of the weight below and half above."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def force_norms(design: Design, values: Array) -> Array:
    """Root mean square of each structure's force components, (S,); NaN where one is missing."""
    n = len(design.energy)
    components = np.bincount(design.owner, minlength=n)
    return np.sqrt(np.bincount(design.owner, values**2, minlength=n) / np.maximum(components, 1))


def _reweighted(blocks: list[Block], n: int) -> tuple[Array, Array, list[Array]]:
    """Inverse of the normal matrix, coefficients and the weights of structures in each block."""
    blocks = [(np.nan_to_num(rows), values, owner) for rows, values, owner in blocks]
    weights = [_start(values, owner, n) for _, values, owner in blocks]
    width = _column_scale([rows for rows, _, _ in blocks])
    for _ in range(ROUNDS):
        normal, right = 0.0, 0.0
        for (rows, values, owner), weight in zip(blocks, weights, strict=True):
            share = weight / np.maximum(np.bincount(owner, minlength=n), 1)
            used = np.isfinite(values) & (share[owner] > 0)
            scaled = rows[used] / width
            weighted = scaled * share[owner][used, None]
            normal = normal + weighted.T @ scaled
            right = right + weighted.T @ values[used]
        inverse = np.linalg.inv(_ridged(np.asarray(normal)))
        coefficients = inverse @ right / width
        norms = [_norms(v - r @ coefficients, owner, n) for r, v, owner in blocks]
        weights = [_weight(norm) for norm in norms]
    return inverse / np.outer(width, width), coefficients, weights


def _column_scale(parts: list[NDArray[np.floating[Any]]]) -> Array:
    """Root mean square of each column."""
    total = sum(np.einsum("rf,rf->f", part, part, dtype=np.float64) for part in parts)
    width: Array = np.sqrt(total / sum(len(part) for part in parts))
    return np.where(width > 0, width, 1.0)


def _ridged(normal: Array) -> Array:
    """Add a ridge to a normal matrix, so that it can be inverted."""
    return normal + RIDGE * float(np.trace(normal)) / len(normal) * np.eye(len(normal))


def _norms(values: Array, owner: Integers, n: int) -> Array:
    """Root mean square of each structure's values, (n,); NaN where one is missing."""
    squares = np.bincount(owner, values**2, minlength=n)
    number = np.bincount(owner, minlength=n)
    return np.where(number > 0, np.sqrt(squares / np.maximum(number, 1)), np.nan)


def _weight(norms: Array) -> Array:
    """Weights of structures by their residuals; 0 where there are none."""
    known = np.isfinite(norms)
    if not known.any():
        return np.zeros(len(norms))
    usual = max(float(np.median(norms[known])), 1e-12)
    return np.where(known, 1 / (1 + (np.nan_to_num(norms) / (SOFT * usual)) ** 2), 0.0)


def _start(values: Array, owner: Integers, n: int) -> Array:
    """Initial weights; values ten times larger than usual hardly count."""
    norms = _norms(values, owner, n)
    return _weight(norms / 3) ** 2


def _reach(rows: Array, inverse: Array, weights: Array) -> Array:
    """Leverage of rows (S, F) as if they had not been fitted, (S,)."""
    leverage: Array = np.sum((rows @ inverse) * rows, axis=1)
    return leverage / np.maximum(1 - weights * leverage, 1e-3)


def _left_out(
    rows: Array, values: Array, inverse: Array, coefficients: Array, weights: Array
) -> Array:
    """Leave-one-out predictions (S, k) of rows (S, k, F), without their own k values."""
    fitted = rows @ coefficients
    spread = rows @ inverse
    leverage = np.einsum("skf,slf->skl", spread, rows) * (weights / rows.shape[1])[:, None, None]
    residual = np.nan_to_num(values) - fitted
    room = np.eye(rows.shape[1]) - leverage
    honest = np.linalg.solve(room + 1e-9 * np.eye(rows.shape[1]), residual[:, :, None])[:, :, 0]
    return np.where(np.isfinite(values), np.nan_to_num(values) - honest, fitted)
