"""Our pair style in LAMMPS: energy conservation on 1, 2 and 4 processes, time versus SNAP.

    python -m benchmarks.lammps quickstart/model.safetensors [--sizes 512,4096] [--rounds 3]
        [--snap FOLDER] [--output runs/lammps.md]

The model must know silicon (for the times) and carbon (for the energies, in SiC). SNAP and
quadratic SNAP run in the same LAMMPS if FOLDER has their files. All runs alternate.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from ase.io.lammpsdata import write_lammps_data

from benchmarks.machine import machine
from benchmarks.sheets import Sheet, console, report
from benchmarks.silicon import supercell
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.export import export_model
from tesseral.deploy.lammps.verify import call_lammps
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.potentials.derivatives import predict_edges
from tesseral.potentials.engine.near_edges import near_edges
from tesseral.process import keep_freed_memory

SIC = 4.39  # Å
SNAP_FILES = {"SNAP": "SNAPotential", "quadratic SNAP": "qSNAPotential"}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lammps", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model", type=Path, help="model file with Si and C")
    parser.add_argument("--sizes", default="512,4096", help="numbers of atoms, of the form 8 n³")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000, help="steps of 1 fs for the energy")
    parser.add_argument("--snap", type=Path, default=Path("../shared/data/mlearn/snap_si"))
    parser.add_argument("--output", type=Path, default=Path("runs/lammps.md"))
    options = parser.parse_args(arguments)
    options.sizes = [int(size) for size in options.sizes.split(",")]
    return options


def script(
    data: Path, pair: str, temperature: float, steps: int, every: int, start: int = 10
) -> str:
    """Input of an NVE run, with start-up steps that do not count."""
    return f"""units metal
atom_style atomic
read_data "{data}"
{pair}
neighbor 1.0 bin
velocity all create {temperature} 1
fix nve all nve
thermo_style custom step temp pe etotal press
thermo {every}
run {start}
run {steps}
"""


def run(folder: Path, text: str, ranks: int, threads: int = 1) -> str:
    """Output of LAMMPS."""
    (folder / "in.run").write_text(text, encoding="utf-8")
    arguments = ["-in", "in.run", "-log", "none"]
    return call_lammps(arguments, ranks, folder, threads=threads, limit=3600)


def rows(output: str) -> list[str]:
    """The thermo lines of the last run."""
    last = output.rsplit("Step ", 1)[1].split("Loop time", 1)[0]
    return [" ".join(line.split()) for line in last.splitlines()[1:] if line.strip()]


def step_time(output: str, steps: int) -> float:
    """Seconds per step of the last run."""
    return float(re.findall(r"Loop time of (\S+)", output)[-1]) / steps


def conservation(model: Path, folder: Path, steps: int) -> Sheet:
    """512 atoms of SiC at 600 K on 1, 2 and 4 processes, in double precision."""
    export_model(model, folder / "double.pt", dtype="float64")
    symbols = read_card(model).symbols
    atoms = bulk("SiC", "zincblende", a=SIC, cubic=True) * (4, 4, 4)
    data = folder / "sic.data"
    write_lammps_data(data, atoms, specorder=list(symbols), masses=True, atom_style="atomic")
    pair = f"pair_style tesseral\npair_coeff * * double.pt {' '.join(symbols)}"
    text = script(data, pair, 1200, steps, max(steps // 50, 1), start=steps)
    sheet = Sheet(
        f"Conserved energy of {len(atoms)} atoms of SiC, about 600 K, {steps} fs after as many",
        ("processes", "drift, meV/atom/ns", "fluctuation, meV/atom", "same lines as on 1 process"),
        "Drift: slope of the total energies printed by LAMMPS. Lines: all printed numbers.",
    )
    first: list[str] = []
    for ranks in (1, 2, 4):
        printed = rows(run(folder, text, ranks))
        first = first or printed
        numbers = np.array([[float(word) for word in line.split()] for line in printed])
        energies = 1e3 * numbers[:, 3] / len(atoms)
        slope = float(np.polyfit(1e-6 * numbers[:, 0], energies, 1)[0])  # 1 fs a step
        same = sum(a == b for a, b in zip(first, printed, strict=True))
        cells = f"{slope:.3g}", f"{energies.std():.5f}", f"{same} of {len(first)}"
        sheet.rows.append((str(ranks), *cells))
    return sheet


def model_time(model: Path, n_atoms: int) -> float:
    """Seconds of the model alone in the ASE calculator, with known neighbours, on one thread."""
    torch.set_num_threads(1)
    potential, card = load_model(model)
    atoms = supercell(n_atoms)
    atoms.rattle(0.05, seed=0)
    cell = atoms.cell.array
    graph = atomic_graph(
        atoms.numbers, atoms.positions, cell, atoms.pbc, card.elements, card.config.cutoff
    )
    edges = near_edges(graph, card.config.cutoff).edges
    times = []
    for _ in range(max(4, 20000 // n_atoms)):
        start = time.perf_counter()
        predict_edges(potential, graph.species, edges, graph.structure, 1)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def times(model: Path, folder: Path, options: argparse.Namespace) -> Sheet:
    """Microseconds per atom and step, in alternating runs."""
    export_model(model, folder / "model.pt")
    ours = "pair_style tesseral\npair_coeff * * model.pt Si"
    runs = {
        "tesseral, 1 process": (ours, 1, 1),
        "tesseral, 2 processes": (ours, 2, 1),
        "tesseral, 1 process of 2 threads": (ours, 1, 2),
        "tesseral portable, 1 process": (ours.replace("tesseral\n", "tesseral portable\n"), 1, 1),
    }
    for name, file in SNAP_FILES.items():
        files = [options.snap.resolve() / f"{file}.snap{end}" for end in ("coeff", "param")]
        if all(path.exists() for path in files):
            coefficients = " ".join(f'"{path}"' for path in files)
            runs[name] = f"pair_style snap\npair_coeff * * {coefficients} Si", 1, 1
    sheet = Sheet(
        "µs per atom and step, NVE of silicon, 1 Å skin",
        ("program", *(f"{size} atoms" for size in options.sizes)),
        f"Median of {options.rounds} alternating runs, and the fastest.",
    )
    found: dict[str, list[list[float]]] = {}
    for size in options.sizes:
        data = folder / "si.data"
        atoms = supercell(size)
        write_lammps_data(data, atoms, specorder=["Si"], masses=True, atom_style="atomic")
        taken: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            taken.setdefault("model alone, in Python", []).append(model_time(model, size))
            for name, (pair, ranks, threads) in runs.items():
                slow = "portable" in name or "SNAP" in name
                steps = max(2 if slow else 10, (20000 if slow else 100000) // size)
                output = run(folder, script(data, pair, 1200, steps, steps), ranks, threads)
                taken.setdefault(name, []).append(step_time(output, steps))
        for name, seconds in taken.items():
            found.setdefault(name, []).append([1e6 * value / size for value in seconds])
    for name, sizes in found.items():
        cells = (f"{statistics.median(each):.1f} ({min(each):.1f})" for each in sizes)
        sheet.rows.append((name, *cells))
    return sheet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all measurements and write the tables."""
    options = parse(arguments)
    keep_freed_memory()
    facts = machine()
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), options.model.resolve()
        sheets = [conservation(model, folder, options.steps), times(model, folder, options)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    command = ["-m", "benchmarks.lammps", *(arguments or sys.argv[1:])]
    report(sheets, facts, command, console(), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
