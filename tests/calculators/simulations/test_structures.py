"""Jobs from files: all frames, names that differ, what cannot be read."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from tesseral.calculators.simulations.structures import fingerprint, read_jobs


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A file of eleven frames."""
    path = tmp_path / "many.extxyz"
    ase.io.write(path, [bulk("Si", a=5.4 + 0.01 * number) for number in range(11)])
    return path


def test_all_frames_of_a_file_are_jobs_in_order(frames: Path) -> None:
    jobs = read_jobs([str(frames)])
    assert [job.name for job in jobs] == [f"many-{number:02d}" for number in range(11)]
    assert [job.frame for job in jobs] == list(range(11))
    assert jobs[10].atoms.cell[0, 1] == pytest.approx(5.5 / 2)


def test_some_frames_may_be_chosen_as_in_ase(frames: Path) -> None:
    (last,) = read_jobs([f"{frames}@-1"])
    assert last.name == "many" and last.atoms.cell[0, 1] == pytest.approx(5.5 / 2)
    assert len(read_jobs([f"{frames}@::5"])) == 3


def test_files_of_the_same_name_get_longer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        Path(folder).mkdir()
        bulk("Si").write(f"{folder}/POSCAR", format="vasp")
        bulk("Si").write(f"{folder}/si.extxyz")
        bulk("Si").write(f"{folder}/si.cif")
    assert [job.name for job in read_jobs(["a/POSCAR"])] == ["POSCAR"]
    assert [job.name for job in read_jobs(["a/POSCAR", "b/POSCAR"])] == ["a-POSCAR", "b-POSCAR"]
    names = [job.name for job in read_jobs(["a/si.cif", "a/si.extxyz"])]
    assert names == ["si.cif", "si.extxyz"]
    with pytest.raises(ValueError, match="given twice"):
        read_jobs(["a/POSCAR", "./a/POSCAR"])


def test_frames_before_a_broken_one_are_kept(frames: Path) -> None:
    lines = frames.read_text().splitlines()
    lines[10] = "Si here there everywhere"
    frames.write_text("\n".join(lines) + "\n")
    jobs = read_jobs([str(frames)])
    assert [job.atoms is None for job in jobs] == [False, False, True]
    assert "from frame 2 on" in jobs[2].problem


def test_unreadable_files_are_jobs_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.cif").write_text("nothing")
    ase.io.write(tmp_path / "none.extxyz", Atoms())
    jobs = read_jobs([str(tmp_path / "bad.cif"), str(tmp_path / "none.extxyz")])
    assert all(job.atoms is None for job in jobs)
    assert [job.problem.split(";")[0] for job in jobs] == [
        "the file cannot be read as a structure",
        "it has no atoms",
    ]


def test_a_folder_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; give the files in it"):
        read_jobs([str(tmp_path)])


def test_a_truncated_file_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "half.cif"
    bulk("NaCl", "rocksalt", a=5.6, cubic=True).write(path)
    path.write_text(path.read_text()[:200])
    (job,) = read_jobs([str(path)])
    assert "it is damaged, incomplete" in job.problem


def test_a_missing_file_and_an_empty_supercell_are_refused(frames: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no structure file no.cif"):
        read_jobs([str(frames), "no.cif"])
    with pytest.raises(ValueError, match="`repeat` is 1 0 1"):
        read_jobs([str(frames)], (1, 0, 1))
    assert len(read_jobs([str(frames)], (2, 1, 3))[0].atoms) == 12


def test_a_molecule_cannot_be_repeated_but_the_others_are(tmp_path: Path):
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    ase.io.write(tmp_path / "copper.cif", bulk("Cu"))
    files = [str(tmp_path / name) for name in ("water.xyz", "copper.cif")]
    water, copper = read_jobs(files, (2, 1, 1))
    assert water.atoms is None and "no cell" in water.problem
    assert copper.atoms is not None and len(copper.atoms) == 2


def test_the_fingerprint_sees_what_decides_the_result(frames: Path) -> None:
    job = read_jobs([str(frames)])[0]
    moved, fixed, labelled = job.atoms.copy(), job.atoms.copy(), job.atoms.copy()
    moved.positions[0, 0] += 1e-12
    fixed.set_constraint(FixAtoms([0]))
    labelled.info["note"] = np.pi
    same = [
        fingerprint(job._replace(atoms=atoms)) == fingerprint(job)
        for atoms in (moved, fixed, labelled)
    ]
    assert same == [False, False, True]


def test_a_name_may_contain_an_at_sign(tmp_path):
    path = tmp_path / "Pd@SiC.xyz"
    bulk("Si").write(path)
    (job,) = read_jobs([str(path)])
    assert job.atoms is not None and job.name == "Pd@SiC"


def test_blank_lines_between_frames_hide_nothing(tmp_path):
    bulk("Si").write(tmp_path / "one.xyz")
    text = (tmp_path / "one.xyz").read_text()
    (tmp_path / "two.xyz").write_text(f"{text}\n{text}")
    assert len(read_jobs([str(tmp_path / "two.xyz")])) == 2
