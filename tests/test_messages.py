"""Messages of the library name arguments of functions, never options of the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    *("calculators", "data", "deploy", "learning", "potentials"),
    *("report", "training", "src/tesseral"),
)
FLAG = re.compile(r"(?<![\w-])--(?=[a-z{]|$)[\w{-]*")
OTHERS = {  # of pip, SLURM and NVRTC
    *("--upgrade", "--force-reinstall", "--no-deps"),
    *("--ntasks", "--ntasks-per-node", "--nodes", "--gpu-architecture"),
}
STYLES = {"report/page/style.py"}  # variables of CSS
SHORT = 4  # characters of "--", the line style of Matplotlib, with a margin


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and content of each string; what an f-string inserts is ``{}``."""
    inside = {
        part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value


def flags(source: str) -> list[tuple[int, str]]:
    """Options of the command line in the strings of a file, docstrings too."""
    return [
        (line, flag)
        for line, text in texts(ast.parse(source))
        if len(text) > SHORT
        for flag in FLAG.findall(text)
        if flag not in OTHERS
    ]


def library() -> list[str]:
    """All files but those of commands and examples, and links to folders."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    names = [str(path.relative_to(ROOT)) for path in paths if path == path.resolve()]
    return [name for name in names if name not in STYLES]


@pytest.mark.parametrize("name", library())
def test_no_message_names_an_option(name: str) -> None:
    assert flags((ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        'raise ValueError("give --stress-unit")',
        'f"--{name} is {value}"',
        'f"{path} exists; pass --overwrite"',
        '"--time"',
        'def f():\n    """As with --quick."""',
    ],
)
def test_the_check_sees_options(source: str) -> None:
    assert flags(source)


@pytest.mark.parametrize("source", ['"--"', '"a--b"', '"give --ntasks-per-node"', '"a -- b"'])
def test_the_check_leaves_other_dashes_alone(source: str) -> None:
    assert not flags(source)
