"""A model whose random weights hold a crystal together, and scripts run with other constants."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pytest
import torch

from tesseral.deploy.modelfile import build_potential, read_card, save_model

ROOT = Path(__file__).resolve().parent.parent.parent
NUMBER = r"[-+]?\d+\.\d+"


class Ran(NamedTuple):
    """A script that has been run."""

    names: dict[str, Any]  # its variables
    printed: str

    def numbers(self, label: str) -> list[float]:
        """What the only line that begins with a label gives."""
        (line,) = (line for line in self.printed.splitlines() if line.startswith(label))
        return [float(value) for value in re.findall(NUMBER, line.removeprefix(label))]

    def number(self, label: str) -> float:
        """The first of them."""
        return self.numbers(label)[0]


def with_constants(source: str, constants: dict[str, str]) -> ast.Module:
    """A script whose first assignments to some names have other right-hand sides.

    Raises:
        KeyError: the script assigns nothing to one of the names.
    """
    tree = ast.parse(source)
    left = dict(constants)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = left.pop(node.targets[0].id, None)
            if value is not None:
                node.value = ast.parse(value, mode="eval").body
    if left:
        raise KeyError(f"the script assigns nothing to {', '.join(left)}")
    return ast.fix_missing_locations(tree)


@pytest.fixture
def run_script(
    stable_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., Ran]]:
    """Runs a script in a folder of its own with the small stable model and these constants."""
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(matplotlib.rcParams, "backend", "agg")

    def run(name: str, **constants: str) -> Ran:
        path = ROOT / "md_examples" / f"{name}.py"
        source = path.read_text(encoding="utf-8")
        tree = with_constants(source, {"MODEL": repr(str(stable_model)), **constants})
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(tree, str(path), "exec"), names)
        return Ran(names, capsys.readouterr().out)

    yield run
    pyplot.close("all")


@pytest.fixture(scope="module")
def gentle_model(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with forces a hundred times smaller, so that its random crystal holds."""
    card = read_card(small_model)
    card = replace(card, energy_scale=0.01 * card.energy_scale)
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("gentle") / "gentle.safetensors"
    save_model(path, build_potential(card), card)
    return path
