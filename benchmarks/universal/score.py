"""Errors of universal potentials against labelled structures of any source."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.io import write
from rich.console import Console

from benchmarks.accuracy.structures import read_frames
from benchmarks.sheets import Sheet, cell, save
from benchmarks.universal.predictions import Array, Predictions, predict
from benchmarks.universal.programs import named, peer
from benchmarks.workers import Specification

KINDS = ("config_type", "category", "group")  # names under which a frame may have its kind
HULL = ("e_above_hull", "energy_above_hull")  # eV/atom above the convex hull
HULL_EDGES = (0.0, 0.05, 0.2, np.inf)  # eV/atom
OUTLIERS = {"energy": 100.0, "forces": 1000.0, "stress": 5.0}  # meV/atom, meV/Å, GPa


class Errors(NamedTuple):
    """Errors of a program on S structures with N atoms; NaN where there is no label."""

    energy: Array  # (S,) meV/atom
    shifted: Array  # (S,) meV/atom, without one constant per element
    forces: Array  # (N,) meV/Å, lengths of the error vectors
    stress: Array  # (S,) GPa, means over the components
    structure: Array  # (N,) structure of each atom

    def of(self, chosen: Array) -> Errors:
        """Errors of some structures (S,)."""
        atoms = chosen[self.structure]
        return Errors(
            *(self.energy[chosen], self.shifted[chosen], self.forces[atoms]),
            *(self.stress[chosen], self.structure[atoms]),
        )


def errors(frames: Sequence[Atoms], found: Predictions) -> Errors:
    """Errors of predictions against the labels of the frames."""
    results = [{} if frame.calc is None else frame.calc.results for frame in frames]
    n_atoms = np.array([len(frame) for frame in frames])
    energy = found.energy - np.array([result.get("energy", np.nan) for result in results])
    nothing = [np.full((n, 3), np.nan) for n in n_atoms]
    labels = [result.get("forces", none) for result, none in zip(results, nothing, strict=True)]
    stress = [result.get("stress", np.full(6, np.nan)) for result in results]
    return Errors(
        energy=1e3 * np.abs(energy) / n_atoms,
        shifted=1e3 * np.abs(energy - shifts(frames, energy)) / n_atoms,
        forces=1e3 * np.linalg.norm(found.forces - np.concatenate(labels), axis=1),
        stress=np.abs(found.stress - np.array(stress)).mean(axis=1) / units.GPa,
        structure=np.repeat(np.arange(len(frames)), n_atoms),
    )


def shifts(frames: Sequence[Atoms], energy: Array) -> Array:
    """Part of the differences of energies (S,) eV that one constant per element explains.

    The zero of energy of an element depends on its pseudopotential. Least squares of energies per
    atom; zero where there are fewer labels than twice the number of elements.
    """
    numbers = sorted({number for frame in frames for number in frame.numbers.tolist()})
    counts = np.array([[(frame.numbers == z).sum() for z in numbers] for frame in frames])
    n_atoms, known = counts.sum(axis=1), np.isfinite(energy)
    if known.sum() < 2 * len(numbers):
        return np.zeros(len(frames))
    fractions = counts / n_atoms[:, None]
    constants = np.linalg.lstsq(fractions[known], (energy / n_atoms)[known], rcond=None)[0]
    explained: Array = counts @ constants
    return explained


def groups(frames: Sequence[Atoms]) -> dict[str, Array]:
    """Structures (S,) of each kind, and in each range of the energy above the convex hull."""
    found: dict[str, Array] = {}
    for name in KINDS:
        kinds = [str(frame.info.get(name, "")) for frame in frames]
        if len(set(kinds)) > 1:
            found |= {
                kind or "–": np.array([k == kind for k in kinds]) for kind in dict.fromkeys(kinds)
            }
            break
    hull = np.array([next((f.info[n] for n in HULL if n in f.info), np.nan) for f in frames], float)
    for low, high in zip(HULL_EDGES, HULL_EDGES[1:], strict=False):
        inside = (hull >= low) & (hull < high)
        if inside.any():
            found[f"{low:g} to {high:g} eV/atom above the hull"] = inside
    return found


def score_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Predict all files with all programs."""
    programs = programs_of(options)
    whole = _sheet("all structures of a file")
    by_kind = _sheet("by kind of structure")
    numbers: dict[str, dict[str, list[float]]] = {}
    for file in options.files:
        every = read_frames(file)
        some = np.linspace(0, len(every) - 1, min(options.number, len(every))).round().astype(int)
        frames = [every[i] for i in some]
        name = f"{file.parent.name}/{file.stem}"
        path = options.output / f"{name.replace('/', '-')}.xyz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, [_plain(atoms) for atoms in frames], format="extxyz")
        for program in programs:
            terminal.print(f"{name}: {program.name}")
            try:
                found = errors(frames, predict(program, path, options.output))
            except RuntimeError as error:
                terminal.print(str(error))
                whole.rows.append((name, program.name, str(len(frames)), "failed", *["–"] * 9))
                continue
            numbers.setdefault(name, {})[program.name] = values(found)
            whole.rows.append((name, program.name, str(len(frames)), *texts(found)))
            if options.kinds:
                for kind, chosen in groups(frames).items():
                    row = f"{name}, {kind}", program.name, str(int(chosen.sum()))
                    by_kind.rows.append((*row, *texts(found.of(chosen))))
        save(options.output / "score.json", numbers)
    return [whole, by_kind] if by_kind.rows else [whole]


def programs_of(options: argparse.Namespace) -> list[Specification]:
    """The models and the peers of the options."""
    found = [named(options, model) for model in options.models]
    for name in options.peers:
        more = {"path": str(options.weights.resolve())} if name == "nequix" else {}
        found.append(peer(options, name, **more))
    if not found:
        raise ValueError("give models with --models, or peers with --peers")
    return found


def values(found: Errors) -> list[float]:
    """Mean and median of the shifted energy, forces and stress, preceded by the mean energy."""
    parts = found.shifted, found.forces, found.stress
    known = [part[np.isfinite(part)] for part in parts]
    pairs = [
        (float(part.mean()), float(np.median(part))) if len(part) else (np.nan,) * 2
        for part in known
    ]
    return [_mean(found.energy), *(value for pair in pairs for value in pair)]


def texts(found: Errors) -> list[str]:
    """Cells of a row: energy; mean, median and share of outliers of the other three."""
    cells = [_text(_mean(found.energy))]
    parts = {"energy": found.shifted, "forces": found.forces, "stress": found.stress}
    for name, part in parts.items():
        known = part[np.isfinite(part)]
        if not len(known):
            cells += ["–"] * 3
            continue
        share = 100 * float((known > OUTLIERS[name]).mean())
        cells += [_text(float(known.mean())), _text(float(np.median(known))), f"{share:.1f}%"]
    return cells


def _mean(part: Array) -> float:
    """Mean of the values that are known; NaN without any."""
    known = part[np.isfinite(part)]
    return float(known.mean()) if len(known) else float("nan")


def _text(value: float) -> str:
    return "–" if np.isnan(value) else cell(value)


def _sheet(title: str) -> Sheet:
    return Sheet(
        f"Errors against labels, {title}",
        (
            *("set", "potential", "structures", "E as it is"),
            *("E, meV/atom", "median", "> 100"),
            *("F, meV/Å", "median", "> 1000"),
            *("stress, GPa", "median", "> 5"),
        ),
        "E as it is: mean error of the energy per atom, other zeros of energy included. E: without "
        "one constant per element, fitted to the set. F: length of the error vector of an atom. "
        "stress: mean over the components. The shares are those of larger errors.",
    )


def _plain(atoms: Atoms) -> Atoms:
    """Positions and cell alone, without labels."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
