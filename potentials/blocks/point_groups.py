"""Point groups by name: their elements, and the functions on the sphere that they do not change.

The main axis is z. Mirror planes of ``v`` and ``d`` groups and twofold axes of ``D`` groups include
the x-z plane or the x axis; the twofold axes of cubic groups are x, y and z.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from tesseral.potentials.blocks.sphere import degree_sizes, representations

LARGEST_ORDER = 24  # of an axis
FULL = "O(3)"
SCHOENFLIES = dict(  # of the Hermann–Mauguin symbols
    zip(
        "1 -1 2 m 2/m 222 mm2 mmm 4 -4 4/m 422 4mm -42m 4/mmm 3 -3 32 3m -3m 6 -6 6/m 622 6mm "
        "-62m 6/mmm 23 m-3 432 -43m m-3m".split(),
        "C1 Ci C2 Cs C2h D2 C2v D2h C4 S4 C4h D4 C4v D2d D4h C3 S6 D3 C3v D3d C6 C3h C6h D6 C6v "
        "D3h D6h T Th O Td Oh".split(),
        strict=True,
    )
)


def group_elements(group: str) -> Tensor:
    """All matrices of a finite point group, (order, 3, 3) float64; the first is the identity.

    Args:
        group: Schönflies or Hermann–Mauguin symbol, such as C4v or 4mm.

    Raises:
        ValueError: there is no such finite point group.
    """
    generators = _generators(SCHOENFLIES.get(group, group))
    elements = [torch.eye(3, dtype=torch.float64)]
    for element in elements:  # grows on the way
        for generator in generators:
            product = element @ generator
            if float((torch.stack(elements) - product).abs().amax((1, 2)).min()) > 1e-6:
                elements.append(product)
    return torch.stack(elements)


def invariant_functions(group: str, l_max: int) -> Tensor:
    """Projection of functions on the sphere without mean to those that a group does not change.

    Args:
        group: as in ``group_elements``, or an infinite group: ∞ or inf as the order of the axis,
            such as C∞v and Dinfh, or O(3).
        l_max: highest degree of the functions; M = (l_max + 1)².

    Returns:
        symmetric matrix (M - 1, M - 1) float64.

    Raises:
        ValueError: there is no such point group.
    """
    if group == FULL:
        return torch.zeros((l_max + 1) ** 2 - 1, (l_max + 1) ** 2 - 1, dtype=torch.float64)
    # To functions of these degrees, an axis of higher order is one of infinite order.
    finite = re.sub("^([CD])(∞|inf)(?=[vhd]?$)", rf"\g<1>{l_max + 1}", group)
    elements = group_elements(finite)
    parts = [block.mean(0) for block in representations(elements, l_max)]
    assert [len(part) for part in parts] == degree_sizes(l_max)[1:]
    projection: Tensor = torch.block_diag(*parts)  # type: ignore[no-untyped-call]
    return projection


def _turn(axis: tuple[float, float, float], order: int) -> Tensor:
    """Rotation by 1/order of a turn about an axis (Rodrigues' formula)."""
    x, y, z = (value / math.hypot(*axis) for value in axis)
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    angle = 2.0 * math.pi / order
    one = torch.eye(3, dtype=torch.float64)
    return one + math.sin(angle) * cross + (1.0 - math.cos(angle)) * cross @ cross


def _generators(name: str) -> list[Tensor]:
    """Matrices whose products are the elements of a group in Schönflies notation."""
    x, z, diagonal = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)
    inversion = -torch.eye(3, dtype=torch.float64)
    flat, upright = inversion @ _turn(z, 2), inversion @ _turn((0.0, 1.0, 0.0), 2)
    cubic = [_turn(z, 2), _turn(diagonal, 3)]
    special = {
        "Cs": [flat],
        "Ci": [inversion],
        "T": cubic,
        "Td": [*cubic, flat @ _turn(z, 4)],
        "Th": [*cubic, inversion],
        "O": [*cubic, _turn(z, 4)],
        "Oh": [*cubic, _turn(z, 4), inversion],
        "I": [*cubic, _turn((0.0, 1.0, 0.5 + 0.5 * 5**0.5), 5)],
        "Ih": [*cubic, _turn((0.0, 1.0, 0.5 + 0.5 * 5**0.5), 5), inversion],
    }
    if name in special:
        return special[name]
    found = re.fullmatch(r"([CDS])(\d+)([vhd]?)", name)
    kind, order = (found[1] + found[3], int(found[2])) if found else ("", 0)
    kinds = ("C", "Cv", "Ch", "D", "Dh", "Dd", "S")
    if kind not in kinds or not 1 <= order <= LARGEST_ORDER or (kind == "S" and order % 2):
        raise ValueError(
            f"`group` is {name!r}, not the symbol of a point group; use one such as C4v or 4mm "
            f"(Schönflies or Hermann–Mauguin), with axes of order 1 to {LARGEST_ORDER}"
        )
    turn = _turn(z, order)
    return {
        "C": [turn],
        "Cv": [turn, upright],
        "Ch": [turn, flat],
        "S": [flat @ turn],
        "D": [turn, _turn(x, 2)],
        "Dh": [turn, _turn(x, 2), flat],
        "Dd": [flat @ _turn(z, 2 * order), _turn(x, 2)],
    }[kind]
