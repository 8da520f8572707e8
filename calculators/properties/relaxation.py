"""Relaxation of atomic positions and of the cell in its periodic directions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS
from ase.stress import full_3x3_to_voigt_6_stress
from scipy.linalg import lapack, logm

from tesseral.calculators.properties.atoms import (
    VACUUM,
    copy_atoms,
    has_stress,
    largest_force,
    vacuum_gaps,
)

OPTIMIZERS: dict[str, Any] = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}
BFGS_ATOMS = 100  # the time of a step of BFGS grows with the cube of the number of atoms
CELLS = ("auto", "fixed", "in-plane", "free")


class RelaxStep(NamedTuple):
    """State of a relaxation after a step."""

    number: int
    energy: float  # eV/atom
    max_force: float  # eV/Å, on atoms and, if it moves, on the cell
    converged: bool


class Relaxed(NamedTuple):
    """Result of a relaxation."""

    atoms: Atoms
    converged: bool
    steps: int
    max_force: float  # eV/Å, on the atoms at the end


class CellFilter(FrechetCellFilter):  # type: ignore[misc, unused-ignore]
    """ASE's ``FrechetCellFilter`` at a small part of its cost, with the same course.

    There, the matrix functions of one step take longer than the potential of a small crystal: two
    logarithms of the deformation, and the derivative of an exponential in nine directions, for each
    of the three or four times that an optimizer requests the forces. Here, the logarithm is known
    from when the cell was set, all derivatives come from one exponential, summed as a series, and
    the forces are computed once for a structure.

    The cell is deformed only within the span of chosen lattice vectors, whatever their orientation.
    """

    def __init__(
        self,
        atoms: Atoms,
        moving: Sequence[bool],
        pressure: float = 0.0,
        *,
        constant_volume: bool = False,
    ) -> None:
        """Let the lattice vectors move that are marked.

        Args:
            atoms: structure with a calculator.
            moving: which lattice vectors may change, (3,).
            pressure: external pressure (eV/Å³).
            constant_volume: change the shape only.
        """
        super().__init__(  # type: ignore[no-untyped-call]
            atoms, scalar_pressure=pressure, constant_volume=constant_volume
        )
        self._start = atoms.cell.array.copy()
        self._pressure, self._constant_volume = pressure, constant_volume
        self._deformed: tuple[bytes, Any, Any] = (b"", None, None)  # cell; see `_deformation`
        self._known: tuple[bytes, Any] = (b"", None)
        axes = np.linalg.qr(atoms.cell.array[np.array(moving)].T)[0]  # orthonormal columns
        self._plane = None if all(moving) else axes @ axes.T

    def _deformation(self) -> tuple[Any, Any]:
        """Deformation of the cell since the start, (3, 3), and its logarithm."""
        cell = self.atoms.cell.array
        if self._deformed[0] != cell.tobytes():
            deformation = np.linalg.solve(self._start, cell).T
            with warnings.catch_warnings():
                # Frequent for cells that have hardly moved, whose error is 1e-12.
                warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
                self._deformed = cell.tobytes(), deformation, np.real(logm(deformation))
        return self._deformed[1:]

    def get_positions(self) -> Any:
        """Positions in the undeformed cell and the logarithm of its deformation, (N + 3, 3)."""
        deformation, logarithm = self._deformation()
        places = np.linalg.solve(deformation, self.atoms.positions.T).T
        return np.vstack([places, self.exp_cell_factor * logarithm])

    def set_positions(self, positions: Any, **options: Any) -> None:  # type: ignore[override, unused-ignore]
        """Set what `get_positions` returns."""
        logarithm = positions[-3:] / self.exp_cell_factor
        transposed = exponential(logarithm).T
        cell = self._start @ transposed
        self.atoms.set_cell(cell, scale_atoms=True)
        self.atoms.set_positions(positions[:-3] @ transposed, **options)
        if np.array_equal(self.atoms.cell.array, cell):  # no constraint has changed it
            self._deformed = cell.tobytes(), transposed.T, logarithm

    def get_forces(self, **options: Any) -> Any:
        """Forces on atoms and cell, (N + 3, 3)."""
        atoms = self.atoms
        key = atoms.positions.tobytes() + atoms.cell.array.tobytes() + repr(options).encode()
        if self._known[0] != key:
            self._known = key, self._forces(options)
        return self._known[1].copy()

    def _forces(self, options: dict[str, Any]) -> Any:
        """The forces, and in ``stress`` those on the faces of the cell (eV/Å³, Voigt)."""
        atoms = self.atoms
        deformation, logarithm = self._deformation()
        stress = atoms.get_stress(voigt=False, **options) + self._pressure * np.eye(3)
        virial = -atoms.get_volume() * stress
        gradient = virial @ np.linalg.inv(deformation.T)
        on_cell = by_logarithm(gradient, logarithm) / self.exp_cell_factor
        if self._constant_volume:
            on_cell -= np.trace(on_cell) / 3 * np.eye(3)
            stress = stress - np.trace(stress) / 3 * np.eye(3)
        if self._plane is not None:
            on_cell = self._plane @ on_cell @ self._plane
        self.stress = full_3x3_to_voigt_6_stress(stress)
        return np.vstack([atoms.get_forces(**options) @ deformation, on_cell])


def by_logarithm(gradient: Any, logarithm: Any) -> Any:
    """Gradients by the logarithms L of deformations from those by the deformations, (…, 3, 3).

    With G the gradient by the deformation, the derivative of tr(Gᵀ exp L) by L is a block of
    exp [[Lᵀ, G], [0, Lᵀ]] (Mathias 1996).
    """
    size = 12 * np.abs(gradient).max(axis=(-2, -1), keepdims=True)
    size = np.where(size > 0, size, 1.0)  # the derivative is proportional to it
    blocks = np.zeros((*gradient.shape[:-2], 6, 6))
    blocks[..., :3, :3] = blocks[..., 3:, 3:] = np.swapaxes(logarithm, -2, -1)
    blocks[..., :3, 3:] = gradient / size
    return exponential(blocks)[..., :3, 3:] * size


def exponential(matrix: Any) -> Any:
    """Exponential of small square matrices, to rounding; that of SciPy takes many times as long."""
    norm = float(np.abs(matrix).sum(axis=-2).max())
    known = 0 < norm < np.inf  # not NaN, whose result is NaN
    halvings = max(0, int(np.ceil(np.log2(norm / 0.5)))) if known else 0
    small, unit = matrix / 2**halvings, np.eye(matrix.shape[-1])
    total = unit
    for order in range(14, 0, -1):  # 0.5^15 / 15! is below rounding
        total = unit + small @ total / order
    for _ in range(halvings):
        total = total @ total
    return total


class MovingCell(NamedTuple):
    """Lattice vectors that a relaxation may change, and why others are kept."""

    vectors: tuple[bool, bool, bool]
    kept: str  # reason why a periodic structure keeps its cell or a part of it; empty otherwise


def moving_cell(atoms: Atoms, cell: str = "auto") -> MovingCell:
    """Choose the lattice vectors to relax.

    Args:
        atoms: the structure.
        cell: ``auto`` relaxes the cell of bulk matter only: of structures that are periodic in
            three directions, without a layer of vacuum and without constraints on atoms; ``fixed``
            keeps the cell; ``in-plane`` relaxes the periodic directions without vacuum; ``free``
            relaxes all periodic directions.

    Raises:
        ValueError: the choice is unknown.
    """
    if cell not in CELLS:
        raise ValueError(f"`cell` is {cell!r}; use one of {', '.join(CELLS)}")
    still = (False, False, False)
    if not has_stress(atoms) or cell == "fixed":
        return MovingCell(still, "")
    periodic = [bool(one) for one in atoms.pbc]
    widths = vacuum_gaps(atoms)
    empty = [bool(width > VACUUM) for width in widths]
    gaps = ", ".join(
        f"{w:.1f} Å along {n}" for w, n in zip(widths, "abc", strict=True) if w > VACUUM
    )
    reason = f"vacuum of {gaps}" if gaps else ""
    if cell == "free":
        return MovingCell(_three(periodic), "")
    if cell == "in-plane":
        return MovingCell(_three(p and not e for p, e in zip(periodic, empty, strict=True)), reason)
    if not all(periodic):
        reason = reason or "it is not periodic in three directions"
    elif any(not isinstance(one, FixSymmetry) for one in atoms.constraints):
        reason = reason or "it has constraints"
    return MovingCell(_three(not reason for _ in periodic), reason)


def _three(flags: Iterable[bool]) -> tuple[bool, bool, bool]:
    a, b, c = flags
    return a, b, c


def optimizer_for(atoms: Atoms, name: str = "auto") -> str:
    """Name of the optimizer: ``auto`` is bfgs up to 100 atoms and lbfgs above."""
    if name != "auto":
        return name
    return "bfgs" if len(atoms) <= BFGS_ATOMS else "lbfgs"


def relaxing(
    atoms: Atoms,
    *,
    fmax: float,
    steps: int,
    cell: str = "auto",
    optimizer: str = "auto",
    pressure: float = 0.0,
) -> Iterator[RelaxStep]:
    """Relax ``atoms`` themselves, step by step.

    Args:
        atoms: structure with a calculator; changed in place.
        fmax: convergence criterion: maximum force (eV/Å), including the force on the cell.
        steps: maximum number of steps; 0 only evaluates the structure.
        cell: what the cell may do; see `moving_cell`.
        optimizer: ``auto``, ``bfgs``, ``lbfgs`` for many atoms, or ``fire`` for poor starting
            structures; see `optimizer_for`.
        pressure: external pressure (GPa) on a cell that moves.

    Returns:
        The state of the initial structure, then the state after each step.

    Raises:
        ValueError: fmax is not positive, the number of steps is negative, or the optimizer or the
            choice of the cell is unknown. Errors of the calculator are raised during the iteration.
    """
    name = optimizer_for(atoms, optimizer)
    if not fmax > 0 or steps < 0 or name not in OPTIMIZERS:
        raise ValueError(
            f"fmax is {fmax}, steps {steps}, optimizer {optimizer!r}; use positive numbers and "
            f"one of auto, {', '.join(OPTIMIZERS)}"
        )
    vectors = moving_cell(atoms, cell).vectors
    moving: Any = CellFilter(atoms, vectors, pressure * units.GPa) if any(vectors) else atoms

    def run() -> Iterator[RelaxStep]:
        own = name == "bfgs"
        course = _bfgs(moving, fmax, steps) if own else _with_ase(name, moving, fmax, steps)
        for number, (force, converged) in enumerate(course):
            energy = float(atoms.get_potential_energy()) / len(atoms)
            yield RelaxStep(number, energy, force, converged)

    return run()


def _with_ase(name: str, moving: Any, fmax: float, steps: int) -> Iterator[tuple[float, bool]]:
    """Largest force, and whether it is small enough, at the start and after each step."""
    for converged in OPTIMIZERS[name](moving, logfile=None).irun(fmax=fmax, steps=steps):
        yield _largest(moving.get_forces()), bool(converged)


def _largest(forces: Any) -> float:
    return float(np.sqrt((np.asarray(forces) ** 2).sum(axis=1).max()))


def _bfgs(moving: Any, fmax: float, steps: int) -> Iterator[tuple[float, bool]]:
    """The same with `Bfgs`."""
    bfgs = Bfgs()
    for number in range(steps + 1):
        forces = np.asarray(moving.get_forces())
        largest = _largest(forces)
        yield largest, largest < fmax
        if largest < fmax or number == steps:
            return
        moving.set_positions(bfgs.step(np.asarray(moving.get_positions()), forces))


class Bfgs:
    """The steps of ASE's BFGS, without its overhead.

    ASE diagonalises the Hessian in each step, to take the absolute values of its eigenvalues. If
    all are positive, which the Cholesky decomposition tells, a solution with it is the same step.
    """

    def __init__(self) -> None:
        """Start without a Hessian."""
        self._hessian: Any = None
        self._before: tuple[Any, Any] | None = None

    def step(self, positions: Any, forces: Any) -> Any:
        """The next positions.

        Args:
            positions: (n, 3) Å, and rows of the cell if it moves; see `CellFilter`.
            forces: (n, 3) eV/Å.
        """
        places, pull = positions.flatten(), forces.flatten()
        if self._before is None:
            self._hessian = BFGS.defaults["alpha"] * np.eye(places.size)
        else:
            moved, change = places - self._before[0], self._before[1] - pull
            if np.abs(moved).max() >= 1e-7:
                expected = self._hessian @ moved
                self._hessian += np.outer(change, change / (moved @ change))
                self._hessian -= np.outer(expected, expected / (moved @ expected))
        self._before = places, pull
        _, solution, indefinite = lapack.dposv(self._hessian, pull)
        step = solution.ravel()
        if indefinite:
            values, vectors = np.linalg.eigh(self._hessian)
            step = vectors @ (pull @ vectors / np.abs(values))
        step = step.reshape(-1, 3)
        limit, longest = BFGS.defaults["maxstep"], _largest(step)
        return positions + (step * (limit / longest) if longest >= limit else step)


def relaxed(atoms: Atoms, *, fmax: float = 1e-3, steps: int = 300, cell: str = "auto") -> Relaxed:
    """Relax a copy of ``atoms`` with their calculator.

    Args:
        atoms: structure with a calculator; not changed.
        fmax: convergence criterion: maximum force (eV/Å), including the force on the cell.
        steps: maximum number of steps.
        cell: what the cell may do; see `moving_cell`.
    """
    atoms = copy_atoms(atoms)
    for step in relaxing(atoms, fmax=fmax, steps=steps, cell=cell):  # noqa: B007
        pass
    return Relaxed(atoms, step.converged, step.number, largest_force(atoms))
