"""All checks of one dataset, and of a training set with its test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tesseral.data.doctor.boundaries import check_boundaries
from tesseral.data.doctor.consistency import check_consistency
from tesseral.data.doctor.duplicates import check_duplicates, check_leakage
from tesseral.data.doctor.findings import SEVERITIES, Finding, Fix, make_finding
from tesseral.data.doctor.fingerprints import make_fingerprints
from tesseral.data.doctor.frames import check_force_frames, check_stress_frames
from tesseral.data.doctor.geometry import check_geometry, measure_distances
from tesseral.data.doctor.impossible import check_possible
from tesseral.data.doctor.labels import check_labels
from tesseral.data.doctor.mending import mended
from tesseral.data.doctor.outliers import LEAST, Outliers, check_outliers
from tesseral.data.doctor.ridge import (
    Design,
    composition_energies,
    fit_labels,
    make_design,
    read_labels,
    without_gross,
)
from tesseral.data.doctor.sample import Array, Integers, Sample, has_forces, read_sample
from tesseral.data.doctor.stress import (
    Judged,
    change_findings,
    expected_stress,
    flat_stress,
    judge_groups,
    mended_rows,
)
from tesseral.data.doctor.units import Units, check_units
from tesseral.data.isolated import isolated_rows
from tesseral.data.loading.splits import split_store
from tesseral.data.store.read import Store
from tesseral.data.structures import Structure

# Stresses (S, 3, 3) eV/Å³ of structures, from a model fitted to their energies and forces; the
# second argument says whether it was asked for, and is not only needed for a doubtful case.
Predict = Callable[[list[Structure], bool], Array]

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
                    "fix": None if finding.fix is None else finding.fix._asdict(),
                }
                for finding in self.findings
            ],
        }


def check_set(
    sample: Sample, *, cutoff: float, predict: Predict | None = None, thorough: bool = False
) -> Checkup:
    """Check one dataset.

    Args:
        sample: structures of the dataset.
        cutoff: cutoff (Å) of the potential to be trained.
        predict: function that fits a better model of the stresses, for doubtful cases.
        thorough: use it in any case.
    """
    sample = sample._replace(alone=isolated_rows(sample.store, sample.rows, cutoff))
    design = make_design(sample)
    references = composition_energies(sample)
    units = check_units(sample, design, read_labels(sample, references), references)
    stresses, outliers = check_values(sample, design, units)
    measured = dict(units.measured)
    enough = min(np.isfinite(sample.energies).sum(), has_forces(sample).sum()) >= LEAST
    if predict is not None and enough and (thorough or outliers.doubtful):
        better = predict(_reliable(sample, units, [*stresses, *outliers.findings]), thorough)
        stresses, outliers = check_values(sample, design, units, better)
        measured["stress"] = "compared with a potential fitted to energies and forces"
    distances = measure_distances(sample, cutoff)
    findings = [
        *check_possible(sample),
        *check_labels(sample),
        *units.findings,
        *stresses,
        *outliers.findings,
        *check_geometry(sample, distances, cutoff),
        *check_boundaries(sample),
        *check_consistency(sample, outliers.residuals),
        *check_duplicates(sample, make_fingerprints(sample.structures, sample.elements)),
    ]
    if "conversions" in sample.store.attributes:
        measured["labels as imported"] = sample.store.attributes["conversions"]
    measured[f"neighbours within {cutoff:g} Å"] = f"{distances.neighbors:.3g} per atom"
    return _checkup(sample, findings, measured)


def check_values(
    sample: Sample, design: Design, units: Units, better: Array | None = None
) -> tuple[list[Finding], Outliers]:
    """Check the stresses of groups, and then the labels of single structures.

    Args:
        sample: the structures.
        design: rows of the linear model.
        units: result of the check of the whole set.
        better: (S, 3, 3) eV/Å³, stresses from energies and forces, in addition to the linear
            model's.
    """
    others = [] if better is None else [better.reshape(-1, 9)]
    labels, judged = units.labels, Judged({}, False)
    frames: list[Finding] = []
    enough = np.isfinite(labels.energy).sum() >= LEAST
    if enough:
        frames, labels = check_force_frames(sample, design, labels)
    if enough and np.isfinite(labels.stress).any():
        alone = fit_labels(design, without_gross(design, labels), stress=False).stress
        judged = judge_groups(sample, design, labels.stress, [alone, *others])
        labels = labels._replace(stress=mended_rows(sample, labels.stress, judged.fixes))
        expected = expected_stress(sample, design, labels.stress, [alone, *others], mixed=True)
        turned = check_stress_frames(sample, labels.stress, flat_stress(expected))
        frames += turned
        wrong = np.isin(sample.rows, [row for f in turned for row in f.rows])
        labels.stress[wrong | (wrong.mean() > 0.5)] = np.nan
    outliers = check_outliers(
        sample,
        design,
        labels,
        units.references,
        stress=bool(np.isfinite(labels.stress).any()) and (units.stress or bool(judged.fixes)),
        others=others,
    )
    doubtful = judged.doubtful or outliers.doubtful
    return [*frames, *change_findings(sample, judged)], outliers._replace(doubtful=doubtful)


def _reliable(sample: Sample, units: Units, findings: list[Finding]) -> list[Structure]:
    """Structures in consistent units, without the energies and forces that were found wrong.

    Forces in another frame that is known are turned.
    """
    wrong: dict[str, set[int]] = {"energy": set(), "forces": set()}
    turned: dict[int, Fix] = {}
    for finding in findings:
        label = finding.check.split()[0]
        rows = finding.rows or sample.rows.tolist()
        if finding.fix is not None and finding.fix.frame is not None and label == "forces":
            turned |= dict.fromkeys(rows, finding.fix)
        elif label in wrong:
            wrong[label].update(rows)
    made = []
    for row, structure in zip(sample.rows.tolist(), sample.structures, strict=True):
        if row in turned:
            structure = mended(structure, turned[row])
        made.append(
            structure._replace(
                energy=np.nan if row in wrong["energy"] else structure.energy * units.energy_factor,
                forces=structure.forces
                * (np.nan if row in wrong["forces"] else units.forces_factor),
                stress=np.full((3, 3), np.nan),
            )
        )
    return made


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
