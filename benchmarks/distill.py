"""Distilled potentials of three materials beside their teacher.

Each part works on folders of ``train-potential distill``, and keeps what exists::

    python -m benchmarks.distill make runs/distill --teacher universal --time 30m --clock cpu
    python -m benchmarks.distill dynamics runs/distill --temperature 1000 --time 10
    python -m benchmarks.distill lammps runs/distill
    python -m benchmarks.distill times runs/distill
    python -m benchmarks.distill table runs/distill

``make`` writes the structures (rock salt MgO, L1₂ Ni₃Al, α-Li₃N) and distills a model of each, in
the folder; with ``--fast`` the fast model, in folders such as ``MgO-fast``. ``dynamics`` runs the
teacher and the model from the same supercell at constant temperature, for the radial distribution
and the mean square displacement; of fast models it runs nothing. ``lammps`` runs 4,096 atoms.
``times`` compares teacher and model in alternating evaluations. ``--only MgO`` does one material.
``table`` writes ``distillation.md`` and ``distill.png``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
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
PARTS = 4  # of a run, for the deviation of its diffusion
PAIRS = 20  # of evaluations that are timed
FAST = "-fast"  # end of the name of a folder
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
        made = name + FAST if options.fast else name
        command = [
            *(sys.executable, "-m", "tesseral.commands.main", "distill", str(cif)),
            *("--teacher", options.teacher, "--time", options.time, "--clock", options.clock),
            *("--output", str(options.folder / made), "--temperature", options.range),
            *("--test-temperature", str(options.temperature)),
            *(["--fast"] if options.fast else []),
        ]
        with (options.folder / f"{made}.log").open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)


def names(options: argparse.Namespace) -> list[str]:
    """Folders of the chosen materials with a finished model, the fast one after the default."""
    chosen = [name for name in structures() if options.only in (None, name)]
    folders = [name + end for name in chosen for end in ("", FAST)]
    return [name for name in folders if (options.folder / name / "distilled.json").exists()]


def teacher_of(folder: Path) -> str:
    """Model file of the teacher of a distilled model."""
    return str(json.loads((folder / "distill.json").read_text("utf-8"))["teacher"])


def dynamics(options: argparse.Namespace) -> None:
    """Dynamics of the teacher and of each model from the same start."""
    for name in names(options):
        if name.endswith(FAST):
            continue
        folder = options.folder / name
        atoms = read(folder / "supercells.extxyz", "0")
        models = {"model": folder / "model.safetensors", "teacher": teacher_of(folder)}
        for kind, model in models.items():
            path = folder / f"dynamics-{kind}.json"
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
    """Radial distribution of all atoms, and mean square displacement of one element.

    The deviation is that of the mean of the diffusion of parts of the run.
    """
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
    parts = [diffusion(*displacement(part)) for part in np.array_split(chosen, PARTS)]
    times, squares = displacement(chosen)
    return {
        "distance": (0.5 * (edges[1:] + edges[:-1])).tolist(),
        "radial": radial.tolist(),
        "time": times.tolist(),
        "displacement": squares.tolist(),
        "diffusion": diffusion(times, squares),
        "deviation": float(np.std(parts, ddof=1)) / np.sqrt(PARTS),
        "picoseconds": len(frames) * EVERY * TIMESTEP / 1000,
        "element": symbol,
    }


def displacement(places: Floats) -> tuple[Floats, Floats]:
    """Times (ps) and mean square displacements (Å²) of places (T, N, 3), up to half of the run."""
    lags = np.arange(1, len(places) // 2)
    squares = [float(((places[lag:] - places[:-lag]) ** 2).sum(2).mean()) for lag in lags]
    return lags * EVERY * TIMESTEP / 1000, np.array(squares)


def diffusion(times: Floats, squares: Floats) -> float:
    """Diffusion coefficient, cm²/s, from the later half of the mean square displacements."""
    late = times > 0.5 * times[-1]
    return float(linregress(times[late], squares[late]).slope) / 6 * 1e-4


def lammps(options: argparse.Namespace) -> None:
    """4,096 atoms in LAMMPS at constant energy, from a temperature of twice the value."""
    for name in names(options):
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
        used = float(re.findall(r"(\S+)% CPU use", output)[-1]) / 100  # of the time on the clock
        found = {
            "atoms": len(large),
            "steps": options.steps,
            "microseconds": 1e6 * used * step_time(output, options.steps) / len(large),
            "temperature": float(numbers[:, 1].mean()),
            "fluctuation": float(energies.std()),
        }
        write_json(folder / "lammps.json", found, indent=1)
        print(name, found, flush=True)


def times(options: argparse.Namespace) -> None:
    """CPU time of energies and forces of teacher and model, in alternation, µs/atom."""
    for name in names(options):
        folder = options.folder / name
        atoms = read(folder / "supercells.extxyz", "0")
        models = {"teacher": teacher_of(folder), "model": folder / "model.safetensors"}
        made = {kind: TesseralCalculator(path, device="cpu") for kind, path in models.items()}
        rng, start, spent = np.random.default_rng(0), atoms.positions.copy(), []
        for _ in range(PAIRS + 1):
            atoms.positions = start + rng.normal(scale=0.05, size=start.shape)
            spent.append([evaluated(atoms, each) for each in made.values()])
        median = 1e6 * np.median(spent[1:], axis=0) / len(atoms)
        found = dict(zip(made, median.tolist(), strict=True))
        write_json(folder / "times.json", found, indent=1)
        print(name, found, flush=True)


def evaluated(atoms: Atoms, calculator: TesseralCalculator) -> float:
    """CPU seconds of energies and forces."""
    begin = time.process_time()
    calculator.calculate(atoms)
    return time.process_time() - begin


def table(options: argparse.Namespace) -> None:
    """The table and the picture: a row for each quantity, columns for each material."""
    facts = [f"- {name}: {text}" for name, text in machine().items()]
    found = {name: quantities(options.folder / name) for name in names(options)}
    heads = [""]
    for name in found:
        heads += [name.removesuffix(FAST) + ": fast" if name.endswith(FAST) else f"{name}: teacher"]
        heads += [] if name.endswith(FAST) else ["student"]
    lines = ["| " + " | ".join(heads) + " |", "|:--|" + "--:|" * (len(heads) - 1)]
    for quantity in dict.fromkeys(key for each in found.values() for key in each):
        cells = [quantity]
        for name, each in found.items():
            both = each.get(quantity, ("", ""))
            cells += both[1:] if name.endswith(FAST) else both
        lines.append("| " + " | ".join(cells) + " |")
    write_text(options.folder / "distillation.md", "\n".join([*facts, "", *lines, ""]))
    print("\n".join(lines))
    pictures = [
        (name, seen)
        for name in found
        if len(seen := recorded(options.folder / name, "dynamics-{}.json")) == 2
    ]
    if pictures:
        draw(pictures, options.folder / "distill.png")


def recorded(folder: Path, pattern: str) -> dict[str, Any]:
    """Results of the teacher and of the model that exist."""
    paths = {kind: folder / pattern.format(kind) for kind in ("teacher", "model")}
    return {k: json.loads(path.read_text("utf-8")) for k, path in paths.items() if path.exists()}


def quantities(folder: Path) -> dict[str, tuple[str, str]]:
    """Cells of the teacher and of the model, by quantity."""
    result = json.loads((folder / "distilled.json").read_text("utf-8"))
    errors = result["errors"]
    cells = {
        "energies, MAE, meV/atom": ("", f"{errors['energy_per_atom']['mae']:.2f}"),
        "forces, MAE, meV/Å": ("", f"{errors['forces']['mae']:.0f}"),
        "force errors below the bound for 90%": ("", f"{errors['uncertainty']['coverage']:.0%}"),
    }
    for row in result["properties"]:
        model = f"{row['model']:.4g} ({row['difference']:+.2f}%)"
        cells[f"{row['quantity']}, {row['unit']}"] = f"{row['teacher']:.4g}", model
    seen = recorded(folder, "dynamics-{}.json")
    if len(seen) == 2:
        away = np.abs(np.subtract(seen["model"]["radial"], seen["teacher"]["radial"]))
        area = f"{away.sum() * REACH / BINS:.3f}"
        cells[f"integral of \\|Δg(r)\\| to {REACH:g} Å, Å"] = "", area
        rates = [
            f"{1e5 * seen[kind]['diffusion']:.2f} ± {1e5 * seen[kind]['deviation']:.2f}"
            for kind in ("teacher", "model")
        ]
        cells["diffusion of Li, O or Al, 10⁻⁵ cm²/s"] = rates[0], rates[1]
    path = folder / "times.json"
    if path.exists():
        spent = json.loads(path.read_text("utf-8"))
        ratio = spent["teacher"] / spent["model"]
        model = f"{spent['model']:.0f} ({ratio:.1f} × faster)"
        cells["energies and forces, µs/atom"] = f"{spent['teacher']:.0f}", model
    path = folder / "lammps.json"
    if path.exists():
        large = json.loads(path.read_text("utf-8"))
        cells[f"LAMMPS, at least {LARGE:,} atoms, µs/atom"] = "", f"{large['microseconds']:.0f}"
        noise = f"{1000 * large['fluctuation']:.0f}"
        cells["its total energy, deviation, µeV/atom"] = "", noise
    return cells


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
    parts = {
        "make": make,
        "dynamics": dynamics,
        "lammps": lammps,
        "times": times,
        "table": table,
    }
    parser.add_argument("part", choices=parts)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=structures(), help="one material only")
    parser.add_argument("--teacher", default="universal")
    parser.add_argument("--time", default="30m", help="of the distillation, or ps of the dynamics")
    parser.add_argument("--clock", default="wall")
    parser.add_argument("--range", default="300:1500", help="temperatures of the distillation, K")
    parser.add_argument("--temperature", type=float, default=1000.0, help="of test and dynamics, K")
    parser.add_argument("--fast", action="store_true", help="make the fast model")
    parser.add_argument("--steps", type=int, default=100, help="of LAMMPS")
    options = parser.parse_args()
    if options.part == "dynamics":
        options.time = float(options.time)
    parts[options.part](options)


if __name__ == "__main__":
    main()
