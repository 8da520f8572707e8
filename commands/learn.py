"""``train-potential learn``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from tesseral.commands.fit import ConfigFile, add_architecture, named_architecture
from tesseral.commands.parser import Parser, build, complain, resumable, with_flags
from tesseral.learning.config import LearnConfig, RoundFitConfig
from tesseral.potentials.architectures.table import make_config
from tesseral.process import keep_freed_memory

EPILOG = """\
FOLDER has the model (model.safetensors), all labels (dataset.h5), a page about the rounds
(learn.html) and a folder of each round. After an interruption the same command resumes; no label
is computed again. The exit status is 0, also while labels by hand are awaited.
"""


def parser(arguments: Sequence[str] = ()) -> Parser:
    """Options of ``learn``, with those of one architecture.

    Args:
        arguments: command-line arguments, which name the architecture or a file that names it.

    Raises:
        ValueError: there is no such architecture.
    """
    name = named_architecture(arguments, "fit.")
    made = Parser(
        usage="train-potential learn --config CONFIG.yaml [--output FOLDER] [options]",
        epilog=EPILOG,
    )
    made.add_argument(
        "--config",
        action=ConfigFile,
        help="YAML file with any of these options; learn.yaml, which comes with the package, is an "
        "example.",
    )
    made.add_class_arguments(LearnConfig, skip={"fit"})
    made.add_class_arguments(RoundFitConfig, "fit", skip={"model"})
    add_architecture(made, name, "learn --fit.model.architecture NAME --help", "fit.")
    for option, action in list(made._option_string_actions.items()):
        made._option_string_actions[option.replace("_", "-")] = action
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Learn a potential in rounds; returns the exit status."""
    from tesseral.learning.rounds import learn
    from tesseral.training.module import DivergenceError

    model = make_config(**values["fit"]["model"])
    config = build(LearnConfig, {**values, "fit": {**values["fit"], "model": model}})
    keep_freed_memory()
    try:
        with resumable():
            result = learn(config, console)
    except DivergenceError as error:
        own = parser(["--fit.model.architecture", values["fit"]["model"]["architecture"]])
        return complain(with_flags(str(error), own), 1)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(result.ending)
    if result.signal is not None:
        say("to resume, run the same command")
        return 128 + result.signal
    if result.rounds and not result.waiting:
        for path in (result.model, result.dataset, result.page):
            if path.exists():
                say(f"written: {path}")
        say(f"next: train-potential report {result.model} --data {result.dataset}; then md, export")
    return 0
