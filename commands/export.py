"""``train-potential export``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser
from tesseral.screen import print_written


def parser() -> Parser:
    """Options of ``export``."""
    made = Parser(usage="train-potential export MODEL.safetensors -o MODEL.pt [options]")
    made.add_argument("model", type=str, help="model file, or universal")
    made.add_argument("-o", "--output", type=str, required=True, help="file to write")
    made.add_argument(
        "--dtype", type=str | None, help="float32 or float64. Default: that of the model"
    )
    made.add_argument(
        "--level",
        type=str | None,
        help="level of theory, if the model has several. Default: its first",
    )
    made.add_argument(
        "--gpu", action="store_true", help="add kernels for pair_style tesseral gpu of LAMMPS"
    )
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Write a model as TorchScript; returns 0."""
    from tesseral.deploy.export import export_model

    chosen = {name: values[name] for name in ("dtype", "level", "gpu")}
    export_model(values["model"], values["output"], **chosen)
    print_written(console, values["output"])
    return 0
