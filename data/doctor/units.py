"""Checks of units and signs of the whole dataset, by the consistency of the labels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tesseral.data.doctor.differences import stress_offset, stress_ratio
from tesseral.data.doctor.findings import Finding, Fix, make_finding
from tesseral.data.doctor.ridge import (
    Design,
    Labels,
    energy_scale,
    fit_labels,
    force_norms,
    weighted_median,
    without_gross,
)
from tesseral.data.doctor.sample import Array, Sample, median, scale
from tesseral.data.units import (
    ENERGY_UNITS,
    EV_PER_A3_IN_GPA,
    FORCE_UNITS,
    STRESS_UNITS,
)

ALIKE = 1.35  # factors between energies and forces closer to 1 are taken as 1
EXPLAINED = 0.5  # largest unexplained fraction of the labels for a model to be reliable
LEAST = 40  # structures needed for a reliable model
GROSS = 10.0  # times the usual size: labels ignored here
PAIRS = 12  # sufficient number of finite differences
OFFSET, LEFT = 2.0, 0.6  # GPa; part of the disagreement that remains without an offset
ODD = 2.0  # factor above which a ratio is wrong even if no unit explains it
UNITS_OF_LABEL = {"energy": ENERGY_UNITS, "forces": FORCE_UNITS, "stress": STRESS_UNITS}


class Guess(NamedTuple):
    """Possible cause of a factor."""

    label: str
    unit: str
    sign: int
    factor: float  # factor that corrects the label


def recognise(label: str, ratio: float, tolerance: float) -> Guess | None:
    """Unit and sign in which a label is probably given; None if no unit explains the ratio.

    Args:
        label: energy, forces or stress.
        ratio: label divided by its expected value.
        tolerance: factor by which the ratio may differ.
    """
    if not math.isfinite(ratio) or ratio == 0:
        return None
    best, found = math.log(tolerance), None
    for unit, size in UNITS_OF_LABEL[label].items():
        off = abs(math.log(abs(ratio) * size))
        if off < best:
            best, found = (
                off,
                Guess(label, unit, 1 if ratio > 0 else -1, math.copysign(size, ratio)),
            )
    return found


class Units(NamedTuple):
    """Results of the check of the units."""

    findings: list[Finding]
    labels: Labels  # with wrong units and signs of the whole dataset corrected
    references: Array  # (S,) eV/atom, zero of the energies, corrected likewise
    measured: dict[str, str]  # ratios, for the report
    stress: bool  # whether the convention of the stress is known
    forces_factor: float = 1.0  # forces in ``labels`` / forces of the structures
    energy_factor: float = 1.0  # likewise


def check_units(sample: Sample, design: Design, labels: Labels, references: Array) -> Units:
    """Compare energies with forces, and stresses with both.

    Args:
        sample: the structures.
        design: rows of the linear model.
        labels: labels to check.
        references: (S,) eV/atom, zero of their energies.
    """
    plain = Units([], labels, references, {}, False)
    units = _energies_and_forces(sample, design, plain)
    return _stresses(sample, design, _without_offset(sample, design, units))


def _energies_and_forces(sample: Sample, design: Design, units: Units) -> Units:
    """Find a common factor between the energies and the forces, their gradient."""
    labels = units.labels
    factor = energy_scale(design, without_gross(design, labels, GROSS))
    enough = np.isfinite(labels.energy).sum() >= LEAST and np.isfinite(labels.forces).any()
    if not enough or not np.isfinite(factor) or factor == 0:
        return units
    if not _fits(design, labels._replace(energy=labels.energy * factor)):
        return units
    units.measured["forces over energy gradients (model)"] = f"{1 / factor:.3g}"
    if 1 / ALIKE < factor < ALIKE:
        return units
    energy, forces = recognise("energy", 1 / factor, ALIKE), recognise("forces", factor, ALIKE)
    # The stress shows which of the two is right, if the stress is right.
    witness, pairs = stress_ratio(sample, without_gross(design, labels, GROSS), 1 / factor)
    if pairs >= PAIRS and 1 / ALIKE < witness < ALIKE:
        energy = None
    elif pairs >= PAIRS and 1 / ALIKE < witness / factor < ALIKE:
        forces = None
    words = " or ".join(_describe(guess) for guess in (energy, forces) if guess is not None)
    if not words and 1 / ODD < factor < ODD:
        return units
    finding = make_finding(
        "error",
        "energy and forces",
        [],
        f"the forces are {1 / factor:.3g} times the gradients of the energies"
        + (f": {words}" if words else ""),
        "import again with `energy_unit` or `forces_unit`, or change the sign of gradients",
    )
    units.findings.append(finding)
    if energy is None and forces is not None:
        return units._replace(
            labels=labels._replace(forces=labels.forces * forces.factor),
            forces_factor=forces.factor,
        )
    change = factor if energy is None else energy.factor
    return units._replace(
        labels=labels._replace(energy=labels.energy * change),
        references=units.references * change,
        energy_factor=change,
    )


def _fits(design: Design, labels: Labels) -> bool:
    """Return whether the model explains energies and forces well enough to be reliable."""
    found = fit_labels(design, without_gross(design, labels, GROSS), stress=False)
    rest = scale(labels.energy - found.energy) / max(scale(labels.energy), 1e-12)
    felt = median(force_norms(design, labels.forces - found.forces))
    size = median(force_norms(design, labels.forces))
    return bool(rest < EXPLAINED and felt < EXPLAINED * size)


def _without_offset(sample: Sample, design: Design, units: Units) -> Units:
    """Find a pressure that all stresses share, and the energies do not have."""
    labels = units.labels
    fitted = without_gross(design, labels, GROSS)
    found = stress_offset(sample, fitted, PAIRS, units.forces_factor)
    if found is None:
        return units
    pressure = -found.virial / median(sample.volumes) * EV_PER_A3_IN_GPA
    if not abs(pressure) > OFFSET or found.left > min(LEFT, found.factor_left):
        return units
    finding = make_finding(
        "warning",
        "stress offset",
        [],
        f"all stresses contain a pressure of about {pressure:.1f} GPa that the energies do not "
        f"({found.pairs} pairs of structures), as with plane waves and a low cutoff",
        "compute the labels with a higher cutoff, or train without stresses (weight 0 in the loss)",
    )
    units.findings.append(finding)
    right = labels.stress - found.virial / sample.volumes[:, None] * np.eye(3).ravel()
    return units._replace(labels=labels._replace(stress=right))


def _stresses(sample: Sample, design: Design, units: Units) -> Units:
    """Find the factor between the stresses and their values from energies and forces."""
    labels = units.labels
    used = np.isfinite(labels.stress).all(axis=1) & np.isfinite(labels.energy)
    fitted = without_gross(design, labels, GROSS)
    exact, pairs = stress_ratio(sample, fitted, units.forces_factor)
    should = np.full_like(labels.stress, np.nan)
    ratio, rest, trusted = float("nan"), float("nan"), False
    if used.sum() >= LEAST:
        should = fit_labels(design, fitted, stress=False).stress
        ratio, rest = _ratio(labels.stress[used], should[used])
        trusted = rest < 2 * EXPLAINED
    if trusted:
        units.measured["stress over the virial of a model of energies and forces"] = f"{ratio:.2f}"
    # If some of the strained cells are wrong, the model still shows that most are right.
    right = trusted and 1 / ALIKE < ratio < ALIKE
    if pairs >= PAIRS:
        name = "stress over finite differences of the energy"
        units.measured[name] = f"{exact:.2f} ({pairs} pairs)"
        ratio, trusted = (ratio if right else exact), True
    if not trusted or 1 / ALIKE < ratio < ALIKE:
        return units._replace(stress=trusted)
    virial = _virial_ratio(sample, labels, should)
    guess = recognise("stress", ratio, ALIKE)
    if recognise("stress", ratio, 1.1) is None and 1 / ALIKE < virial < ALIKE:
        said, fix = "the stresses are virials (-V · stress, in eV)", None
        advice = "import again with `virial_key` instead of `stress_key`"
        change = -1 / _cells(sample)[:, None]
    elif guess is None and (1 / ODD < ratio < ODD or rest > EXPLAINED):
        return units  # an order of components, rather than a factor, may be wrong
    else:
        said = f"all stresses are {ratio:.4g} times their values from the energies"
        said += f": {_describe(guess)}" if guess else ""
        advice = "import again with `stress_unit` and `stress_sign`"
        fix = Fix("stress", guess.factor) if guess else None
        change = np.array(guess.factor if guess else 1 / ratio)
    check = "stress sign" if fix is not None and fix.factor == -1 else "stress unit"
    units.findings.append(make_finding("error", check, [], said, advice, fix))
    return units._replace(labels=labels._replace(stress=labels.stress * change), stress=True)


def _virial_ratio(sample: Sample, labels: Labels, should: Array) -> float:
    """Ratio of the labels to the model if they are virials; NaN without a model."""
    known = np.isfinite(labels.stress * should).all(axis=1)
    if not known.any():
        return float("nan")
    return _ratio((labels.stress / -_cells(sample)[:, None])[known], should[known])[0]


def _cells(sample: Sample) -> Array:
    """Volume of each structure's cell, (S,) Å³."""
    return sample.volumes * sample.n_atoms


def _ratio(labels: Array, should: Array) -> tuple[float, float]:
    """Median ratio of label to prediction, and the fraction of the labels it leaves unexplained."""
    square = np.einsum("sk,sk->s", should, should)
    ratio = weighted_median(np.einsum("sk,sk->s", labels, should) / square, square)
    left = np.linalg.norm(labels - ratio * should, axis=1)
    return ratio, float(np.median(left) / np.median(np.linalg.norm(labels, axis=1)))


def _describe(guess: Guess) -> str:
    """Description of a guess."""
    if abs(guess.factor) == 1:
        return f"{guess.label} with the opposite sign"
    sign = " and with the opposite sign" if guess.sign < 0 else ""
    return f"{guess.label} in {guess.unit}{sign}"
