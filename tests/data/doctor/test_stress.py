"""Stresses with exchanged components, wrong signs, units and frames; in all structures or some."""

import numpy as np
import pytest

from tesseral.data.doctor.findings import Fix
from tesseral.data.doctor.mending import (
    composed,
    describe_change,
    frame_rotation,
    mended,
)
from tesseral.data.doctor.stress import Judged, judge_groups
from tesseral.data.units import EV_PER_A3_IN_GPA, STRESS_UNITS

YZ_XZ = (1, 2, 3, 5, 4, 6)
EXCHANGE = Fix("stress", 1.0, components=YZ_XZ)
YZ_XY = (1, 2, 3, 6, 5, 4)
XZ_XY = (1, 2, 3, 4, 6, 5)
CYCLE = (1, 2, 3, 5, 6, 4)  # VASP's order read as ASE's needs yz from xz, xz from xy, xy from yz
AXES = (2, 3, 1, 5, 6, 4)
UPPER = Fix("stress", 1.0, components=(1, 4, 6, 5, 3, 2))  # xx xy xz yy yz zz read as ASE's


def changed(fix):
    """The fault that a correction of an order removes."""
    places = [abs(k) for k in fix.components]
    inverse = tuple(places.index(k) + 1 for k in range(1, 7))
    return Fix("stress", 1 / fix.factor, components=inverse)


def shown(found):
    print({name: (one.found, one.rows, one.fix) for name, one in found.items()})


@pytest.mark.parametrize("components", [YZ_XZ, YZ_XY, XZ_XY, CYCLE, AXES, UPPER.components])
def test_all_structures_in_another_order(sic, examine, components):
    fix = Fix("stress", 1.0, components=components)
    found, _ = examine([mended(s, changed(fix)) for s in sic])
    shown(found)
    assert list(found) == ["stress order"]
    assert found["stress order"].rows == ()
    assert found["stress order"].fix == fix


def test_the_correction_of_all_is_sure_although_some_have_no_stress(sic, examine):
    none = np.full((3, 3), np.nan)
    wrong = [mended(s, changed(EXCHANGE)) for s in sic]
    found, _ = examine([s._replace(stress=none) if k % 20 == 0 else s for k, s in enumerate(wrong)])
    shown(found)
    assert list(found) == ["stress order"] and found["stress order"].fix == EXCHANGE


def test_a_correction_after_that_of_the_frame_is_left_out():
    frame, shear = Fix("stress", 1.0, frame="lower"), Fix("stress", 1.0, shear=0.5)
    both = Judged({0: frame, 1: EXCHANGE}, False).followed_by(Judged({0: shear, 1: shear}, False))
    assert both.fixes == {0: frame, 1: composed(EXCHANGE, shear)}


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_config_type_in_another_order(sic, examine, sign):
    names = [s.config_type for s in sic]
    largest = max(set(names), key=names.count)
    rows = [row for row, name in enumerate(names) if name == largest]
    fix = Fix("stress", sign, components=YZ_XZ)
    found, _ = examine([mended(s, fix) if k in rows else s for k, s in enumerate(sic)])
    shown(found)
    assert list(found) == ["stress order"]
    assert list(found["stress order"].rows) == rows
    assert found["stress order"].fix == fix
    assert largest in found["stress order"].found


def scattered(sic):
    """Rows of five structures with large differences of yz and xz, with these exchanged."""
    apart = np.array([abs(s.stress[1, 2] - s.stress[0, 2]) for s in sic])
    rows = sorted(np.argsort(apart)[-20::4].tolist())
    return rows, [mended(s, EXCHANGE) if k in rows else s for k, s in enumerate(sic)]


def test_five_scattered_structures(sic, examine):
    """Those that the quick model predicts well enough, and no others."""
    rows, wrong = scattered(sic)
    found, _ = examine(wrong)
    shown(found)
    assert list(found) == ["stress order"]
    assert len(found["stress order"].rows) >= 3
    assert set(found["stress order"].rows) <= set(rows)
    assert found["stress order"].fix == EXCHANGE


def test_five_scattered_structures_with_a_better_model(sic, examine):
    rows, wrong = scattered(sic)
    noise = 0.002 * np.random.default_rng(0).normal(size=(len(sic), 3, 3))
    found, _ = examine(wrong, np.stack([s.stress for s in sic]) + noise + noise.swapaxes(1, 2))
    shown(found)
    assert list(found) == ["stress order"]
    assert list(found["stress order"].rows) == rows
    assert found["stress order"].fix == EXCHANGE


def test_a_source_in_kbar_and_another_of_virials(sic, examine):
    names = [s.config_type for s in sic]
    first, second = sorted(set(names), key=names.count)[-2:]
    wrong = [
        s._replace(stress=s.stress / STRESS_UNITS["kbar"])
        if s.config_type == first
        else s._replace(stress=-s.stress * abs(np.linalg.det(s.cell)))
        if s.config_type == second
        else s
        for s in sic
    ]
    found, _ = examine(wrong)
    shown(found)
    assert set(found) == {"stress unit"}


def test_doubled_shear(sic, examine):
    found, _ = examine([mended(s, Fix("stress", 1.0, shear=2.0)) for s in sic])
    shown(found)
    assert list(found) == ["stress order"]
    assert found["stress order"].fix == Fix("stress", 1.0, shear=0.5)


def test_stress_in_the_frame_of_a_triangular_cell(sic, examine):
    wrong = []
    for s in sic:
        turn = frame_rotation(s.cell, "lower")
        wrong.append(s._replace(stress=turn.T @ s.stress @ turn))
    found, _ = examine(wrong)
    shown(found)
    assert list(found) == ["stress frame"]
    assert found["stress frame"].fix == Fix("stress", 1.0, frame="lower")


def test_forces_in_the_frame_of_a_triangular_cell(sic, examine):
    wrong = [s._replace(forces=s.forces @ frame_rotation(s.cell, "lower")) for s in sic]
    found, _ = examine(wrong)
    shown(found)
    assert list(found) == ["forces frame"]
    assert found["forces frame"].fix == Fix("forces", 1.0, frame="lower")


def test_stress_in_an_unknown_frame(sic, examine):
    """A rotation that the cell does not tell: principal values are right, axes are not."""
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    found, _ = examine([s._replace(stress=rotation.T @ s.stress @ rotation) for s in sic])
    shown(found)
    assert list(found) == ["stress frame"]
    assert len(found["stress frame"].rows) > len(sic) / 2
    assert found["stress frame"].fix is None


@pytest.mark.parametrize("frame", ["lower", "upper"])
@pytest.mark.parametrize("mirror", [1, -1])
def test_frames(frame, mirror):
    cell = np.random.default_rng(0).normal(size=(3, 3)) * [[1], [1], [mirror]]
    rotation = frame_rotation(cell, frame)
    triangle = cell @ rotation
    outside = np.triu(triangle, 1) if frame == "lower" else np.tril(triangle, -1)
    np.testing.assert_allclose(outside, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)


def test_two_corrections_as_one(sic):
    first = Fix("stress", -1.0, components=(1, 2, 3, 5, -6, 4))
    second = Fix("stress", 2.0, components=(2, 1, 3, -4, 6, 5))
    twice = mended(mended(sic[0], first), second)
    once = mended(sic[0], composed(first, second))
    np.testing.assert_allclose(once.stress, twice.stress)


@pytest.mark.parametrize(
    ("fix", "words"),
    [
        (Fix("stress", 1.0, components=YZ_XY), "order of LAMMPS was read as that of ASE"),
        (Fix("stress", 1.0, components=CYCLE), "order of VASP was read as that of ASE"),
        (UPPER, "order of the upper triangle was read as that of ASE"),
        (Fix("stress", -1.0, components=XZ_XY), "opposite sign and have xz and xy exchanged"),
        (Fix("stress", STRESS_UNITS["GPa"]), "are in GPa"),
        (Fix("stress", 1.0, per_volume=True), "multiplied by the volume"),
        (Fix("stress", 1.0, shear=0.5), "yz, xz and xy multiplied by 2"),
    ],
)
def test_words(fix, words):
    print(describe_change(fix))
    assert words in describe_change(fix)


@pytest.mark.parametrize("alike", [True, False])
def test_what_similar_structures_have_in_common_counts_once(sic_subject, sic_design, alike):
    """Six predictions of the opposite sign, by four errors: one error of all, if they are alike."""
    rng = np.random.default_rng(0)
    members = [k for k, s in enumerate(sic_subject.structures) if s.config_type == "SiC-vacancy"]
    assert len(members) == 6
    error = 0.5 * EV_PER_A3_IN_GPA**-1
    stress = np.stack([s.stress for s in sic_subject.structures])
    noise = error * rng.normal(size=stress.shape)
    predicted = stress + (noise + noise.swapaxes(1, 2)) / 2
    shapes = rng.normal(size=(6, 3, 3))
    shapes = np.repeat(shapes[:1], 6, axis=0) if alike else shapes
    shapes = shapes + shapes.swapaxes(1, 2)
    shapes *= 2 * error / np.linalg.norm(shapes, axis=(1, 2), keepdims=True)
    stress[members] = shapes + (noise[members] + noise[members].swapaxes(1, 2)) / 8
    predicted[members] = -shapes
    judged = judge_groups(
        sic_subject, sic_design, stress.reshape(-1, 9), [predicted.reshape(-1, 9)]
    )
    print(judged)
    assert set(judged.fixes) == (set() if alike else set(members))
    assert all(fix == Fix("stress", -1.0) for fix in judged.fixes.values())
