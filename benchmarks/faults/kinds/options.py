"""Options of all commands, and configuration files of ``fit``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml

from benchmarks.faults.kinds.common import ROOT, write_data, write_model, write_structures
from benchmarks.faults.mutations import damaged_text, damaged_tree, pick
from benchmarks.faults.running import Case, Kind, command
from tesseral.commands import convert, data, evaluate, export, fit, lammps, md, relax, symmetry
from tesseral.commands.parser import option_names
from tesseral.potentials.architectures.table import ARCHITECTURES

WORDS = (
    *("", " ", "x", "-1", "0", "1", "2", "3.7", "1e9", "1000000000", "99999999999999999999"),
    *("-99999999999999999999", "nan", "inf", "-inf", "1e400", "1e-400", "None", "null", "true"),
    *("[]", "{}", "[1,2]", "{a: 1}", "1,2", "1 2", "é", "\udcff", "x" * 300, "/", ".", "..", "~"),
    *("nowhere/file", "/dev/null", "/proc/self/mem", "--", "-", "@", "%s", "${HOME}", "*", "\n"),
    *("49.99", "1e3", "0x10", "1_000", "cpu", "cuda", "meta", "float16", "1s", "0s", "1000000h"),
)
COMMANDS: dict[str, tuple[tuple[str, ...], ModuleType]] = {
    "relax": (("relax", "atoms.extxyz", "--model", "model.safetensors", "--steps", "1"), relax),
    "md": (("md", "atoms.extxyz", "--model", "model.safetensors", "--time", "0.003"), md),
    "evaluate": (("evaluate", "model.safetensors", "set.h5"), evaluate),
    "import": (
        ("data", "import", "atoms.extxyz", "-o", "new.h5", "--processes", "1"),
        data,
    ),
    "check": (("data", "check", "set.h5"), data),
    "merge": (("data", "merge", "set.h5", "-o", "new.h5"), data),
    "export": (("export", "model.safetensors", "-o", "model.pt"), export),
    "symmetry": (("symmetry", "model.safetensors"), symmetry),
    "convert": (("convert", "model.safetensors", "-o", "new.safetensors"), convert),
    "verify": (("lammps", "verify", "model.pt"), lammps),
}
# A run that these make longer is right; it would only take the time of the case.
LONG = ("--processes", "--trainer.devices", "--trainer.num_nodes", "--data.workers")
SMALL = ("--model.channels", "4", "--trainer.accelerator", "cpu", "--trainer.max_time", "10s")
FIT = ("fit", "--data.train", "set.h5", "--output", "new.safetensors", "--trainer.max_steps", "1")


def prepare(samples: Path) -> Mapping[str, Any]:
    """Inputs with which every command would succeed."""
    write_model(samples / "model.safetensors")
    write_data(samples / "set.h5", 6)
    write_structures(samples / "atoms.extxyz")
    return {}


def case(rng: np.random.Generator, samples: Path) -> Case:
    """A command line with one or two wrong options, or a wrong configuration file."""
    for path in samples.iterdir():
        if path.name in ("model.safetensors", "set.h5", "atoms.extxyz"):
            Path(path.name).symlink_to(path)
    make = pick(rng, (_command, _command, _fit, _fit, _fit, _config))
    words = make(rng)
    shown = " ".join(repr(word)[:50] if word.strip() != word else word[:50] for word in words)
    if make is _config:
        shown += f" ({Path('what').read_text('utf-8')})"
    return Case(shown, lambda: command(*words))


def _command(rng: np.random.Generator) -> list[str]:
    """Any command but ``fit`` with a wrong option or a wrong file."""
    name = pick(rng, COMMANDS)
    words, module = COMMANDS[name]
    words = list(words)
    below = module.parser().below
    parser = below.get(name, module.parser())
    for _ in range(int(rng.integers(1, 3))):
        if rng.random() < 0.15:
            words[int(rng.integers(1, len(words)))] = pick(rng, WORDS)
            continue
        option = pick(rng, [o for o in option_names(parser) if o not in (*LONG, "--help")])
        words += [option, pick(rng, WORDS)]
    return words


@lru_cache
def _fit_options(architecture: str) -> list[str]:
    parser = fit.parser(["--model.architecture", architecture])
    return [o for o in option_names(parser) if o not in (*LONG, "--help", "--config")]


def _fit(rng: np.random.Generator) -> list[str]:
    """A training with a wrong option."""
    architecture = pick(rng, ARCHITECTURES)
    options = _fit_options(architecture)
    if rng.random() < 0.5:
        options = [option for option in options if option.startswith("--model.")]
    option = pick(rng, options)
    words = [*FIT, "--model.architecture", architecture, *SMALL]
    return [*words, option, pick(rng, WORDS)]


def _config(rng: np.random.Generator) -> list[str]:
    """A training with a damaged configuration file."""
    path = pick(rng, sorted((ROOT / "configs").glob("*.yaml")))
    text = path.read_text("utf-8")
    if rng.random() < 0.4:
        what, data = damaged_text(rng, text.encode())
    else:
        what, tree = damaged_tree(rng, yaml.safe_load(text))
        data = yaml.safe_dump(tree).encode("utf-8", "replace")
    Path("config.yaml").write_bytes(data)
    Path("what").write_text(what.encode("utf-8", "replace").decode(), encoding="utf-8")
    more = ("--trainer.max_epochs", "null", "--data.validation", "null")
    small = ("--trainer.devices", "1", "--trainer.accelerator", "cpu", "--model.channels", "4")
    return ["fit", "--config", "config.yaml", *FIT[1:], *more, *small]


KIND = Kind("options", prepare, case, 3, seconds=60)
