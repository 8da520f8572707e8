"""Minimum-energy path between two structures: a nudged elastic band with a climbing image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.geometry import find_mic
from ase.mep import NEB
from ase.optimize import FIRE
from ase.utils.forcecurve import fit_images
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]

SAME_CELL = 1e-3  # Å
SAME_PLACE = 0.05  # Å; ends closer than this are one structure
FAR = 1.0  # Å; and
DOUBTFUL = 1.5  # times the distance that another numbering leaves: the order is doubtful
CLIMBING = 0.5  # eV/Å; below this force the highest image begins to climb
MINIMUM = 0.02  # eV; depth of an intermediate minimum that is worth a note
METHODS = ("climbing", "plain")


class BandStep(NamedTuple):
    """State of a path after a step."""

    number: int
    energies: Floats  # (images,) eV
    max_force: float  # eV/Å, on the images between the ends, across the path and of the springs
    converged: bool


class Profile(NamedTuple):
    """Energies along a path, relative to its start."""

    distance: Floats  # (images,) Å, along the path
    energies: Floats  # (images,) eV
    fine_distance: Floats  # (points,) Å, of a spline through energies and slopes
    fine_energies: Floats  # (points,) eV
    forward: float  # eV, barrier from start to end
    backward: float  # eV, from end to start
    reaction: float  # eV, energy of the end
    highest: int  # number of the highest image


def matched_end(start: Atoms, end: Atoms) -> Atoms:
    """The end of a path, with each atom at the periodic image that is nearest to its start.

    Isolated molecules are also moved and rotated onto the start.

    Args:
        start: first structure.
        end: last structure, with the same atoms in the same order; not changed.

    Raises:
        ValueError: atoms, their order, cells, periodic directions or the places of fixed atoms
            differ.
    """
    if sorted(start.numbers) != sorted(end.numbers):
        raise ValueError(
            f"the start is {start.get_chemical_formula()} and the end {end.get_chemical_formula()}"
            "; a path needs the same atoms in both"
        )
    differ = np.flatnonzero(start.numbers != end.numbers)
    if len(differ):
        atom = int(differ[0])
        raise ValueError(
            f"atom {atom} (from 0) is {start.symbols[atom]} in the start and {end.symbols[atom]} "
            "in the end; number the atoms alike in both files"
        )
    if not np.array_equal(start.pbc, end.pbc):
        raise ValueError(
            f"the start has pbc={start.pbc.tolist()} and the end {end.pbc.tolist()}; they must be "
            "the same"
        )
    if start.pbc.any():
        widest = float(np.abs(start.cell.array - end.cell.array).max())
        if widest > SAME_CELL:
            raise ValueError(
                f"the cells of start and end differ by {widest:.3g} Å; a path needs one cell: "
                "relax both ends with the cell of one of them"
            )
    matched: Atoms = start.copy()
    matched.calc = end.calc
    matched.info = dict(end.info)
    moves, _ = find_mic(end.positions - start.positions, start.cell, start.pbc)
    matched.set_positions(start.positions + moves, apply_constraint=False)
    if not start.pbc.any() and not start.constraints:
        minimize_rotation_and_translation(start, matched)
    kept = start.copy()
    kept.set_positions(matched.positions)  # what constraints allow
    worst = float(np.abs(kept.positions - matched.positions).max())
    if start.constraints and worst > SAME_CELL:
        raise ValueError(
            f"atoms that are fixed in the start are up to {worst:.3g} Å away in the end; they must "
            "have the same places in both"
        )
    return matched


def doubt_about_order(start: Atoms, end: Atoms) -> str:
    """A sentence if another numbering of equal atoms would shorten the path much; else empty.

    Args:
        start: first structure.
        end: last structure, from `matched_end`.
    """
    moved = float(((end.positions - start.positions) ** 2).sum()) ** 0.5
    best = 0.0
    for number in np.unique(start.numbers):
        own = np.flatnonzero(start.numbers == number)
        pairs = (end.positions[own][None] - start.positions[own][:, None]).reshape(-1, 3)
        _, lengths = find_mic(pairs, start.cell, start.pbc)
        squares = lengths.reshape(len(own), len(own)) ** 2
        best += float(squares[linear_sum_assignment(squares)].sum())
    best **= 0.5
    if moved < FAR or moved < DOUBTFUL * best:
        return ""
    return (
        f"the ends are {moved:.2f} Å apart (root of the sum of squares), and {best:.2f} Å with "
        "equal atoms numbered otherwise; check that both files have the same order of atoms"
    )


def first_path(start: Atoms, end: Atoms, images: int) -> list[Atoms]:
    """Structures between two ends, interpolated with the image-dependent pair potential.

    Source: S. Smidstrup, A. Pedersen, K. Stokbro and H. Jónsson, J. Chem. Phys. 140, 214106 (2014).

    Args:
        start: first structure, with its calculator.
        end: last structure, from `matched_end`, with its calculator.
        images: number of structures with both ends, 3 or more.

    Raises:
        ValueError: there are fewer than three images, or both ends are the same structure.
    """
    if images < 3:
        raise ValueError(f"`images` is {images}; a path has 3 or more, with both ends")
    longest = float(np.linalg.norm(end.positions - start.positions, axis=1).max())
    if longest < SAME_PLACE:
        raise ValueError(
            f"start and end are the same structure: no atom moves by more than {longest:.3f} Å; if "
            "they differed before they were relaxed, one of them is not stable"
        )
    path = [start, *(start.copy() for _ in range(images - 2)), end]
    mic = bool(start.pbc.any())
    NEB(path, method="improvedtangent").interpolate("idpp", mic=mic, apply_constraint=False)
    return path


def relaxing_path(
    path: list[Atoms], *, fmax: float, steps: int, method: str = "climbing"
) -> Iterator[BandStep]:
    """Relax the structures between the ends of a path, step by step.

    Forces along the path are replaced by springs; at the end the highest image climbs to the saddle
    point. Sources: G. Henkelman and H. Jónsson, J. Chem. Phys. 113, 9978 (2000); G. Henkelman,
    B. P. Uberuaga and H. Jónsson, J. Chem. Phys. 113, 9901 (2000).

    Args:
        path: structures, each with a calculator of its own; those between the ends are changed.
        fmax: convergence criterion: maximum force (eV/Å) of the band.
        steps: maximum number of steps.
        method: ``climbing``, or ``plain``, which leaves out the climbing image.

    Raises:
        ValueError: the method is unknown. Errors of the calculators are raised during the
            iteration.
    """
    if method not in METHODS:
        raise ValueError(f"`method` is {method!r}; use one of {', '.join(METHODS)}")
    band = NEB(path, method="improvedtangent")
    optimizer: Any = FIRE(band, logfile=None)

    def state(converged: bool) -> BandStep:
        forces = np.asarray(band.get_forces())
        force = float(np.sqrt((forces**2).sum(axis=1).max()))
        return BandStep(optimizer.nsteps, np.array(band.energies), force, converged)

    if method == "climbing":
        for done in optimizer.irun(fmax=max(CLIMBING, fmax), steps=steps):
            if not done:
                yield state(False)
        band.climb = True
    for done in optimizer.irun(fmax=fmax, steps=steps - optimizer.nsteps):
        yield state(bool(done))


def profile(path: list[Atoms]) -> Profile:
    """Energies along a path, with a spline through energies and slopes.

    Args:
        path: structures with energies and forces.
    """
    fit = fit_images(path)
    energies = np.asarray(fit.energies)
    fine = np.asarray(fit.fit_energies)
    highest = int(energies.argmax())
    top = max(float(energies.max()), float(fine.max()))
    return Profile(
        distance=np.asarray(fit.path),
        energies=energies,
        fine_distance=np.asarray(fit.fit_path),
        fine_energies=fine,
        forward=top,
        backward=top - float(energies[-1]),
        reaction=float(energies[-1]),
        highest=highest,
    )


def remarks(result: Profile) -> list[str]:
    """Sentences about a path that has no barrier, or minima between its ends."""
    energies = result.energies
    found = []
    if result.highest in (0, len(energies) - 1):
        found.append("the highest structure is an end: there is no barrier between them")
    depths = [
        min(energies[:number].max(), energies[number + 1 :].max()) - energies[number]
        for number in range(1, len(energies) - 1)
    ]
    if max(depths) > MINIMUM:
        found.append(
            f"image {1 + int(np.argmax(depths))} is near a minimum between the ends; relax it, and "
            "compute the two parts of the path by themselves"
        )
    return found
