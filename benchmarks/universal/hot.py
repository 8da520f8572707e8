"""MD of random oxides at 2000 K, with and without the join to the nuclear repulsion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from rich.console import Console

from benchmarks.sheets import Sheet, cell, save
from benchmarks.universal.close import open_joined
from benchmarks.universal.close_structures import closest
from tesseral.calculators.ase import TesseralCalculator
from tesseral.potentials.blocks.short_range import square_pairs

TEMPERATURE = 2000.0  # K
TIMESTEP = 2.0  # fs
FRICTION = 0.05  # 1/fs; the atoms fall from random places, and their heat must go
SETTLED = 0.5  # ps, after which the temperature counts
METALS = "Li Be Na Mg Al Si K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge Sr Y Zr Nb Mo Ag In Sn Sb Ba"
METALS += " La Ce Hf Ta W Pb Bi"
VALENCES = {"Li": 1, "Na": 1, "K": 1, "Ag": 1, "Cu": 2, "Al": 3, "Ga": 3, "In": 3, "Sc": 3, "Y": 3}
VALENCES |= {"La": 3, "Bi": 3, "Cr": 3, "Fe": 3, "Sb": 3, "Si": 4, "Ge": 4, "Ti": 4, "Zr": 4}
VALENCES |= {"Sn": 4, "Hf": 4, "Ce": 4, "Mn": 4, "V": 5, "Nb": 5, "Ta": 5, "Mo": 6, "W": 6}
ATOMS = 20  # about


class Run(NamedTuple):
    """One simulation."""

    hottest: float  # K, highest temperature after SETTLED
    force: float  # eV/Å, largest force on an atom after SETTLED
    closest: float  # smallest distance over the sum of the covalent radii
    ended: str  # why it stopped early, or nothing

    @property
    def exploded(self) -> bool:
        """Whether it failed, or was three times as hot as it should be."""
        return bool(self.ended) or not self.hottest < 3 * TEMPERATURE


def oxides(number: int = 50, seed: int = 7) -> list[Atoms]:
    """Random places for the atoms of oxides of two metals, no two closer than 0.7 of a bond."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        metals = [str(one) for one in generator.choice(METALS.split(), 2, replace=False)]
        valence = sum(VALENCES.get(one, 2) for one in metals)
        formulas = max(1, round(ATOMS / (2 + valence / 2)))
        symbols = metals * formulas + ["O"] * round(formulas * valence / 2)
        spheres = 4 / 3 * np.pi * covalent_radii[Atoms(symbols).numbers] ** 3
        side = (generator.uniform(0.9, 1.2) * np.maximum(spheres, 11.0).sum()) ** (1 / 3)
        atoms = Atoms(symbols, cell=[side] * 3, pbc=True)
        made.append(_placed(atoms, generator))
    return made


def _placed(atoms: Atoms, generator: np.random.Generator) -> Atoms:
    """Atoms placed one after the other; the distance that they keep shrinks where none is free."""
    while True:
        limit, done = 0.9, atoms[:0]
        for one in atoms:
            for _ in range(200):
                trial = done.copy()
                trial.append(one)
                trial.positions[-1] = generator.random(3) @ atoms.cell.array
                if closest(trial) >= limit:
                    done = trial
                    break
                limit = max(0.7, limit - 0.002)
            else:
                break
        if len(done) == len(atoms):
            return done


def simulate(atoms: Atoms, calculator: Any, time: float, seed: int) -> Run:
    """Langevin dynamics for a time in ps."""
    atoms = atoms.copy()
    atoms.calc = calculator
    generator = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=generator)
    dynamics = Langevin(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=TEMPERATURE,
        friction=FRICTION / units.fs,
        rng=generator,
    )
    hottest, force, nearest, ended = 0.0, 0.0, np.inf, ""
    steps = round(1000 * time / TIMESTEP)
    try:
        for step, _ in enumerate(dynamics.irun(steps)):
            nearest = min(nearest, closest(atoms))
            temperature = atoms.get_temperature()
            if not temperature < 100 * TEMPERATURE:
                ended = f"{temperature:.0f} K after {step * TIMESTEP / 1000:.2f} ps"
                break
            if step * TIMESTEP >= 1000 * SETTLED:
                hottest = max(hottest, temperature)
                force = max(force, float(np.linalg.norm(atoms.get_forces(), axis=1).max()))
    except (ValueError, RuntimeError) as error:
        ended = str(error)
    return Run(float(hottest), force, nearest, ended)


def hot_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """All runs of each model; without the join only those in which a pair came close."""
    sheet = Sheet(
        f"{options.number} random oxides of about {ATOMS} atoms, {options.time:g} ps at "
        f"{TEMPERATURE:g} K",
        ("model", "join", "runs", "exploded", "highest temperature, K", "largest force, eV/Å")
        + ("smallest distance / radii",),
        f"Langevin, {TIMESTEP:g} fs, friction {FRICTION:g}/fs. Exploded: atoms lost or a "
        f"temperature above {3 * TEMPERATURE:g} K after {SETTLED:g} ps. Without the join, the runs "
        "in which no pair came closer than its inner radius are the same.",
    )
    numbers: dict[str, list[dict[str, Any]]] = {}
    structures = oxides(options.number)
    for path in map(Path, options.models):
        model = open_joined(path)
        silicon = model.card.elements.index(14)
        inner = square_pairs(model.card.inner_radii, len(model.card.elements))
        # The fraction is the same for all elements but noble gases; the radii are rounded down.
        limit = float(inner[silicon, silicon]) / (2 * covalent_radii[14]) + 0.01
        joined = TesseralCalculator.from_model(model.joined, model.card)
        plain = TesseralCalculator.from_model(model.plain, model.card)
        runs: list[tuple[Run, Run]] = []
        for seed, atoms in enumerate(structures):
            with_join = simulate(atoms, joined, options.time, seed)
            came_close = with_join.closest < limit
            without = simulate(atoms, plain, options.time, seed) if came_close else with_join
            runs.append((with_join, without))
            terminal.print(f"{path.stem} {seed + 1}/{len(structures)} {atoms.symbols} {runs[-1]}")
        for column, label in ((1, "without"), (0, "with")):
            own = [pair[column] for pair in runs]
            sheet.rows.append(
                (path.stem, label, str(len(own)), str(sum(run.exploded for run in own)))
                + (cell(max(run.hottest for run in own)), cell(max(run.force for run in own)))
                + (cell(min(run.closest for run in own)),)
            )
        numbers[path.stem] = [
            {"with": a._asdict(), "without": b._asdict(), "oxide": str(atoms.symbols)}
            for (a, b), atoms in zip(runs, structures, strict=True)
        ]
        save(options.output / "hot.json", numbers)
    return [sheet]
