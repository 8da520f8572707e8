"""Files in unknown formats, and options that do not apply."""

import ase.io
import pytest
from ase import Atoms

from tesseral.data.imports.importer import ImportConfig, import_structures


def run(folder, name, **options):
    config = ImportConfig(sources=[str(folder / name)], output=str(folder / "out.h5"), **options)
    return import_structures(config)


@pytest.mark.parametrize("name", ["run.out", "run.log", "ML_AB", "set.dat"])
def test_an_unknown_format_is_refused_with_what_is_read(tmp_path, name):
    (tmp_path / name).write_text("something of another code\n" * 50)
    with pytest.raises(ValueError, match=r"is in no format that is read here: .*CP2K.*dpdata"):
        run(tmp_path, name)


def test_an_unknown_name_of_a_format_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "a.txt").write_text("x\n")
    with pytest.raises(ValueError, match="use one of .*deepmd.*, or a name of ase.io.read"):
        run(tmp_path, "a.txt", format="dpdata")


@pytest.mark.parametrize("name", ["a.extxyz", "a.json"])
def test_a_unit_of_length_is_refused_where_it_would_be_ignored(tmp_path, name):
    ase.io.write(tmp_path / name, Atoms("H", info={"energy": -1.0}))
    with pytest.raises(ValueError, match="`length_unit` is given, but"):
        run(tmp_path, name, length_unit="Bohr")


@pytest.mark.parametrize(
    "options, message",
    [({"elements": ["Si,Xx"]}, "`elements` names 'Xx'"), ({"length_unit": "m"}, "unknown unit")],
)
def test_invalid_options_are_refused_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ImportConfig(sources=["a"], output=str(tmp_path / "out.h5"), **options)


def test_elements_can_be_given_together_or_one_by_one():
    for elements in (["Si,O"], ["Si", "O"], ["Si O"]):
        config = ImportConfig(sources=["a"], output="out.h5", elements=elements)
        assert config.given()["elements"] == ["Si", "O"]
