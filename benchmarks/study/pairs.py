"""Pairs of different structures that some potentials cannot distinguish.

All are stars or chains. Their edges are given explicitly, not found by distance, so that only the
named deficiency hides the difference. Sources: Pozdnyakov et al., PRL 125, 166001 (2020) for the
environments of one atom; Joshi et al., arXiv 2301.09308, for chains and rotational symmetry.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tesseral.data.graph import AtomicGraph

RADIUS = 2.0  # Å, length of all edges
Points = NDArray[np.float64]


class Pair(NamedTuple):
    """Two structures with the same number of atoms and the same edges."""

    first: AtomicGraph
    second: AtomicGraph


def graph_of(positions: Points, edges: list[tuple[int, int]]) -> AtomicGraph:
    """A structure of one element with given edges, each listed once for both directions."""
    ends = sorted({(b, a) for a, b in edges} | set(edges), key=lambda edge: edge[1])
    senders, receivers = torch.tensor(ends).T
    n_atoms = len(positions)
    return AtomicGraph(
        positions=torch.as_tensor(positions, dtype=torch.float64),
        species=torch.zeros(n_atoms, dtype=torch.int64),
        structure=torch.zeros(n_atoms, dtype=torch.int64),
        cell=torch.zeros(1, 3, 3, dtype=torch.float64),
        senders=senders.contiguous(),
        receivers=receivers.contiguous(),
        shifts=torch.zeros(len(ends), 3, dtype=torch.float64),
    )


def star(neighbors: Points) -> AtomicGraph:
    """An atom at the origin, connected to neighbours in the given directions."""
    lengths = np.linalg.norm(neighbors, axis=1, keepdims=True)
    positions = np.concatenate([np.zeros((1, 3)), RADIUS * neighbors / lengths])
    return graph_of(positions, [(0, i) for i in range(1, len(positions))])


def circle(degrees: Points, height: float = 0.0) -> Points:
    """Directions around the z axis, of length 1 in the plane."""
    angles = np.radians(np.asarray(degrees, dtype=float))
    return np.stack([np.cos(angles), np.sin(angles), np.full_like(angles, height)], axis=1)


def same_distances() -> Pair:
    """Two neighbours at the same distance, at an angle of 120° or 180°: the same pairs."""
    return Pair(star(circle(np.array([0, 120]))), star(circle(np.array([0, 180]))))


def same_angles() -> Pair:
    """Four neighbours on a circle with the same set of angles between them: the same triplets.

    The subsets {0, 1, 3, 4} and {0, 1, 2, 5} of the eighths of a circle have the same differences.
    """
    eighth = 45.0
    return Pair(
        star(circle(eighth * np.array([0, 1, 3, 4]))), star(circle(eighth * np.array([0, 1, 2, 5])))
    )


def same_triples() -> Pair:
    """Seven neighbours whose triples have the same angles: the same four-body terms.

    They are vertices of a regular dodecahedron; five of them are also vertices of a cube, which has
    three more. Found by comparing all choices of seven vertices.
    """
    cube = [[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1], [-1, 1, 1]]
    long = (1 + 5**0.5) / 2
    short = 1 / long
    return Pair(
        star(np.array([*cube, [0, short, long], [long, 0, short]])),
        star(np.array([*cube, [short, long, 0], [long, 0, -short]])),
    )


def triangles_and_hexagon() -> Pair:
    """Two equilateral triangles and a regular hexagon: every atom has two equal neighbours."""
    side = RADIUS
    triangle = circle(np.array([90, 210, 330])) * side / 3**0.5
    far = np.array([[50.0, 0.0, 0.0]])
    rings = [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5)]
    hexagon = circle(60.0 * np.arange(6)) * side
    return Pair(
        graph_of(np.concatenate([triangle, triangle + far]), rings),
        graph_of(hexagon, [(i, (i + 1) % 6) for i in range(6)]),
    )


def chain(length: int) -> Pair:
    """A straight chain of ``length`` atoms with one more at each end, to the same or other side.

    Only information about both ends, length + 1 edges apart, distinguishes them.
    """
    line = RADIUS * np.stack([np.arange(length), np.zeros(length), np.zeros(length)], axis=1)
    bend = RADIUS * np.array([-0.6, 0.8, 0.0])
    edges = [(i, i + 1) for i in range(length + 1)]

    def ends(sign: float) -> AtomicGraph:
        first, last = line[:1] + bend, line[-1:] + bend * [-1, sign, 1]
        return graph_of(np.concatenate([first, line, last]), edges)

    return Pair(ends(1.0), ends(-1.0))


def two_rings(fold: int) -> Pair:
    """An atom between two rings of ``fold`` atoms each, eclipsed or staggered, as in ferrocene.

    Both rings have an axis of order ``fold``: for functions on the sphere of lower degree they are
    cones.
    """
    step = 360.0 / fold
    upper = circle(step * np.arange(fold), 0.8)

    def sandwich(twist: float) -> AtomicGraph:
        return star(np.concatenate([upper, circle(step * np.arange(fold) + twist, -0.8)]))

    return Pair(sandwich(0.0), sandwich(0.5 * step))
