"""Forces and stresses in another frame than the cell, whatever the rotation between the two is."""

from __future__ import annotations

import numpy as np

from tesseral.data.doctor.findings import Finding, Fix, Frame, count, make_finding
from tesseral.data.doctor.groups import group_words, groups_of
from tesseral.data.doctor.mending import FRAMES, frame_rotation
from tesseral.data.doctor.ridge import Design, Labels, fit_labels, force_norms, without_gross
from tesseral.data.doctor.sample import Array, Integers, Sample, has_forces, median

WRONG = 0.5  # residual, as a part of the label, from which a rotation is looked for
RIGHT = 0.4  # part of the residual that a rotation may leave
PRINCIPAL = 0.25  # the same for principal values, which may agree by chance
SAME = 1.3  # a known frame leaves at most so much more than the best rotation
FEWEST_ATOMS = 4
FEWEST = 8  # structures of a group
ANISOTROPIC = 0.3  # smallest deviator, in medians, that shows a frame


def check_force_frames(
    sample: Sample, design: Design, labels: Labels
) -> tuple[list[Finding], Labels]:
    """Find groups of structures whose forces are rotated, and correct or remove these forces.

    Args:
        sample: the structures.
        design: rows of the linear model.
        labels: labels in consistent units.
    """
    findings: list[Finding] = []
    known = has_forces(sample) & (sample.n_atoms >= FEWEST_ATOMS)
    if known.sum() < FEWEST:
        return findings, labels
    labels, whole = _turned_whole(sample, design, labels)
    if whole is not None:
        return [_forces_finding(sample, np.nonzero(known)[0], whole, True)], labels
    found = fit_labels(design, without_gross(design, labels), stress=False).forces
    size = force_norms(design, labels.forces)
    off = force_norms(design, labels.forces - found)
    suspect = known & (off > WRONG * size)
    if suspect.sum() < FEWEST:
        return findings, labels
    done = np.zeros(len(known), dtype=bool)
    for members in groups_of(sample, suspect):
        if done[members].any():
            continue
        best = np.array([_rotated(sample, design, labels, found, int(k), None) for k in members])
        if median(best / off[members]) > RIGHT:
            continue
        frame = None
        for name in FRAMES:
            left = [_rotated(sample, design, labels, found, int(k), name) for k in members]
            if median(np.array(left)) < SAME * median(best):
                frame = name
        done[members] = True
        labels = _turned(sample, design, labels, members, frame)
        findings.append(_forces_finding(sample, members, frame, False))
    return findings, labels


def _turned_whole(sample: Sample, design: Design, labels: Labels) -> tuple[Labels, Frame | None]:
    """Labels with all forces turned to the frame of the cell, if they fit much better then."""

    def misfit(tried: Labels) -> float:
        found = fit_labels(design, without_gross(design, tried), stress=False)
        return median(force_norms(design, tried.forces - found.forces))

    plain = misfit(labels)
    if not plain > WRONG * median(force_norms(design, labels.forces)):
        return labels, None
    every = np.arange(len(sample.rows))
    for frame in FRAMES:
        turned = _turned(sample, design, labels, every, frame)
        if misfit(turned) < RIGHT * plain:
            return turned, frame
    return labels, None


def _turned(
    sample: Sample, design: Design, labels: Labels, members: Integers, frame: Frame | None
) -> Labels:
    """Labels with forces turned from a frame to that of the cell, or removed without a frame."""
    forces = labels.forces.copy()
    for k in members:
        own = design.owner == k
        turn = np.nan if frame is None else frame_rotation(sample.structures[k].cell, frame).T
        forces[own] = (forces[own].reshape(-1, 3) @ (turn * np.ones((3, 3)))).ravel()
    return labels._replace(forces=forces)


def _rotated(
    sample: Sample, design: Design, labels: Labels, found: Array, k: int, frame: Frame | None
) -> float:
    """Residual of the forces of one structure after a rotation; the best one without a frame."""
    own = design.owner == k
    label, should = labels.forces[own].reshape(-1, 3), found[own].reshape(-1, 3)
    if frame is None:
        # Kabsch's rotation. SciPy's warns where it is not unique, which does not matter here.
        left, _, right = np.linalg.svd(label.T @ should)
        proper = np.diag([1.0, 1.0, np.linalg.det(left @ right)])
        rotation = right.T @ proper @ left.T
    else:
        rotation = frame_rotation(sample.structures[k].cell, frame)
    return float(np.sqrt(np.mean((label @ rotation.T - should) ** 2)))


def _forces_finding(sample: Sample, members: Integers, frame: Frame | None, whole: bool) -> Finding:
    where = "" if frame is None else f": that in which {FRAMES[frame]}"
    subject = "all structures" if whole else count(len(members)) + group_words(sample, members)
    return make_finding(
        "error",
        "forces frame",
        [] if whole else sample.rows[members],
        f"the forces of {subject} belong to another frame than the cell{where}",
        "turn the forces with the cell, or import the files of the calculations",
        None if frame is None else Fix("forces", 1.0, frame=frame),
    )


def check_stress_frames(sample: Sample, stress: Array, should: Array) -> list[Finding]:
    """Find groups of structures whose stresses have the right principal values in a wrong frame.

    Args:
        sample: the structures.
        stress: (S, 9) eV/Å³, labels.
        should: (S, 9) eV/Å³, predictions.
    """
    label, expected = (_deviator(values) for values in (stress, should))
    size = np.linalg.norm(expected, axis=(1, 2))
    off = np.linalg.norm(label - expected, axis=(1, 2))
    known = np.isfinite(off)
    if not known.any():
        return []
    apart = np.full(len(off), np.nan)
    apart[known] = np.linalg.norm(
        np.linalg.eigvalsh(label[known]) - np.linalg.eigvalsh(expected[known]), axis=1
    )
    suspect = known & (size > ANISOTROPIC * median(size[known]))
    findings = []
    done = np.zeros(len(off), dtype=bool)
    for members in groups_of(sample, suspect):
        if len(members) < FEWEST or done[members].any():
            continue
        wrong = median(off[members] / size[members]) > WRONG
        if wrong and median(apart[members] / off[members]) < PRINCIPAL:
            done[members] = True
            findings.append(
                make_finding(
                    "error",
                    "stress frame",
                    sample.rows[members],
                    f"the stresses of {count(len(members))}{group_words(sample, members)} have the "
                    "expected principal values, but along other axes: another frame than the cell",
                    "turn the stresses with the cell, or import the files of the calculations",
                )
            )
    return findings


def _deviator(stress: Array) -> Array:
    """Tensors (S, 3, 3) without their pressure."""
    tensor = stress.reshape(-1, 3, 3)
    pressure = np.trace(tensor, axis1=1, axis2=2)[:, None, None] / 3
    return np.asarray(tensor - pressure * np.eye(3))
