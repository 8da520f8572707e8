"""``train-potential calibrate``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser, add_fields, build
from tesseral.process import keep_freed_memory
from tesseral.screen import print_written, progress_line
from tesseral.training.evaluate_config import CalibrateConfig


def parser() -> Parser:
    """Options of ``calibrate``."""
    made = Parser(usage="train-potential calibrate MODEL.safetensors SET.h5 -o NEW.safetensors")
    add_fields(
        made,
        CalibrateConfig,
        positional={"model": None, "data": None},
        short={"output": "-o"},
    )
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Give a model its uncertainty; returns 0."""
    from tesseral.training.display import uncertainty_line
    from tesseral.training.uncertainty import calibrate_file

    config = build(CalibrateConfig, values)
    keep_freed_memory()
    with progress_line(console, "structures") as bar:
        card = calibrate_file(config, bar)
    console.print(uncertainty_line(card.uncertainty), highlight=False, soft_wrap=True)
    print_written(console, config.output)
    return 0
