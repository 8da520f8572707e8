"""Checks for mixtures: theories, sources with a different energy zero, rare elements, E0."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tesseral.data.doctor.findings import Finding, make_finding
from tesseral.data.doctor.sample import Array, Sample, scale
from tesseral.data.neighbors import names

SHIFT = 0.02  # eV/atom between sources
SHIFT_SHARE = 4.0  # in typical residuals
FEW = 3  # structures with an element


def check_consistency(sample: Sample, residuals: Array) -> list[Finding]:
    """Check theories, sources and compositions.

    Args:
        sample: the structures.
        residuals: (S,) eV/atom, energy labels minus their fitted values; NaN if unknown.
    """
    return [*_theories(sample), *_shifts(sample, residuals), *_elements(sample)]


def _texts(sample: Sample, name: str) -> NDArray[np.str_]:
    texts = sample.store.texts(name)
    return np.array([texts[row] for row in sample.rows])


def _theories(sample: Sample) -> list[Finding]:
    """Find more than one theory."""
    theories = _texts(sample, "theory")
    found = Counter(theories.tolist()).most_common()
    if len(found) < 2:
        return []
    shown = ", ".join(f"{name or 'none given'} ({number})" for name, number in found[:4])
    return [
        make_finding(
            "warning",
            "theory",
            sample.rows[theories != found[0][0]],
            f"{len(found)} theories: {shown}",
            "energies of different functionals or settings are not compatible; train on one",
        )
    ]


def _shifts(sample: Sample, residuals: Array) -> list[Finding]:
    """Find sources whose energies have a different zero."""
    findings = []
    usual = scale(residuals)
    sources = _texts(sample, "source")
    for source in np.unique(sources):
        inside = sources == source
        known = inside & np.isfinite(residuals)
        if not 5 <= known.sum() < np.isfinite(residuals).sum() / 2:
            continue
        shift = float(np.median(residuals[known]))
        spread = scale(residuals[known])
        if abs(shift) > max(SHIFT, SHIFT_SHARE * max(spread, usual)):
            findings.append(
                make_finding(
                    "warning",
                    "theory",
                    sample.rows[inside],
                    f"the energies of {source or 'structures without a source'} are shifted by "
                    f"{shift:+.3g} eV/atom from the others, with a spread of {spread:.2g}",
                    "different pseudopotential, functional or energy zero; do not mix them",
                )
            )
    return findings


def _elements(sample: Sample) -> list[Finding]:
    """Find rare elements, and compositions that do not determine the reference energies."""
    findings = []
    number = (sample.counts > 0).sum(axis=0)
    rare = [z for z, k in zip(sample.elements, number, strict=True) if 0 < k < FEW]
    if rare and len(sample.rows) > 10 * FEW and sample.complete:
        columns = [sample.elements.index(z) for z in rare]
        findings.append(
            make_finding(
                "warning",
                "elements",
                sample.rows[(sample.counts[:, columns] > 0).any(axis=1)],
                f"{names(rare)} in fewer than {FEW} structures",
                "a potential cannot learn an element from so few; add more or remove them",
            )
        )
    known = np.isfinite(sample.energies)
    present = number > 0
    bound = sample.counts[known & ~sample.alone][:, present]
    fixed = (sample.counts[known & sample.alone][:, present] > 0).any(axis=0)
    unknown = bound[:, ~fixed]
    if len(bound) and unknown.shape[1]:
        fractions = unknown / np.maximum(bound.sum(axis=1, keepdims=True), 1)
        rank = int(np.linalg.matrix_rank(fractions / np.sqrt(len(fractions)), tol=1e-3))
        if rank < unknown.shape[1]:
            elements = np.array(sample.elements)[present][~fixed]
            findings.append(
                make_finding(
                    "note",
                    "reference energies",
                    [],
                    f"the compositions determine {rank} of {len(elements)} reference energies, of "
                    f"{names(elements)}",
                    "enough for these compositions; add isolated atoms, or give "
                    "`data.isolated_energies`, for others",
                )
            )
    return findings
