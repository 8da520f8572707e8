"""Checks of single structures: labels that contradict the rest of the dataset.

A robust linear model of all labels (`ridge`) predicts each of them. If a sign, a unit factor or,
for a stress, another order brings a label to its prediction, the label has that error; a label that
nothing explains is an outlier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tesseral.data.doctor.findings import Finding, Fix, count, make_finding
from tesseral.data.doctor.ridge import (
    Design,
    Labels,
    Prediction,
    fit_labels,
    force_norms,
    local_center,
    local_scale,
    without_gross,
)
from tesseral.data.doctor.sample import Array, Sample, has_forces
from tesseral.data.doctor.stress import (
    Judged,
    change_findings,
    expected_stress,
    flat_stress,
    judge_singles,
    mended_rows,
)
from tesseral.data.doctor.units import UNITS_OF_LABEL

Label = Literal["energy", "forces", "stress"]
LABELS: tuple[Label, ...] = ("energy", "forces", "stress")

EVIDENCE = 4.0  # required decrease of the squared residual, in usual residuals
SUSPECT = 2.5  # usual residuals above which a label is examined
OUTLIER = 20.0  # usual residuals that an unusual structure does not explain
BEYOND = 10.0  # growth of the squared residual with the leverage; found by trial on surfaces
CLEARLY = 0.03  # fraction of a residual that the right unit may leave if the model is poor
LARGE = 50.0  # eV/Å
LEAST = 40  # structures needed for a reliable model
ROUNDS = 4  # rounds of correcting and refitting: each finds more than the one before


class _Compared(NamedTuple):
    """Labels of one kind compared with their predictions."""

    label: Label
    size: Array  # (S,) norm of the label; NaN where it is missing
    should: Array  # (S,) norm of the prediction
    usual: Array  # (S,) residual of similar structures
    margin: Array  # (S,) the same, wider where the model extrapolates
    residual: Callable[[float], Array]  # (S,) residual of the label times a factor


class Outliers(NamedTuple):
    """Results of the check of single structures."""

    findings: list[Finding]
    residuals: Array  # (S,) eV/atom, energies minus predictions; NaN where unknown
    doubtful: bool  # whether a better prediction of the stresses might find more


def check_outliers(
    sample: Sample,
    design: Design,
    labels: Labels,
    references: Array,
    *,
    stress: bool,
    others: Sequence[Array] = (),
) -> Outliers:
    """Find single labels with a wrong sign, unit or order, or without relation to the others.

    Args:
        sample: the structures.
        design: rows of the linear model.
        labels: labels, with errors of the whole dataset and of groups corrected.
        references: (S,) eV/atom, zero of the energies of ``labels``.
        stress: whether the stresses can be checked.
        others: (S, 9) eV/Å³ each, further predictions of the stresses.
    """
    n = len(sample.rows)
    if np.isfinite(labels.energy).sum() < LEAST and has_forces(sample).sum() < LEAST:
        return Outliers(_large_forces(sample), np.full(n, np.nan), False)
    names = [label for label in LABELS if stress or label != "stress"]
    factors = {label: np.ones(n) for label in names}
    turned = Judged({}, False)
    for _ in range(ROUNDS):
        mended = _times(design, labels, references, factors)
        mended = mended._replace(stress=mended_rows(sample, mended.stress, turned.fixes))
        found = fit_labels(design, without_gross(design, mended), stress=stress)
        turns = Judged({}, False)
        if stress:
            expected = expected_stress(
                sample, design, mended.stress, [found.stress, *others], mixed=False
            )
            found = found._replace(stress=flat_stress(expected))
            turns = judge_singles(sample, mended.stress, expected)
        compared = _compare(design, mended, found, references, names)
        more = [_mending_factors(one) for one in compared]
        for one, factor in zip(compared, more, strict=True):
            factors[one.label] = factors[one.label] * factor
        turned = turned.followed_by(turns)
        if all((factor == 1).all() for factor in more) and not turns.fixes:
            break
    findings = change_findings(sample, turned)
    for one in compared:
        plain = factors[one.label] == 1
        if one.label == "stress":
            plain[list(turned.fixes)] = False
        findings += _wrong_factors(sample, one.label, factors[one.label])
        findings += _unexplained(sample, design, one, plain)
    residuals = compared[0].residual(1.0)
    return Outliers([*findings, *_large_forces(sample)], residuals, turned.doubtful)


def _times(
    design: Design, labels: Labels, references: Array, factors: dict[Label, Array]
) -> Labels:
    """Multiply labels by a factor for each structure."""
    stress = factors.get("stress", np.ones(len(references)))
    return Labels(
        energy=factors["energy"] * (labels.energy + references) - references,
        forces=labels.forces * factors["forces"][design.owner],
        stress=labels.stress * stress[:, None],
    )


def _compare(
    design: Design, labels: Labels, found: Prediction, references: Array, names: list[Label]
) -> list[_Compared]:
    """Compare labels with the predictions of a model fitted to all of them."""
    total, expected = labels.energy + references, found.energy + references
    residuals: dict[Label, Callable[[float], Array]] = {
        "energy": lambda factor: np.abs(factor * total - expected),
        "forces": lambda factor: force_norms(design, factor * labels.forces - found.forces),
        "stress": lambda factor: np.linalg.norm(factor * labels.stress - found.stress, axis=1),
    }
    sizes: dict[Label, tuple[Array, Array]] = {
        "energy": (np.abs(total), np.abs(expected)),
        "forces": (force_norms(design, labels.forces), force_norms(design, found.forces)),
        "stress": (
            np.linalg.norm(labels.stress, axis=1),
            np.linalg.norm(found.stress, axis=1),
        ),
    }
    compared = []
    for label in names:
        residual = residuals[label]
        usual = local_scale(design, residual(1.0))
        wider = np.sqrt(1 + BEYOND * found.reach) if label == "energy" else 1.0
        compared.append(_Compared(label, *sizes[label], usual, usual * wider, residual))
    return compared


def _mending_factors(one: _Compared) -> Array:
    """Correction factor of each label, (S,); 1 if it is right or the factor is unknown."""
    units = [sign * factor for factor in UNITS_OF_LABEL[one.label].values() for sign in (1.0, -1.0)]
    factors = np.array([factor for factor in dict.fromkeys(units) if factor != 1])
    if one.label == "stress":  # the sign alone is checked with the order of the components
        factors = factors[factors != -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        off = one.residual(1.0)
        after = np.stack([one.residual(factor) for factor in factors])
        fits = np.stack([_explains(one, factor, off) for factor in factors])
        after = np.where(fits, after, np.inf)
        best, least = after.argmin(axis=0), after.min(axis=0)
        evidence = (off**2 - least**2) / one.usual**2
        mended = (off > SUSPECT * one.usual) & (least < off / 2) & (evidence > EVIDENCE)
    return np.where(mended, factors[best], 1.0)


def _explains(one: _Compared, factor: float, off: Array) -> NDArray[np.bool_]:
    """Return whether a factor brings a label to its prediction and does not merely shrink it."""
    if factor == -1 and one.label != "energy":
        return np.ones(len(off), dtype=bool)
    left = one.residual(factor)
    close = (left < 4 * one.usual) | (left < CLEARLY * off)
    size = abs(factor) * one.size
    return (
        close & (one.should > 3 * one.usual) & (size > 0.5 * one.should) & (size < 2 * one.should)
    )


def _wrong_factors(sample: Sample, label: Label, factors: Array) -> list[Finding]:
    """Findings about signs and units of single structures."""
    findings = []
    for factor in np.unique(factors[factors != 1]):
        rows = sample.rows[factors == factor]
        turned = "the opposite sign" if factor < 0 else ""
        unit = next(
            (name for name, size in UNITS_OF_LABEL[label].items() if np.isclose(size, abs(factor))),
            "",
        )
        kind = "sign" if factor == -1 else "unit"
        said = "" if kind == "sign" else f"in {unit}" if unit else f"{1 / abs(factor):.4g} times it"
        findings.append(
            make_finding(
                "error",
                f"{label} {kind}",
                rows,
                f"{count(len(rows))} with {label} {' and of '.join(filter(None, (said, turned)))}"
                if said
                else f"{count(len(rows))} with {turned} of {label}",
                "convert them; files with two conventions were probably mixed",
                Fix(label, float(factor)),
            )
        )
    return findings


def _unexplained(
    sample: Sample, design: Design, one: _Compared, plain: NDArray[np.bool_]
) -> list[Finding]:
    """Find zero labels that should not be zero, and outliers that no unit or sign explains."""
    off = one.residual(1.0)
    findings = []
    with np.errstate(invalid="ignore"):
        lost = plain & (one.size == 0) & (off > 2 * SUSPECT * one.usual)
        far = off - local_center(design, off) > OUTLIER * one.margin
        if one.label != "energy":
            far &= off > 0.7 * np.maximum(one.size, one.should)
    if lost.any():
        findings.append(
            make_finding(
                "error",
                "zero labels",
                sample.rows[lost],
                f"{count(int(lost.sum()))} with {one.label} of zero that should not be zero",
                "the labels were lost; a missing label is harmless, a zero label is not",
                Fix(one.label),
            )
        )
    strange = plain & far & ~lost
    if strange.any():
        unit = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}[one.label]
        findings.append(
            make_finding(
                "warning",
                f"{one.label} outlier",
                sample.rows[strange],
                f"{one.label} of {count(int(strange.sum()))} inconsistent with the others, by up "
                f"to {off[strange].max():.2g} {unit}",
                "check the calculations: not converged, a different spin state or setting",
            )
        )
    return findings


def _large_forces(sample: Sample) -> list[Finding]:
    """Find forces that are large enough to dominate the loss."""
    largest = np.array(
        [np.linalg.norm(structure.forces, axis=1).max() for structure in sample.structures]
    )
    large = largest > LARGE  # False for NaN
    if not large.any():
        return []
    return [
        make_finding(
            "warning",
            "large forces",
            sample.rows[large],
            f"{count(int(large.sum()))} with forces above {LARGE:g} eV/Å, up to "
            f"{largest[large].max():.0f}",
            "a few of them dominate a squared loss: remove them, or use `loss.forces='huber'`",
        )
    ]
