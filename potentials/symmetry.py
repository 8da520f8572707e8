"""What is left of the symmetry of a relaxed potential: broken components, their axes, point group.

A relaxed Facet adds learned functions on the sphere to the atoms' fields, (7) in docs/theory.md. An
orthogonal matrix R that leaves all of them as they are is a symmetry of the potential. With the
coefficients of degree l as columns of a matrix B_l, and natural parity, they change by

    Σ_l |D_l(R) B_l - B_l|² = 2 Σ_l tr (1 - D_l(R)) G_l,      G_l = B_l B_lᵀ,              (8)

so that the small matrices G_l decide, however many functions there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from e3nn import o3
from scipy.optimize import minimize
from torch import Tensor, nn

from tesseral.potentials.calibrate import DAMPING
from tesseral.potentials.facet import FacetLayer
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.mixing import SphereMixing
from tesseral.potentials.sphere import Harmonics, degree_sizes, sphere_grid

UNBROKEN = 1e-3  # of the field's size; less is nothing
SEPARATE = 0.26  # rad, by which different elements of a point group differ at least


def broken_weights(potential: MessagePassing) -> list[nn.Parameter]:
    """Coefficients of the learned functions of each layer, (mixings, S, M - 1, C); often none."""
    layers = [layer for layer in potential.layers if isinstance(layer, FacetLayer)]
    return [layer.broken for layer in layers if layer.broken is not None]


@torch.no_grad()
def broken_functions(potential: MessagePassing) -> list[list[Tensor]]:
    """The learned functions relative to the fields that they are added to.

    The calibration has measured the RMS of these fields, degree by degree (of a degree that is
    absent by symmetry: 3% of the largest).

    Returns:
        for each layer and each of its mixings a tensor (M - 1, S C) of float64 on the CPU.
    """
    functions = []
    for layer in potential.layers:
        if not isinstance(layer, FacetLayer) or layer.broken is None:
            continue
        own = []
        for mixing, broken in zip(layer.mixings, layer.broken):
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


class Axis(NamedTuple):
    """The direction in which functions of one degree are largest."""

    direction: list[float]  # x, y, z of a unit vector; its sign has no meaning
    share: float  # of their mean square that is axial around it; 1 if all of them are


def leading_axis(gram: Tensor) -> Axis:
    """The axis of the functions of one degree, whose G_l is not zero.

    Where functions are axial it is their axis; for l = 1 it is their principal axis.
    """
    degree = gram.shape[0] // 2
    harmonics = Harmonics(degree)

    def share(directions: Tensor) -> Tensor:
        values = harmonics(directions)[:, degree**2 :]
        return (values @ gram * values).sum(1) / (gram.shape[0] * gram.trace())

    nodes = sphere_grid(590, 1)[0][:, 1:] / 3**0.5
    start = nodes[share(nodes).argmax()]

    def negative(vector: list[float]) -> float:
        direction = torch.as_tensor(vector, dtype=torch.float64)
        return -float(share(direction.unsqueeze(0) / direction.norm()))

    found = minimize(negative, start.tolist(), options={"gtol": 1e-9})
    direction = torch.from_numpy(found.x / (found.x @ found.x) ** 0.5)
    largest = direction[direction.abs().argmax()]
    return Axis((direction * largest.sign()).tolist(), -float(found.fun))


def similarity(grams: Sequence[Tensor], rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Σ tr D_l(R) G_l / Σ tr G_l for rotations (B, 3, 3), and for the same with inversion.

    Returns:
        two tensors (B,) of at most 1, which is reached by symmetries.
    """
    total = sum(gram.trace() for gram in grams)
    even, odd = (torch.zeros(len(rotations), dtype=torch.float64) for _ in range(2))
    for degree, gram in enumerate(grams, 1):
        matrices = o3.Irrep(degree, 1).D_from_matrix(rotations)
        part = torch.einsum("bij,ji->b", matrices, gram) / total
        even, odd = (even, odd + part) if degree % 2 else (even + part, odd)
    return even + odd, even - odd


class PointGroup(NamedTuple):
    """The matrices that leave functions as they are."""

    name: str  # Schönflies; O(3) if nothing is broken, C∞v and D∞h of axial functions
    axis: list[float] | None  # main axis of rotation, x, y, z; None where there is none
    elements: Tensor | None  # (order, 3, 3); None for infinite groups
    deviation: float  # largest change of the functions by an element, relative to their size


def point_group(grams: Sequence[Tensor], tolerance: float) -> PointGroup:
    """The largest group that changes functions by at most a part of their RMS.

    Args:
        grams: G_l of l = 1, 2, …
        tolerance: that part; learned functions are never exactly symmetric.

    Raises:
        ValueError: the tolerance is not between 0 and 1.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; it must be between 0 and 1")
    if sum(float(gram.trace()) for gram in grams) == 0:
        return PointGroup("O(3)", None, None, 0.0)
    axis, deviation = _axial(grams)
    if deviation <= tolerance:
        inverted = _deviation(similarity(grams, torch.eye(3, dtype=torch.float64)[None])[1])
        if float(inverted) <= tolerance:
            return PointGroup("D∞h", axis.tolist(), None, max(deviation, float(inverted)))
        return PointGroup("C∞v", axis.tolist(), None, deviation)
    elements, deviations = _closed(*_symmetries(grams, tolerance))
    name, main = schoenflies(elements)
    return PointGroup(name, main, elements, float(deviations.max()))


def _deviation(similar: Tensor) -> Tensor:
    """|D B - B| / |B| from ``similarity``."""
    return (2.0 * (1.0 - similar)).clamp(min=0.0).sqrt()


def _generators(degree: int) -> Tensor:
    """Derivatives of D_l by a rotation about x, y and z, (3, 2l+1, 2l+1)."""
    step = 1e-3
    turns = o3.axis_angle_to_matrix(torch.eye(3).double(), torch.full((3,), step).double())
    matrices: Tensor = o3.Irrep(degree, 1).D_from_matrix(turns)
    return (matrices - matrices.mT) / (2.0 * step)  # of an odd function: exact to step²


def _axial(grams: Sequence[Tensor]) -> tuple[Tensor, float]:
    """The axis around which functions change least, and by how much at most."""
    change = torch.zeros(3, 3, dtype=torch.float64)
    for degree, gram in enumerate(grams, 1):
        turned = _generators(degree)
        change += torch.einsum("aij,jk,bik->ab", turned, gram, turned)
    axis = torch.linalg.eigh(change).eigenvectors[:, 0]
    number = 4 * len(grams)
    angles = torch.arange(1, number, dtype=torch.float64) * (2.0 * torch.pi / number)
    turns = o3.axis_angle_to_matrix(axis.expand(len(angles), 3), angles)
    return axis, float(_deviation(similarity(grams, turns)[0]).max())


def _symmetries(grams: Sequence[Tensor], tolerance: float) -> tuple[Tensor, Tensor]:
    """All matrices (n, 3, 3) that change functions by less than the tolerance, and by how much.

    Rotations on a grid of 12° are moved to the nearest maxima of ``similarity``.
    """
    circle = torch.arange(30, dtype=torch.float64) * (2.0 * torch.pi / 30)
    polar = torch.arccos(torch.linspace(-1, 1, 17, dtype=torch.float64))
    grid = o3.angles_to_matrix(
        *(part.flatten() for part in torch.meshgrid(circle, polar, circle, indexing="ij"))
    )
    found, deviations = [], []
    for parity in (1, -1):
        signed = [gram * parity**degree for degree, gram in enumerate(grams, 1)]
        total = sum(gram.trace() for gram in grams)
        values = similarity(grams, grid)[0 if parity > 0 else 1]
        refined = _maxima(signed, grid[values > 0.2])
        deviation = _deviation(similarity(grams, refined)[0 if parity > 0 else 1])
        order = deviation.argsort()
        for matrix, each in zip(refined[order], deviation[order]):
            if each > tolerance:
                break
            if all(_angles(matrix, other) > SEPARATE for other in found if other.det() * parity > 0):
                found.append(parity * matrix)
                deviations.append(each)
        del total
    return torch.stack(found), torch.stack(deviations)


def _maxima(grams: Sequence[Tensor], rotations: Tensor) -> Tensor:
    raise NotImplementedError


