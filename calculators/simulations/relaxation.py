"""Relaxation of one structure, resumed by replaying its trajectory.

Only the trajectory is kept. When a relaxation is resumed, the optimizer repeats its steps with the
energies and forces of the trajectory instead of the model's. At the last frame it has the same
internal state as before (an approximate Hessian, for example), whatever the optimizer is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixSymmetry

from tesseral.calculators.properties.atoms import (
    has_stress,
    is_bulk,
    is_crystal,
    largest_force,
    pressure_gpa,
    space_group,
)
from tesseral.calculators.properties.relaxation import (
    RelaxStep,
    moving_cell,
    relaxing,
)
from tesseral.calculators.simulations.config import RelaxConfig
from tesseral.calculators.simulations.frames import (
    FrameWriter,
    Table,
    frame_of,
    readable_frames,
    with_suffix,
    write_frames,
)
from tesseral.calculators.simulations.uncertainty import limit_of, pairs_of, strange_atoms

CELL_COLUMNS = ("a_A", "b_A", "c_A", "alpha_deg", "beta_deg", "gamma_deg")
COLUMNS = (
    "energy_eV",
    "energy_eV_atom",
    "change_meV_atom",
    "max_force_eV_A",
    "volume_change_percent",
    "pressure_GPa",
    *CELL_COLUMNS,
    "space_group",
    "kept_cell",
    "uncertain",
)
STEP_COLUMNS = ("step", "energy_eV_atom", "max_force_eV_A", "volume_A3_atom", "pressure_GPa")
SAME = 1e-8  # Å; structures that differ by less are the same

Show = Callable[[int, int, str], None]  # steps done, maximum number of steps, text


class Outcome(NamedTuple):
    """Result of one structure."""

    word: str  # converged, not converged, done
    steps: int
    values: Mapping[str, float | str]  # by column; NaN and empty texts are left blank
    reason: str = ""  # why it is not as it should be


def relax_one(
    atoms: Atoms, calculator: Calculator, config: RelaxConfig, prefix: Path, show: Show
) -> Outcome:
    """Relax a structure, or resume its relaxation.

    Args:
        atoms: initial structure; not changed. Its constraints apply.
        calculator: calculator of the model.
        config: options of the relaxation.
        prefix: path of the ``.traj``, ``.csv`` and ``.extxyz`` files without their endings.
            Existing frames must come from the same atoms, model and options.
        show: called with each step.

    Raises:
        ValueError: the model cannot evaluate the structure, or the options do not apply to it.
        CalculationFailed: energies or forces are not finite.
    """
    known = list(readable_frames(with_suffix(prefix, ".traj")))
    constraints = atoms.constraints
    atoms = atoms.copy()
    if config.symmetry:
        _keep_symmetry(atoms)
    moving = moving_cell(atoms, config.cell)
    if config.pressure and not all(moving.vectors):
        why = moving.kept or f"it has pbc={atoms.pbc.tolist()}"
        raise ValueError(
            f"a `pressure` of {config.pressure} GPa needs a cell that can relax in three "
            f"directions; this one cannot: {why}"
        )
    memory = Remembered(calculator, known)
    atoms.calc = memory
    run = relaxing(
        atoms,
        fmax=config.fmax,
        steps=config.steps,
        cell=config.cell,
        optimizer=config.optimizer,
        pressure=config.pressure,
    )
    first: RelaxStep | None = None
    volume = _volume(atoms)
    trajectory = None
    table = Table(with_suffix(prefix, ".csv"), STEP_COLUMNS, ())
    try:
        for step in run:
            if step.number >= memory.used and trajectory is None:
                trajectory = open_after(with_suffix(prefix, ".traj"), known, memory.used)
            if trajectory is not None:
                trajectory.add(frame_of(atoms, constraints))
            table.add(_row(step, atoms))
            first = first or step
            show(step.number, config.steps, f"largest force {step.max_force:.4f} eV/Å")
    finally:
        table.close()
        if trajectory is not None:
            trajectory.close()
    assert first is not None
    word = "converged" if step.converged else "not converged"
    relaxed = frame_of(atoms, constraints)
    relaxed.info["relaxation"] = word
    write_frames(with_suffix(prefix, ".extxyz"), [relaxed])
    values: dict[str, float | str] = {
        "energy_eV": step.energy * len(atoms),
        "energy_eV_atom": step.energy,
        "change_meV_atom": 1000 * (step.energy - first.energy),
        "max_force_eV_A": largest_force(atoms),
        "kept_cell": moving.kept,
        "uncertain": _uncertain(relaxed, calculator),
    }
    if has_stress(atoms):
        values |= zip(CELL_COLUMNS, atoms.cell.cellpar(), strict=True)
    if is_bulk(atoms):
        values["volume_change_percent"] = 100 * (_volume(atoms) / volume - 1)
        values["pressure_GPa"] = pressure_gpa(atoms)
        values["space_group"] = space_group(atoms)
    return Outcome(word, step.number, values)


def _uncertain(relaxed: Atoms, calculator: Calculator) -> str:
    """Atoms and pairs of a relaxed structure that are unlike the training set, in words."""
    limit, pairs = limit_of(calculator, None), pairs_of(calculator)
    parts = []
    if limit is not None:
        atoms = relaxed.copy()
        atoms.calc = calculator
        atoms.get_potential_energy()
        parts.append(strange_atoms(atoms, limit))
    if pairs is not None:
        parts.append(pairs.words(pairs.closer_in(relaxed)))
    return "; ".join(filter(None, parts))


class Remembered(Calculator):
    """A calculator that repeats the results of known frames, in order, and then calls another one.

    Attributes:
        used: number of frames repeated so far. The first structure that differs from the next
            frame ends the replay.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, calculator: Calculator, frames: Sequence[Atoms]) -> None:
        """Start with the first frame."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.calculator = calculator
        self.frames = list(frames)
        self.used = 0
        self._called = False

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Results of the next frame, or of the other calculator after the replay."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        if self.used < len(self.frames) and _same(self.frames[self.used], self.atoms):
            self.results = dict(self.frames[self.used].calc.results)
            self.results["free_energy"] = self.results["energy"]
            self.used += 1
            return
        self.frames = self.frames[: self.used]
        # The other calculator has not seen the frames that were repeated.
        changes = system_changes if self._called else all_changes
        self._called = True
        self.calculator.calculate(self.atoms, properties, changes)
        self.results = dict(self.calculator.results)


def theory_of(calculator: Calculator) -> str:
    """Level of theory of a model; empty if it is not known, or for other calculators."""
    return str(getattr(calculator, "theory", ""))


def _same(one: Atoms, other: Atoms) -> bool:
    """Whether two structures with the same atoms are equal within rounding errors."""
    if not np.array_equal(one.numbers, other.numbers):
        return False
    moved = np.abs(one.positions - other.positions).max()
    strained = np.abs(one.cell.array - other.cell.array).max()
    return bool(max(moved, strained) < SAME)


def open_after(path: Path, known: Sequence[Atoms], used: int) -> FrameWriter:
    """The trajectory, opened for appending after ``used`` frames; later frames are removed."""
    write_frames(path, known[:used])
    return FrameWriter(path)


def _keep_symmetry(atoms: Atoms) -> None:
    """Constrain atoms and cell to their symmetry."""
    if atoms.constraints:
        raise ValueError("`symmetry` does not go with the constraints of this structure")
    if not is_crystal(atoms):
        raise ValueError("`symmetry` needs a structure that is periodic in three directions")
    atoms.set_constraint(FixSymmetry(atoms))


def _volume(atoms: Atoms) -> float:
    """Volume in Å³/atom; NaN without a cell."""
    return float(atoms.get_volume()) / len(atoms) if atoms.cell.rank == 3 else float("nan")


def _row(step: RelaxStep, atoms: Atoms) -> tuple[float, ...]:
    """A row in the table of a structure."""
    return step.number, step.energy, step.max_force, _volume(atoms), pressure_gpa(atoms)
