"""Time of the compiled engine with each instruction set of this processor, in turns, on silicon.

    python -m benchmarks.instruction_sets NAME=MODEL.safetensors … [--sizes 64,512,4096]

Energies, forces and virials of perturbed diamond Si on one thread, without ASE and the search for
neighbours.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.front import named_file
from benchmarks.machine import machine
from benchmarks.sheets import Sheet, cell, console, report
from benchmarks.silicon import supercell
from benchmarks.speed import integers
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.engine import evaluate as engine
from tesseral.potentials.engine.near_edges import near_edges
from tesseral.potentials.ops.compiled import instruction_sets, kernels

DTYPES = ("float32", "float64")


def times(path: Path, dtype: str, atoms: int, rounds: int) -> dict[str, float]:
    """Median CPU time of a step in µs per atom by instruction set."""
    potential, card = load_model(path, device="cpu", dtype=dtype)
    silicon = supercell(atoms)
    silicon.rattle(0.05, seed=0)
    graph = atomic_graph(
        silicon.numbers,
        silicon.positions,
        silicon.cell.array,
        silicon.pbc,
        card.elements,
        card.config.cutoff,
    )
    edges = near_edges(graph, card.config.cutoff).edges
    found: dict[str, list[float]] = {isa: [] for isa in instruction_sets()}
    for _ in range(rounds + 1):
        for isa, seconds in found.items():
            table = kernels(potential.embedding.dtype, isa)
            with patch.object(engine, "kernels", lambda _, table=table: table):
                start = time.process_time()
                engine.evaluate(potential, graph.species, edges)
                seconds.append(time.process_time() - start)
    return {isa: 1e6 * statistics.median(s[1:]) / atoms for isa, s in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=named_file, nargs="+", help="NAME=MODEL.safetensors")
    parser.add_argument("--sizes", type=integers, default=[64, 512, 4096], help="numbers of atoms")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = instruction_sets()
    made = Sheet(
        "Silicon: the engine with each instruction set, median CPU time, µs per atom, 1 thread",
        ["potential", "type", "atoms", *names, f"{names[-2:][0]} / {names[-1]}"],
    )
    for name, path in options.models:
        for dtype in DTYPES:
            for atoms in options.sizes:
                found = times(path, dtype, atoms, options.rounds)
                gain = cell(found[names[-2:][0]] / found[names[-1]])
                made.rows.append(
                    [name, dtype, str(atoms), *(cell(found[isa]) for isa in names), gain]
                )
    words = ["python", "-m", "benchmarks.instruction_sets", *arguments]
    report([made], machine(), words, console(), options.markdown)


if __name__ == "__main__":
    main()
