"""Products of an atom's fields, contracted in the order of a tree (fusion diagrams).

A tree such as ``((A A) A)`` says which fields are multiplied and in which order: each pair of
brackets is a Clebsch-Gordan product, whose paths (l1, l2, l3) are kept apart until all factors are
multiplied. The symmetric contraction of MACE (Batatia et al., arXiv 2206.07697) is ``((A A) A)``,
and the products of Cormorant (Anderson, Hy, Kondor, arXiv 1906.04015) are ``(x x)`` and ``(A x)``.
Inside a tree, components of both parities occur, as in a × (b × c); the result has natural parity.

Paths that are sums of others, such as those that differ only in the order of equal factors, are
left out. So different trees of the same factors have equally many paths and can do the same; they
differ in their cost.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.sphere import coupling

LEAVES = ("A", "x")
MOST_FACTORS = 4
SAMPLES = 200  # random fields that tell whether paths are independent
DEPENDENT = 1e-6  # relative size of what is left of a path without the others

Tree = str | tuple["Tree", "Tree"]
cached_coupling = lru_cache(coupling)


def parse_tree(text: str) -> Tree:
    """A leaf, ``A`` or ``x``, or a pair of trees.

    Raises:
        ValueError: the text is not a tree of at most four factors.
    """
    tokens = text.replace("(", " ( ").replace(")", " ) ").split()

    def read() -> Tree:
        token = tokens.pop(0)
        if token in LEAVES:
            return token
        if token != "(":
            raise ValueError(token)
        pair = read(), read()
        if tokens.pop(0) != ")":
            raise ValueError(text)
        return pair

    try:
        tree = read()
        if tokens or sum(text.count(leaf) for leaf in LEAVES) > MOST_FACTORS:
            raise ValueError(text)
    except (IndexError, ValueError):
        raise ValueError(
            f"{text!r} is not a tree of products; write for example A, (A A), ((A A) x), with at "
            f"most {MOST_FACTORS} factors A (sum over neighbours) or x (features of the atom)"
        ) from None
    return tree


class Rows(NamedTuple):
    """Components of a factor."""

    slot: int  # its number in the contraction
    irreps: list[tuple[int, int]]  # degree, and 1 for natural or -1 for the other parity
    values: Tensor  # (SAMPLES, rows) of random fields

    def starts(self) -> list[int]:
        """First row of each irrep."""
        sizes = [2 * degree + 1 for degree, _ in self.irreps]
        return [sum(sizes[:i]) for i in range(len(sizes))]


class Product(ExactBuffers):
    """Paths of the product of two factors: (N, R1, C) and (N, R2, C) to (N, R3, C)."""

    def __init__(self, table: Tensor) -> None:
        """Store the table (R3, R1, R2) of the coupling tensors."""
        super().__init__()
        self.register_buffer("table", table.flatten(1), persistent=False)
        self.table: Tensor

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """The product."""
        outer = (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1, 2)
        return self.table.to(left.dtype) @ outer


class Fusion(nn.Module):
    """Weighted sum of the paths of a tree, with weights for each element and channel."""

    def __init__(
        self, tree: Tree, degrees: dict[str, int], l_out: int, channels: int, n_species: int
    ) -> None:
        """Find the paths and make their weights.

        Args:
            tree: as ``parse_tree`` returns it.
            degrees: highest degree of the field of each leaf.
            l_out: highest degree of the result.
            channels: C, the number of channels.
            n_species: number of elements.
        """
        super().__init__()
        steps, root = contraction(tree, degrees, l_out)
        self.steps = nn.ModuleList(Product(step.table) for step in steps)
        self.left = [step.left for step in steps]
        self.right = [step.right for step in steps]
        self.root = root.slot
        irreps = [irrep for irrep in root.irreps if irrep[0] <= l_out]
        self.paths = [sum(own == degree for own, _ in irreps) for degree in range(l_out + 1)]
        self.rows = [(2 * degree + 1) * paths for degree, paths in enumerate(self.paths)]
        self.weight = nn.Parameter(torch.randn(n_species, sum(self.paths), channels))
        with torch.no_grad():
            for part in torch.split(self.weight, self.paths, dim=1):
                part.mul_(max(part.shape[1], 1) ** -0.5)

    def forward(self, density: Tensor, own: Tensor, species: Tensor) -> Tensor:
        """Contract the tree.

        Args:
            density: (N, M, C), the sum over neighbours, A.
            own: (N, M', C), features of the atoms, x.
            species: (N,).

        Returns:
            (N, (l_out + 1)², C).
        """
        factors = [density, own]
        for number, step in enumerate(self.steps):
            factors.append(step(factors[self.left[number]], factors[self.right[number]]))
        rows = torch.split(factors[self.root][:, : sum(self.rows)], self.rows, dim=1)
        weights = torch.split(self.weight[species], self.paths, dim=1)
        results: list[Tensor] = []
        for degree, paths in enumerate(self.paths):
            shape = density.shape[0], paths, 2 * degree + 1, density.shape[2]
            results.append((rows[degree].view(shape) * weights[degree].unsqueeze(2)).sum(1))
        return torch.cat(results, dim=1)


class Step(NamedTuple):
    """Product of a contraction: the slots of its factors, and the coupling tensors of its paths."""

    left: int
    right: int
    table: Tensor  # (R3, R1, R2)


def contraction(tree: Tree, degrees: dict[str, int], l_out: int) -> tuple[list[Step], Rows]:
    """Steps that contract a tree, and the components of the result; arguments as in ``Fusion``.

    The first slots are those of the leaves, and each step fills the next one.
    """
    generator = torch.Generator().manual_seed(0)
    steps: list[Step] = []
    made: dict[tuple[Tree, int], Rows] = {}
    leaves: dict[Tree, Rows] = {}
    for slot, leaf in enumerate(LEAVES):
        irreps = [(degree, 1) for degree in range(degrees[leaf] + 1)]
        shape = SAMPLES, (degrees[leaf] + 1) ** 2
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        leaves[leaf] = Rows(slot, irreps, values)

    def build(part: Tree, bound: int) -> Rows:
        if isinstance(part, str):
            return leaves[part]
        if (part, bound) not in made:
            # Degrees from which the other factor cannot lead back to the bound are useless.
            reach = [sum(degrees[leaf] for leaf in leaves_of(factor)) for factor in part]
            left = build(part[0], min(reach[0], bound + reach[1]))
            right = build(part[1], min(reach[1], bound + reach[0]))
            irreps, table, values = independent_paths(left, right, bound, natural=part is tree)
            steps.append(Step(left.slot, right.slot, table))
            made[part, bound] = Rows(len(LEAVES) + len(steps) - 1, irreps, values)
        return made[part, bound]

    root = build(tree, l_out)
    return steps, root


def leaves_of(tree: Tree) -> list[str]:
    """Factors of a tree, from left to right."""
    return [tree] if isinstance(tree, str) else [*leaves_of(tree[0]), *leaves_of(tree[1])]


def independent_paths(
    left: Rows, right: Rows, bound: int, natural: bool
) -> tuple[list[tuple[int, int]], Tensor, Tensor]:
    """Paths of a product, sorted by degree, of which none is a sum of earlier ones.

    Args:
        left: first factor.
        right: second factor.
        bound: highest degree.
        natural: only natural parity.

    Returns:
        irreps; table (R3, R1, R2); values (SAMPLES, R3) of the random fields.
    """
    paths = [
        (l3, p1 * p2 * (-1) ** (l1 + l2 + l3), i, j)
        for i, (l1, p1) in enumerate(left.irreps)
        for j, (l2, p2) in enumerate(right.irreps)
        for l3 in range(abs(l1 - l2), min(l1 + l2, bound) + 1)
    ]
    irreps: list[tuple[int, int]] = []
    tables, columns = [], []
    basis: dict[tuple[int, int], list[Tensor]] = {}
    starts = left.starts(), right.starts()
    for l3, parity, i, j in sorted(paths, key=lambda path: (path[0], -path[1])):
        if natural and parity < 0:
            continue
        l1, l2 = left.irreps[i][0], right.irreps[j][0]
        first = slice(starts[0][i], starts[0][i] + 2 * l1 + 1)
        second = slice(starts[1][j], starts[1][j] + 2 * l2 + 1)
        block = cached_coupling(l1, l2, l3)
        values = torch.einsum(
            "ijk,si,sj->sk", block, left.values[:, first], right.values[:, second]
        )
        rest, size = values.flatten(), float(values.norm())
        known = basis.setdefault((l3, parity), [])
        for _ in range(2):  # once more against rounding
            for other in known:
                rest = rest - (rest @ other) * other
        if float(rest.norm()) <= DEPENDENT * max(size, 1.0):
            continue
        known.append(rest / rest.norm())
        table = torch.zeros(
            *(2 * l3 + 1, left.values.shape[1], right.values.shape[1]), dtype=torch.float64
        )
        table[:, first, second] = block.permute(2, 0, 1)
        irreps.append((l3, parity))
        tables.append(table)
        columns.append(values)
    return irreps, torch.cat(tables), torch.cat(columns, dim=1)
