"""The compared programs as workers, with the options of the measurements."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import Peers
from benchmarks.universal.predictions import FACTORIES
from benchmarks.workers import Specification
from tesseral.deploy.universal import model_path

NAME = "sevennet-0.safetensors"


def ours(options: argparse.Namespace, path: Path | None = None, **arguments: Any) -> Specification:
    """The converted model, or another model file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    path = path or options.model or options.output / NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; make it with train-potential convert sevennet-0 -o {path}, or "
            "give another with --model"
        )
    arguments |= {"path": str(path.resolve())}
    return Specification(
        name="tesseral", factory=FACTORIES + "tesseral", arguments=arguments, threads=1
    )


def named(options: argparse.Namespace, model: str, **arguments: Any) -> Specification:
    """A model file, or a model of the catalogue, under its own name.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    path = model_path(model)
    return replace(ours(options, path, **arguments), name=path.stem)


def peer(options: argparse.Namespace, name: str, **arguments: Any) -> Specification:
    """A program in its own environment.

    Raises:
        FileNotFoundError: the environment does not exist.
    """
    environment, title = {
        "sevennet": ("sevenn", "SevenNet-0"),
        "chgnet": ("chgnet", "CHGNet"),
        "mace": ("mace", "MACE"),
        "nequix": ("nequix", "Nequix"),
        "nequix_calculator": ("nequix", "Nequix"),
    }[name]
    python = Peers(options.envs, options.data).program(environment, "python")
    if not Path(python).exists():
        raise FileNotFoundError(
            f"there is no {python}; run python -m benchmarks.peers install --only {environment}"
        )
    words = [str(value) for key, value in arguments.items() if key != "path"]
    return Specification(
        name=" ".join([title, *words]),
        factory=FACTORIES + name,
        arguments=arguments,
        python=python,
        threads=1,
        torch=environment != "nequix",
    )
