"""Imports go one way (CONTRIBUTING.md), and in no circle; checked on the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "data",
    "potentials",
    "deploy",
    "calculators",
    "training",
    "report",
    "learning",
    "commands",
    "md_examples",
)
COMMON = {"process", "screen", "files", "executors"}  # in src/tesseral; they import each other only
MODELS = {"data", "potentials", "deploy"}
# By the longest prefix of a module's name: what it may import, besides COMMON.
ALLOWED = {
    "data": {"data"},
    "potentials": {"potentials", "data.graph", "data.units"},
    "potentials.blocks": {"potentials.blocks", "data.graph", "data.units"},
    "potentials.ops": {"potentials.ops", "potentials.blocks", "data.graph"},
    "potentials.config": set(),
    "potentials.architectures": {
        "potentials.architectures",
        "potentials.blocks",
        "potentials.config",
        "data.graph",
    },
    "potentials.message_passing": {
        "potentials.architectures",
        "potentials.blocks",
        "potentials.config",
        "data.graph",
    },
    "potentials.engine": {
        "potentials.engine",
        "potentials.message_passing",
        "potentials.architectures",
        "potentials.blocks",
        "potentials.ops",
        "potentials.config",
        "data.graph",
    },
    "deploy": MODELS,
    "calculators": MODELS | {"calculators"},
    "training": MODELS | {"training"},
    "report": MODELS | {"report", "calculators", "training"},
    "learning": MODELS | {"learning", "calculators", "training", "report"},
    "md_examples": MODELS | {"md_examples", "calculators"},
    "commands": MODELS | {"commands", "calculators", "training", "report", "learning"},
}
FORBIDDEN_LIBRARIES = {
    "potentials": {"h5py", "ase", "lightning", "pymatgen", "matscipy"},
    "deploy": {"lightning", "h5py"},
    "calculators": {"lightning", "h5py"},
}


def modules() -> dict[str, Path]:
    """Files of the package by their names without ``tesseral.``."""
    found = {path.stem: path for path in (ROOT / "src" / "tesseral").glob("*.py")}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported_names(text: str) -> Iterator[str]:
    """Dotted names of everything that a file imports, at any depth."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "use absolute imports"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}".removeprefix("tesseral.")
                is_module = str(node.module).startswith("tesseral") and inner in MODULES
                yield f"tesseral.{inner}" if is_module else str(node.module)


def imported_modules(text: str) -> set[str]:
    """Modules of the package that a file imports, without ``tesseral.``."""
    names = {name for name in imported_names(text) if name.startswith("tesseral.")}
    return {name.removeprefix("tesseral.") for name in names}


def rule_of(name: str) -> set[str]:
    """What a module may import."""
    prefixes = [key for key in ALLOWED if name == key or name.startswith(key + ".")]
    return ALLOWED[max(prefixes, key=len)] | COMMON


def violations(name: str, text: str) -> list[str]:
    """Imports of a file that the rules do not allow."""
    folder = name.split(".")[0]
    wrong = [
        module
        for module in imported_modules(text)
        if not any(module == each or module.startswith(each + ".") for each in rule_of(name))
    ]
    for imported in imported_names(text):
        top = imported.split(".")[0]
        if top in FOLDERS or top in FORBIDDEN_LIBRARIES.get(folder, set()):
            wrong.append(imported)
    return wrong


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] in FOLDERS])
def test_imports_go_one_way(name):
    assert violations(name, MODULES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", sorted(COMMON & set(MODULES)))
def test_common_modules_import_nothing_else_of_the_package(name):
    assert imported_modules(MODULES[name].read_text(encoding="utf-8")) <= COMMON


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty if there are none."""
    done: set[str] = set()
    for start in graph:
        path: list[tuple[str, Iterator[str]]] = [(start, iter(graph[start]))]
        while path:
            name, rest = path[-1]
            following = next((each for each in rest if each not in done), None)
            if following is None:
                done.add(name)
                path.pop()
                continue
            names = [each for each, _ in path]
            if following in names:
                return [*names[names.index(following) :], following]
            path.append((following, iter(graph.get(following, set()))))
    return []


def test_no_circle():
    graph = {
        name: imported_modules(path.read_text(encoding="utf-8")) & set(MODULES)
        for name, path in MODULES.items()
    }
    assert circle(graph) == []


def test_the_checks_see_a_violation():
    assert violations("training.fit", "from tesseral.commands import main") == ["commands.main"]
    assert violations("training.fit", "from tesseral.calculators.ase import X") != []
    assert violations("calculators.ase", "def f():\n    import lightning") == ["lightning"]
    assert violations("potentials.ops.select", "from tesseral.potentials import config") != []
    assert violations("data.graph", "import potentials") == ["potentials"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
