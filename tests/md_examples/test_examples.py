"""The examples as users run them: a structure file, a model, files and numbers out."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule

from tesseral.md_examples import equation_of_state, npt, nve, nvt, relax

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES: dict[str, Callable[[Sequence[str]], int]] = {
    "relax": relax.main,
    "nve": nve.main,
    "nvt": nvt.main,
    "npt": npt.main,
    "equation_of_state": equation_of_state.main,
}
SHORT = {
    "relax": ["--steps", "3"],
    "nve": ["--time", "0.02", "--equilibrate", "0.01", "--every", "5"],
    "nvt": ["--time", "0.02", "--every", "5"],
    "npt": ["--time", "0.02", "--every", "5"],
}
PNG = b"\x89PNG\r\n"


@pytest.fixture
def crystal(tmp_path: Path) -> Path:
    """Rattled SiC in a file."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.rattle(0.03, seed=0)
    path = tmp_path / "sic.extxyz"
    atoms.write(path)
    return path


@pytest.mark.parametrize("name", SHORT)
def test_command_writes_its_files(
    name: str,
    crystal: Path,
    gentle_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(crystal), str(gentle_model), *SHORT[name]]
    assert EXAMPLES[name](arguments) == 0
    assert (tmp_path / f"sic-{name}.png").read_bytes().startswith(PNG)
    frames = ase.io.read(tmp_path / f"sic-{name}.traj", index=":")
    assert len(frames) > 2
    assert not np.array_equal(frames[0].positions, frames[-1].positions)
    assert np.isfinite(frames[-1].get_potential_energy())
    assert "wrote sic-" in capsys.readouterr().out


def test_relaxed_structure_is_written(
    crystal: Path, gentle_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "new" / "run.1"
    arguments = [str(crystal), str(gentle_model), "-o", str(prefix), "--repeat", "1", "1", "2"]
    assert relax.main([*arguments, "--steps", "3", "--fixed-cell"]) == 0
    atoms = ase.io.read(tmp_path / "new" / "run.1.extxyz")
    assert len(atoms) == 16
    np.testing.assert_allclose(atoms.cell.lengths(), [4.36, 4.36, 8.72])
    assert "energy (eV/atom)" in capsys.readouterr().out


def test_log_of_md_has_units_and_all_rows(
    crystal: Path, gentle_model: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "run"
    assert nvt.main([str(crystal), str(gentle_model), "-o", str(prefix), *SHORT["nvt"]]) == 0
    lines = (tmp_path / "run.csv").read_text().splitlines()
    assert lines[0].startswith("time_ps,potential_eV,kinetic_eV,temperature_K")
    times = [float(line.split(",")[0]) for line in lines[1:]]
    assert times == [0.0, 0.005, 0.01, 0.015, 0.02]


def test_molecule_without_a_cell_runs(gentle_model: Path, tmp_path: Path) -> None:
    atoms = molecule("CH4")
    atoms.numbers[1:] = 14
    atoms.positions *= 1.7
    atoms.write(tmp_path / "m.xyz")
    for name in ("relax", "nvt"):
        arguments = [str(tmp_path / "m.xyz"), str(gentle_model), "-o", str(tmp_path / name)]
        assert EXAMPLES[name]([*arguments, *SHORT[name]]) == 0


WRONG: list[tuple[list[str], str]] = [
    (["no.cif", "MODEL"], "there is no structure file no.cif"),
    (["SIC", "no.safetensors"], "there is no model file no.safetensors"),
    (["MODEL", "MODEL"], "cannot be read as a structure"),
    (["SIC", "SIC"], "is not a whole safetensors file"),
    (["GERMANIUM", "MODEL"], "element Ge is not one of those the model knows: C, Si"),
    (["SIC", "MODEL", "--device", "gpu"], "device 'gpu' cannot be used"),
    (["SIC", "MODEL", "--repeat", "0", "1", "1"], "--repeat is 0 1 1"),
]


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize(("words", "message"), WRONG)
def test_wrong_input_is_one_sentence_and_status_2(
    name: str,
    words: list[str],
    message: str,
    crystal: Path,
    small_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    bulk("Ge").write("ge.extxyz")
    files = {"MODEL": str(small_model), "SIC": str(crystal), "GERMANIUM": "ge.extxyz"}
    assert EXAMPLES[name]([files.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("relax", ["--fmax", "0"], "fmax is 0"),
        ("nve", ["--temperature", "-5"], "--temperature is -5"),
        ("nve", ["--time", "0"], "--time is 0"),
        ("nve", ["--equilibrate", "-1"], "--equilibrate is -1"),
        ("nvt", ["--timestep", "nan"], "--timestep is nan"),
        ("nvt", ["--every", "0"], "--every is 0"),
        ("npt", ["--pressure-damping", "0"], "--pressure-damping 0"),
        ("equation_of_state", ["--points", "3"], "--points is 3"),
        ("equation_of_state", ["--reference", "no.json"], "no reference file no.json"),
    ],
)
def test_wrong_options_are_one_sentence_and_status_2(
    name: str,
    options: list[str],
    message: str,
    crystal: Path,
    small_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(crystal), str(small_model), "-o", str(tmp_path / "out"), *options]
    assert EXAMPLES[name](words) == 2
    assert message in capsys.readouterr().err


def test_exploding_md_stops_with_its_files(
    crystal: Path, small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "run"
    words = [str(crystal), str(small_model), "-o", str(prefix), "--every", "1"]
    assert nvt.main([*words, "--timestep", "60", "--time", "30", "--thermostat", "langevin"]) == 1
    assert "MD ended at step" in capsys.readouterr().err
    for ending in (".traj", ".csv", ".png"):
        assert (tmp_path / f"run{ending}").stat().st_size > 0


@pytest.mark.slow
def test_runs_as_module_and_as_file(crystal: Path, gentle_model: Path, tmp_path: Path) -> None:
    for command in (["-m", "tesseral.md_examples.relax"], [str(ROOT / "md_examples" / "relax.py")]):
        words = [str(crystal), str(gentle_model), "--steps", "1"]
        subprocess.run(
            [sys.executable, *command, *words], cwd=tmp_path, check=True, capture_output=True
        )
        (tmp_path / "sic-relax.png").unlink()


@pytest.mark.slow
def test_ctrl_c_leaves_the_files(crystal: Path, gentle_model: Path, tmp_path: Path) -> None:
    # Tiny steps: the random crystal falls apart after some 1.5 ps, which must not come first.
    words = [str(crystal), str(gentle_model), "--time", "100", "--timestep", "0.01"]
    words += ["-o", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tesseral.md_examples.nvt", *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    trajectory = tmp_path / "run.traj"
    give_up = time.monotonic() + 60
    while not (trajectory.exists() and trajectory.stat().st_size > 5000):
        assert time.monotonic() < give_up and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "stopped by Ctrl-C" in error and "Traceback" not in error
    assert len(ase.io.read(trajectory, index=":")) > 2
    assert (tmp_path / "run.png").read_bytes().startswith(PNG)


def test_importing_leaves_matplotlib_alone() -> None:
    code = (
        "import sys\n"
        "from tesseral.md_examples import equation_of_state, npt, nve, nvt, relax\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
