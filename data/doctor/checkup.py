"""All checks of one dataset, and of several that are trained and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tesseral.data.doctor.consistency import check_consistency
from tesseral.data.doctor.duplicates import check_duplicates, check_leakage
from tesseral.data.doctor.findings import SEVERITIES, Finding, make_finding
from tesseral.data.doctor.fingerprints import make_fingerprints
from tesseral.data.doctor.geometry import check_geometry, measure_distances
from tesseral.data.doctor.labels import check_labels
from tesseral.data.doctor.outliers import check_outliers
from tesseral.data.doctor.ridge import composition_energies, make_design, read_labels
from tesseral.data.doctor.sample import Integers, Sample, read_sample
from tesseral.data.doctor.units import check_units
from tesseral.data.loading.splits import split_store
from tesseral.data.store.read import Store

MAX_ATOMS = 100_000  # of a full check
QUICK_ATOMS = 4_000  # of the one before a training


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """What was found in one dataset.

    Args:
        file: its name.
        structures: number of all structures.
        checked: number of those that were looked at.
        findings: errors first.
        measured: ratios of labels to what they should be, and other numbers, in words.
    """

    file: str
    structures: int
    checked: int
    findings: list[Finding] = field(default_factory=list)
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def safe(self) -> bool:
        """Whether there are no errors."""
        return all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
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
    """Look at one dataset.

    Args:
        sample: its structures.
        cutoff: Å, of the potential that is going to be trained.
    """
    design = make_design(sample)
    references = composition_energies(sample)
    units = check_units(sample, design, read_labels(sample, references), references)
    outliers, residuals = check_outliers(
        sample, design, units.labels, units.references, stress=units.stress
    )
    distances = measure_distances(sample, cutoff)
    findings = [
        *check_labels(sample),
        *units.findings,
        *outliers,
        *check_geometry(sample, distances, cutoff),
        *check_consistency(sample, residuals),
        *check_duplicates(sample, make_fingerprints(sample.structures, sample.elements)),
    ]
    measured = {
        **units.measured,
        f"neighbours within {cutoff:g} Å": f"{distances.neighbors:.3g} an atom",
    }
    return _checkup(sample, findings, measured)


def check_split(sample: Sample, *, method: str, fraction: float, seed: int) -> Checkup:
    """Look for leakage in the division that a training would make of a dataset."""
    try:
        split = split_store(sample.store, method=method, fraction=fraction, seed=seed)
    except ValueError as error:
        finding = make_finding("note", "split", [], str(error), "needed for a training only")
        return _checkup(sample, [finding], {})
    inside = np.isin(sample.rows, split.validation)
    measured = {
        "validation structures that fit would take": f"{len(split.validation)}, {split.reason}"
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
    """Look for leakage between two datasets; rows are those of the second."""
    findings = check_leakage(
        first,
        second,
        parts=(first.store.path.name, second.store.path.name),
        chosen=True,
    )
    return _checkup(second, findings, {})


def quick_check(store: Store, validation: Store | None, cutoff: float) -> list[Finding]:
    """The errors and warnings that a part of a dataset shows in a second or two.

    Args:
        store: to train on.
        validation: to validate on, if it is another.
        cutoff: Å.
    """
    sample = read_sample(store, QUICK_ATOMS)
    findings = check_set(sample, cutoff=cutoff).findings
    if validation is not None:
        findings += check_between(sample, read_sample(validation, QUICK_ATOMS)).findings
    return [finding for finding in findings if finding.severity != "note"]


def merge(checkups: Sequence[Checkup]) -> Checkup:
    """One check-up of several of the same file."""
    first = checkups[0]
    return Checkup(
        file=first.file,
        structures=first.structures,
        checked=first.checked,
        findings=_sorted([finding for one in checkups for finding in one.findings]),
        measured={name: value for one in checkups for name, value in one.measured.items()},
    )


def take(sample: Sample, chosen: Integers) -> Sample:
    """Some structures of a sample."""
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
