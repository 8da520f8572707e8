"""Thermal conductivity of Lennard-Jones argon (Green and Kubo): a fitted potential beside LAMMPS.

    python -m benchmarks.heat_flux fit runs/argon    # structures, labels and the potential
    python -m benchmarks.heat_flux run runs/argon    # --time 100 --runs 2 --references 20

LAMMPS has Lennard-Jones itself and its own heat flux, which is right for pairs of atoms. It
computes many runs of the same length, whose spread is the error of one run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.lammpsdata import write_lammps_data
from matscipy.calculators.pair_potential import LennardJonesLinear, PairPotential
from numpy.typing import NDArray

from benchmarks.sheets import Sheet, console
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import thermalize
from tesseral.calculators.properties.conductivity import FluxRecord, conductivity, recorded_flux
from tesseral.calculators.properties.dynamics import equilibrated
from tesseral.calculators.properties.ensembles import microcanonical
from tesseral.deploy.lammps.verify import call_lammps

Floats = NDArray[np.float64]

EPSILON, SIGMA, CUTOFF = 0.01032, 3.405, 6.0  # eV, Å, Å; forces are shifted to zero at the cutoff
LATTICE = 5.35  # Å
TEMPERATURE = 40.0  # K
TIMESTEP, EVERY = 4.0, 5  # fs; steps between heat fluxes
WARM_UP = 10.0  # ps
LONGEST = 6000.0  # fs, of the correlations
STRUCTURES, RUNS = 300, 30  # to fit to
INPUT = """\
units metal
atom_style atomic
read_data argon.data
mass 1 39.948
pair_style lj/smooth/linear {cutoff}
pair_coeff 1 1 {epsilon} {sigma}
compute kinetic all ke/atom
compute potential all pe/atom
compute virial all stress/atom NULL virial
compute flux all heat/flux kinetic potential virial
timestep {timestep}
{start}
fix atoms all nve
fix flux all ave/time {every} 1 {every} c_flux[*] c_thermo_temp file flux.txt format " %.10e"
run {steps}
"""
START = """\
velocity all create {twice} {seed} mom yes
fix bath all langevin {temperature} {temperature} 0.5 {seed} zero yes
fix atoms all nve
run {steps}
unfix bath
unfix atoms
velocity all zero linear"""


def main() -> None:
    """Fit or run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=("fit", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--time", type=float, default=100.0, help="ps of each run")
    parser.add_argument("--runs", type=int, default=2, help="of the fitted potential")
    parser.add_argument("--references", type=int, default=20, help="runs of LAMMPS")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.command == "fit":
        fit(given.folder)
    else:
        run(given.folder, given.time, given.runs, given.references)


def lennard_jones() -> Calculator:
    """Lennard-Jones with shifted forces."""
    pair = LennardJonesLinear(EPSILON, SIGMA, CUTOFF)
    made: Calculator = PairPotential({(18, 18): pair})
    return made


def fit(folder: Path) -> None:
    """Strained cells of 32 atoms in motion at several temperatures, and a potential."""
    rng = np.random.default_rng(0)
    frames = []
    for seed in range(RUNS):
        atoms = bulk("Ar", "fcc", a=LATTICE, cubic=True) * 2
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3))), True)
        atoms.calc = lennard_jones()
        thermalize(atoms, 2 * rng.uniform(0.25, 1.75) * TEMPERATURE, rng)
        dynamics = microcanonical(atoms, TIMESTEP)
        for _ in range(STRUCTURES // RUNS):
            dynamics.run(25)
            copy = atoms.copy()
            results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
            copy.calc = SinglePointCalculator(copy, **results, stress=atoms.get_stress())
            copy.info["group"] = f"run {seed}"
            frames.append(copy)
    ase.io.write(folder / "argon.extxyz", frames)
    program = [sys.executable, "-m", "tesseral.commands.main"]
    words = ["data", "import", folder / "argon.extxyz", "-o", folder / "argon.h5", "--overwrite"]
    subprocess.run([*program, *map(str, words)], check=True)
    words = ["fit", "--data.train", folder / "argon.h5", "--output", model_of(folder)]
    words += ["--model.cutoff", CUTOFF, "--model.layers", 1, "--model.l_max", 1]
    words += ["--trainer.max_time", "90s", "--trainer.clock", "cpu", "--trainer.accelerator", "cpu"]
    subprocess.run([*program, *map(str, words)], check=True)


def model_of(folder: Path) -> Path:
    """The fitted potential."""
    return folder / "argon.safetensors"


def crystal() -> Atoms:
    """108 atoms."""
    return bulk("Ar", "fcc", a=LATTICE, cubic=True) * 3


def fitted_run(folder: Path, picoseconds: float, seed: int) -> FluxRecord:
    """Heat flux with the fitted potential."""
    atoms = crystal()
    atoms.calc = TesseralCalculator(model_of(folder), device="cpu")
    hot = equilibrated(atoms, temperature=TEMPERATURE, time=WARM_UP, timestep=TIMESTEP, seed=seed)
    dynamics = microcanonical(hot, TIMESTEP)
    return recorded_flux(hot, dynamics, time=picoseconds, timestep=TIMESTEP, every=EVERY)


def lammps_run(folder: Path, atoms: Atoms, steps: int, start: str) -> FluxRecord:
    """Heat flux with LAMMPS."""
    write_lammps_data(folder / "argon.data", atoms, units="metal", velocities=True)
    text = INPUT.format(
        cutoff=CUTOFF,
        epsilon=EPSILON,
        sigma=SIGMA,
        timestep=TIMESTEP / 1000,
        start=start,
        every=EVERY,
        steps=steps,
    )
    (folder / "in.argon").write_text(text)
    call_lammps(["-in", "in.argon", "-log", "none"], 1, folder)
    rows = np.loadtxt(folder / "flux.txt")[:, 1:]
    exchanged: Floats = (rows[:, :3] - rows[:, 3:6]) / 1000  # eV Å/ps to eV Å/fs
    return FluxRecord(exchanged, rows[:, 6])


def integrated(record: FluxRecord) -> Floats:
    """Conductivity against the longest time of the correlations, W/m/K."""
    return conductivity(
        record.flux,
        interval=EVERY * TIMESTEP,
        volume=crystal().get_volume(),
        temperature=float(record.temperature.mean()),
        longest=LONGEST,
    ).values


def run(folder: Path, picoseconds: float, runs: int, references: int) -> None:
    """Both at one configuration, then both conductivities."""
    atoms = crystal()
    atoms.positions += 0.15 * np.random.default_rng(1).normal(size=atoms.positions.shape)
    thermalize(atoms, TEMPERATURE, np.random.default_rng(2))
    atoms.calc = TesseralCalculator(model_of(folder), device="cpu")
    found = atoms.calc.get_heat_flux(atoms).exchanged
    expected = lammps_run(folder, atoms, 0, "").flux[0]
    off = atoms.get_forces()
    atoms.calc = lennard_jones()
    off = off - atoms.get_forces()
    terminal = console()
    terminal.print(f"heat flux of one configuration: {found}, LAMMPS {expected} eV Å/fs")
    terminal.print(f"forces: {1000 * off.std():.2f} of {1000 * atoms.get_forces().std():.2f} meV/Å")
    steps = round(1000 * picoseconds / TIMESTEP)
    theirs = []
    for seed in range(1, references + 1):
        start = START.format(
            twice=2 * TEMPERATURE,
            temperature=TEMPERATURE,
            seed=seed,
            steps=round(1000 * WARM_UP / TIMESTEP),
        )
        theirs.append(integrated(lammps_run(folder, crystal(), steps, start)))
    ours = []
    for seed in range(runs):
        before = time.process_time()
        ours.append(integrated(fitted_run(folder, picoseconds, seed)))
        terminal.print(f"seed {seed}: {ours[-1][-1]:.4f}, {time.process_time() - before:.0f} s")
    np.savez(folder / "values.npz", ours=ours, theirs=theirs)
    spread = np.std(theirs, axis=0, ddof=1)
    sheet = Sheet(
        f"Thermal conductivity, W/m/K, {picoseconds:g} ps at {TEMPERATURE:g} K",
        ("correlations up to (ps)", *(f"seed {seed}" for seed in range(runs)), "mean", "LAMMPS"),
        "Errors: the spread of the runs of LAMMPS over the root of the number of runs.",
    )
    for share in (0.25, 0.5, 0.75, 1.0):
        place = round(share * (len(spread) - 1))
        each = [values[place] for values in ours]
        sheet.rows.append(
            (
                f"{share * LONGEST / 1000:g}",
                *(f"{value:.3f}" for value in each),
                f"{np.mean(each):.3f} ± {spread[place] / runs**0.5:.3f}",
                f"{np.mean(theirs, axis=0)[place]:.3f} ± {spread[place] / references**0.5:.3f}",
            )
        )
    terminal.print(sheet.table())
    (folder / "heat_flux.md").write_text(sheet.markdown() + "\n")


if __name__ == "__main__":
    main()
