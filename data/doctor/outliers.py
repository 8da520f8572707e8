"""Checks of single structures: labels that the rest of the set contradicts.

A robust linear model of all labels (`model`) predicts each of them. A label that a sign or the
factor of a unit brings to its prediction has that fault; one that nothing brings there is an
outlier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tesseral.data.doctor.findings import Finding, Fix, count, make_finding
from tesseral.data.doctor.model import (
    Design,
    Labels,
    fit_labels,
    force_norms,
    local_center,
    local_scale,
    without_gross,
)
from tesseral.data.doctor.recognise import OPTIONS
from tesseral.data.doctor.subject import Array, Subject, has_forces

Label = Literal["energy", "forces", "stress"]

EVIDENCE = 4.0  # how much smaller the square of the residual must become, in usual ones
SUSPECT = 2.5  # usual residuals from which on a label is looked at
OUTLIER = 25.0  # usual residuals that are more than an unusual structure
LARGE = 50.0  # eV/Å
LEAST = 40  # structures for a model to judge by


class _Compared(NamedTuple):
    """A label beside its prediction."""

    label: Label
    size: Array  # (S,) norm of the label; NaN where it is missing
    should: Array  # (S,) norm of the prediction
    usual: Array  # (S,) residual of structures like it
    residual: Callable[[float], Array]  # (S,) of the label times a factor


def check_outliers(
    subject: Subject, design: Design, labels: Labels, references: Array, *, stress: bool
) -> tuple[list[Finding], Array]:
    """Single labels with a wrong sign, a wrong unit, or no relation to the others.

    Args:
        subject: the structures.
        design: of the model.
        labels: with what is wrong in the whole set mended.
        references: (S,) eV/atom that the energies of ``labels`` are relative to.
        stress: whether the stresses can be judged.

    Returns:
        The findings, and energies minus predictions, (S,) eV/atom.
    """
    if np.isfinite(labels.energy).sum() < LEAST and has_forces(subject).sum() < LEAST:
        return _large_forces(subject), np.full(len(subject.rows), np.nan)
    found = fit_labels(design, without_gross(design, labels), stress=stress)
    total, expected = labels.energy + references, found.energy + references
    energy = _Compared(
        label="energy",
        size=np.abs(total),
        should=np.abs(expected),
        usual=local_scale(design, np.abs(labels.energy - found.energy)),
        residual=lambda factor: np.abs(factor * total - expected),
    )
    forces = _Compared(
        label="forces",
        size=force_norms(design, labels.forces),
        should=force_norms(design, found.forces),
        usual=local_scale(design, force_norms(design, labels.forces - found.forces)),
        residual=lambda factor: force_norms(design, factor * labels.forces - found.forces),
    )
    compared = [energy, forces]
    if stress:
        compared.append(
            _Compared(
                label="stress",
                size=np.linalg.norm(labels.stress, axis=1),
                should=np.linalg.norm(found.stress, axis=1),
                usual=local_scale(design, np.linalg.norm(labels.stress - found.stress, axis=1)),
                residual=lambda factor: np.linalg.norm(
                    factor * labels.stress - found.stress, axis=1
                ),
            )
        )
    findings = []
    for one in compared:
        findings += _judge(subject, design, one)
    findings += _large_forces(subject)
    return findings, labels.energy - found.energy


def _judge(subject: Subject, design: Design, one: _Compared) -> list[Finding]:
    """Signs, units, zeros and other outliers of one label."""
    with np.errstate(invalid="ignore", divide="ignore"):
        off = one.residual(1.0)
        open_ = np.isfinite(off) & (off > SUSPECT * one.usual)
        factors = [-1.0, *(sign * f for f in OPTIONS[one.label].values() for sign in (1, -1))]
        factors = [f for f in dict.fromkeys(factors) if f != 1.0]
        after = np.stack([one.residual(factor) for factor in factors])
        fits = np.stack([_explains(one, factor) for factor in factors])
        after = np.where(fits, after, np.inf)
        best, least = after.argmin(axis=0), after.min(axis=0)
        evidence = (off**2 - least**2) / one.usual**2
        mended = open_ & (least < off / 2) & (evidence > EVIDENCE)
        lost = open_ & ~mended & (one.size == 0) & (off > 2 * SUSPECT * one.usual)
        shifted = off - local_center(design, off)
        strange = open_ & ~mended & ~lost & (shifted > OUTLIER * one.usual)
        if one.label != "energy":
            strange &= off > 0.7 * np.maximum(one.size, one.should)
    findings = []
    for index, factor in enumerate(factors):
        rows = subject.rows[mended & (best == index)]
        if len(rows):
            findings.append(_wrong_factor(one.label, factor, rows))
    if lost.any():
        findings.append(_zeros(one.label, subject.rows[lost]))
    if strange.any():
        findings.append(_strange(one.label, subject.rows[strange], off[strange]))
    return findings


def _explains(one: _Compared, factor: float) -> NDArray[np.bool_]:
    """Whether a factor can be told from shrinking the label to nothing."""
    if factor == -1:
        return np.ones(len(one.size), dtype=bool)
    size = abs(factor) * one.size
    clear = (one.should > 3 * one.usual) & (one.residual(factor) < 4 * one.usual)
    return clear & (size > 0.5 * one.should) & (size < 2 * one.should)


def _wrong_factor(label: Label, factor: float, rows: NDArray[np.int64]) -> Finding:
    """A sign or unit."""
    if factor == -1:
        return make_finding(
            "error",
            f"{label} sign",
            rows,
            f"{count(len(rows))} with the opposite sign of {label}",
            "change it; files of two conventions were probably mixed",
            Fix(label, -1.0),
        )
    unit = next(name for name, size in OPTIONS[label].items() if size == abs(factor))
    turned = " and of the opposite sign" if factor < 0 else ""
    return make_finding(
        "error",
        f"{label} unit",
        rows,
        f"{count(len(rows))} with {label} in {unit}{turned}",
        "convert them; files of two units were probably mixed",
        Fix(label, factor),
    )


def _zeros(label: Label, rows: NDArray[np.int64]) -> Finding:
    """Labels of zero that are not zero."""
    return make_finding(
        "error",
        "zero labels",
        rows,
        f"{count(len(rows))} with {label} of zero where the others ask for more",
        "the labels were lost; a missing label is no harm, one of zero is",
        Fix(label),
    )


def _strange(label: Label, rows: NDArray[np.int64], off: Array) -> Finding:
    """Outliers without an explanation."""
    unit = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}[label]
    return make_finding(
        "warning",
        f"{label} outlier",
        rows,
        f"{label} of {count(len(rows))} far from what the others ask for, by up to "
        f"{off.max():.2g} {unit}",
        "look at the calculations: not converged, another spin state or another setting",
    )


def _large_forces(subject: Subject) -> list[Finding]:
    """Forces so large that they rule the loss."""
    largest = np.array(
        [np.linalg.norm(structure.forces, axis=1).max() for structure in subject.structures]
    )
    large = largest > LARGE  # NaN is not
    if not large.any():
        return []
    return [
        make_finding(
            "warning",
            "large forces",
            subject.rows[large],
            f"{count(int(large.sum()))} with forces above {LARGE:g} eV/Å, up to "
            f"{largest[large].max():.0f}",
            "a few of them rule a squared loss: take them out, or use --loss.forces huber",
        )
    ]
