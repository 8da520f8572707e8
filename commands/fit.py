"""``train-potential fit``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser, build, complain, with_flags
from tesseral.process import keep_freed_memory
from tesseral.training.config import FitConfig


def parser() -> Parser:
    """Options of ``fit``."""
    made = Parser(
        usage="train-potential fit --data.train SET.h5 --output MODEL.safetensors [options]",
    )
    made.add_argument("--config", action="config", help="YAML file with any of these options.")
    made.add_class_arguments(FitConfig)
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Train a potential; returns the exit status."""
    from tesseral.training.fit import fit
    from tesseral.training.module import DivergenceError
    from tesseral.training.processes import LOST, LostProcessError, own_rank

    def tell(message: str, status: int = 2) -> int:
        return complain(with_flags(message, parser()), status)

    config = build(FitConfig, values)
    keep_freed_memory()
    try:
        result = fit(config, console, tell)
        status = 0 if result.signal is None else 128 + result.signal
        if result.signal is not None and own_rank() == 0:
            text = "stopped before the end; to resume, run the same command with --ckpt_path last"
            console.print(text, highlight=False, soft_wrap=True)
    except LostProcessError as error:
        return LOST if error.told else tell(str(error), LOST)
    except (ValueError, OSError) as error:
        return tell(f"process {own_rank()}: {error}" if own_rank() else str(error))
    except DivergenceError as error:
        status = 1
        if own_rank() == 0:
            tell(str(error))
    # All processes end this way together. Only the first may end with a status, since it may still
    # be writing, and launchers kill all processes when any ends with one.
    return status if own_rank() == 0 else 0
