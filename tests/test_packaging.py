"""What pyproject.toml promises: every folder is packaged, importing is light, names resolve."""

import subprocess
import sys
from pathlib import Path

import pytest

import tesseral

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = (
    "commands",
    "data",
    "potentials",
    "training",
    "calculators",
    "deploy",
    "report",
    "md_examples",
)


def test_every_folder_with_code_is_packaged():
    packaged = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {"tesseral"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(("tesseral", *parts)))
    assert packaged == found


def test_every_package_has_a_folder():
    for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items():
        assert (ROOT / folder / "__init__.py").is_file(), package


def test_importing_tesseral_loads_nothing_heavy():
    code = "import sys, tesseral; print('torch' in sys.modules, 'ase' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "False"], result.stderr


@pytest.mark.parametrize("name", tesseral.__all__)
def test_public_names_resolve(name):
    assert getattr(tesseral, name).__name__ == name


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="it has .*TesseralCalculator"):
        _ = tesseral.nothing
