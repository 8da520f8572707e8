"""Comparison of radial distributions of one element."""

import numpy as np
import pytest
from ase import Atoms

from benchmarks.water import REACH, Curve, difference, distribution


def molecules(frames, distance=2.825):
    """Pairs of oxygen atoms at a distance, with hydrogen in between."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(frames):
        place = generator.uniform(0, 14, size=3)
        positions = place + np.array([[0, 0, 0], [distance, 0, 0], [1.0, 0, 0]])
        made.append(Atoms("O2H", positions, cell=[14] * 3, pbc=True))
    return made


def test_only_the_element_counts():
    curve = distribution(molecules(10))
    where = curve.distance[curve.mean > 0]
    np.testing.assert_allclose(where, 2.825, atol=1e-6)
    np.testing.assert_allclose(curve.error, 0, atol=1e-9)
    place, value, _ = curve.extreme(1, (2.4, 3.2))
    assert value == pytest.approx(curve.mean.max())
    assert place == pytest.approx(2.825)


def test_the_difference_is_an_area():
    flat = np.zeros(124)
    one, other = (Curve(flat, np.full(124, level), flat) for level in (1.0, 1.5))
    assert difference(one, other) == pytest.approx(0.5 * REACH)
    assert difference(one, one) == 0.0


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match="there are 3 frames; 5 are needed"):
        distribution(molecules(3))
