"""Thermal conductivity of liquid Lennard-Jones argon: a fitted potential beside LAMMPS.

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
EDGE = 3 * 5.78  # Å, of the cell of 108 atoms: 1.37 g/cm³
TEMPERATURE = 90.0  # K
TIMESTEP, EVERY = 4.0, 5  # fs; steps between heat fluxes
WARM_UP = 10.0  # ps
LONGEST = 1500.0  # fs, of the correlations
FITTED = (70.0, 90.0, 120.0)  # K, of the structures to fit to
FRAMES = 40  # structures at each of them
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
{dump}
run {steps}
"""
START = """\
velocity all create {hot} {seed} mom yes
fix bath all langevin {hot} {temperature} 0.5 {seed} zero yes
fix atoms all nve
run {steps}
unfix bath
unfix atoms
velocity all zero linear"""
DUMP = "dump all all custom 500 dump.txt id type x y z"


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
    """Structures from MD with Lennard-Jones, and a potential with one layer."""
    frames = []
    for temperature in FITTED:
        lammps_run(folder, crystal(), 500 * FRAMES, start(temperature, 1), DUMP)
        for atoms in ase.io.read(folder / "dump.txt", ":", format="lammps-dump-text")[1:]:
            atoms.numbers[:] = 18
            atoms.calc = lennard_jones()
            results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
            atoms.calc = SinglePointCalculator(atoms, **results, stress=atoms.get_stress())
            atoms.info["config_type"] = f"{temperature:g} K"
            frames.append(atoms)
    ase.io.write(folder / "argon.extxyz", frames)
    program = [sys.executable, "-m", "tesseral.commands.main"]
    words = ["data", "import", folder / "argon.extxyz", "-o", folder / "argon.h5", "--overwrite"]
    subprocess.run([*program, *map(str, words)], check=True)
    words = ["fit", "--data.train", folder / "argon.h5", "--output", model_of(folder)]
    words += ["--model.cutoff", CUTOFF, "--model.layers", 1, "--model.l_max", 1]
    words += ["--trainer.max_time", "40s", "--trainer.clock", "cpu", "--trainer.accelerator", "cpu"]
    subprocess.run([*program, *map(str, words)], check=True)


def model_of(folder: Path) -> Path:
    """The fitted potential."""
    return folder / "argon.safetensors"


def crystal() -> Atoms:
    """108 atoms, which melt at the temperatures here."""
    return bulk("Ar", "fcc", a=EDGE / 3, cubic=True) * 3


def start(temperature: float, seed: int) -> str:
    """Commands of LAMMPS that melt the crystal and bring the liquid to a temperature (K)."""
    steps = round(1000 * WARM_UP / TIMESTEP)
    return START.format(hot=3 * temperature, temperature=temperature, seed=seed, steps=steps)


def fitted_run(folder: Path, picoseconds: float, seed: int) -> FluxRecord:
    """Heat flux with the fitted potential."""
    # Melted, and brought to the temperature.
    atoms = crystal()
    atoms.calc = TesseralCalculator(model_of(folder), device="cpu")
    hot = {"timestep": TIMESTEP, "seed": seed}
    melted = equilibrated(atoms, temperature=2 * TEMPERATURE, time=WARM_UP / 2, **hot)
    liquid = equilibrated(melted, temperature=TEMPERATURE, time=WARM_UP / 2, **hot)
    return recorded_flux(
        liquid,
        microcanonical(liquid, TIMESTEP),
        time=picoseconds,
        timestep=TIMESTEP,
        every=EVERY,
        carried=True,
    )


def lammps_run(
    folder: Path, atoms: Atoms, steps: int, start: str = "", dump: str = ""
) -> FluxRecord:
    """Heat flux with LAMMPS."""
    write_lammps_data(folder / "argon.data", atoms, units="metal", velocities=True)
    text = INPUT.format(
        cutoff=CUTOFF,
        epsilon=EPSILON,
        sigma=SIGMA,
        timestep=TIMESTEP / 1000,
        start=start,
        every=EVERY,
        dump=dump,
        steps=steps,
    )
    (folder / "in.argon").write_text(text)
    call_lammps(["-in", "in.argon", "-log", "none"], 1, folder)
    rows = np.loadtxt(folder / "flux.txt", ndmin=2)[:, 1:]
    total: Floats = rows[:, :3] / 1000  # eV Å/ps to eV Å/fs
    return FluxRecord(total, rows[:, 6])


def integrated(record: FluxRecord) -> Floats:
    """Conductivity against the longest time of the correlations, W/m/K."""
    return conductivity(
        record.flux,
        interval=EVERY * TIMESTEP,
        volume=EDGE**3,
        temperature=float(record.temperature.mean()),
        longest=LONGEST,
    ).values


def run(folder: Path, picoseconds: float, runs: int, references: int) -> None:
    """Both at one configuration, then both conductivities."""
    atoms = ase.io.read(folder / "argon.extxyz")
    thermalize(atoms, TEMPERATURE, np.random.default_rng(2))
    expected = lammps_run(folder, atoms, 0).flux[0]
    labels = atoms.get_forces()
    atoms.calc = TesseralCalculator(model_of(folder), device="cpu")
    found = atoms.calc.get_heat_flux(atoms).total
    off, size = (1000 * values.std() for values in (atoms.get_forces() - labels, labels))
    terminal = console()
    terminal.print(f"heat flux of one configuration: {found}, LAMMPS {expected} eV Å/fs")
    terminal.print(f"errors of its forces: {off:.2f} of {size:.2f} meV/Å")
    steps = round(1000 * picoseconds / TIMESTEP)
    theirs = [
        integrated(lammps_run(folder, crystal(), steps, start(TEMPERATURE, seed)))
        for seed in range(1, references + 1)
    ]
    ours = []
    for seed in range(runs):
        before = time.process_time()
        ours.append(integrated(fitted_run(folder, picoseconds, seed)))
        terminal.print(f"seed {seed}: {ours[-1][-1]:.4f}, {time.process_time() - before:.0f} s")
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
