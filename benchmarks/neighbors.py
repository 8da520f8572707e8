"""Time of a search for neighbours by several programs; docs/measurements/performance.md.

python -m benchmarks.neighbors [--cutoff 5.5] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from ase import Atoms
from ase.build import bulk

from benchmarks.machine import machine
from benchmarks.sheets import Sheet, console, report
from tesseral.data import cell_list
from tesseral.data.neighbors import neighbor_list

REPEATS = (1, 2, 3, 6, 12, 23)  # of a cubic cell of 8 atoms


def compiled(atoms: Atoms, cutoff: float) -> int:
    """Number of edges, by the compiled search."""
    assert cell_list.available(), "the compiled search is missing"
    found = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    return len(found.senders)


def matscipy(atoms: Atoms, cutoff: float) -> int:
    """Number of edges, by matscipy, sorted."""
    with patch.object(cell_list, "available", return_value=False):
        found = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    return len(found.senders)


def vesin(atoms: Atoms, cutoff: float) -> int:
    """Number of edges, by vesin, sorted."""
    from vesin import NeighborList

    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    senders, _, _ = search.compute(
        points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijS"
    )
    return len(senders)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbors", description=__doc__)
    parser.add_argument("--cutoff", type=float, default=5.5, help="Å; cutoff and skin")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--markdown", type=Path, default=Path("runs/neighbors.md"))
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(arguments)
    programs: dict[str, Callable[[Atoms, float], int]] = {"tesseral": compiled}
    programs |= {"matscipy": matscipy, "vesin": vesin}
    try:
        import vesin as _  # noqa: F401
    except ImportError:
        del programs["vesin"]
    facts = machine()
    sheet = Sheet(
        f"Search within {options.cutoff} Å in diamond Si, µs of CPU time per atom",
        ("atoms", "neighbours", *programs),
        "Sorted edges with their shifts; the programs take turns, medians of "
        f"{options.rounds} rounds.",
    )
    for repeats in REPEATS:
        atoms = bulk("Si", cubic=True).repeat(repeats)
        atoms.rattle(0.1)
        times: dict[str, list[float]] = {name: [] for name in programs}
        edges = {search(atoms, options.cutoff) for search in programs.values()}
        assert len(edges) == 1, f"the programs found {edges} edges"
        for _round in range(options.rounds):
            for name, search in programs.items():
                calls = max(1, 2000 // len(atoms))
                start = time.process_time()
                for _call in range(calls):
                    search(atoms, options.cutoff)
                times[name].append((time.process_time() - start) / calls / len(atoms))
        sheet.rows.append(
            (
                f"{len(atoms):,}",
                f"{edges.pop() / len(atoms):.1f}",
                *(f"{1e6 * np.median(values):.2f}" for values in times.values()),
            )
        )
    report(
        [sheet],
        facts,
        ["python", "-m", "benchmarks.neighbors", *arguments],
        console(),
        options.markdown,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
