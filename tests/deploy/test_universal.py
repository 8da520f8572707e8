"""The name ``universal``: where its file is looked for, in which order, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tesseral.calculators.ase import TesseralCalculator
from tesseral.deploy.catalogue import DEFAULTS
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.deploy.universal import kept_path, model_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder beside an empty working folder, without the user's own settings."""
    for name in ("TESSERAL_UNIVERSAL", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def touch(path: Path) -> Path:
    """An empty file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_other_names_stay_as_they_are(home: Path) -> None:
    assert model_path("runs/universal") == Path("runs/universal")
    assert model_path(Path("m.safetensors")) == Path("m.safetensors")
    touch(Path("universal"))
    assert model_path("universal") == Path("universal")


def test_a_folder_called_universal_is_not_the_model(home: Path) -> None:
    kept = touch(kept_path("universal"))
    Path("universal").mkdir()
    assert model_path("universal") == kept


def test_the_working_folder_comes_before_the_data_folder(home: Path) -> None:
    kept = touch(home / ".local/share/tesseral/universal.safetensors")
    assert model_path("universal") == kept == kept_path("universal")
    touch(Path("universal.safetensors"))
    assert model_path("universal") == Path("universal.safetensors")


def test_the_data_folder_follows_its_variable_if_that_is_absolute(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert kept_path("universal") == tmp_path / "data/tesseral/universal.safetensors"
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert kept_path("universal") == home / ".local/share/tesseral/universal.safetensors"


def test_the_named_file_comes_before_all_others(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(Path("universal.safetensors"))
    monkeypatch.setenv("TESSERAL_UNIVERSAL", "~/mine.st")
    with pytest.raises(FileNotFoundError, match=r"TESSERAL_UNIVERSAL names, .*mine\.st, does not"):
        model_path("universal")
    assert model_path("universal.safetensors") == Path("universal.safetensors")
    assert touch(kept_path("universal")) == home / "mine.st" == model_path("universal")


def test_a_missing_model_names_the_places_and_the_commands(home: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        load_model("universal")
    text = str(error.value)
    assert f"universal.safetensors and in {home / '.local/share/tesseral'}" in text
    assert "run train-potential universal get" in text and "pip install sevenn" in text


def test_names_of_the_catalogue_are_files_in_the_data_folder(home: Path) -> None:
    with pytest.raises(FileNotFoundError, match="universal get nequix-mp-1$"):
        model_path("nequix-mp-1")
    kept = touch(home / ".local/share/tesseral/nequix-mp-1.safetensors")
    assert model_path("nequix-mp-1") == kept == kept_path("nequix-mp-1")
    touch(Path("nequix-mp-1"))
    assert model_path("nequix-mp-1") == Path("nequix-mp-1")


def test_universal_is_the_best_model_that_has_been_made(home: Path) -> None:
    for name in ("nequix-mp-1", *reversed(DEFAULTS)):
        kept = touch(kept_path(name))
        assert model_path("universal") == kept
    assert model_path("universal") == kept_path(DEFAULTS[0])


def test_models_and_calculators_are_loaded_by_the_name(home: Path, small_model: Path) -> None:
    touch(kept_path("universal")).write_bytes(small_model.read_bytes())
    assert read_card("universal") == read_card(small_model) == load_model("universal")[1]
    assert TesseralCalculator("universal").card.elements == (6, 14)
