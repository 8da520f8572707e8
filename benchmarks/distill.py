"""Distilled potentials of three materials beside their teacher.

Each part works on folders of ``train-potential distill``, and keeps what exists::

    python -m benchmarks.distill make runs/distill --teacher universal --time 30m --clock cpu
    python -m benchmarks.distill dynamics runs/distill --temperature 1000 --time 10
    python -m benchmarks.distill lammps runs/distill
    python -m benchmarks.distill table runs/distill

``make`` writes the structures (rock salt MgO, L1₂ Ni₃Al, α-Li₃N) and distills a model of each, in
the folder; ``--only MgO`` does one of them. ``dynamics`` runs the teacher and the model from the
same supercell at constant temperature, for the radial distribution and the mean square
displacement. ``lammps`` runs 4,096 atoms. ``table`` writes ``distillation.md`` and ``distill.png``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write
from ase.io.lammpsdata import write_lammps_data
from ase.spacegroup import crystal
from numpy.typing import NDArray
from scipy.stats import linregress

from benchmarks.lammps import rows, run, script, step_time
from benchmarks.machine import machine
from tesseral import TesseralCalculator
from tesseral.calculators.properties.atoms import repeated
from tesseral.calculators.properties.dynamics import simulate
from tesseral.calculators.properties.ensembles import canonical, start
from tesseral.data.neighbors import neighbor_list
from tesseral.files import write_json, write_text

Floats = NDArray[np.float64]

TIMESTEP, EVERY = 2.0, 20  # fs, steps between frames
REACH, BINS = 5.0, 100  # Å, of the radial distribution
EQUILIBRATED = 1.0  # ps
LARGE = 4096  # atoms
MOBILE = {"MgO": "O", "Ni3Al": "Al", "Li3N": "Li"}


def structures() -> dict[str, Atoms]:
    """The three crystals, with lattice constants of experiments."""
    third = 1 / 3
    return {
        "MgO": crystal(
            ["Mg", "O"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=_cubic(4.21)
        ),
        "Ni3Al": crystal(
            ["Al", "Ni"], [(0, 0, 0), (0, 0.5, 0.5)], spacegroup=221, cellpar=_cubic(3.57)
        ),
        "Li3N": crystal(
            ["N", "Li", "Li"],
            [(0, 0, 0), (third, 2 * third, 0), (0, 0, 0.5)],
            spacegroup=191,
            cellpar=[3.65, 3.65, 3.88, 90, 90, 120],
        ),
    }


def _cubic(length: float) -> list[float]:
    return [length] * 3 + [90] * 3


def make(options: argparse.Namespace) -> None:
    """Distill a model of each material, one after the other."""
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, atoms in structures().items():
        if options.only not in (None, name):
            continue
        cif = options.folder / f"{name}.cif"
        if not cif.exists():
            write(cif, atoms)
        command = [
            *(sys.executable, "-m", "tesseral.commands.main", "distill", str(cif)),
            *("--teacher", options.teacher, "--time", options.time, "--clock", options.clock),
            *("--output", str(options.folder / name), "--temperature", options.range),
            *("--test-temperature", str(options.temperature)),
        ]
        with (options.folder / f"{name}.log").open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)


def names(folder: Path) -> list[str]:
    """Materials with a finished model."""
    return [name for name in structures() if (folder / name / "distilled.json").exists()]


def dynamics(options: argparse.Namespace) -> None:
    """Dynamics of the teacher and of each model from the same start."""
    for name in names(options.folder):
        atoms = read(options.folder / name / "supercells.extxyz", "0")
        settings = json.loads((options.folder / name / "distill.json").read_text("utf-8"))
        models = {
            "teacher": settings["teacher"],
            "model": options.folder / name / "model.safetensors",
        }
        for kind, model in models.items():
            path = options.folder / name / f"dynamics-{kind}.json"
            if path.exists():
                continue
            calculator = TesseralCalculator(model, device="cpu")
            frames = list(trajectory(atoms, calculator, options.temperature, options.time))
            write_json(path, observed(frames, MOBILE[name]), indent=0)
            print(f"written: {path}", flush=True)


def trajectory(
    atoms: Atoms, calculator: TesseralCalculator, temperature: float, time: float
) -> Iterator[Atoms]:
    """Frames of dynamics at constant volume and temperature after equilibration."""
    atoms = atoms.copy()
    atoms.calc = calculator
    moving, noise = start(atoms, temperature, 7)
    integrator = canonical(moving, TIMESTEP, temperature, noise)
    settled, steps = (round(1000 * each / TIMESTEP) for each in (EQUILIBRATED, time))
    for step in simulate(
        moving,
        integrator,
        steps=settled + steps,
        timestep=TIMESTEP,
        temperature=temperature,
        every=EVERY,
    ):
        if step.row is not None and step.number >= settled:
            yield moving.copy()


def observed(frames: list[Atoms], symbol: str) -> dict[str, Any]:
    """Radial distribution of all atoms, and mean square displacement of one element."""
    counts = np.zeros(BINS)
    edges = np.linspace(0, REACH, BINS + 1)
    for atoms in frames:
        pairs = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, REACH)
        vectors = (
            atoms.positions[pairs.receivers]
            - atoms.positions[pairs.senders]
            + pairs.shifts @ atoms.cell.array
        )
        counts += np.histogram(np.linalg.norm(vectors, axis=1), edges)[0]
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    density = len(frames[0]) / frames[0].get_volume()
    radial = counts / (len(frames) * len(frames[0]) * density * shells)
    places = np.array([atoms.positions - atoms.get_center_of_mass() for atoms in frames])
    chosen = places[:, frames[0].symbols == symbol]
    lags = np.arange(1, len(frames) // 2)
    squares = [float(((chosen[lag:] - chosen[:-lag]) ** 2).sum(2).mean()) for lag in lags]
    times = lags * EVERY * TIMESTEP / 1000
    late = times > 0.5 * times[-1]
    slope = linregress(times[late], np.array(squares)[late]).slope
    return {
        "distance": (0.5 * (edges[1:] + edges[:-1])).tolist(),
        "radial": radial.tolist(),
        "time": times.tolist(),
        "displacement": squares,
        "diffusion": float(slope) / 6 * 1e-4,  # Å²/ps to cm²/s
        "element": symbol,
    }


def lammps(options: argparse.Namespace) -> None:
    """4,096 atoms in LAMMPS at constant energy, from a temperature of twice the value."""
    for name in names(options.folder):
        folder = options.folder / name
        atoms = read(folder / "relaxed.extxyz", "0")
        large = repeated(atoms, LARGE)
        card = TesseralCalculator(folder / "model.safetensors", device="cpu").card
        symbols = list(card.symbols)
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            data = place / "large.data"
            write_lammps_data(data, large, specorder=symbols, masses=True, atom_style="atomic")
            pair = (
                f'pair_style tesseral\npair_coeff * * "{(folder / "model.pt").resolve()}" '
                f"{' '.join(symbols)}"
            )
            text = script(data, pair, 2 * options.temperature, options.steps, 10, start=50)
            output = run(place, text, 1)
        numbers = np.array([[float(word) for word in line.split()] for line in rows(output)])
        energies = 1000 * numbers[:, 3] / len(large)
        found = {
            "atoms": len(large),
            "steps": options.steps,
            "microseconds": 1e6 * step_time(output, options.steps) / len(large),
            "temperature": float(numbers[:, 1].mean()),
            "fluctuation": float(energies.std()),
        }
        write_json(folder / "lammps.json", found, indent=1)
        print(name, found, flush=True)


def table(options: argparse.Namespace) -> None:
    """The table and the picture."""
    facts = [f"- {name}: {text}" for name, text in machine().items()]
    lines = ["| quantity | material | teacher | model | difference |", "|---|---|---|---|---|"]
    pictures = []
    for name in names(options.folder):
        folder = options.folder / name
        found = json.loads((folder / "distilled.json").read_text("utf-8"))
        errors, times = found["errors"], found["microseconds"]
        energy, force = errors["energy_per_atom"]["mae"], errors["forces"]["mae"]
        lines.append(f"| energy error, meV/atom | {name} | | {energy:.2f} | |")
        lines.append(f"| force error, meV/Å | {name} | | {force:.0f} | |")
        for row in found["properties"]:
            values = f"{row['teacher']:.4g} | {row['model']:.4g} | {row['difference']:+.2f}%"
            lines.append(f"| {row['quantity']}, {row['unit']} | {name} | {values} |")
        both = f"{times['teacher']:.0f} | {times['model']:.1f}"
        ratio = times["teacher"] / times["model"]
        lines.append(f"| time, µs/atom | {name} | {both} | {ratio:.1f} times faster |")
        paths = {kind: folder / f"dynamics-{kind}.json" for kind in ("teacher", "model")}
        if all(path.exists() for path in paths.values()):
            seen = {kind: json.loads(path.read_text("utf-8")) for kind, path in paths.items()}
            pictures.append((name, seen))
            away = np.abs(np.subtract(seen["model"]["radial"], seen["teacher"]["radial"]))
            width = REACH / BINS
            lines.append(
                f"| ∫ \\|Δg(r)\\| dr to {REACH:g} Å | {name} | | {away.sum() * width:.3f} | |"
            )
            rates = f"{seen['teacher']['diffusion']:.2g} | {seen['model']['diffusion']:.2g}"
            lines.append(f"| diffusion of {seen['model']['element']}, cm²/s | {name} | {rates} | |")
        large = folder / "lammps.json"
        if large.exists():
            values = json.loads(large.read_text("utf-8"))
            words = f"{values['microseconds']:.1f} µs/atom, {values['fluctuation']:.4f} meV/atom"
            lines.append(f"| LAMMPS, {values['atoms']} atoms: time, noise | {name} | | {words} | |")
    write_text(options.folder / "distillation.md", "\n".join([*facts, "", *lines, ""]))
    print("\n".join(lines))
    if pictures:
        draw(pictures, options.folder / "distill.png")


def draw(pictures: list[tuple[str, dict[str, Any]]], path: Path) -> None:
    """Radial distributions and displacements, the teacher's below the model's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(pictures), 4.6), layout="constrained")
    axes = figure.subplots(2, len(pictures), squeeze=False)
    for column, (name, seen) in enumerate(pictures):
        for kind, style in (("teacher", "-"), ("model", "--")):
            one = seen[kind]
            axes[0, column].plot(one["distance"], one["radial"], style, label=kind)
            axes[1, column].plot(one["time"], one["displacement"], style)
        axes[0, column].set(title=name, xlabel="distance (Å)", ylabel="g(r)")
        element = seen["model"]["element"]
        axes[1, column].set(xlabel="time (ps)", ylabel=f"displacement of {element}, squared (Å²)")
    axes[0, 0].legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distill", description=__doc__)
    parts = {"make": make, "dynamics": dynamics, "lammps": lammps, "table": table}
    parser.add_argument("part", choices=parts)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=structures(), help="one material only, for make")
    parser.add_argument("--teacher", default="universal")
    parser.add_argument("--time", default="30m", help="of the distillation, or ps of the dynamics")
    parser.add_argument("--clock", default="wall")
    parser.add_argument("--range", default="300:1500", help="temperatures of the distillation, K")
    parser.add_argument("--temperature", type=float, default=1000.0, help="of test and dynamics, K")
    parser.add_argument("--steps", type=int, default=100, help="of LAMMPS")
    options = parser.parse_args()
    if options.part == "dynamics":
        options.time = float(options.time)
    parts[options.part](options)


if __name__ == "__main__":
    main()
