"""Relaxation of one structure, resumed by replaying its trajectory.

Only the trajectory is kept. When a relaxation is resumed, the optimizer repeats its steps with the
energies and forces of the trajectory instead of the model's. At the last frame it has the same
internal state as before (an approximate Hessian, for example), whatever the optimizer is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixSymmetry

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import (
    changes,
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
from tesseral.calculators.properties.relaxing_together import (
    can_relax_together,
    relaxing_together,
)
from tesseral.calculators.simulations.config import RelaxConfig
from tesseral.calculators.simulations.frames import (
    FrameWriter,
    Table,
    frame_of,
    frame_with,
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
    with closing(_Record(atoms, config, prefix, show)) as record:
        atoms = record.atoms
        atoms.calc = memory = Remembered(calculator, known)
        run = relaxing(
            atoms,
            fmax=config.fmax,
            steps=config.steps,
            cell=config.cell,
            optimizer=config.optimizer,
            pressure=config.pressure,
        )
        for step in run:
            if step.number >= memory.used:
                record.open(known[: memory.used])
            record.add(step, frame_of(atoms, record.constraints))
    return record.outcome(calculator)


def can_join(atoms: Atoms, calculator: Calculator, config: RelaxConfig, prefix: Path) -> bool:
    """Whether a relaxation can be one of those of `relax_together`; not if it is resumed."""
    return (
        can_relax_together(atoms, calculator, config.optimizer)
        and not config.symmetry
        and (not config.pressure or all(moving_cell(atoms, config.cell).vectors))
        and next(readable_frames(with_suffix(prefix, ".traj")), None) is None
    )


def relax_together(
    structures: Iterable[tuple[Atoms, Path, Show]],
    calculator: TesseralCalculator,
    config: RelaxConfig,
) -> Iterator[tuple[int, Outcome | Exception]]:
    """Relax structures that `can_join` with the same files and outcomes as `relax_one`.

    Args:
        structures: the structures, with the prefix and the function of `relax_one`.
        calculator: calculator of the model.
        config: options of the relaxations.

    Returns:
        Number of a structure, and its outcome or the error that ended it, in the order in which
        they end.
    """
    records: dict[int, _Record] = {}

    def begun() -> Iterator[Atoms]:
        for number, (atoms, prefix, show) in enumerate(structures):
            record = records[number] = _Record(atoms, config, prefix, show)
            yield record.atoms

    events = relaxing_together(
        begun(),
        calculator,
        fmax=config.fmax,
        steps=config.steps,
        cell=config.cell,
        pressure=config.pressure,
    )
    try:
        for event in events:
            record = records[event.number]
            if event.step is not None:
                record.open([])
                record.add(event.step, frame_with(event.results, record.atoms, record.constraints))
            if event.ended:
                record.close()
                del records[event.number]
                yield event.number, event.error or _end(record, calculator)
    finally:
        for record in records.values():
            record.close()


def _end(record: _Record, calculator: Calculator) -> Outcome | Exception:
    """The outcome, or the error that prevents it; not of the disk."""
    try:
        return record.outcome(calculator)
    except OSError:
        raise
    except Exception as error:
        return error


class _Record:
    """Structure, files and outcome of a relaxation.

    Attributes:
        atoms: the structure to relax, a copy with the constraints of the relaxation.
        constraints: those of the original.
    """

    def __init__(self, atoms: Atoms, config: RelaxConfig, prefix: Path, show: Show) -> None:
        """Arguments and errors are those of `relax_one`."""
        self.constraints, self.atoms = atoms.constraints, atoms.copy()
        if config.symmetry:
            _keep_symmetry(self.atoms)
        self._moving = moving = moving_cell(self.atoms, config.cell)
        if config.pressure and not all(moving.vectors):
            why = moving.kept or f"it has pbc={atoms.pbc.tolist()}"
            raise ValueError(
                f"a `pressure` of {config.pressure} GPa needs a cell that can relax in three "
                f"directions; this one cannot: {why}"
            )
        self._prefix, self._show, self._steps = prefix, show, config.steps
        self._volume = _volume(atoms)
        self._first: RelaxStep | None = None
        self._last: tuple[RelaxStep, Atoms] | None = None
        self._trajectory: FrameWriter | None = None
        self._table = Table(with_suffix(prefix, ".csv"), STEP_COLUMNS, ())

    def open(self, known: Sequence[Atoms]) -> None:
        """Write the following frames to the trajectory, after these."""
        if self._trajectory is None:
            self._trajectory = open_after(with_suffix(self._prefix, ".traj"), known)

    def add(self, step: RelaxStep, frame: Atoms) -> None:
        """Write a step; the frame has the results and the original constraints."""
        if self._trajectory is not None:
            self._trajectory.add(frame)
        self._table.add(_row(step, frame))
        self._first = self._first or step
        self._last = step, frame
        self._show(step.number, self._steps, f"largest force {step.max_force:.4f} eV/Å")

    def close(self) -> None:
        """Close the files."""
        self._table.close()
        if self._trajectory is not None:
            self._trajectory.close()

    def outcome(self, calculator: Calculator) -> Outcome:
        """Write the relaxed structure, and summarise the relaxation."""
        assert self._first is not None and self._last is not None
        step, relaxed = self._last
        word = "converged" if step.converged else "not converged"
        relaxed.info["relaxation"] = word
        write_frames(with_suffix(self._prefix, ".extxyz"), [relaxed])
        atoms = frame_with(relaxed.calc.results, relaxed, self.atoms.constraints)
        values: dict[str, float | str] = {
            "energy_eV": step.energy * len(atoms),
            "energy_eV_atom": step.energy,
            "change_meV_atom": 1000 * (step.energy - self._first.energy),
            "max_force_eV_A": largest_force(atoms),
            "kept_cell": self._moving.kept,
            "uncertain": _uncertain(relaxed, calculator),
        }
        if has_stress(atoms):
            values |= zip(CELL_COLUMNS, atoms.cell.cellpar(), strict=True)
        if is_bulk(atoms):
            values["volume_change_percent"] = 100 * (_volume(atoms) / self._volume - 1)
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

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Names of what has changed since the last calculation; see `changes`."""
        return changes(self.atoms, atoms)

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


def open_after(path: Path, known: Sequence[Atoms]) -> FrameWriter:
    """The trajectory, opened for appending after these frames; others are removed."""
    if known:
        write_frames(path, known)
    else:
        path.unlink(missing_ok=True)
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


def _row(step: RelaxStep, frame: Atoms) -> tuple[float, ...]:
    """A row in the table of a structure."""
    return step.number, step.energy, step.max_force, _volume(frame), pressure_gpa(frame)
