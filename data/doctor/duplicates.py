"""Checks for duplicate structures, and for leakage between the parts of a split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tesseral.data.doctor.findings import Finding, Fix, count, make_finding
from tesseral.data.doctor.fingerprints import (
    NEAR,
    SAME,
    Fingerprints,
    make_fingerprints,
    nearest_within,
    pairs_within,
)
from tesseral.data.doctor.sample import Array, Integers, Sample

AGREE_ENERGY = 2e-3  # eV/atom between labels of the same structure
AGREE_FORCES = 0.02  # eV/Å, RMS of the forces' sizes


def check_duplicates(sample: Sample, prints: Fingerprints) -> list[Finding]:
    """Find structures that occur more than once, with the same labels or with different ones."""
    pairs, apart = pairs_within(prints, NEAR)
    same = pairs[apart < SAME]
    copies, conflicts = [], []
    for members in _families(same, len(sample.rows)):
        first = members[0]
        agree = np.array([_agree(sample, first, other) for other in members[1:]])
        copies += members[1:][agree].tolist()
        if not agree.all():
            conflicts += members.tolist()
    findings = []
    if copies:
        findings.append(
            make_finding(
                "warning",
                "duplicates",
                sample.rows[copies],
                f"{count(len(copies))} the same as an earlier one, rotated, reflected or reordered "
                "at most",
                "they count twice in training; leave them out",
                Fix("structure"),
            )
        )
    if conflicts:
        findings.append(
            make_finding(
                "error",
                "conflicting duplicates",
                sample.rows[conflicts],
                f"{count(len(conflicts))} of equal geometry and different labels",
                "no potential can reproduce both: find out which is right",
            )
        )
    close = np.setdiff1d(np.unique(pairs), np.unique(same))
    if len(close):
        findings.append(
            make_finding(
                "note",
                "near-duplicates",
                sample.rows[close],
                f"{count(len(close))} with another one less than about {NEAR} Å away",
                "neighbours of a trajectory teach little; they must not be on both sides of a "
                "split",
            )
        )
    return findings


def check_leakage(
    first: Sample,
    second: Sample,
    *,
    parts: tuple[str, str],
    chosen: bool,
) -> list[Finding]:
    """Find structures of the second part that are also in the first.

    Args:
        first: training structures.
        second: test structures; the findings contain their rows.
        parts: names of both, for messages.
        chosen: whether the user made the split, so that a duplicate is an error.
    """
    structures = [*first.structures, *second.structures]
    elements = tuple(sorted({*first.elements, *second.elements}))
    later = np.arange(len(structures)) >= len(first.structures)
    asked, _, apart = nearest_within(make_fingerprints(structures, elements), later, NEAR)
    rows = second.rows[asked - len(first.structures)]
    return [
        *_copies(second, rows, apart, parts, chosen),
        *_shared_groups(first, second, parts),
    ]


def _copies(
    second: Sample, rows: Integers, apart: Array, parts: tuple[str, str], chosen: bool
) -> list[Finding]:
    findings = []
    same = rows[apart < SAME]
    if len(same):
        findings.append(
            make_finding(
                "error" if chosen else "warning",
                "leakage",
                same,
                f"{count(len(same))} of {len(second.rows)} in {parts[1]} also in {parts[0]}",
                "errors on them are meaningless; remove them from one of the two",
            )
        )
    near = rows[apart >= SAME]
    if len(near):
        findings.append(
            make_finding(
                "warning",
                "leakage",
                near,
                f"{count(len(near))} of {len(second.rows)} in {parts[1]} less than about {NEAR} Å "
                f"from one in {parts[0]}",
                "neighbours of a trajectory on both sides make errors look smaller than they are",
            )
        )
    return findings


def _shared_groups(first: Sample, second: Sample, parts: tuple[str, str]) -> list[Finding]:
    """Find groups with members in both parts."""
    known = first.store.texts("group")
    inside = {known[row] for row in first.rows} - {""}
    groups = second.store.texts("group")
    rows = [row for row in second.rows if groups[row] in inside]
    if not rows:
        return []
    number = len({groups[row] for row in rows})
    return [
        make_finding(
            "warning",
            "leakage",
            rows,
            f"{count(number, 'group')} with members in both {parts[0]} and {parts[1]}",
            "keep each group (a trajectory) in one part",
        )
    ]


def _families(pairs: Integers, n: int) -> list[Integers]:
    """Sets of structures connected by pairs, each sorted."""
    if not len(pairs):
        return []
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, family = connected_components(links, directed=False)
    members = np.unique(pairs)
    return [members[family[members] == label] for label in np.unique(family[members])]


def _agree(sample: Sample, first: int, second: int) -> bool:
    """Return whether the labels of two equal structures agree, where both have them."""
    energies = sample.energies[[first, second]]
    if abs(energies[0] - energies[1]) > AGREE_ENERGY:
        return False
    sizes: list[NDArray[np.float64]] = [
        np.sort(np.linalg.norm(sample.structures[i].forces, axis=1)) for i in (first, second)
    ]
    if len(sizes[0]) == len(sizes[1]) and not np.isnan(np.concatenate(sizes)).any():
        if np.sqrt(np.mean((sizes[0] - sizes[1]) ** 2)) > AGREE_FORCES:
            return False
    return bool(np.isfinite(energies).all())
