"""What pyproject.toml promises: every folder is packaged, importing is light, names resolve."""

import ast
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import tesseral

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = (
    "commands",
    "configs",
    "data",
    "learning",
    "potentials",
    "training",
    "calculators",
    "deploy",
    "report",
    "learning",
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


def test_the_lists_of_public_names_agree():
    text = (ROOT / "src/tesseral/__init__.py").read_text(encoding="utf-8")
    typed = {
        alias.name
        for block in ast.walk(ast.parse(text))
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(typed) == sorted(tesseral._LAZY) == sorted(tesseral.__all__)
    assert set(tesseral.__all__) <= set(dir(tesseral))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="it has .*TesseralCalculator"):
        _ = tesseral.nothing


def built(folder: Path, *command: str) -> None:
    """Run setup.py of a source tree."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", *command],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def expected_in_wheel() -> set[str]:
    """All Python files of the packages and the data files that pyproject.toml names."""
    setuptools = PROJECT["tool"]["setuptools"]
    found = set()
    for package, folder in setuptools["package-dir"].items():
        place = package.replace(".", "/")
        patterns = ["*.py", *setuptools["package-data"].get(package, [])]
        for pattern in patterns:
            paths = [path for path in (ROOT / folder).glob(pattern) if path.is_file()]
            assert paths, f"{package} has no {pattern}"
            found |= {f"{place}/{path.relative_to(ROOT / folder).as_posix()}" for path in paths}
    return found


def test_wheel_and_sdist_hold_what_they_need_and_nothing_else(tmp_path):
    """The wheel is the package; the sdist is that and what compiles its kernels."""
    built(ROOT, "egg_info", "--egg-base", str(tmp_path), "sdist", "-d", str(tmp_path / "sdist"))
    (archive,) = (tmp_path / "sdist").iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    info = ("egg_info", "--egg-base", str(tmp_path))
    built(source, *info, "build_py", "--build-lib", str(tmp_path / "lib"))
    assert files_below(tmp_path / "lib") == expected_in_wheel()

    packaged = {
        f"{folder}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder in PROJECT["tool"]["setuptools"]["package-dir"].values()
        for path in (ROOT / folder).glob("*")
        if path.is_file()
    }
    kernels = {path for path in files_below(source) if "/csrc/" in path}
    on_disk = {
        path.relative_to(ROOT).as_posix()
        for folder in ("data", "potentials")
        for path in (ROOT / folder).rglob("csrc/*")
    }
    assert kernels == on_disk
    top = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"}
    top |= {"pyproject.toml", "setup.py", "setup.cfg"}
    extra = {
        path
        for path in files_below(source) - kernels - packaged - top
        if not path.startswith(("deploy/lammps/src/", "md_examples/ipi/", "tesseral.egg-info/"))
    }
    assert extra == set()


CONDA = {  # where conda's name is another
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",
    "docstring-parser": "docstring_parser",
}
OF_EXTRAS = {"typeshed-client"}  # conda knows no jsonargparse[signatures]


def yaml_file(name: str):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_has_the_version_of_the_package():
    citation = yaml_file("CITATION.cff")
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_conda_recipe_requires_what_pyproject_requires():
    recipe = yaml_file("conda/recipe.yaml")
    assert recipe["context"]["version"] == PROJECT["project"]["version"]
    wanted = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    expected = {CONDA.get(each.name, each.name): str(each.specifier) for each in wanted}
    expected["python"] = PROJECT["project"]["requires-python"]
    found = dict((*text.split(maxsplit=1), "")[:2] for text in recipe["requirements"]["run"])
    assert {name: found[name] for name in found if name not in OF_EXTRAS} == expected
    scripts = {f"{name} = {where}" for name, where in PROJECT["project"]["scripts"].items()}
    assert set(recipe["build"]["python"]["entry_points"]) == scripts
    assert recipe["requirements"]["host"][-1] == "setuptools >=77"
    assert PROJECT["build-system"]["requires"] == ["setuptools>=77"]


def test_extras_of_the_docker_file_and_of_all_exist():
    extras = PROJECT["project"]["optional-dependencies"]
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (line,) = [line for line in docker.splitlines() if line.startswith("ARG EXTRAS=")]
    (everything,) = [Requirement(text) for text in extras["all"]]
    assert set(line.partition("=")[2].split(",")) <= set(extras)
    alone = {"all", "dev", "docs", "nequix", "sevennet"}  # sevennet is a part of universal
    assert everything.extras == set(extras) - alone


def test_type_information_is_shipped():
    assert "tesseral/py.typed" in expected_in_wheel()
