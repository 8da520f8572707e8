"""Imports go one way (docs/architecture in CONTRIBUTING.md); checked on the syntax trees."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("data", "potentials", "deploy", "calculators", "training", "md_examples")
BASE = {"data.graph", "data.units"}
ALLOWED = {
    "data": {"data"},
    "potentials": {"potentials"} | BASE,
    "deploy": {"deploy", "potentials", "data"},
    "calculators": {"calculators", "deploy", "potentials", "data"},
    "training": {"training", "calculators", "deploy", "potentials", "data"},
    "md_examples": {"md_examples", "calculators", "deploy", "potentials", "data"},
}
FORBIDDEN_LIBRARIES = {
    "potentials": {"h5py", "ase", "lightning", "pymatgen", "matscipy"},
    "deploy": {"lightning", "h5py"},
    "calculators": {"lightning", "h5py"},
}
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported_modules(path: Path) -> set[str]:
    """Dotted names of everything a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: use absolute imports"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    for name in imported_modules(path):
        top = name.split(".")[0]
        assert top not in FOLDERS, f"{path.name} imports {name}; write tesseral.{name}"
        assert top not in FORBIDDEN_LIBRARIES.get(folder, set()), f"{folder} must not import {top}"
        if top == "tesseral" and "." in name:
            inner = name.removeprefix("tesseral.")
            allowed = any(inner == a or inner.startswith(a + ".") for a in ALLOWED[folder])
            assert allowed or any(a.startswith(inner) for a in ALLOWED[folder]), (
                f"{folder} must not import {name}"
            )


def test_the_check_sees_a_violation(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from tesseral.training import cli\n")
    assert "tesseral.training" in imported_modules(bad)
