"""Order, sign, unit and frame of stresses, in groups of structures and in single ones.

Stresses are compared with predictions from energies and forces. Each hypothesis about a fault is a
correction of the label; it is accepted if the corrected labels agree clearly better with the
predictions. Agreement is a likelihood of the six residuals with heavy tails (Student's multivariate
t: a structure that is predicted badly in one component probably is so in all), in units of the
errors of similar structures, separately for pressure, deviator and shear. Predictions of similar
structures have similar errors, so what the residuals of a group have in common counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tesseral.data.doctor.findings import Finding, Fix, count, make_finding
from tesseral.data.doctor.groups import SMALLEST, group_words, groups_of
from tesseral.data.doctor.mending import (
    MISTAKEN,
    PLAIN,
    component_matrix,
    composed,
    describe_change,
    mended_stress,
    tensors,
    voigt,
)
from tesseral.data.doctor.ridge import Design, local_scale, weighted_median
from tesseral.data.doctor.sample import Array, Integers, Sample
from tesseral.data.doctor.units import recognise

FREEDOM = 10.0  # degrees of freedom of Student's t
MARGIN = 12.0  # evidence, in nats, required of a group
MARGIN_SINGLE = 3.0  # and of a structure, plus the logarithm of the odds against the fault
DOUBT = 0.9  # fraction of the evidence from which a better model is asked
SYMMETRIC = 0.01  # of the usual size, below which components are taken to be zero by symmetry
EXPLAINED = 0.6  # largest part of the residuals that a correction may leave
FITS = 3.0  # largest residual that a correction may leave in a single structure, in errors
CLEARLY = 0.3  # or as a part of the residual before
PRINCIPAL = 0.5  # residual of principal values, over all, below which axes differ
RIVAL = 3.0  # evidence by which the correction must exceed all others to be certain
LARGEST = 200  # structures of a group that are compared
NONE = Fix("stress", 1.0)
# Pressure, deviator and shear of a tensor from its six components; preserves the norm.
BASIS = np.array(
    [
        np.array([1, 1, 1, 0, 0, 0]) / np.sqrt(3),
        np.array([1, -1, 0, 0, 0, 0]) / np.sqrt(2),
        np.array([1, 1, -2, 0, 0, 0]) / np.sqrt(6),
        *np.sqrt(2) * np.eye(6)[3:],
    ]
)
KINDS = np.array([0, 1, 1, 2, 2, 2])  # of the rows of BASIS
MEDIANS = np.array([0.674, 0.833, 0.888])  # of the root mean squares of 1, 2 and 3 normal values
OF_LEAST = 1.3  # error over the median of the least residuals of many hypotheses


class Hypotheses(NamedTuple):
    """Possible faults of a stress."""

    fixes: list[Fix]
    penalty: Array  # (H,) nats: larger for faults that are less likely
    matrices: Array  # (H, 6, 6)


class Expected(NamedTuple):
    """Predictions of the stresses in `BASIS`, and their errors."""

    values: Array  # (S, 6) eV/Å³
    errors: Array  # (S, 6) eV/Å³, of similar structures


class Judged(NamedTuple):
    """Result for one group or for single structures."""

    fixes: dict[int, Fix]  # by position in the sample
    doubtful: bool  # whether a better model might find more
    uncertain: frozenset[int] = frozenset()  # positions whose correction is not unique

    def followed_by(self, other: Judged) -> Judged:
        """Both corrections of each structure as one; another frame remains the only one."""
        fixes = dict(self.fixes)
        for member, fix in other.fixes.items():
            before = fixes.get(member, NONE)
            fixes[member] = before if before.frame is not None else composed(before, fix)
        return Judged(fixes, other.doubtful, self.uncertain | other.uncertain)


def _hypotheses(*, turned: bool, every: bool) -> Hypotheses:
    """Corrections for known conventions, for rotations by 90° and for all permutations."""
    found: dict[tuple[float, tuple[int, ...]], float] = {}

    def add(places: Sequence[int], signs: Sequence[int], penalty: float) -> None:
        components = tuple(int(s * (k + 1)) for k, s in zip(places, signs, strict=True))
        for factor, more in ((1.0, 0.0), (-1.0, 1.0)):
            if factor == 1 and components == PLAIN:
                continue
            key = (factor, components)
            found[key] = min(penalty + more, found.get(key, np.inf))

    same, positive = range(6), (1,) * 6
    shear_signs = (1, 1, 1, -1, -1, -1)
    add(same, positive, 0.0)
    for places in MISTAKEN:
        add(places, positive, 2.0)
    for shear in permutations((3, 4, 5)):
        add((0, 1, 2, *shear), positive, 2.0)
    add(same, shear_signs, 3.0)
    for axes in permutations(range(3)):
        places = _turned_places(axes)
        add(places, positive, 3.0)
        for signs in product((1, -1), repeat=3) if turned else ():
            add(places, (1, 1, 1, *(signs[a] * signs[b] for a, b in ((1, 2), (0, 2), (0, 1)))), 5.0)
    if every:
        for places in permutations(range(6)):
            add(places, positive, 8.0)
            add(places, shear_signs, 8.0)
    fixes = [
        Fix("stress", factor, components=() if components == PLAIN else components)
        for factor, components in found
    ]
    return Hypotheses(
        fixes,
        np.array(list(found.values())),
        np.stack([fix.factor * component_matrix(fix) for fix in fixes]),
    )


def _turned_places(axes: Sequence[int]) -> tuple[int, ...]:
    """Places of the components after a permutation of the axes."""
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    turned = [tuple(sorted((axes[a], axes[b]))) for a, b in pairs]
    return tuple(pairs.index((a, b)) for a, b in turned)


def expected_stress(
    sample: Sample, design: Design, stress: Array, predictions: Sequence[Array], *, mixed: bool
) -> Expected:
    """Mean of several predictions, weighted by their errors, and the errors of the mean.

    Args:
        sample: the structures.
        design: rows of the structures.
        stress: (S, 9) eV/Å³, labels.
        predictions: (S, 9) eV/Å³ each, NaN where unknown.
        mixed: whether many labels may have a fault. It then increases the errors little, but they
            are less accurate.
    """
    labels = voigt(stress.reshape(-1, 3, 3))
    moved = labels[None] @ BASIS.T
    if mixed:
        changed = np.einsum("hij,sj->hsi", NAMED.matrices, labels) @ BASIS.T
        moved = np.concatenate([moved, changed])
    values = [voigt(one.reshape(-1, 3, 3)) @ BASIS.T for one in predictions]
    if len(values) == 1:
        return Expected(values[0], _errors(design, moved, values[0]))
    errors = np.stack([_errors(design, moved, value) for value in values])
    weights = np.where(np.isfinite(values), errors**-2, 0.0)
    with np.errstate(invalid="ignore"):
        mean = (weights * np.nan_to_num(values)).sum(axis=0) / weights.sum(axis=0)
    return Expected(mean, _errors(design, moved, mean))


def _errors(design: Design, moved: Array, values: Array) -> Array:
    """Errors (S, 6) of predictions, of which the least for some versions (H, S, 6) of the labels.

    They are those of the structures that are most similar, for pressure, deviator and shear.
    """
    off = (moved - values) ** 2
    labels = moved[0]
    usual = float(np.sqrt(np.nanmean(labels**2))) if np.isfinite(labels).any() else 1.0
    errors = np.empty_like(values)
    for kind, median in enumerate(MEDIANS):
        of_kind = kind == KINDS
        size = np.sqrt(off[:, :, of_kind].mean(axis=2)).min(axis=0)
        # Components that are zero by symmetry tell nothing about the errors of others.
        found = np.sqrt(np.mean(labels[:, of_kind] ** 2 + values[:, of_kind] ** 2, axis=1))
        known = np.isfinite(labels).all(axis=1)
        small = SYMMETRIC * np.sqrt(np.mean(labels[known][:, of_kind] ** 2)) if known.any() else 0.0
        size = np.where(found > small, size, np.nan)
        times = OF_LEAST if len(moved) > 1 else 1 / median
        scale = times * local_scale(design, size)
        errors[:, of_kind] = np.maximum(scale, 1e-3 * usual + 1e-9)[:, None]
    return errors


def judge_groups(
    sample: Sample, design: Design, stress: Array, predictions: Sequence[Array]
) -> Judged:
    """Find faults that all structures of a group have.

    Groups are the whole set, and the structures with the same ``config_type``, ``source`` or
    ``group``. A fault of a larger group is accepted only if no smaller one contradicts it.

    Args:
        sample: the structures.
        design: rows of the structures.
        stress: (S, 9) eV/Å³, labels.
        predictions: (S, 9) eV/Å³ each, stresses from energies and forces alone.
    """
    cells = np.stack([structure.cell for structure in sample.structures])
    known: NDArray[np.bool_] = np.asarray(np.isfinite(stress).all(axis=1))
    parts = list(groups_of(sample, known))
    judged = Judged({}, False)
    for judge in (_scale_of, _order_of, _shear_of):
        expected = expected_stress(sample, design, stress, predictions, mixed=True)
        labels = voigt(stress.reshape(-1, 3, 3))
        found: dict[int, Fix] = {}
        uncertain: set[int] = set()
        doubtful = judged.doubtful
        for members in parts:
            if found.keys() & set(members.tolist()):
                continue
            fix, doubt, sure = judge(labels, expected, cells, members, parts)
            doubtful |= doubt
            if fix is not None:
                found.update(dict.fromkeys(members.tolist(), fix))
                uncertain.update(() if sure else members.tolist())
        stress = mended_rows(sample, stress, found)
        judged = judged.followed_by(Judged(found, doubtful, frozenset(uncertain)))
    return judged


def mended_rows(sample: Sample, stress: Array, fixes: dict[int, Fix]) -> Array:
    """Stresses (S, 9) with the corrections of single structures, by their position."""
    stress = stress.copy()
    for fix in dict.fromkeys(fixes.values()):
        some = [k for k, one in fixes.items() if one == fix]
        cells = np.stack([sample.structures[k].cell for k in some])
        stress[some] = mended_stress(stress[some].reshape(-1, 3, 3), fix, cells).reshape(-1, 9)
    return stress


def flat_stress(expected: Expected) -> Array:
    """Predicted stresses, (S, 9) eV/Å³."""
    return tensors(expected.values @ np.linalg.inv(BASIS).T).reshape(-1, 9)


def _scale_of(
    labels: Array, expected: Expected, cells: Array, members: Integers, parts: list[Integers]
) -> tuple[Fix | None, bool, bool]:
    """Unit or volume by which the norms of a group's stresses differ from the expected ones."""

    def quotient(some: Integers) -> Array:
        should = np.linalg.norm(expected.values[some], axis=1)
        size = np.linalg.norm(labels[some] @ BASIS.T, axis=1)
        large = should > max(0.3 * float(np.nanmedian(should)), 1e-9)
        return np.where(large & (size > 0), np.log(np.maximum(size, 1e-30) / should), np.nan)

    ratio = quotient(members)
    number = int(np.isfinite(ratio).sum())
    if number < SMALLEST or abs(np.nanmedian(ratio)) < np.log(3):
        return None, False, True
    guess = recognise("stress", float(np.exp(np.nanmedian(ratio))), 1.6)
    by_volume = ratio - np.log(np.abs(np.linalg.det(cells[members])))
    candidates = [(by_volume, Fix("stress", 1.0, per_volume=True))]
    if guess is not None:
        candidates.append((ratio + np.log(guess.factor), Fix("stress", guess.factor)))
    spreads = [np.nanquantile(np.abs(rest), 0.8) for rest, _ in candidates]
    best = int(np.argmin(spreads))
    fix = candidates[best][1]
    if spreads[best] > np.log(3):
        return None, False, True
    for part in parts:  # not all of the group if a part of it is right
        if len(part) < len(members) and np.isin(part, members).all():
            inner = quotient(part)
            if np.isfinite(inner).sum() >= SMALLEST and abs(np.nanmedian(inner)) < np.log(1.6):
                return None, False, True
    return fix, False, True


def _order_of(
    labels: Array, expected: Expected, cells: Array, members: Integers, parts: list[Integers]
) -> tuple[Fix | None, bool, bool]:
    """Order, sign or frame of a group's stresses."""
    some = members[np.linspace(0, len(members) - 1, min(LARGEST, len(members))).astype(int)]
    some = some[np.isfinite(expected.values[some]).all(axis=1)]
    if len(some) < SMALLEST:
        return None, False, True
    table = EVERY if len(some) >= 10 else NAMED
    changed, fixes, penalty = _changed(labels[some], cells[some], table)
    evidence = _evidence(changed, labels[some], expected, some)
    score = _group_evidence(evidence, changed, labels[some], expected, some) - penalty
    best = int(score.argmax())
    if score[best] < DOUBT * MARGIN:
        return None, False, True
    for_it, against = (evidence[best] > 0.5).sum(), (evidence[best] < -0.5).sum()
    left = _left(changed[best], labels[some], expected, some)
    if score[best] < MARGIN or for_it < max(SMALLEST, 3 * against) or left > EXPLAINED:
        return None, bool(len(some) >= 10 and left < EXPLAINED + 0.1), True
    if _along_other_axes(changed[best], expected.values[some]):
        return None, False, True
    place = {int(member): k for k, member in enumerate(some)}
    for part in parts:
        if len(part) < len(members):
            inner = [place[int(member)] for member in part if int(member) in place]
            if evidence[best][inner].sum() < -MARGIN:
                return None, False, True
    near = np.nonzero(score > score[best] - RIVAL)[0]
    apart = np.abs(changed[near] - changed[best]).max(axis=(1, 2))
    alike = apart < 1e-6 * np.abs(labels[some]).max()
    return fixes[best], False, bool(alike.all())


def _along_other_axes(labels: Array, expected: Array) -> bool:
    """Return whether principal values agree much better than components, in a group.

    Then it is turned by an angle other than 90°, to which a correction is only close.
    """
    found, should = tensors(labels), tensors(expected @ np.linalg.inv(BASIS).T)
    apart = np.linalg.norm(np.linalg.eigvalsh(found) - np.linalg.eigvalsh(should), axis=1)
    return bool(
        np.median(apart) < PRINCIPAL * np.median(np.linalg.norm(found - should, axis=(1, 2)))
    )


def _changed(labels: Array, cells: Array, table: Hypotheses) -> tuple[Array, list[Fix], Array]:
    """Labels (H, S, 6) under all hypotheses, those corrections, and their penalties."""
    changed = np.einsum("hij,sj->hsi", table.matrices, labels)
    frames = [Fix("stress", 1.0, frame="lower"), Fix("stress", 1.0, frame="upper")]
    turned = [voigt(mended_stress(tensors(labels), fix, cells)) for fix in frames]
    return (
        np.concatenate([changed, np.stack(turned)]),
        table.fixes + frames,
        np.concatenate([table.penalty, [3.0, 3.0]]),
    )


def _scaled(values: Array, expected: Expected, some: Integers) -> Array:
    """Residuals (…, S, 6) of components in units of their errors."""
    return np.asarray((values @ BASIS.T - expected.values[some]) / expected.errors[some])


def _evidence(changed: Array, labels: Array, expected: Expected, some: Integers) -> Array:
    """Logarithm of the likelihood ratio of each hypothesis and structure, (H, S)."""
    before, after = (_loss(_scaled(values, expected, some)) for values in (labels, changed))
    return before - after


def _group_evidence(
    evidence: Array, changed: Array, labels: Array, expected: Expected, some: Integers
) -> Array:
    """Logarithm of the likelihood ratio of each hypothesis for a group, (H,).

    It is the smaller one of two: with independent errors of the predictions, and with an error that
    all have in common, as predictions of similar structures may; that counts once.

    Args:
        evidence: (H, S) of each structure.
        changed: (H, S, 6) labels under the hypotheses.
        labels: (S, 6) labels as they are.
        expected: predictions.
        some: positions of the structures.
    """
    errors = expected.errors[some]
    usual = np.median(errors, axis=0)

    def loss(values: Array) -> Array:
        residuals = _scaled(values, expected, some)
        weights = (1 / (1 + np.sum(residuals**2, axis=-1) / FREEDOM))[..., None] / errors**2
        common = np.sum(weights * residuals * errors, axis=-2) / np.sum(weights, axis=-2)
        apart = _loss(residuals - common[..., None, :] / errors).sum(axis=-1)
        return np.asarray(np.minimum(_loss(residuals).sum(axis=-1), _loss(common / usual) + apart))

    return np.asarray(np.minimum(evidence.sum(axis=1), loss(labels) - loss(changed)))


def _loss(residuals: Array) -> Array:
    """Negative logarithm of the likelihood of residuals (…, 6), without its constant."""
    return np.asarray((FREEDOM + 6) / 2 * np.log1p(np.sum(residuals**2, axis=-1) / FREEDOM))


def _left(changed: Array, labels: Array, expected: Expected, some: Integers) -> float:
    """Part of the residuals that a correction of a group leaves, where it changes something."""
    moved = np.abs((changed - labels) @ BASIS.T) > 1e-9
    before, after = (
        np.linalg.norm(np.where(moved, _scaled(values, expected, some), 0), axis=1)
        for values in (labels, changed)
    )
    return float(np.minimum(after, 20).sum() / np.minimum(before, 20).sum())


def _shear_of(
    labels: Array, expected: Expected, cells: Array, members: Integers, parts: list[Integers]
) -> tuple[Fix | None, bool, bool]:
    """Factor of two of a group's shear, from engineering strains."""
    known = members[np.isfinite(expected.values[members]).all(axis=1)]
    found, should = labels[known] @ BASIS.T, expected.values[known]
    shear, deviator = KINDS == 2, KINDS == 1
    if len(known) < SMALLEST or not found[:, shear].any():
        return None, False, True
    for factor in (0.5, 2.0):
        slopes = _slopes(factor * found[:, shear], should[:, shear])
        others = _slopes(found[:, deviator], should[:, deviator])
        fix = Fix("stress", 1.0, shear=factor)
        changed = labels[known] @ component_matrix(fix).T
        evidence = _evidence(changed[None], labels[known], expected, known)
        total = _group_evidence(evidence, changed[None], labels[known], expected, known)[0]
        most = total > MARGIN and (evidence > 0.5).mean() > 0.5
        if most and all(0.8 < slope < 1.25 for slope in (*slopes, others[0])):
            return fix, False, True
    return None, False, True


def _slopes(found: Array, should: Array) -> tuple[float, float]:
    """Ratio of labels to predictions with errors in one or in the other; both are near if small."""
    mixed = np.einsum("sk,sk->s", found, should)
    squares = np.einsum("sk,sk->s", should, should), np.einsum("sk,sk->s", found, found)
    if not (squares[0] > 0).any() or not (mixed > 0).any():
        return float("nan"), float("nan")
    first, second = squares[0] > 0, mixed > 0
    return (
        weighted_median(mixed[first] / squares[0][first], squares[0][first]),
        weighted_median(squares[1][second] / mixed[second], mixed[second]),
    )


def judge_singles(sample: Sample, stress: Array, expected: Expected) -> Judged:
    """Find faults of single structures.

    Args:
        sample: the structures.
        stress: (S, 9) eV/Å³, labels; faults of groups corrected.
        expected: predictions without the structures' own stress.
    """
    labels = voigt(stress.reshape(-1, 3, 3))
    some = np.nonzero(np.isfinite(labels).all(axis=1) & np.isfinite(expected.values).all(axis=1))[0]
    if len(some) == 0:
        return Judged({}, False)
    labels = labels[some]
    cells = np.stack([sample.structures[i].cell for i in some])
    changed, fixes, penalty = _changed(labels, cells, KNOWN)
    score = _evidence(changed, labels, expected, some) - penalty[:, None]
    # Of two faults that explain a label, the one that others have too is more likely.
    margin = MARGIN_SINGLE + np.log(len(some))
    first = score.argmax(axis=0)[score.max(axis=0) > margin]
    support = np.log1p(np.bincount(first, minlength=len(fixes)))
    best = (score + support[:, None]).argmax(axis=0)
    each = np.arange(len(some))
    top = score[best, each]
    moved = np.abs((changed[best, each] - labels) @ BASIS.T) > 1e-9
    before, after = (
        np.sqrt(
            np.sum(np.where(moved, _scaled(values, expected, some), 0) ** 2, axis=1)
            / np.maximum(moved.sum(axis=1), 1)
        )
        for values in (labels, changed[best, each])
    )
    fits = (after < np.maximum(FITS, CLEARLY * before)) & (after < EXPLAINED * before)
    alike = np.bincount(best[fits & (top > margin)], minlength=len(fixes))
    accepted = fits & (top > margin - np.log(np.maximum(alike, 1))[best])
    same = np.abs(changed - changed[best, each]).max(axis=2) < 1e-6 * np.abs(labels).max()
    rivals = ((score > top - RIVAL) & ~same).any(axis=0) & (alike[best] < SMALLEST)
    return Judged(
        {int(some[k]): fixes[best[k]] for k in np.nonzero(accepted)[0]},
        bool((fits & ~accepted & (top > DOUBT * margin)).any()),
        frozenset(int(some[k]) for k in np.nonzero(accepted & rivals)[0]),
    )


def change_findings(sample: Sample, judged: Judged) -> list[Finding]:
    """Findings about stresses that need the same correction."""
    findings = []
    known = [bool(np.isfinite(s.stress).all()) for s in sample.structures]
    for fix in dict.fromkeys(judged.fixes.values()):
        inside = [k for k, one in judged.fixes.items() if one == fix]
        if fix == NONE:
            continue
        whole = len(inside) == sum(known)
        sure = not judged.uncertain & set(inside)
        rows: list[int] = [] if whole else sample.rows[inside].tolist()
        subject = "all stresses" if whole else f"the stresses of {count(len(inside))}"
        findings.append(
            make_finding(
                "error",
                _check_name(fix),
                rows,
                f"{subject}{'' if whole else group_words(sample, inside)} {describe_change(fix)}",
                "import again with the right `stress_order`, `stress_sign` and `stress_unit`"
                if whole
                else "convert them; files with two conventions were probably mixed",
                fix if sure else None,
            )
        )
    return findings


def _check_name(fix: Fix) -> str:
    if fix.frame is not None:
        return "stress frame"
    if fix.components or fix.shear != 1:
        return "stress order"
    return "stress sign" if fix.factor == -1 and not fix.per_volume else "stress unit"


KNOWN = _hypotheses(turned=False, every=False)  # of single structures: few fit by chance
NAMED = _hypotheses(turned=True, every=False)
EVERY = _hypotheses(turned=True, every=True)
