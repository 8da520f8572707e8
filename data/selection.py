"""Selection of points that are spread over a stream of points, in bounded memory.

Farthest-point selection takes, again and again, the point that is furthest from all taken before.
The largest distance of any point to the nearest of k points taken is then at most twice the
smallest possible one (T. F. Gonzalez, Theor. Comput. Sci. 38, 293, 1985). Taken literally it needs
all points in memory.

Here the stream is condensed to at most ``kept`` points, with the doubling algorithm (M. Charikar
et al., SIAM J. Comput. 33, 1417, 2004): a new point is kept if it is further than ``reach`` from
all kept ones; when there are too many, ``reach`` grows by a factor of at least 1.5 (2 in the paper)
and the kept points are thinned. With OPT(k) the smallest possible largest distance to k points,
farthest-point selection among the kept ones leaves no point of the stream further than
2 OPT(k) + 9 OPT(kept / 2) from the nearest of k chosen points. The second term is small, as there
are many more kept points than chosen ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Integers = NDArray[np.int64]

GROWTH = 1.5  # g; the bound is 2 g² / (g - 1) times OPT(kept / 2)
KNOWN = -1  # number of a point that cannot be chosen
ROWS, COLUMNS = 4096, 2048  # of the distances computed together
EXACT = 1e-6  # times the squared norms; smaller squared distances are rounding errors


class Chosen(NamedTuple):
    """Chosen points, in the order of choice."""

    numbers: Integers  # (k,)
    distances: NDArray[np.float64]  # (k,) to the nearest point chosen before, or known
    rest: float  # largest distance of a kept point to the nearest chosen or known one


class FarthestPoints:
    """Condensed stream of points, from which points far from each other are chosen.

    Attributes:
        seen: number of points that were added and can be chosen.
        reach: distance within which kept points stand for others.
        lost: bound of the distance of any point of the stream to the nearest kept one.
    """

    def __init__(self, kept: int) -> None:
        """Start without points.

        Args:
            kept: largest number of points in memory; several times as many as will be chosen.
        """
        if kept < 2:
            raise ValueError(f"`kept` is {kept}; it must be 2 or more")
        self.kept, self.seen = kept, 0
        self.reach = self.lost = 0.0
        self._centers: Points = np.empty((0, 0), np.float32)
        # The point of the largest weight near each centre; the centre itself without weights.
        self._points: Points = np.empty((0, 0), np.float32)
        self._numbers: Integers = np.empty(0, np.int64)
        self._weights: Points = np.empty(0, np.float32)

    def add(
        self,
        points: NDArray[np.floating],
        numbers: NDArray[np.integer] | None = None,
        weights: NDArray[np.floating] | None = None,
    ) -> None:
        """Add points.

        Args:
            points: (N, D).
            numbers: (N,) by which chosen points are named. Default: count from 0.
            weights: (N,) by which the distances of a point are multiplied. Default: 1. The bound
                of the distances holds for equal weights only.

        Raises:
            ValueError: the points are not finite, or have another number of dimensions than before.
        """
        if numbers is None:
            numbers = np.arange(self.seen, self.seen + len(points))
        if weights is None:
            weights = np.ones(len(points))
        self.seen += len(points)
        self._add(points, np.asarray(numbers, np.int64), np.asarray(weights, np.float32))

    def add_known(self, points: NDArray[np.floating]) -> None:
        """Add points (N, D) that are known: chosen ones will be far from them too."""
        unnamed = np.full(len(points), KNOWN)
        self._add(points, unnamed, np.zeros(len(points), np.float32))

    def _add(self, points: NDArray[np.floating], numbers: Integers, weights: Points) -> None:
        points = np.ascontiguousarray(points, dtype=np.float32)
        if not len(self._numbers):
            self._centers = self._points = np.empty((0, points.shape[1]), np.float32)
        if points.shape[1:] != self._centers.shape[1:] or not np.isfinite(points).all():
            raise ValueError(
                f"points must be finite numbers, (N, {self._centers.shape[1]}); found "
                f"{points.shape}"
            )
        for start in range(0, len(points), ROWS):
            part = slice(start, start + ROWS)
            self._add_part(points[part], numbers[part], weights[part])
            if len(self._numbers) > self.kept:
                self._thin()

    def _add_part(self, points: Points, numbers: Integers, weights: Points) -> None:
        squared, nearest = nearest_points(points, self._centers)
        far = squared > self.reach**2
        self._stand_for(~far, nearest, points, numbers, weights)
        new = np.flatnonzero(far)
        if self.reach > 0:
            order, _, _ = farthest(points[new], squared[new], count=len(new), reach=self.reach)
            rest = np.ones(len(new), bool)
            rest[order] = False
            before = len(self._numbers)
            self._append(points, numbers, weights, new[order])
            rest = new[rest]
            _, place = nearest_points(points[rest], self._centers[before:])
            every = np.ones(len(rest), bool)
            self._stand_for(every, before + place, points[rest], numbers[rest], weights[rest])
        else:
            self._append(points, numbers, weights, new)

    def _append(self, points: Points, numbers: Integers, weights: Points, rows: Integers) -> None:
        self._centers = np.concatenate([self._centers, points[rows]])
        self._points = np.concatenate([self._points, points[rows]])
        self._numbers = np.concatenate([self._numbers, numbers[rows]])
        self._weights = np.concatenate([self._weights, weights[rows]])

    def _stand_for(
        self,
        which: NDArray[np.bool_],
        nearest: Integers,
        points: Points,
        numbers: Integers,
        weights: Points,
    ) -> None:
        """Points that are not kept replace the one that a centre stands for, if it weighs less."""
        heavy = np.flatnonzero(which)
        if not len(heavy):
            return
        place = nearest[heavy]
        more = (weights[heavy] > self._weights[place]) & (self._numbers[place] != KNOWN)
        heavy = heavy[more]
        heavy = heavy[np.argsort(weights[heavy], kind="stable")]  # the last one counts
        place = nearest[heavy]
        self._points[place], self._numbers[place] = points[heavy], numbers[heavy]
        self._weights[place] = weights[heavy]

    def _thin(self) -> None:
        """Enlarge the reach until at most half of the points are kept."""
        centers, points = self._centers, self._points
        numbers, weights = self._numbers, self._weights
        nothing = np.full(len(centers), np.inf, np.float32)
        _, _, rest = farthest(centers, nothing, count=self.kept // 2)
        self.reach = max(GROWTH * self.reach, rest)
        self.lost += self.reach
        known, free = np.flatnonzero(numbers == KNOWN), np.flatnonzero(numbers != KNOWN)
        order, _, _ = farthest(centers[known], nothing[known], len(known), self.reach)
        kept = known[order]
        squared, _ = nearest_points(centers[free], centers[kept])
        order, _, _ = farthest(centers[free], squared, len(free), self.reach)
        kept = np.concatenate([kept, free[order]])
        dropped = np.setdiff1d(np.arange(len(centers)), kept)
        self._centers, self._points = centers[kept], points[kept]
        self._numbers, self._weights = numbers[kept], weights[kept]
        _, nearest = nearest_points(centers[dropped], self._centers)
        every = numbers[dropped] != KNOWN
        parts = points[dropped], numbers[dropped], weights[dropped]
        self._stand_for(every, nearest, *parts)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state, for a file; see ``from_arrays``."""
        return {
            "state": np.array([self.seen, self.reach, self.lost]),
            "centers": self._centers,
            "points": self._points,
            "numbers": self._numbers,
            "weights": self._weights,
        }

    @classmethod
    def from_arrays(cls, kept: int, arrays: Mapping[str, NDArray[Any]]) -> FarthestPoints:
        """The state of ``arrays``, made with the same number of kept points."""
        made = cls(kept)
        seen, made.reach, made.lost = arrays["state"].tolist()
        made.seen = int(seen)
        made._centers, made._points = arrays["centers"], arrays["points"]
        made._numbers, made._weights = arrays["numbers"], arrays["weights"]
        return made

    def choose(self, count: int) -> Chosen:
        """Points that are far from each other and from the known ones.

        Args:
            count: number of points; fewer are chosen if all others equal one of them.
        """
        free = np.flatnonzero(self._numbers != KNOWN)
        known = self._centers[self._numbers == KNOWN]
        points, weights = self._points[free], self._weights[free]
        squared, _ = nearest_points(points, known)
        order, distances, _ = farthest(points, squared, count, weights=weights)
        squared, _ = nearest_points(points, np.concatenate([known, points[order]]))
        rest = float(np.sqrt(squared.max(initial=0.0)))
        return Chosen(self._numbers[free[order]], distances, rest)


def farthest(
    points: Points,
    squared: Points,
    count: int,
    reach: float = 0.0,
    *,
    weights: Points | None = None,
) -> tuple[Integers, NDArray[np.float64], float]:
    """Farthest-point selection.

    Args:
        points: (N, D).
        squared: (N,) squared distances to what is taken already; infinite if nothing is.
        count: largest number of points to take.
        reach: distance at which no more points are taken.
        weights: (N,) factors of the distances. Default: 1.

    Returns:
        Indices of the points taken, (k,); the distance of each to the nearest one taken before,
        times its weight; and the largest of those distances of the points that are left.
    """
    points = points - points.mean(axis=0) if len(points) else points  # for smaller rounding errors
    norms = np.einsum("nd,nd->n", points, points)
    least = EXACT * norms.max(initial=0.0)
    factors = np.ones(len(points), np.float32) if weights is None else np.square(weights)
    squared = squared.copy()
    # Without anything taken, the first point is that furthest from the mean.
    score = factors * np.where(np.isinf(squared), norms, squared)
    order: list[int] = []
    distances: list[float] = []
    while True:
        best = int(score.argmax()) if len(score) else 0
        largest = float(score[best]) if len(score) else 0.0
        started = bool(order) or not np.isinf(squared).any()
        enough = started and not largest > reach**2
        if len(order) >= count or not len(score) or enough:
            break
        order.append(best)
        distances.append(np.sqrt(largest) if started else np.inf)
        new = norms - 2 * (points @ points[best]) + norms[best]
        new[new < least] = 0.0
        new[best] = 0.0
        np.minimum(squared, new, out=squared)
        score = factors * squared
    left = float(np.sqrt(largest)) if order or len(score) else 0.0
    return np.array(order, np.int64), np.array(distances), left


def nearest_points(points: Points, others: Points) -> tuple[Points, Integers]:
    """Squared distance (N,) of each of N points to the nearest of others, and which one that is.

    The distance is infinite if there are no others.
    """
    squared = np.full(len(points), np.inf, np.float32)
    nearest = np.zeros(len(points), np.int64)
    if not len(points) or not len(others):
        return squared, nearest
    middle = others.mean(axis=0)
    points, others = points - middle, others - middle
    norms, sizes = (np.einsum("nd,nd->n", each, each) for each in (points, others))
    for start in range(0, len(others), COLUMNS):
        part = slice(start, start + COLUMNS)
        products = points @ others[part].T
        products *= -2
        products += sizes[part]
        best = products.argmin(axis=1)
        found = products[np.arange(len(points)), best] + norms
        closer = found < squared
        squared[closer], nearest[closer] = found[closer], start + best[closer]
    squared[squared < EXACT * (norms + sizes[nearest])] = 0.0
    return squared, nearest
