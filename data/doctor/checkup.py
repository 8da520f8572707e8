"""All checks of one dataset, and of a training set with its test sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tesseral.data.doctor.boundaries import check_boundaries
from tesseral.data.doctor.consistency import check_consistency
from tesseral.data.doctor.duplicates import check_duplicates, check_leakage
from tesseral.data.doctor.findings import SEVERITIES, Finding, make_finding
from tesseral.data.doctor.fingerprints import make_fingerprints
from tesseral.data.doctor.geometry import check_geometry, measure_distances
from tesseral.data.doctor.impossible import check_possible
from tesseral.data.doctor.labels import check_labels
from tesseral.data.doctor.outliers import check_outliers
from tesseral.data.doctor.ridge import composition_energies, make_design, read_labels
from tesseral.data.doctor.sample import Integers, Sample, read_sample
from tesseral.data.doctor.units import check_units
from tesseral.data.isolated import isolated_rows
from tesseral.data.loading.splits import split_store
from tesseral.data.store.read import Store

MAX_ATOMS = 100_000  # in a full check
QUICK_ATOMS = 4_000  # in the check before a training


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """Results of the checks of one dataset.

    Args:
        file: name of the file.
        structures: number of all structures.
        checked: number of structures that were checked.
        findings: findings, errors first.
        measured: ratios of labels to their expected values, and other numbers, as text.
    """

    file: str
    structures: int
    checked: int
    findings: list[Finding] = field(default_factory=list)
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def safe(self) -> bool:
        """True if there are no errors."""
        return all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Results as plain values for JSON."""
        return {
            "file": self.file,
            "structures": self.structures,
            "checked": self.checked,
            "safe": self.safe,
            "measured": self.measured,
            "findings": [
                {
                    "severity": finding.severity,
                    "check": finding.check,
                    "rows": list(finding.rows),
                    "found": finding.found,
                    "advice": finding.advice,
                }
                for finding in self.findings
            ],
        }


def check_set(sample: Sample, *, cutoff: float) -> Checkup:
    """Check one dataset.

    Args:
        sample: structures of the dataset.
        cutoff: cutoff (Å) of the potential to be trained.
    """
    sample = sample._replace(alone=isolated_rows(sample.store, sample.rows, cutoff))
    design = make_design(sample)
    references = composition_energies(sample)
    units = check_units(sample, design, read_labels(sample, references), references)
    outliers, residuals = check_outliers(
        sample, design, units.labels, units.references, stress=units.stress
    )
    distances = measure_distances(sample, cutoff)
    findings = [
        *check_possible(sample),
        *check_labels(sample),
        *units.findings,
        *outliers,
        *check_geometry(sample, distances, cutoff),
        *check_boundaries(sample),
        *check_consistency(sample, residuals),
        *check_duplicates(sample, make_fingerprints(sample.structures, sample.elements)),
    ]
    measured = {
        **units.measured,
        f"neighbours within {cutoff:g} Å": f"{distances.neighbors:.3g} per atom",
    }
    return _checkup(sample, findings, measured)


def check_split(sample: Sample, *, method: str, fraction: float, seed: int) -> Checkup:
    """Check the split that a training would make of a dataset for leakage."""
    try:
        split = split_store(sample.store, method=method, fraction=fraction, seed=seed)
    except ValueError as error:
        finding = make_finding("note", "split", [], str(error), "only needed for training")
        return _checkup(sample, [finding], {})
    inside = np.isin(sample.rows, split.validation)
    measured = {
        "validation structures that fit would use": f"{len(split.validation)}, {split.reason}"
    }
    if inside.all() or not inside.any():
        return _checkup(sample, [], measured)
    findings = check_leakage(
        take(sample, np.nonzero(~inside)[0]),
        take(sample, np.nonzero(inside)[0]),
        parts=("training", f"validation (split {method})"),
        chosen=False,
    )
    return _checkup(sample, findings, measured)


def check_between(first: Sample, second: Sample) -> Checkup:
    """Check two datasets for leakage between them; rows are those of the second."""
    findings = check_leakage(
        first,
        second,
        parts=(first.store.path.name, second.store.path.name),
        chosen=True,
    )
    return _checkup(second, findings, {})


def quick_check(store: Store, validation: Store | None, cutoff: float) -> list[Finding]:
    """Errors and warnings from a check of a part of a dataset, which takes a second or two.

    Args:
        store: training set.
        validation: validation set, if it is a separate one.
        cutoff: cutoff (Å) of the potential.
    """
    sample = read_sample(store, QUICK_ATOMS)
    findings = check_set(sample, cutoff=cutoff).findings
    if validation is not None:
        findings += check_between(sample, read_sample(validation, QUICK_ATOMS)).findings
    return [finding for finding in findings if finding.severity != "note"]


def merge(checkups: Sequence[Checkup]) -> Checkup:
    """Merge several check-ups of the same file."""
    first = checkups[0]
    return Checkup(
        file=first.file,
        structures=first.structures,
        checked=first.checked,
        findings=_sorted([finding for one in checkups for finding in one.findings]),
        measured={name: value for one in checkups for name, value in one.measured.items()},
    )


def take(sample: Sample, chosen: Integers) -> Sample:
    """Select structures of a sample."""
    return sample._replace(
        structures=[sample.structures[i] for i in chosen],
        **{
            name: getattr(sample, name)[chosen]
            for name in ("rows", "counts", "n_atoms", "energies", "volumes", "alone")
        },
    )


def _checkup(sample: Sample, findings: list[Finding], measured: dict[str, str]) -> Checkup:
    file = sample.store.path.name
    return Checkup(
        file=file,
        structures=len(sample.store),
        checked=len(sample.rows),
        findings=_sorted([finding._replace(file=file) for finding in findings]),
        measured=measured,
    )


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
