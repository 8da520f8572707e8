"""Relaxation of many crystals at once, with the steps that `relaxing` takes for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.stress import voigt_6_to_full_3x3_stress

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import is_crystal
from tesseral.calculators.properties.relaxation import (
    Bfgs,
    RelaxStep,
    by_logarithm,
    exponential,
    moving_cell,
    optimizer_for,
)
from tesseral.calculators.together import Crystals, Floats, Results, Together
from tesseral.data.neighbors import species_index

# Relaxed at once; more would take more memory and open files, but no less time.
STRUCTURES, ATOMS = 64, 400
GPU_STRUCTURES, GPU_ATOMS = 256, 16384


class Event(NamedTuple):
    """A step of one of several relaxations, or its end by an error."""

    number: int  # of the structure
    step: RelaxStep | None
    results: dict[str, Any]  # energy (eV), forces (n, 3) eV/Å and stress (6,) eV/Å³
    error: Exception | None = None
    ended: bool = False


def can_relax_together(atoms: Atoms, calculator: Any, optimizer: str = "auto") -> bool:
    """Whether a relaxation can be one of those of `relaxing_together`.

    These are relaxations with BFGS of crystals without constraints, by a model without dispersion.
    """
    return (
        isinstance(calculator, TesseralCalculator)
        and calculator.dispersion is None
        and is_crystal(atoms)
        and 0 < len(atoms) <= ATOMS
        and not atoms.constraints
        and optimizer_for(atoms, optimizer) == "bfgs"
    )


def limits(calculator: TesseralCalculator) -> tuple[int, int]:
    """Largest numbers of structures and atoms that are relaxed at once."""
    on_cpu = calculator.device.type == "cpu"
    return (STRUCTURES, ATOMS) if on_cpu else (GPU_STRUCTURES, GPU_ATOMS)


def relaxing_together(
    structures: Iterable[Atoms],
    calculator: TesseralCalculator,
    *,
    fmax: float,
    steps: int,
    cell: str = "auto",
    pressure: float = 0.0,
) -> Iterator[Event]:
    """Relax crystals themselves; all that still move are evaluated by one call of the model.

    Args:
        structures: crystals that `can_relax_together`, changed in place with each step. They are
            taken as others end, so that no more than the `limits` are relaxed at once.
        calculator: calculator of the model.
        fmax: convergence criterion: maximum force (eV/Å), including the force on the cell.
        steps: maximum number of steps of each; 0 only evaluates the structures.
        cell: what the cell may do; see `moving_cell`.
        pressure: external pressure (GPa) on cells that move.

    Returns:
        The initial state and each step of each structure; an error of the calculator ends one
        structure, not the others.
    """
    together = Together(calculator)
    most_structures, most_atoms = limits(calculator)
    waiting = enumerate(structures)
    following = next(waiting, None)
    courses: list[_Course] = []
    while courses or following:
        while following and len(courses) < most_structures:
            atoms = sum(len(course.atoms) for course in courses)
            if courses and atoms + len(following[1]) > most_atoms:
                break
            courses.append(_Course(*following, calculator.card.elements, cell))
            following = next(waiting, None)
        events = _round(courses, together, calculator, pressure * units.GPa, fmax, steps)
        yield from events
        courses = [c for c, event in zip(courses, events, strict=True) if not event.ended]


class _Course:
    """One of the relaxations."""

    def __init__(self, number: int, atoms: Atoms, elements: tuple[int, ...], cell: str) -> None:
        self.number, self.atoms = number, atoms
        self.species = species_index(atoms.numbers, elements)
        self.start = atoms.cell.array.copy()
        moving = np.array(moving_cell(atoms, cell).vectors)
        self.moves = bool(moving.any())
        axes = np.linalg.qr(self.start[moving].T)[0]  # orthonormal columns
        self.plane = np.eye(3) if moving.all() else axes @ axes.T
        # As in `CellFilter`: positions in the undeformed cell, and the logarithm of its deformation
        # times the number of atoms.
        self.places = np.vstack([atoms.positions, np.zeros((3, 3))])
        self.bfgs = Bfgs()
        self.steps = 0

    def move(self, forces: Floats) -> None:
        """The next step, by the forces on the places."""
        last = len(self.places) if self.moves else -3
        self.places[:last] = self.bfgs.step(self.places[:last], forces[:last])
        self.steps += 1


def _round(
    courses: Sequence[_Course],
    together: Together,
    calculator: TesseralCalculator,
    pressure: float,
    fmax: float,
    steps: int,
) -> list[Event]:
    """Evaluate the present states, and move those that have not ended."""
    sizes = np.array([len(course.atoms) for course in courses])
    ends = np.cumsum(sizes)
    system = np.repeat(np.arange(len(sizes)), sizes)
    factors = sizes[:, None, None]
    logarithms = np.stack([course.places[-3:] for course in courses]) / factors
    deformations = exponential(logarithms)
    turned = np.swapaxes(deformations, 1, 2)
    cells = np.stack([course.start for course in courses]) @ turned
    places = np.concatenate([course.places[:-3] for course in courses])
    positions = np.matmul(places[:, None], turned[system])[:, 0]
    owns = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    for course, own, lattice in zip(courses, owns, cells, strict=True):
        course.atoms.arrays["positions"][:] = positions[own]
        course.atoms.cell.array[:] = lattice
    species = np.concatenate([course.species for course in courses])
    results = together.evaluate(Crystals(species, sizes, positions, cells))
    errors: list[Exception | None] = [None] * len(courses)
    if results is None:
        results, errors = _one_by_one([course.atoms for course in courses], calculator)
        wrong = [error is not None for error in errors]
        deformations[wrong] = cells[wrong] = np.eye(3)  # the numbers here may be NaN
        logarithms[wrong] = 0.0
    pulls = np.matmul(results.forces[:, None], deformations[system])[:, 0]
    virials = results.stresses + pressure * np.eye(3)
    virials *= -np.abs(np.linalg.det(cells))[:, None, None]
    on_cells = by_logarithm(virials @ np.linalg.inv(turned), logarithms) / factors
    planes = np.stack([course.plane for course in courses])
    on_cells = planes @ on_cells @ planes  # zero for cells that do not move
    on_atoms = np.maximum.reduceat((pulls**2).sum(axis=1), ends - sizes)
    largest = np.sqrt(np.maximum(on_atoms, (on_cells**2).sum(axis=2).max(axis=1)))
    stresses = _voigt(results.stresses)
    events = []
    for k, (course, own, error) in enumerate(zip(courses, owns, errors, strict=True)):
        if error is not None:
            events.append(Event(course.number, None, {}, error, ended=True))
            continue
        energy, force = float(results.energies[k]), float(largest[k])
        found = {"energy": energy, "forces": results.forces[own], "stress": stresses[k]}
        step = RelaxStep(course.steps, energy / len(course.atoms), force, force < fmax)
        ended = step.converged or step.number == steps
        events.append(Event(course.number, step, found, ended=ended))
        if not ended:
            course.move(np.vstack([pulls[own], on_cells[k]]))
    return events


def _one_by_one(
    structures: Sequence[Atoms], calculator: TesseralCalculator
) -> tuple[Results, list[Exception | None]]:
    """Results of the calculator, zeros where it raises an error, and the errors."""
    energies, forces = np.zeros(len(structures)), []
    stresses = np.zeros((len(structures), 3, 3))
    errors: list[Exception | None] = []
    for number, atoms in enumerate(structures):
        forces.append(np.zeros((len(atoms), 3)))
        try:
            calculator.calculate(atoms)
        except OSError:
            raise
        except Exception as error:  # one bad structure must not stop the others
            errors.append(error)
            continue
        errors.append(None)
        energies[number], forces[-1] = calculator.results["energy"], calculator.results["forces"]
        stresses[number] = voigt_6_to_full_3x3_stress(calculator.results["stress"])
    return Results(energies, np.concatenate(forces), stresses), errors


def _voigt(stresses: Floats) -> Floats:
    """Stresses (G, 6) in ASE's order from symmetric matrices (G, 3, 3)."""
    return stresses[:, (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
