"""Generator of ``csrc/couplings.h``, the coupling tables from which the kernels are unrolled.

    python -m tesseral.potentials.ops.tables

The tables come from the Wigner 3j tensors of e3nn. They are kept in the repository, so that a
build of the kernels needs only a compiler. A test compares them with the output of this file.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.sphere import coupling, degree_slice, smallest_rule, sphere_grid

L_MAX = 4  # highest degree of paths of natural parity, l1 + l2 + l3 even
L_MAX_ODD = 3  # highest degree of the other paths
HEADER = Path(__file__).with_name("csrc") / "couplings.h"


def is_compiled(path: tuple[int, ...]) -> bool:
    """Whether the kernels include the path (l1, l2, l3)."""
    return max(path) <= (L_MAX_ODD if sum(path) % 2 else L_MAX)


def gaunt_factor(l1: int, l2: int, l3: int) -> float:
    """Factor from ``coupling`` to the mean of the product of three harmonics over the sphere."""
    to_grid, from_grid = sphere_grid(smallest_rule(l1 + l2 + l3), max(l1, l2, l3))
    first, second = to_grid[:, degree_slice(l1)], to_grid[:, degree_slice(l2)]
    gaunt = torch.einsum("pa,pb,cp->abc", first, second, from_grid[degree_slice(l3)])
    tensor = coupling(l1, l2, l3)
    return float((gaunt * tensor).sum() / (tensor * tensor).sum())


def gradient_factor(degree: int) -> float:
    """Factor from ``coupling(1, l - 1, l)`` to the gradient of solid harmonics of degree l.

    ``∂_a P_l,m = factor Σ_m' coupling[a, m', m] P_l-1,m'``, and by Euler's theorem
    ``P_l = 1/l Σ_a u_a ∂_a P_l``; the value at the polar axis y, sqrt(2l + 1), fixes the factor.
    """
    at_pole = coupling(1, degree - 1, degree)[1, degree - 1, degree] * (2 * degree - 1) ** 0.5
    return float(degree * (2 * degree + 1) ** 0.5 / at_pole)


def turn_factor(degree: int, order: int) -> float:
    """Size of the generators of rotations about x and z between |m| of ``order`` and one more."""
    squared = (degree - order) * (degree + order + 1) / (2 if order == 0 else 4)
    return float(squared**0.5)


def table(l1: int, l2: int, l3: int) -> str:
    """One path: its pairs (m1, m3), sorted by m3, each with the terms m2 and their values."""
    tensor = coupling(l1, l2, l3)
    left: list[int] = []
    right: list[int] = []
    middle: list[int] = []
    pair: list[int] = []
    starts: list[int] = []
    values: list[str] = []
    for m3 in range(2 * l3 + 1):
        for m1 in range(2 * l1 + 1):
            terms = [m2 for m2 in range(2 * l2 + 1) if abs(float(tensor[m1, m2, m3])) > 1e-10]
            if terms:
                middle += terms
                pair += [len(left)] * len(terms)
                starts += [1] + [0] * (len(terms) - 1)
                values += [repr(float(tensor[m1, m2, m3])) for m2 in terms]
                left.append(m1)
                right.append(m3)

    def row(kind: str, name: str, items: list[int] | list[str]) -> str:
        return f"  static constexpr {kind} {name}[] = {{{', '.join(map(str, items))}}};"

    natural = (l1 + l2 + l3) % 2 == 0  # otherwise the mean of the product is zero
    lines = [
        f"template <> struct Coupling<{l1}, {l2}, {l3}> {{",
        f"  static constexpr int pairs = {len(left)}, terms = {len(middle)};",
        *([f"  static constexpr double gaunt = {gaunt_factor(l1, l2, l3)!r};"] if natural else []),
        row("int", "m1", left),
        row("int", "m3", right),
        row("int", "pair", pair),
        row("int", "starts", starts),
        row("int", "m2", middle),
        row("double", "value", values),
        "};",
    ]
    return "\n".join(lines)


def odd_paths() -> list[tuple[int, int, int]]:
    """Paths with l1 + l2 + l3 odd, in the order of ``sorted``."""
    degrees = range(L_MAX_ODD + 1)
    return [
        (l1, l2, l3)
        for l1 in degrees
        for l2 in degrees
        for l3 in range(abs(l1 - l2), min(l1 + l2, L_MAX_ODD) + 1)
        if (l1 + l2 + l3) % 2 == 1
    ]


def listed(name: str, paths: list[tuple[int, int, int]]) -> list[str]:
    """Lines of a macro that calls X(l1, l2, l3) for each path."""
    calls = [f"  X({l1}, {l2}, {l3})" for l1, l2, l3 in paths]
    return [f"#define {name}(X) \\", *(f"{call} \\" for call in calls[:-1]), calls[-1]]


def header() -> str:
    """Content of the file."""
    natural, odd = sorted(convolution_paths(L_MAX, L_MAX, L_MAX)), odd_paths()
    gradients = ", ".join(repr(gradient_factor(degree)) for degree in range(1, L_MAX + 1))
    turns = ", ".join(
        "{" + ", ".join(repr(turn_factor(degree, m)) for m in range(max(1, degree))) + "}"
        for degree in range(L_MAX + 1)
    )
    lines = [
        "// Written by tables.py from e3nn's Wigner 3j tensors; do not edit.",
        "// A path (l1, l2, l3) has pairs (m1, m3), sorted by m3, and terms sorted by pair: the",
        "// pair, whether it is its first term, the component m2 and the coupling tensor's value.",
        "#pragma once",
        f"#define TESSERAL_L_MAX {L_MAX}",
        *listed("TESSERAL_PATHS", natural),
        *listed("TESSERAL_ODD_PATHS", odd),
        "namespace tesseral {",
        "// Gradient of solid harmonics of degree l from those of degree l - 1, l = 1, 2, …",
        f"constexpr double gradient_factor[] = {{0, {gradients}}};",
        "// Generators of rotations about x and z, between |m| and |m| + 1.",
        f"constexpr double turn_factor[][{L_MAX}] = {{{turns}}};",
        "template <int L1, int L2, int L3> struct Coupling;",
        *(table(*path) for path in (*natural, *odd)),
        "}",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    HEADER.write_text(header(), encoding="utf-8")
