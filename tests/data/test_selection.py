"""Farthest-point selection: compared with a direct one, its bound, known points, weights."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import seeds

from tesseral.data.selection import FarthestPoints


def cloud(number: int, dimensions: int = 3, seed: int = 0) -> np.ndarray:
    """Points in clusters of very different sizes, in random order."""
    rng = np.random.default_rng(seeds.offset + seed)
    centers = 5 * rng.normal(size=(8, dimensions))
    which = rng.choice(8, number, p=np.array([60, 20, 10, 5, 2, 1, 1, 1]) / 100)
    return centers[which] + rng.normal(size=(number, dimensions))


def directly_chosen(points: np.ndarray, known: np.ndarray, count: int) -> list[int]:
    """Farthest-point selection by its definition."""
    taken = list(known)
    order: list[int] = []
    while len(order) < count:
        gaps = [min(np.linalg.norm(point - other) for other in taken) for point in points]
        order.append(int(np.argmax(gaps)))
        taken.append(points[order[-1]])
    return order


def radius(points: np.ndarray, chosen: np.ndarray) -> float:
    """Largest distance of a point to the nearest chosen one."""
    gaps = np.linalg.norm(points[:, None] - chosen[None], axis=2)
    return float(gaps.min(axis=1).max())


def streamed(points: np.ndarray, kept: int, block: int = 50) -> FarthestPoints:
    """Points added in blocks."""
    summary = FarthestPoints(kept)
    for start in range(0, len(points), block):
        summary.add(points[start : start + block])
    return summary


def test_with_room_for_all_it_is_plain_farthest_point_selection():
    points, known = cloud(300), cloud(4, seed=1)
    summary = FarthestPoints(kept=500)
    summary.add_known(known)
    summary.add(points[:100])
    summary.add(points[100:])
    assert summary.choose(20).numbers.tolist() == directly_chosen(points, known, 20)


@pytest.mark.parametrize("order", ["random", "sorted"])
def test_bound_of_the_stream(order):
    points = cloud(2000, dimensions=2)
    if order == "sorted":  # the stream begins with what is alike
        points = points[np.argsort(points[:, 0])]
    summary = streamed(points, kept=60)
    assert summary.reach > 0 and len(summary._numbers) <= 60
    assert radius(points, summary._centers) <= summary.lost * (1 + 1e-5)
    chosen = summary.choose(10)
    assert radius(points, points[chosen.numbers]) <= chosen.rest + summary.lost
    direct = points[directly_chosen(points, points[:1], 10)]
    # Twice the best is a bound of the direct one, so half of its radius is at most the best.
    assert chosen.rest <= 2 * radius(points, direct) * (1 + 1e-5)
    assert radius(points, points[chosen.numbers]) < 1.5 * radius(points, direct)


def test_at_most_twice_the_best_radius_of_all_choices():
    points = cloud(16, dimensions=2)
    summary = FarthestPoints(kept=16)
    summary.add(points)
    best = min(radius(points, points[list(each)]) for each in combinations(range(16), 3))
    assert radius(points, points[summary.choose(3).numbers]) <= 2 * best * (1 + 1e-5)


def test_nothing_is_chosen_twice_and_duplicates_are_left():
    points = np.repeat(cloud(5), 4, axis=0) + 100.0
    chosen = streamed(points, kept=50).choose(20)
    assert len(chosen.numbers) == 5
    assert len(np.unique(points[chosen.numbers], axis=0)) == 5


def test_known_points_are_avoided_also_when_the_stream_is_thinned():
    points = np.concatenate([cloud(2000), 3.0 * cloud(20, seed=1) + 60.0])
    summary = FarthestPoints(kept=40)
    summary.add_known(points[:2000])
    summary.add(points)
    chosen = summary.choose(10)
    gaps = np.linalg.norm(points[chosen.numbers][:, None] - points[None, :2000], axis=2).min(axis=1)
    assert (gaps > 0).sum() >= 8  # of the twenty that are unknown
    assert chosen.numbers[0] >= 2000


def test_of_similar_points_the_one_with_the_largest_weight_is_chosen():
    rng = np.random.default_rng(seeds.offset)
    corners = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    points = np.repeat(corners, 200, axis=0) + rng.normal(size=(600, 2))
    order = rng.permutation(600)
    weights = np.ones(600)
    weights[[17, 230, 555]] = 2.0
    summary = FarthestPoints(kept=20)
    for part in np.array_split(order, 12):
        summary.add(points[part], part, weights[part])
    assert sorted(summary.choose(3).numbers.tolist()) == [17, 230, 555]


def test_points_that_are_not_numbers_are_refused():
    summary = FarthestPoints(10)
    with pytest.raises(ValueError, match="finite"):
        summary.add(np.full((2, 3), np.nan))
    summary.add(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        summary.add(np.zeros((2, 4)))
