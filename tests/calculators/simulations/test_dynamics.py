"""One MD run: that it goes on as if it had not been stopped, in each ensemble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io.trajectory import Trajectory

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.simulations.dynamics import MdConfig, md_one
from tesseral.calculators.simulations.frames import readable_frames

Stop = Callable[[int], Callable[[int, int, str], None]]
ENSEMBLES = [
    {"ensemble": "nve", "equilibrate": 0.01},
    {"ensemble": "nvt"},
    {"ensemble": "nvt", "thermostat": "langevin"},
    {"ensemble": "npt", "pressure": 1.0, "pressure_damping": 100.0},
    {"ensemble": "npt", "pressure_damping": 100.0, "cell": "axes"},
    {"ensemble": "npt", "pressure_damping": 100.0, "cell": "free", "final_temperature": 900.0},
    {"ensemble": "nvt", "final_temperature": 900.0},
]


def silent(step: int, steps: int, text: str) -> None:
    """Show nothing."""


def run(
    atoms: Atoms, calculator: TesseralCalculator, prefix: Path, show: Any = silent, **options: Any
) -> list[Atoms]:
    """The frames of 30 steps of 1 fs, every fourth of which is recorded."""
    config = MdConfig(structures=[], **{"time": 0.03, "every": 4, **options})
    md_one(atoms, calculator, config, prefix, show)
    return list(readable_frames(prefix.with_name(prefix.name + ".traj")))


@pytest.mark.parametrize("options", ENSEMBLES, ids=lambda o: "-".join(map(str, o.values())))
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    options: dict[str, Any],
    crystal: Atoms,
    calculator: TesseralCalculator,
    tmp_path: Path,
    stop_at: Stop,
) -> None:
    whole = run(crystal, calculator, tmp_path / "whole", **options)
    for step in (14, 21):  # neither is recorded
        with pytest.raises(KeyboardInterrupt):
            run(crystal, calculator, tmp_path / "parts", stop_at(step), **options)
    parts = run(crystal, calculator, tmp_path / "parts", **options)
    apart = np.abs(parts[-1].positions - whole[-1].positions).max()
    moved = np.abs(whole[-1].positions - whole[3].positions).max()
    print(f"{apart:.1e} Å apart after moving by {moved:.2f} Å")
    assert len(parts) == len(whole) == 9
    assert apart < 1e-9 < 0.02 < moved
    np.testing.assert_allclose(parts[-1].get_momenta(), whole[-1].get_momenta(), atol=1e-8)
    np.testing.assert_allclose(parts[-1].cell.array, whole[-1].cell.array, atol=1e-9)
    tables = [
        np.loadtxt(tmp_path / f"{name}.csv", delimiter=",", skiprows=1)
        for name in ("whole", "parts")
    ]
    np.testing.assert_allclose(tables[1], tables[0], rtol=1e-6)
    assert tables[0][:, 0].tolist() == [0.0, 0.004, 0.008, 0.012, 0.016, 0.02, 0.024, 0.028, 0.03]


def test_a_lost_table_and_a_cut_off_trajectory_are_mended(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    whole = run(crystal, calculator, tmp_path / "run")
    path, table = tmp_path / "run.traj", tmp_path / "run.csv"
    rows = np.loadtxt(table, delimiter=",", skiprows=1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    table.write_text(table.read_text()[:150])
    left = len(list(readable_frames(path)))
    again = run(crystal, calculator, tmp_path / "run")
    print(f"{left} of {len(whole)} frames left")
    assert 1 < left < len(whole) == len(again)
    np.testing.assert_allclose(again[-1].positions, whole[-1].positions, atol=1e-9)
    np.testing.assert_allclose(np.loadtxt(table, delimiter=",", skiprows=1), rows, rtol=1e-6)


def test_a_frame_whose_energy_the_model_does_not_confirm_is_not_gone_on_from(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    whole = run(crystal, calculator, tmp_path / "run")
    with Trajectory(tmp_path / "run.traj", "w") as trajectory:
        for frame in whole[:4]:
            trajectory.write(frame)
        lost = whole[4]
        lost.positions[2:5] = 0.0  # as after a power cut
        trajectory.write(lost, energy=whole[3].get_potential_energy())
    again = run(crystal, calculator, tmp_path / "run")
    assert len(again) == len(whole)
    np.testing.assert_allclose(again[-1].positions, whole[-1].positions, atol=1e-9)


def test_a_longer_time_goes_on_from_the_end(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    long = run(crystal, calculator, tmp_path / "long", time=0.04)
    run(crystal, calculator, tmp_path / "run", time=0.024)
    grown = run(crystal, calculator, tmp_path / "run", time=0.04)
    assert len(grown) == len(long)
    np.testing.assert_allclose(grown[-1].positions, long[-1].positions, atol=1e-9)
    assert len(run(crystal, calculator, tmp_path / "run", time=0.01)) == len(long)  # nor is it cut


def test_fixed_atoms_stay_fixed_and_constant_pressure_refuses_them(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path, stop_at: Stop
) -> None:
    crystal.set_constraint(FixAtoms([0]))
    with pytest.raises(KeyboardInterrupt):
        run(crystal, calculator, tmp_path / "run", stop_at(9))
    frames = run(crystal, calculator, tmp_path / "run")
    np.testing.assert_array_equal(frames[-1].positions[0], crystal.positions[0])
    assert np.abs(frames[-1].positions[1] - crystal.positions[1]).max() > 0.01
    with pytest.raises(ValueError, match="does not go with the constraints"):
        run(crystal, calculator, tmp_path / "npt", ensemble="npt")
    crystal.set_constraint(FixAtoms(range(8)))
    with pytest.raises(ValueError, match="no atom of this structure is free to move"):
        run(crystal, calculator, tmp_path / "fixed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` is 0.0"),
        ({"time": -1.0}, "`time` is -1.0"),
        ({"every": 0}, "`every` is 0"),
        ({"pressure_damping": 0.0}, "`pressure_damping` is 0.0"),
        ({"pressure": 1.0}, "needs `ensemble='npt'`"),
        ({"equilibrate": -1.0}, "`equilibrate` is -1.0"),
        ({"cell": "free"}, "`cell='free'` needs `ensemble='npt'`"),
        ({"final_temperature": -1.0}, "`final_temperature` is -1.0"),
        ({"final_temperature": 600.0, "ensemble": "nve"}, "needs `ensemble='nvt'`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MdConfig(structures=[], **options)


@pytest.mark.parametrize("thermostat", ["bussi", "langevin", "npt"])
def test_a_ramp_ends_at_its_temperature(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path, thermostat: str
) -> None:
    options: dict[str, Any] = {"thermostat": thermostat}
    if thermostat == "npt":
        options = {"ensemble": "npt", "pressure_damping": 300.0}
    frames = run(
        crystal.repeat((2, 1, 1)),
        calculator,
        tmp_path / "run",
        **options,
        temperature=100.0,
        final_temperature=900.0,
        damping=10.0,
        time=0.4,
        every=5,
    )
    late = np.mean([frame.get_temperature() for frame in frames[-16:]])
    early = np.mean([frame.get_temperature() for frame in frames[:16]])
    # The means of the first and the last fifth of the ramp are 180 K and 820 K.
    assert early < 350 and late > 550


def test_the_trajectory_as_extended_xyz(
    crystal: Atoms, calculator: TesseralCalculator, tmp_path: Path
) -> None:
    frames = run(crystal, calculator, tmp_path / "run", extxyz=True)
    written = ase.io.read(tmp_path / "run.extxyz", ":")
    assert len(written) == len(frames) and "tesseral_md" not in written[0].info
    np.testing.assert_allclose(written[-1].get_momenta(), frames[-1].get_momenta(), atol=1e-7)
    assert written[3].get_potential_energy() == pytest.approx(frames[3].get_potential_energy())
