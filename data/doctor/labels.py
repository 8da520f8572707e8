"""Checks of the labels: presence, completeness, and belonging to their structure."""

from __future__ import annotations

import hashlib

import numpy as np

from tesseral.data.doctor.descriptors import has_zero_forces
from tesseral.data.doctor.findings import Finding, Fix, count, make_finding
from tesseral.data.doctor.sample import Sample, has_forces, has_stress

NET_FORCE = 0.05  # eV/Å per atom
NET_FORCE_SHARE = 0.1  # of the RMS force


def check_labels(sample: Sample) -> list[Finding]:
    """Find missing and zero labels, non-zero net forces, and labels of another structure."""
    return [*_missing(sample), *_zero_forces(sample), *_net_forces(sample), *_stale(sample)]


def _missing(sample: Sample) -> list[Finding]:
    """Find structures without a required label."""
    findings = []
    needed = {
        "energy": (np.isfinite(sample.energies), np.ones(len(sample.rows), dtype=bool)),
        "forces": (has_forces(sample), ~sample.alone),
        "stress": (has_stress(sample), np.isfinite(sample.volumes) & ~sample.alone),
    }
    for label, (there, wanted) in needed.items():
        lacking = wanted & ~there
        if not lacking.any():
            continue
        if lacking.sum() == wanted.sum():
            findings.append(
                make_finding(
                    "note" if label == "stress" else "error",
                    "missing labels",
                    [],
                    f"no structure has {label}",
                    "a potential for fixed cells does not need stress; others do"
                    if label == "stress"
                    else f"import the files again and name the label with `{label}_key`",
                )
            )
            continue
        findings.append(
            make_finding(
                "warning",
                "missing labels",
                sample.rows[lacking],
                f"{count(int(lacking.sum()))} of {wanted.sum()} without {label}",
                "training ignores missing labels; check whether a conversion lost them",
            )
        )
    return findings


def _zero_forces(sample: Sample) -> list[Finding]:
    """Find distorted structures whose forces are all exactly zero."""
    rows = sample.rows[[has_zero_forces(structure) for structure in sample.structures]]
    if len(rows) == 0:
        return []
    return [
        make_finding(
            "error",
            "zero labels",
            rows,
            f"all forces of {count(len(rows))} are exactly zero, but the environments of the atoms "
            "are not symmetric",
            "the forces were not computed or were lost; a missing label is harmless, a zero label "
            "is not",
            Fix("forces"),
        )
    ]


def _net_forces(sample: Sample) -> list[Finding]:
    """Find structures with a non-zero net force, which no potential can have."""
    rows, largest = [], 0.0
    for row, structure in zip(sample.rows, sample.structures, strict=True):
        n = len(structure.numbers)
        if n < 2 or not np.isfinite(structure.forces).all():
            continue
        net = float(np.linalg.norm(structure.forces.sum(axis=0))) / n
        if net > max(NET_FORCE, NET_FORCE_SHARE * float(np.sqrt(np.mean(structure.forces**2)))):
            rows.append(row)
            largest = max(largest, net)
    if not rows:
        return []
    return [
        make_finding(
            "warning",
            "net force",
            rows,
            f"the net force of {count(len(rows))} is not zero, up to {largest:.2g} eV/Å per atom",
            "check for missing or fixed atoms (constraints set forces to zero) or an external "
            "field; no potential can have a net force",
        )
    ]


def _stale(sample: Sample) -> list[Finding]:
    """Find different geometries with bitwise equal forces: labels of an earlier calculation."""
    seen: dict[bytes, list[int]] = {}
    for index, structure in enumerate(sample.structures):
        if np.isfinite(structure.forces).all() and np.abs(structure.forces).max() > 1e-3:
            digest = hashlib.blake2b(structure.forces.tobytes(), digest_size=16).digest()
            seen.setdefault(digest, []).append(index)
    rows = []
    for members in seen.values():
        first = sample.structures[members[0]]
        rows += [
            sample.rows[index]
            for index in members[1:]
            if not np.array_equal(first.positions, sample.structures[index].positions)
            or not np.array_equal(first.cell, sample.structures[index].cell)
        ]
    if not rows:
        return []
    return [
        make_finding(
            "error",
            "stale labels",
            rows,
            f"{count(len(rows))} with exactly the forces of an earlier, different structure",
            "the calculation was not repeated after the atoms had moved; recompute the labels",
            Fix("structure"),
        )
    ]
