"""One relaxation: its end, its files, and that it goes on as if it had not been stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.simulations.frames import readable_frames
from tesseral.calculators.simulations.relaxation import (
    CELL_COLUMNS,
    Outcome,
    RelaxConfig,
    relax_one,
    relax_together,
)

Stop = Callable[[int], Callable[[int, int, str], None]]


def silent(step: int, steps: int, text: str) -> None:
    """Show nothing."""


class Counted:
    """A calculator's evaluations, counted."""

    def __init__(self, calculator: TesseralCalculator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        calculate = calculator.calculate
        calculator.reset()

        def counting(*arguments: Any) -> None:
            self.count += 1
            calculate(*arguments)

        monkeypatch.setattr(calculator, "calculate", counting)


def relax(
    atoms: Atoms, calculator: Calculator, prefix: Path, show: Any = silent, **options: Any
) -> tuple[Outcome, Atoms]:
    """The outcome and the relaxed structure."""
    config = RelaxConfig(structures=[], **options)
    outcome = relax_one(atoms, calculator, config, prefix, show)
    found = ase.io.read(prefix.with_name(prefix.name + ".extxyz"))
    return outcome, found


def test_the_summary_is_that_of_the_structure(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    outcome, atoms = relax(crystal, calculator, tmp_path / "a.b")
    values: Any = outcome.values
    print(outcome)
    assert outcome.word == atoms.info["relaxation"] == "converged"
    assert values["energy_eV_atom"] == pytest.approx(atoms.get_potential_energy() / 8, abs=1e-8)
    assert values["max_force_eV_A"] < 0.021  # the optimizer measures in the undeformed cell
    assert values["volume_change_percent"] == pytest.approx(
        100 * (atoms.get_volume() / crystal.get_volume() - 1), abs=1e-4
    )
    lattice = [values[name] for name in CELL_COLUMNS]
    assert lattice == pytest.approx(atoms.cell.cellpar().tolist())
    frames = list(readable_frames(tmp_path / "a.b.traj"))
    assert len(frames) == outcome.steps + 1
    np.testing.assert_array_equal(frames[0].positions, crystal.positions)
    rows = np.loadtxt(tmp_path / "a.b.csv", delimiter=",", skiprows=1)
    assert rows[:, 0].tolist() == list(range(outcome.steps + 1))


@pytest.mark.parametrize("optimizer", ["bfgs", "lbfgs", "fire"])
def test_a_stopped_relaxation_ends_as_if_it_had_not_been_stopped(
    optimizer: str,
    crystal: Atoms,
    calculator: TesseralCalculator,
    tmp_path: Path,
    stop_at: Stop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"optimizer": optimizer, "fmax": 0.1}
    whole, at_once = relax(crystal, calculator, tmp_path / "whole", **options)
    for step in (0, 5):
        with pytest.raises(KeyboardInterrupt):
            relax(crystal, calculator, tmp_path / "parts", stop_at(step), **options)
    counted = Counted(calculator, monkeypatch)
    parts, in_parts = relax(crystal, calculator, tmp_path / "parts", **options)
    apart = np.abs(in_parts.positions - at_once.positions).max()
    print(f"{whole.steps} steps, {counted.count} evaluations after 6 frames, {apart:.1e} Å apart")
    assert parts.steps == whole.steps > 6
    assert counted.count == whole.steps - 5  # none of a frame that was there
    assert apart < 1e-7
    assert len(list(readable_frames(tmp_path / "parts.traj"))) == whole.steps + 1
    tables = [
        np.loadtxt(tmp_path / f"{run}.csv", delimiter=",", skiprows=1) for run in ("parts", "whole")
    ]
    np.testing.assert_allclose(*tables, rtol=1e-6, atol=1e-6)


def test_a_trajectory_that_was_cut_off_goes_on_from_its_last_whole_frame(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, at_once = relax(crystal, calculator, tmp_path / "run")
    path = tmp_path / "run.traj"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    left = len(list(readable_frames(path)))
    counted = Counted(calculator, monkeypatch)
    again, mended = relax(crystal, calculator, tmp_path / "run")
    print(f"{left} of {whole.steps + 1} frames left")
    assert 0 < left <= whole.steps
    assert counted.count == whole.steps + 1 - left
    np.testing.assert_allclose(mended.positions, at_once.positions, atol=1e-7)
    assert len(list(readable_frames(path))) == whole.steps + 1


@pytest.mark.parametrize("content", [b"", b"- of Ulm", b"something else"])
def test_a_file_that_is_no_trajectory_is_begun_anew(
    content: bytes, crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    (tmp_path / "run.traj").write_bytes(content)
    outcome, _ = relax(crystal, calculator, tmp_path / "run", steps=2)
    assert len(list(readable_frames(tmp_path / "run.traj"))) == 3


def test_frames_of_another_course_are_left_when_it_departs(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    relax(crystal, calculator, tmp_path / "run", optimizer="fire", steps=3)
    _, mended = relax(crystal, calculator, tmp_path / "run", optimizer="bfgs")
    _, fresh = relax(crystal, calculator, tmp_path / "fresh", optimizer="bfgs")
    np.testing.assert_allclose(mended.positions, fresh.positions, atol=1e-7)
    counts = [len(list(readable_frames(tmp_path / f"{n}.traj"))) for n in ("run", "fresh")]
    assert counts[0] == counts[1]


def test_more_steps_go_on_from_where_they_were_not_enough(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, _ = relax(crystal, calculator, tmp_path / "run", steps=4)
    assert (short.word, short.steps) == ("not converged", 4)
    counted = Counted(calculator, monkeypatch)
    long, _ = relax(crystal, calculator, tmp_path / "run")
    assert long.word == "converged" and counted.count == long.steps - 4


def test_a_crystal_is_relaxed_to_a_pressure(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    outcome, _ = relax(crystal, calculator, tmp_path / "run", pressure=5.0, fmax=1e-3)
    print(f"{outcome.values['pressure_GPa']:.4f} GPa")
    assert outcome.values["pressure_GPa"] == pytest.approx(5.0, abs=0.02)
    slab = crystal.copy()
    slab.pbc = (True, True, False)
    with pytest.raises(ValueError, match="not periodic in three directions"):
        relax(slab, calculator, tmp_path / "slab", pressure=5.0)


def test_symmetry_is_kept_if_asked_for(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    def group(atoms: Atoms) -> int:
        cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
        return int(
            spglib.get_spacegroup_type_from_symmetry(
                spglib.get_symmetry(cell, symprec=1e-5)["rotations"],
                spglib.get_symmetry(cell, symprec=1e-5)["translations"],
                cell[0],
            ).number
        )

    atoms = bulk("SiC", "zincblende", a=5.3, cubic=True)
    atoms.rattle(0.001, seed=1)
    _, kept = relax(atoms, calculator, tmp_path / "kept", symmetry=True)
    _, free = relax(atoms, calculator, tmp_path / "free", fmax=0.05)
    print(group(kept), group(free))
    assert group(kept) == 216 != group(free)
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match="`symmetry` does not go with the constraints"):
        relax(atoms, calculator, tmp_path / "fixed", symmetry=True)


def test_fixed_atoms_stay_fixed_also_when_it_goes_on(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path, stop_at: Stop
) -> None:
    crystal.set_constraint(FixAtoms([0, 3]))
    with pytest.raises(KeyboardInterrupt):
        relax(crystal, calculator, tmp_path / "run", stop_at(3))
    outcome, atoms = relax(crystal, calculator, tmp_path / "run")
    assert outcome.values["kept_cell"] == "it has constraints"
    moved = np.linalg.norm(atoms.positions - crystal.positions, axis=1)
    print(moved)
    assert moved[[0, 3]].max() < 1e-7 < 1e-3 < moved[1]
    assert atoms.constraints[0].index.tolist() == [0, 3]
    np.testing.assert_array_equal(atoms.cell.array, crystal.cell.array)


def test_the_space_group_of_the_relaxed_structure(
    calculator: TesseralCalculator, tmp_path: Path
) -> None:
    atoms = bulk("SiC", "zincblende", a=5.3, cubic=True)
    outcome, _ = relax(atoms, calculator, tmp_path / "run")
    assert outcome.values["space_group"] == "F-43m (216)"


def test_the_cell_of_a_slab_is_kept_and_its_volume_and_pressure_mean_nothing(
    tmp_path: Path,
) -> None:
    slab = fcc111("Al", (1, 1, 4), a=4.1, vacuum=5.0, periodic=True)
    outcome, atoms = relax(slab, EMT(), tmp_path / "kept")
    print(outcome)
    np.testing.assert_array_equal(atoms.cell.array, slab.cell.array)
    assert str(outcome.values["kept_cell"]).startswith("vacuum of 10.0 Å along c")
    assert not outcome.values.keys() & {"pressure_GPa", "volume_change_percent", "space_group"}
    _, flat = relax(slab, EMT(), tmp_path / "plane", cell="in-plane")
    moved = np.abs(flat.cell.array - slab.cell.array)
    assert moved[2].max() < 1e-10 < 1e-3 < moved[0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fmax": 0.0}, "`fmax` is 0.0"),
        ({"steps": 0}, "`steps` is 0"),
        ({"pressure": 1.0, "cell": "fixed"}, "0 with `cell='fixed'`"),
        ({"cell": "orthorhombic"}, "`cell` is 'orthorhombic'; use auto, fixed"),
        ({"pressure": float("nan")}, "`pressure` is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RelaxConfig(structures=[], **options)


def test_files_of_crystals_that_are_relaxed_together_are_those_of_each(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    overlapping = crystal.copy()
    overlapping.positions[1] = overlapping.positions[0]
    structures = {"bad": overlapping, "good": crystal}
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    tasks = [(atoms, together / name, silent) for name, atoms in structures.items()]
    ends = dict(relax_together(tasks, calculator, RelaxConfig(structures=[])))
    outcome, _ = relax(crystal, calculator, alone / "good")
    with pytest.raises(ValueError, match="overlap"):
        relax(overlapping, calculator, alone / "bad")
    assert "overlap" in str(ends[0]) and ends[1].steps == outcome.steps
    names = [sorted(path.name for path in folder.iterdir()) for folder in (together, alone)]
    assert names[0] == names[1] and "good.traj" in names[0]
    frames = [list(readable_frames(folder / "good.traj")) for folder in (together, alone)]
    assert len(frames[0]) == len(frames[1])
    for one, other in zip(*frames, strict=True):
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-6)
