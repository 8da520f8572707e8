"""Relaxation of many structures in one batch: what ASE's FIRE finds, and what goes wrong."""

from __future__ import annotations

import csv
import subprocess
import sys
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from ase.filters import UnitCellFilter
from ase.optimize import FIRE

from tesseral.calculators.ase import TesseralCalculator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch-sim 0.3 scripts functions, which torch deprecates
    pytest.importorskip("torch_sim", reason='needs pip install "tesseral[torchsim]"')
from tesseral.calculators.torchsim import TesseralModel  # noqa: E402
from tesseral.md_examples.batch_relaxation import Relaxed, main, relax_batch  # noqa: E402


@pytest.fixture
def model(gentle_model: Path) -> TesseralModel:
    return TesseralModel(gentle_model, device="cpu", dtype="float64", failed="nan")


def crystal(seed: int, repeat: int = 1) -> Atoms:
    atoms = bulk("SiC", "zincblende", a=4.36) * (repeat, 1, 1)
    atoms.rattle(0.05, seed=seed)
    atoms.info["name"] = f"crystal {seed}"
    return atoms


def slab() -> Atoms:
    atoms = fcc111("Si", (2, 1, 3), a=4.5, vacuum=6.0)
    atoms.set_constraint()
    atoms.rattle(0.05, seed=2)
    return atoms


def overlapping() -> Atoms:
    atoms = crystal(0)
    atoms.positions[1] = atoms.positions[0] + 0.05
    return atoms


def in_order(*arguments: object, **settings: object) -> list[Relaxed]:
    done = relax_batch(*arguments, **settings)  # type: ignore[arg-type]
    return sorted(done, key=lambda result: result.number)


@pytest.mark.parametrize("fixed_cell", [False, True])
def test_few_steps_are_those_of_ase(
    model: TesseralModel, gentle_model: Path, fixed_cell: bool
) -> None:
    structures = [crystal(1), crystal(2, 2)]
    results = in_order(structures, model, fmax=1e-6, steps=6, fixed_cell=fixed_cell)
    for atoms, result in zip(structures, results, strict=True):
        atoms.calc = TesseralCalculator(gentle_model, device="cpu", dtype="float64")
        assert result.start == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        FIRE(atoms if fixed_cell else UnitCellFilter(atoms), logfile=None).run(1e-6, steps=6)
        assert result.outcome == "not converged" and result.steps == 6
        # torch-sim's UnitCellFilter leaves out a factor of the deformation in the cell's force.
        tolerance = 1e-10 if fixed_cell else 1e-4
        np.testing.assert_allclose(result.atoms.positions, atoms.positions, atol=tolerance)
        np.testing.assert_allclose(result.atoms.cell.array, atoms.cell.array, atol=tolerance)
        assert result.end == pytest.approx(atoms.get_potential_energy(), abs=tolerance)


def test_results_are_those_of_the_structure_they_name(
    model: TesseralModel, gentle_model: Path
) -> None:
    structures = [crystal(seed, 1 + seed % 3) for seed in range(7)]
    results = in_order(structures, model, fmax=0.003, steps=40, batch_atoms=9)
    assert [result.number for result in results] == list(range(7))
    assert len({result.steps for result in results}) > 1
    for atoms, result in zip(structures, results, strict=True):
        assert result.atoms.info["name"] == atoms.info["name"]
        assert result.atoms.info["relaxation"] == result.outcome
        again = result.atoms.copy()
        again.calc = TesseralCalculator(gentle_model, device="cpu", dtype="float64")
        assert again.get_potential_energy() == pytest.approx(result.end, abs=1e-10)
        np.testing.assert_allclose(again.get_forces(), result.atoms.get_forces(), atol=1e-10)
        np.testing.assert_allclose(again.get_stress(), result.atoms.get_stress(), atol=1e-10)
        if result.outcome == "converged":
            assert result.max_force < 0.003
        else:
            assert result.steps == 40


def test_structures_are_not_changed_and_keep_their_cell_order(model: TesseralModel) -> None:
    left_handed = crystal(1)
    left_handed.set_cell(left_handed.cell.array[[1, 0, 2]])
    if np.linalg.det(left_handed.cell.array) > 0:
        left_handed.set_cell(left_handed.cell.array[[1, 0, 2]])
    before = left_handed.copy()
    right_handed = left_handed.copy()
    right_handed.set_cell(left_handed.cell.array[[1, 0, 2]])
    left, right = in_order([left_handed, right_handed], model, fmax=1e-6, steps=5)
    assert left_handed == before
    assert left.end == pytest.approx(right.end, abs=1e-12)
    assert left.end < left.start
    np.testing.assert_allclose(left.atoms.cell.array, right.atoms.cell.array[[1, 0, 2]], atol=1e-12)
    assert np.linalg.det(left.atoms.cell.array) < 0


def test_slabs_and_molecules_keep_their_cell_and_periodicity(
    model: TesseralModel, gentle_model: Path
) -> None:
    molecule = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.4]])
    structures = [slab(), crystal(1), molecule]
    results = in_order(structures, model, fmax=1e-6, steps=3)
    for number in (0, 2):
        result, atoms = results[number], structures[number]
        assert result.atoms.pbc.tolist() == atoms.pbc.tolist()
        np.testing.assert_array_equal(result.atoms.cell.array, atoms.cell.array)
        atoms.calc = TesseralCalculator(gentle_model, device="cpu", dtype="float64")
        assert result.start == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert not np.array_equal(results[1].atoms.cell.array, structures[1].cell.array)


def test_one_broken_structure_does_not_stop_the_others(model: TesseralModel) -> None:
    alone = in_order([crystal(1), crystal(2)], model, fmax=1e-6, steps=4)
    results = in_order([crystal(1), overlapping(), crystal(2)], model, fmax=1e-6, steps=4)
    assert results[1].outcome == "failed" and results[1].steps == 0
    assert np.isnan(results[1].end)
    for result, expected in zip((results[0], results[2]), alone, strict=True):
        assert result.end == pytest.approx(expected.end, abs=1e-10)


def test_relaxed_structure_needs_no_step(model: TesseralModel) -> None:
    (result,) = in_order([crystal(1)], model, fmax=100.0)
    assert (result.steps, result.outcome) == (0, "converged")


@pytest.mark.parametrize(
    ("structures", "settings", "message"),
    [
        ([], {}, "no structures to relax"),
        ([crystal(1), bulk("Ge")], {}, "structure 1: element Ge is not one of those"),
        ([crystal(1), Atoms()], {}, "structure 1 has no atoms"),
        ([crystal(1)], {"fmax": 0.0}, "fmax is 0"),
        ([crystal(1)], {"steps": 0}, "steps 0"),
        ([crystal(1)], {"batch_atoms": 0}, "atoms in a batch 0"),
    ],
)
def test_what_cannot_be_relaxed_is_refused(
    model: TesseralModel, structures: list[Atoms], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        in_order(structures, model, **settings)


def test_constraints_are_refused(model: TesseralModel) -> None:
    atoms = crystal(1)
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match="structure 0 has constraints"):
        in_order([atoms], model)


def test_command_writes_structures_and_table(
    gentle_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ase.io.write(tmp_path / "in.extxyz", [crystal(1), overlapping(), crystal(2, 2)])
    words = [str(tmp_path / "in.extxyz"), str(gentle_model), "--steps", "3", "--fmax", "0.0001"]
    assert main([*words, "-o", str(tmp_path / "new" / "out.extxyz")]) == 0
    structures = ase.io.read(tmp_path / "new" / "out.extxyz", index=":")
    assert [atoms.info["relaxation"] for atoms in structures] == [
        "not converged",
        "failed",
        "not converged",
    ]
    assert np.isfinite(structures[2].get_stress()).all()
    with (tmp_path / "new" / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["CSi", "CSi", "C2Si2"]
    assert float(rows[2]["end_eV"]) == pytest.approx(structures[2].get_potential_energy(), abs=1e-6)
    assert [row["steps"] for row in rows] == ["3", "0", "3"]
    shown = capsys.readouterr().out
    assert "not converged: raise --steps" in shown and "failed: atoms that overlap" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.extxyz", "MODEL"], "there is no structure file no.extxyz"),
        (["IN", "no.safetensors"], "there is no model file no.safetensors"),
        (["MODEL", "MODEL"], "cannot be read as structures"),
        (["IN", "MODEL", "-o", "out.csv"], "end it on .extxyz"),
        (["IN", "MODEL", "--fmax", "-1"], "fmax is -1"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(
    words: list[str],
    message: str,
    gentle_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    crystal(1).write("in.extxyz")
    files = {"MODEL": str(gentle_model), "IN": "in.extxyz"}
    assert main([files.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_without_torch_sim_the_command_says_what_to_install() -> None:
    code = (
        "import runpy, sys\n"
        "sys.modules['torch_sim'] = None\n"
        "runpy.run_module('tesseral.md_examples.batch_relaxation', run_name='__main__')\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: torch-sim is not installed")
