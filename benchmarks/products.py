"""Time of the product of two fields on the sphere, on a grid or by Clebsch–Gordan contractions.

    python -m benchmarks.products [--degrees 1,2,3,4,5,6] [--atoms 64] [--channels 32]
                                  [--rounds 15] [--markdown FILE]

Two fields (N, (l_max + 1)², C) are multiplied channel by channel and truncated at l_max, in float32
on one thread. All forms compute the same numbers (tests/benchmarks/test_products.py). They
alternate, so that other load on the machine affects all of them; times are medians of the CPU time.
For the discussion see docs/measurements/systems.md, "Time of one product on the sphere".
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from e3nn import o3
from rich.progress import track
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.sheets import Sheet, cell, console, report
from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.mixing import exact_grid_points
from tesseral.potentials.blocks.sphere import coupling, degree_sizes, degree_slice, sphere_grid
from tesseral.potentials.ops.compiled import available
from tesseral.potentials.ops.select import L_MAX
from tesseral.potentials.ops.tables import gaunt_factor

Product = Callable[[Tensor, Tensor], Tensor]


class Form(NamedTuple):
    """A method to compute the product, and its memory layout."""

    product: Product
    enter: Callable[[Tensor], Tensor] = lambda field: field  # from (N, M, C)
    leave: Callable[[Tensor], Tensor] = lambda field: field  # back to it


def on_grid(l_max: int) -> Form:
    """Product of the values on the smallest exact Lebedev grid."""
    to_grid, from_grid = (m.float() for m in sphere_grid(exact_grid_points(l_max), l_max))
    return Form(lambda a, b: from_grid @ ((to_grid @ a) * (to_grid @ b)))


def gaunt_table(l_max: int) -> Tensor:
    """All coefficients of the product, (M, M, M), float64."""
    rows = (l_max + 1) ** 2
    table = torch.zeros(rows, rows, rows, dtype=torch.float64)
    for path in convolution_paths(l_max, l_max, l_max):
        first, second, third = (degree_slice(degree) for degree in path)
        table[first, second, third] = gaunt_factor(*path) * coupling(*path)
    return table


def dense(l_max: int) -> Form:
    """Matrix product with the table of all coefficients."""
    table = gaunt_table(l_max).flatten(0, 1).T.float().contiguous()  # (M, M M)
    return Form(lambda a, b: table @ (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1, 2))


def sparse(l_max: int) -> Form:
    """Sum over the nonzero coefficients, term by term."""
    table = gaunt_table(l_max)
    first, second, third = (table.abs() > 1e-10).nonzero(as_tuple=True)
    values = table[first, second, third].float().unsqueeze(1)

    def product(a: Tensor, b: Tensor) -> Tensor:
        terms = a.index_select(1, first) * b.index_select(1, second) * values
        return torch.zeros_like(a).index_add(1, third, terms)

    return Form(product)


def by_path(l_max: int, channels: int) -> Form:
    """A contraction for each pair of degrees, with a weight for each path and channel."""
    sizes = degree_sizes(l_max)
    pairs: dict[tuple[int, int], list[int]] = {}
    for l1, l2, l3 in convolution_paths(l_max, l_max, l_max):
        pairs.setdefault((l1, l2), []).append(l3)
    tables = {
        (l1, l2): torch.cat([coupling(l1, l2, l3).flatten(0, 1) for l3 in outputs], 1).T.float()
        for (l1, l2), outputs in pairs.items()
    }
    weights = {
        (l1, l2): torch.cat(
            [torch.full((sizes[l3], channels), gaunt_factor(l1, l2, l3)) for l3 in outputs]
        )
        for (l1, l2), outputs in pairs.items()
    }

    def product(a: Tensor, b: Tensor) -> Tensor:
        left, right = a.split(sizes, 1), b.split(sizes, 1)
        sums: list[Tensor | None] = [None] * (l_max + 1)
        for (l1, l2), outputs in pairs.items():
            outer = (left[l1].unsqueeze(2) * right[l2].unsqueeze(1)).flatten(1, 2)
            found = (tables[l1, l2] @ outer) * weights[l1, l2]
            parts = found.split([sizes[l3] for l3 in outputs], 1)
            for l3, part in zip(outputs, parts, strict=True):
                before = sums[l3]
                sums[l3] = part if before is None else before + part
        return torch.cat([part for part in sums if part is not None], 1)

    return Form(product)


def by_e3nn(l_max: int, channels: int) -> Form:
    """e3nn's ``TensorProduct`` of all paths, channel by channel, with a weight for each."""
    irreps = o3.Irreps([(channels, (degree, (-1) ** degree)) for degree in range(l_max + 1)])
    paths = convolution_paths(l_max, l_max, l_max)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # warning of torch.jit inside e3nn
        module = o3.TensorProduct(
            irreps,
            irreps,
            irreps,
            [(*path, "uuu", True) for path in paths],
            irrep_normalization="none",
            path_normalization="none",
        )
    factors = [gaunt_factor(*path) * (2 * path[2] + 1) ** 0.5 for path in paths]
    module.weight.data = torch.tensor(factors).repeat_interleave(channels)
    module.weight.requires_grad_(False)
    sizes = degree_sizes(l_max)

    def enter(field: Tensor) -> Tensor:
        return torch.cat([part.transpose(1, 2).flatten(1) for part in field.split(sizes, 1)], 1)

    def leave(field: Tensor) -> Tensor:
        parts = field.split([channels * size for size in sizes], 1)
        return torch.cat([p.unflatten(1, (channels, -1)).transpose(1, 2) for p in parts], 1)

    return Form(module, enter, leave)


def compiled(l_max: int) -> Form:
    """Operator of this package."""
    import tesseral.potentials.ops.operators  # noqa: F401  defines torch.ops.tesseral

    return Form(lambda a, b: torch.ops.tesseral.sphere_product(a, b, l_max))


def forms(l_max: int, channels: int) -> dict[str, Form]:
    """All methods for a degree, by the names of the columns."""
    found = {
        "grid": on_grid(l_max),
        "CG dense": dense(l_max),
        "CG sparse": sparse(l_max),
        "CG by path": by_path(l_max, channels),
        "e3nn": by_e3nn(l_max, channels),
    }
    if l_max <= L_MAX and available():
        found["compiled"] = compiled(l_max)
    return found


def measured(
    ways: dict[str, Form], l_max: int, atoms: int, channels: int, rounds: int
) -> dict[str, tuple[float, float]]:
    """Seconds per atom of every form: forward, and forward with backward."""
    calls: dict[tuple[str, bool], Callable[[], object]] = {}
    for name, form in ways.items():
        fields = [form.enter(torch.randn(atoms, (l_max + 1) ** 2, channels)) for _ in range(2)]
        leaves = [field.clone().requires_grad_(True) for field in fields]
        weights = torch.randn_like(fields[0])

        def forward(form: Form = form, fields: list[Tensor] = fields) -> object:
            return form.product(*fields)

        def both(
            form: Form = form, leaves: list[Tensor] = leaves, weights: Tensor = weights
        ) -> object:
            return torch.autograd.grad(form.product(*leaves), leaves, weights)

        calls[name, False], calls[name, True] = forward, both
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in calls}
    for number in range(rounds + 2):
        for key, call in calls.items():
            start = time.process_time()
            call()
            if number >= 2:  # warm-up: libraries choose algorithms and TorchScript compiles
                times[key].append((time.process_time() - start) / atoms)
    return {
        name: (statistics.median(times[name, False]), statistics.median(times[name, True]))
        for name in ways
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--degrees", default="1,2,3,4,5,6", help="l_max (%(default)s)")
    parser.add_argument("--atoms", type=int, default=64, help="number of atoms N (%(default)s)")
    parser.add_argument("--channels", type=int, default=32, help="channels C (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="%(default)s")
    parser.add_argument("--markdown", type=Path, help="file to write the tables to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    terminal = console()
    columns = ["grid", "compiled", "CG dense", "CG sparse", "CG by path", "e3nn"]
    legend = f"CPU µs per atom, {options.channels} channels, float32, one thread"
    sheets = [
        Sheet(title, ["l_max", "points", *columns, "best CG / grid"], legend)
        for title in ("forwards", "forwards and backwards")
    ]
    for degree in track([int(d) for d in options.degrees.split(",")], console=terminal):
        ways = forms(degree, options.channels)
        results = measured(ways, degree, options.atoms, options.channels, options.rounds)
        for number, sheet in enumerate(sheets):
            times = {name: 1e6 * both[number] for name, both in results.items()}
            best = min(times[name] for name in ("CG dense", "CG sparse", "CG by path", "e3nn"))
            sheet.rows.append(
                [
                    str(degree),
                    str(exact_grid_points(degree)),
                    *(cell(times.get(name)) for name in columns),
                    cell(best / times["grid"], 2),
                ]
            )
    command = ["python", "-m", "benchmarks.products", *arguments]
    report(sheets, machine(), command, terminal, options.markdown)


if __name__ == "__main__":
    main()
