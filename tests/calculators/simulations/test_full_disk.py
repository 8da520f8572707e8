"""Relaxations and MD on a full disk: the error names the file, and the run can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase.io
import pytest
from ase import Atoms

from tesseral.calculators.simulations.dynamics import MdConfig
from tesseral.calculators.simulations.frames import FrameWriter, Table, read_rows
from tesseral.calculators.simulations.relaxation import RelaxConfig
from tesseral.calculators.simulations.runs import relax_structures, run_dynamics

Limit = Callable[[int], None]


@pytest.fixture
def structures(crystal: Atoms, tmp_path: Path) -> list[str]:
    """The same structure twice."""
    ase.io.write(tmp_path / "a.extxyz", crystal)
    ase.io.write(tmp_path / "b.extxyz", crystal)
    return [str(tmp_path / "a.extxyz"), str(tmp_path / "b.extxyz")]


def test_a_relaxation_is_resumed_when_there_is_space(
    structures: list[str], stable_model: Path, tmp_path: Path, small_files: Limit
) -> None:
    config = RelaxConfig(
        structures=structures[1:], model=str(stable_model), output=str(tmp_path / "out"), steps=9
    )
    small_files(4_000)
    with pytest.raises(
        OSError, match=r"b\.traj cannot be written: file too large; 0 of 1"
    ) as found:
        relax_structures(config)
    assert "run it again to resume" in str(found.value)
    small_files(10**9)
    (row,) = relax_structures(config).rows
    assert row["outcome"] in ("converged", "not converged")


def test_md_is_stopped_likewise(
    structures: list[str], stable_model: Path, tmp_path: Path, small_files: Limit
) -> None:
    config = MdConfig(
        structures=structures, model=str(stable_model), output=str(tmp_path / "out"), time=0.05
    )
    small_files(4_000)
    with pytest.raises(OSError, match=r"a\.traj cannot be written: file too large; 0 of 2"):
        run_dynamics(config)


def test_a_table_keeps_its_rows(tmp_path: Path, small_files: Limit) -> None:
    path = tmp_path / "a.csv"
    table = Table(path, ("a", "b"), [(1.0, 2.0)])
    small_files(20)
    with pytest.raises(OSError, match=r"a\.csv cannot be written: file too large$"):
        for number in range(10):
            table.add((number, 0.5))
    with pytest.raises(OSError, match="cannot be written"):
        table.close()
    assert read_rows(path, 2)[0] == (1.0, 2.0)
    small_files(3)
    with pytest.raises(OSError, match=r"a\.csv cannot be written: file too large$"):
        Table(path, ("a", "b"), [(3.0, 4.0)])
    assert read_rows(path, 2)[0] == (1.0, 2.0)


def test_a_folder_that_disappears_is_named(tmp_path: Path, crystal: Atoms) -> None:
    with pytest.raises(OSError, match=r"gone/a\.traj cannot be written: no such file"):
        FrameWriter(tmp_path / "gone" / "a.traj").add(crystal)
