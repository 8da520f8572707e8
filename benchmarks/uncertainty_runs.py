"""Cost of the uncertainty in molecular dynamics, and whether it stops runs in time.

python -m benchmarks.uncertainty_runs cost MODEL
python -m benchmarks.uncertainty_runs stop MODEL REFERENCE [--seeds 3] [--kelvin 4000]
python -m benchmarks.uncertainty_runs sizes MODEL REFERENCE
python -m benchmarks.uncertainty_runs draws MODEL SET

``cost`` times energies and forces of a rattled crystal of about 512 atoms of the first element of
the model, with and without the uncertainty, in alternation. ``stop`` heats a crystal of about 64
atoms and compares the forces of each step with those of a reference model, which was trained on
hot structures too: the step at which the expected error passes the limit of the model should come
before that at which the true one passes 1 eV/Å. ``sizes`` compares the energies of rattled and
strained crystals of 8, 64 and 216 atoms with those of the reference model, and with the expected
errors: whether these depend on the size as the true ones do. ``draws`` calibrates with few
structures of a set, drawn at random, and prints which part of the force errors of the others is
below the bound for 90%.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols
from rich.console import Console

from benchmarks.uncertainty import known
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.ensembles import SOON, langevin, start
from tesseral.calculators.simulations.uncertainty import Watch
from tesseral.deploy.modelfile import load_model
from tesseral.screen import print_table
from tesseral.training.uncertainty import Errors, calibrated

PAIRS, WARM_UP = 60, 6
RATTLE = 0.05  # Å
WRONG = 1.0  # eV/Å
COPIES = 40  # of each size
STRAIN = 0.02  # largest component
DRAWS, CALIBRATING = 200, (4, 8, 16)  # numbers of draws, and of structures in each
RAMPS = 0, 1000, 5000  # fs, from 300 K to the final temperature


def crystal(calculator: TesseralCalculator, atoms: int) -> Atoms:
    """Cubic crystal of the first element of a model, of about this many atoms."""
    cell = bulk(chemical_symbols[calculator.card.elements[0]], cubic=True)
    return cell.repeat(max(1, round((atoms / len(cell)) ** (1 / 3))))


def cost(model: str) -> None:
    """Print the times with and without the uncertainty."""
    calculators = TesseralCalculator(model), TesseralCalculator(model)
    calculators[1].potential.uncertainty = None
    atoms, rng = crystal(calculators[0], 512), np.random.default_rng(0)
    start, times = atoms.positions.copy(), np.zeros((PAIRS, 2))
    for number in range(PAIRS):
        atoms.positions = start + rng.normal(scale=RATTLE, size=start.shape)
        for which in (0, 1) if number % 2 else (1, 0):
            begin = time.process_time()
            calculators[which].calculate(atoms)
            times[number, which] = time.process_time() - begin
    times = 1e6 * times[WARM_UP:] / len(atoms)
    found, ratio = np.median(times, axis=0), np.median(times[:, 0] / times[:, 1])
    text = (
        f"{len(atoms)} atoms: {found[0]:.1f} µs/atom with the uncertainty, {found[1]:.1f} without"
    )
    Console().print(f"{text}; median of the ratios of pairs {ratio:.3f}", highlight=False)


def stop(model: str, reference: str, kelvin: float, seeds: int) -> None:
    """Print when runs stop, and when their forces become wrong."""
    lines = []
    for ramp in RAMPS:
        for seed in range(seeds):
            lines.append(
                [f"{ramp / 1000:g} ps", str(seed), *heated(model, reference, kelvin, ramp, seed)]
            )
    heads = ("ramp", "seed", "stop, fs", "K", "largest error then", "first 1 eV/Å, fs")
    print_table(Console(), heads, lines)


def heated(model: str, reference: str, kelvin: float, ramp: int, seed: int) -> list[str]:
    """Numbers of a run, until both happened or 1 ps after the ramp."""
    calculator, judge = TesseralCalculator(model), TesseralCalculator(reference)
    limit = calculator.stop
    assert limit is not None, "the model does not know its uncertainty"
    atoms, rng = start(crystal(calculator, 64), 300 if ramp else kelvin, seed)
    atoms.calc = calculator
    dynamics = langevin(atoms, 1.0, 300, SOON, rng)
    watch, stopped = Watch(limit, 1.0), []
    for step in range(ramp + 1000):
        forces = atoms.get_forces()
        judge.calculate(atoms)
        error = float(np.linalg.norm(forces - judge.results["forces"], axis=1).max())
        if not stopped and watch.strange(atoms):
            stopped = [str(step), f"{atoms.get_temperature():.0f}", f"{error:.2f} eV/Å"]
        if error > WRONG:
            return [*(stopped or ["not before", "", ""]), str(step)]
        part = step / ramp if ramp else 1.0
        dynamics.set_temperature(temperature_K=300 + (kelvin - 300) * min(1.0, part))
        dynamics.run(1)
    return [*(stopped or ["none", "", ""]), "none"]


def sizes(model: str, reference: str) -> None:
    """Print true and expected errors of energies of crystals of three sizes."""
    calculator, judge = TesseralCalculator(model), TesseralCalculator(reference)
    bound, rng, lines = calculator.card.uncertainty["energy_bound"], np.random.default_rng(0), []
    for repeat in (1, 2, 3):
        found = np.zeros((COPIES, 2))
        for number in range(COPIES):
            atoms = crystal(calculator, 8).repeat(repeat)
            strain = rng.uniform(-STRAIN, STRAIN, (3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), True)
            atoms.positions += rng.normal(scale=2 * RATTLE, size=atoms.positions.shape)
            calculator.calculate(atoms)
            judge.calculate(atoms)
            error = calculator.results["energy"] - judge.results["energy"]
            found[number] = abs(error), calculator.results["energy_uncertainty"]
        true, expected = 1000 * found.mean(axis=0)
        covered = (found[:, 0] < bound * found[:, 1]).mean()
        row = [f"{true:.0f}", f"{expected:.0f}", f"{true / expected:.2f}", f"{covered:.0%}"]
        lines.append([str(len(atoms)), *row])
    heads = ("atoms", "true error, meV", "expected, meV", "ratio", "below the bound for 90%")
    print_table(Console(), heads, lines)


def draws(model: str, path: str) -> None:
    """Print the coverage of calibrations with few structures."""
    potential, card = load_model(model)
    assert potential.uncertainty is not None, "the model does not know its uncertainty"
    found = known(potential, card.elements, path)
    tensors = torch.from_numpy(found.features), torch.from_numpy(found.species)
    distances = potential.uncertainty.distances(*tensors).numpy()
    rng, lines, rows = np.random.default_rng(0), [], np.unique(found.structure)
    for number in CALIBRATING:
        parts = []
        for _ in range(DRAWS):
            mine = np.isin(found.structure, rng.choice(rows, number, replace=False))
            place = np.unique(found.structure[mine], return_inverse=True)[1]
            few = Errors(distances[mine], found.error[mine], np.full(number, np.nan), place)
            values = calibrated(few, np.inf)
            reach = values["reach"]
            powers = np.minimum(distances, reach) ** values["exponent"]
            expected = values["forces"] * powers * np.maximum(distances / reach, 1)
            parts.append((found.error < values["bound"] * expected)[~mine].mean())
        low, high = np.quantile(parts, [0.1, 0.9])
        lines.append([str(number), f"{np.mean(parts):.0%}", f"{low:.0%} to {high:.0%}"])
    heads = ("structures", "coverage of the others", "four of five draws")
    print_table(Console(), heads, lines)


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uncertainty_runs")
    parser.add_argument("what", choices=("cost", "stop", "sizes", "draws"))
    parser.add_argument("model")
    parser.add_argument("reference", nargs="?", help="reference model, or the set of draws")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kelvin", type=float, default=4000.0)
    options = parser.parse_args()
    if options.what == "cost":
        cost(options.model)
    elif options.reference is None:
        parser.error(f"{options.what} needs a second file")
    elif options.what == "draws":
        draws(options.model, options.reference)
    elif options.what == "sizes":
        sizes(options.model, options.reference)
    else:
        stop(options.model, options.reference, options.kelvin, options.seeds)


if __name__ == "__main__":
    main()
