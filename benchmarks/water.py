"""Oxygen–oxygen distribution of a run of liquid water beside that of the frames of the data.

    train-potential md ../shared/data/water/water.extxyz@320 --model water.safetensors -o runs/water
        --ensemble nvt --temperature 300 --time 50 --timestep 0.5 --every 40
    python -m benchmarks.water runs/water/structures/NAME.traj ../shared/data/water/water.extxyz

The first picoseconds of the run do not count (``--settle``). Prints the first peak and minimum and
the difference of the two curves, with standard errors from blocks, and writes ``water.png`` and
``water.json`` next to the trajectory.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.io import read
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.sheets import Sheet, cell, console
from tesseral.files import write_json
from tesseral.md_examples.lammps.tables import radial_distribution

Floats = NDArray[np.float64]

REACH, BINS = 6.2, 124  # Å, half the cell of the data; shells
PEAK, MINIMUM = (2.4, 3.2), (3.0, 4.2)  # Å, where they are looked for
BLOCKS = 5


class Curve(NamedTuple):
    """Radial distribution with its standard error."""

    distance: Floats  # (B,) Å
    mean: Floats  # (B,)
    error: Floats  # (B,)

    def extreme(self, sign: int, limits: tuple[float, float]) -> tuple[float, float, float]:
        """Place (Å), value and its error of the largest (smallest: sign −1) value in a range."""
        inside = np.nonzero((self.distance > limits[0]) & (self.distance < limits[1]))[0]
        at = inside[int((sign * self.mean[inside]).argmax())]
        return float(self.distance[at]), float(self.mean[at]), float(self.error[at])


def distribution(frames: list[Atoms], symbol: str = "O") -> Curve:
    """Radial distribution of one element in frames that follow each other.

    Raises:
        ValueError: there are fewer frames than blocks.
    """
    if len(frames) < BLOCKS:
        raise ValueError(f"there are {len(frames)} frames; {BLOCKS} are needed")
    found = [radial_distribution(atoms[atoms.symbols == symbol], REACH, BINS) for atoms in frames]
    values = np.array([each for _, each in found])
    blocks = np.array([part.mean(axis=0) for part in np.array_split(values, BLOCKS)])
    error = blocks.std(axis=0, ddof=1) / math.sqrt(BLOCKS)
    return Curve(found[0][0], values.mean(axis=0), error)


def difference(one: Curve, other: Curve) -> float:
    """Integral of the absolute difference of two distributions, Å."""
    return float(np.abs(one.mean - other.mean).sum() * REACH / BINS)


def draw(curves: dict[str, Curve], path: Path) -> None:
    """Both distributions, with bands of two standard errors."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for (name, curve), style in zip(curves.items(), ("k-", "C0--"), strict=True):
        axes.plot(curve.distance, curve.mean, style, label=name)
        low, high = curve.mean - 2 * curve.error, curve.mean + 2 * curve.error
        axes.fill_between(curve.distance, low, high, color=style[:-1].rstrip("-"), alpha=0.2)
    axes.set(xlabel="O–O distance (Å)", ylabel="g(r)", xlim=(2, REACH))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Compare a trajectory with the data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.water", description=__doc__)
    parser.add_argument("trajectory", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--settle", type=float, default=5.0, help="ps that do not count")
    parser.add_argument("--spacing", type=float, default=0.02, help="ps between frames of the run")
    options = parser.parse_args()
    first = round(options.settle / options.spacing)
    curves = {
        "data": distribution(read(options.data, ":")),
        "model": distribution(read(options.trajectory, f"{first}:")),
    }
    sheet = Sheet(
        "O–O distribution", ["", "first peak (Å)", "height", "first minimum (Å)", "depth"]
    )
    for name, curve in curves.items():
        cells = []
        for sign, limits in ((1, PEAK), (-1, MINIMUM)):
            place, value, error = curve.extreme(sign, limits)
            cells += [f"{place:.2f}", f"{value:.2f} ± {error:.2f}"]
        sheet.rows.append([name, *cells])
    terminal = console()
    terminal.print(sheet.table())
    away = difference(*curves.values())
    terminal.print(f"∫ |Δg(r)| dr to {REACH:g} Å: {cell(away)} Å")
    picture = options.trajectory.with_name("water.png")
    draw(curves, picture)
    numbers = {name: {k: v.tolist() for k, v in c._asdict().items()} for name, c in curves.items()}
    write_json(picture.with_suffix(".json"), {**numbers, "difference": away}, indent=0)
    terminal.print(f"written: {picture}")


if __name__ == "__main__":
    main()
