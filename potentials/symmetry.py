"""Symmetry of a relaxed potential: broken components, their axes, remaining point group.

A relaxed Facet adds learned functions on the sphere to the fields of the atoms, (7) in
docs/understand/theory.md. An orthogonal matrix R that leaves all of them unchanged is a symmetry
of the potential. With the coefficients of degree l as columns of a matrix B_l, and natural parity,
they change by

    Σ_l |D_l(R) B_l - B_l|² = 2 Σ_l tr (1 - D_l(R)) G_l,      G_l = B_l B_lᵀ,              (8)

so the small matrices G_l are sufficient for any number of functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from e3nn import o3
from scipy.optimize import minimize
from torch import Tensor, nn

from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.blocks.mixing import SphereMixing
from tesseral.potentials.blocks.sphere import (
    Harmonics,
    degree_sizes,
    representations,
    sphere_grid,
)
from tesseral.potentials.calibrate import DAMPING
from tesseral.potentials.message_passing import MessagePassing

UNBROKEN = 1e-3  # relative to the field; smaller functions count as zero
SEPARATE = 0.26  # rad, minimum angle between different elements of a point group


def broken_weights(potential: MessagePassing) -> list[nn.Parameter]:
    """Coefficients of the learned functions of each layer, (mixings, S, M - 1, C); may be empty."""
    layers = [layer for layer in potential.layers if isinstance(layer, FacetLayer)]
    return [layer.broken for layer in layers if layer.broken is not None]


@torch.no_grad()
def broken_functions(potential: MessagePassing) -> list[list[Tensor]]:
    """The learned functions relative to the fields to which they are added.

    The RMS of these fields was measured by the calibration for each degree (for a degree absent by
    symmetry, 3% of the largest value is used).

    Returns:
        a float64 tensor (M - 1, S C) on the CPU for each mixing of each layer.
    """
    functions = []
    for layer in potential.layers:
        if not isinstance(layer, FacetLayer):
            continue
        learned = layer.broken_functions()
        if learned is None:
            continue
        own = []
        for mixing, broken in zip(layer.mixings, learned):
            assert isinstance(mixing, SphereMixing)
            scale = mixing.enter.scale.flatten().double().cpu()
            scale = scale / DAMPING ** torch.arange(len(scale), dtype=scale.dtype)
            rows = torch.repeat_interleave(scale, torch.tensor(mixing.enter.sizes))[1:]
            own.append(rows.unsqueeze(1) * broken.double().cpu().transpose(0, 1).flatten(1))
        functions.append(own)
    return functions


def gram_matrices(functions: Tensor) -> list[Tensor]:
    """G_l of (8) for l = 1 … l_max, (2l+1, 2l+1), of functions (M - 1, K)."""
    l_max = round((functions.shape[0] + 1) ** 0.5) - 1
    parts = torch.split(functions, degree_sizes(l_max)[1:], dim=0)
    return [part @ part.T for part in parts]


def function_sizes(functions: Tensor) -> list[float]:
    """RMS of the coefficients of each degree from 1, of functions (M - 1, K)."""
    grams = gram_matrices(functions)
    return [float((gram.trace() / (len(gram) * functions.shape[1])).sqrt()) for gram in grams]


def leading_function(functions: Tensor) -> tuple[Tensor, float]:
    """The dominant common shape (M - 1,) of functions (M - 1, K), and its share of them."""
    left, sizes, _ = torch.linalg.svd(functions, full_matrices=False)
    return left[:, 0] * sizes[0], float(sizes[0].square() / sizes.square().sum())


class Axis(NamedTuple):
    """Direction in which the functions of one degree are largest."""

    direction: list[float]  # unit vector x, y, z; its sign has no meaning
    share: float  # share of their mean square that is axial around it; at most 1


def leading_axis(gram: Tensor) -> Axis:
    """Axis of the functions of one degree, whose G_l must not be zero.

    For axial functions it is their axis; for l = 1 it is their principal axis.
    """
    degree = gram.shape[0] // 2
    harmonics = Harmonics(degree)

    def share(directions: Tensor) -> Tensor:
        values = harmonics(directions)[:, degree**2 :]
        shares: Tensor = (values @ gram * values).sum(1) / (gram.shape[0] * gram.trace())
        return shares

    nodes = sphere_grid(590, 1)[0][:, 1:] / 3**0.5
    start = nodes[share(nodes).argmax()]

    def negative(vector: list[float]) -> float:
        direction = torch.as_tensor(vector, dtype=torch.float64)
        return -float(share(direction.unsqueeze(0) / direction.norm()))

    found = minimize(negative, start.tolist(), options={"gtol": 1e-9})
    direction = torch.from_numpy(found.x / (found.x @ found.x) ** 0.5)
    largest = direction[direction.abs().argmax()]
    return Axis((direction * largest.sign()).tolist(), -float(found.fun))


def _overlap(grams: Sequence[Tensor], rotations: Tensor) -> Tensor:
    """Σ_l tr D_l(R) G_l for rotations (B, 3, 3)."""
    turned = representations(rotations, len(grams))
    parts = [torch.einsum("bij,ji->b", matrices, gram) for matrices, gram in zip(turned, grams)]
    return torch.stack(parts).sum(0)


class PointGroup(NamedTuple):
    """Group of the matrices that leave the functions unchanged."""

    name: str  # Schönflies; O(3) if nothing is broken, C∞v and D∞h for axial functions
    axis: list[float] | None  # main axis of rotation x, y, z; None if there is none
    elements: Tensor | None  # (order, 3, 3); None for infinite groups
    deviation: float  # largest change of the functions by an element, relative to their size


def point_group(grams: Sequence[Tensor], tolerance: float) -> PointGroup:
    """The largest group that changes the functions by at most a fraction of their RMS.

    Args:
        grams: G_l for l = 1, 2, …
        tolerance: this fraction; learned functions are never exactly symmetric.

    Raises:
        ValueError: the tolerance is not between 0 and 1.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; it must be between 0 and 1")
    if sum(float(gram.trace()) for gram in grams) == 0:
        return PointGroup("O(3)", None, None, 0.0)
    axis, deviation = _axial(grams)
    if deviation <= tolerance:
        odd = sum(float(gram.trace()) for gram in grams[::2])
        inverted = 2.0 * (odd / sum(float(gram.trace()) for gram in grams)) ** 0.5
        if inverted <= tolerance:
            return PointGroup("D∞h", axis.tolist(), None, max(deviation, inverted))
        return PointGroup("C∞v", axis.tolist(), None, deviation)
    elements, deviations = _closed(*_symmetries(grams, tolerance))
    name, main = schoenflies(elements)
    return PointGroup(name, main, elements, float(deviations.max()))


def remaining_group(potential: MessagePassing, tolerance: float) -> PointGroup:
    """The point group of all learned functions of a potential; see ``point_group``."""
    functions = [own for mixings in broken_functions(potential) for own in mixings]
    sizes = [size for own in functions for size in function_sizes(own)]
    if max(sizes, default=0.0) <= UNBROKEN:
        return point_group([torch.zeros(3, 3, dtype=torch.float64)], tolerance)
    return point_group(gram_matrices(torch.cat(functions, dim=1)), tolerance)


def _generators(l_max: int) -> list[Tensor]:
    """Derivatives of each D_l with respect to rotations about x, y and z, (3, 2l+1, 2l+1)."""
    step = 1e-4
    turns = o3.axis_angle_to_matrix(torch.eye(3).double(), torch.full((3,), step).double())
    return [(part - part.mT) / (2.0 * step) for part in representations(turns, l_max)]


def _axial(grams: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Axis around which the functions change least, and their maximum change."""
    change = torch.zeros(3, 3, dtype=torch.float64)
    for turned, gram in zip(_generators(len(grams)), grams):
        change += torch.einsum("aij,jk,bik->ab", turned, gram, turned)
    axis = torch.linalg.eigh(change).eigenvectors[:, 0]
    number = 4 * len(grams)
    angles = torch.arange(1, number, dtype=torch.float64) * (2.0 * torch.pi / number)
    turns = o3.axis_angle_to_matrix(axis.expand(len(angles), 3), angles)
    size = sum(gram.trace() for gram in grams)
    return axis, float((2.0 - 2.0 * _overlap(grams, turns) / size).clamp(min=0.0).max().sqrt())


def _symmetries(grams: Sequence[Tensor], tolerance: float) -> tuple[Tensor, Tensor]:
    """All matrices (n, 3, 3) that change functions by less than the tolerance, and the changes.

    Rotations on a grid of 12° are moved to the nearest maxima of ``_overlap``.
    """
    circle = torch.arange(30, dtype=torch.float64) * (2.0 * torch.pi / 30)
    polar = (torch.arange(15, dtype=torch.float64) + 0.5) * (torch.pi / 15)
    around = o3.axis_angle_to_matrix(torch.tensor([0.0, 1.0, 0.0]).double(), circle)
    tilted = o3.axis_angle_to_matrix(torch.tensor([1.0, 0.0, 0.0]).double(), polar)
    grid = torch.einsum("aij,bjk,ckl->abcil", around, tilted, around)
    turns = representations(around, len(grams)), representations(tilted, len(grams))
    found: list[Tensor] = []
    deviations: list[Tensor] = []
    for parity in (1, -1):  # of degree l, inversion changes the sign as parity^l
        signed = [gram * parity**degree for degree, gram in enumerate(grams, 1)]
        size = sum(gram.trace() for gram in grams)
        lowest = 1.0 - tolerance**2 / 2.0 - (0.15 * len(grams)) ** 2 / 2.0  # half a step away
        overlaps = sum(
            torch.einsum("aij,bjk,ckl,li->abc", y, x, y, gram) for y, x, gram in zip(*turns, signed)
        )
        near = _climb(signed, grid[overlaps > max(lowest, 0.2) * size])
        deviation = (2.0 - 2.0 * _overlap(signed, near) / size).clamp(min=0.0).sqrt()
        own: list[Tensor] = []
        for place in deviation.argsort():
            if deviation[place] > tolerance:
                break
            if all(_angle(near[place], other) > SEPARATE for other in own):
                own.append(near[place])
                deviations.append(deviation[place])
        found += [parity * matrix for matrix in own]
    return torch.stack(found), torch.stack(deviations)


def _climb(grams: Sequence[Tensor], rotations: Tensor) -> Tensor:
    """Newton steps from rotations (B, 3, 3) to maxima of ``_overlap``."""
    generators = _generators(len(grams))
    for _ in range(6 if len(rotations) else 0):
        slope = torch.zeros(len(rotations), 3, dtype=torch.float64)
        curvature = torch.zeros(len(rotations), 3, 3, dtype=torch.float64)
        now = representations(rotations, len(grams))
        for gram, turned, matrices in zip(grams, generators, now):
            slope += torch.einsum("bij,ajk,ki->ba", matrices, turned, gram)
            products = torch.einsum("aij,cjk->acik", turned, turned)
            products = 0.5 * (products + products.transpose(0, 1))
            curvature += torch.einsum("bij,acjk,ki->bac", matrices, products, gram)
        values, vectors = torch.linalg.eigh(curvature)
        uphill = values.abs().clamp(min=1e-6 * float(values.abs().max()))
        step = vectors @ ((vectors.mT @ slope.unsqueeze(2)) / uphill.unsqueeze(2))
        length = step.norm(dim=1).clamp(min=1e-300)
        axes = (step / length.unsqueeze(1)).squeeze(2)
        rotations = rotations @ o3.axis_angle_to_matrix(axes, length.clamp(max=0.2).squeeze(1))
    return rotations


def _angle(first: Tensor, second: Tensor) -> float:
    """Angle of the rotation between two rotations, rad."""
    return float(torch.arccos(((first * second).sum() - 1.0).div(2.0).clamp(-1.0, 1.0)))


def _closed(elements: Tensor, deviations: Tensor) -> tuple[Tensor, Tensor]:
    """Elements that form a group; the least accurate ones are removed until this holds."""
    while True:
        products = torch.einsum("aij,bjk->abik", elements, elements).flatten(0, 1)
        overlaps = torch.einsum("aij,bij->ab", products, elements).amax(1)  # 1 + 2 cos(angle)
        if float(overlaps.min()) > 1.0 + 2.0 * math.cos(SEPARATE):
            return elements, deviations
        kept = deviations < deviations.max()
        elements, deviations = elements[kept], deviations[kept]


def schoenflies(elements: Tensor) -> tuple[str, list[float] | None]:
    """Name of a finite point group in Schönflies notation, and its main axis.

    Args:
        elements: (order, 3, 3), all orthogonal matrices of the group.

    Returns:
        the name, and an axis x, y, z of the highest order, or None if there is no rotation.
    """
    proper = [matrix for matrix in elements if matrix.det() > 0]
    identity = torch.eye(3, dtype=torch.float64)
    turns = [matrix for matrix in proper if _angle(matrix, identity) > SEPARATE]
    orders = [round(2.0 * math.pi / _angle(matrix, identity)) for matrix in turns]
    n = max(orders, default=1)
    main = [_rotation_axis(turn) for turn, order in zip(turns, orders) if order == n]
    mirrors = [_rotation_axis(-m) for m in elements if m.det() < 0 and float(m.trace()) > 0.8]
    improper = len(elements) > len(proper)
    inversion = bool((elements.diagonal(dim1=1, dim2=2).sum(1) < -2.8).any())
    flat = any(abs(float(normal @ axis)) > 0.97 for normal in mirrors for axis in main)
    cubic = {(12, 3): "T", (24, 4): "O", (60, 5): "I"}.get((len(proper), n))
    if cubic is not None:
        name = cubic + ("" if not improper else "h" if inversion else "d")
    elif len(proper) == n == 1:
        name = "C1" if not improper else "Ci" if inversion else "Cs"
    elif len(proper) == n:
        kind = "" if not improper else "h" if flat else "v" if mirrors else None
        name = f"S{2 * n}" if kind is None else f"C{n}{kind}"
    else:
        name = f"D{n}" + ("" if not improper else "h" if flat else "d")
    return name, main[0].tolist() if main else None


def _rotation_axis(rotation: Tensor) -> Tensor:
    """Rotation axis (3,) as a unit vector; also for half turns."""
    fixed: Tensor = torch.linalg.svd(rotation - torch.eye(3, dtype=torch.float64)).Vh[2]
    return fixed
