"""The command `train-potential`: which commands there are, and how one is run."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser, complain, option_names, with_flags
from tesseral.process import let_waiting_threads_sleep

# Each is a module of this package with ``parser()`` and ``run(values, console) -> status``.
COMMANDS = {
    "fit": "train a potential on a dataset",
    "evaluate": "compare a model with a dataset: errors, tables, parity plots",
    "report": "test a model for use: one page of errors, properties, MD runs and verdicts",
    "info": "show what a model file holds",
    "symmetry": "show which symmetry a relaxed model has broken, and the point group that is left",
    "relax": "relax structures with a model; resumes after an interruption",
    "md": "molecular dynamics of structures (nve, nvt, npt); resumes after an interruption",
    "export": "write a model as TorchScript, for LAMMPS and plain PyTorch",
    "convert": "make a universal model from a SevenNet checkpoint, without any download",
    "lammps": "compile the LAMMPS pair style; compare LAMMPS with Python (lammps build, verify)",
    "data": "make, check and join datasets (data import, check, merge, append, verify)",
}
OPTION = re.compile(r"(?<=^--)[^=]+")
EPILOG = """\
a first training:
  train-potential data import runs/ more.extxyz -o set.h5
  train-potential data check set.h5
  train-potential fit --data.train set.h5 --output model.safetensors --trainer.max_time 10m
  train-potential evaluate model.safetensors test.h5 --plots plots
  train-potential report model.safetensors --data test.h5 -o report

train-potential COMMAND --help describes each command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        0; 1 where training diverged, a claim of a report fails, LAMMPS differs from Python, a
        dataset has errors or a structure could not be relaxed or run; 2 where something given is
        wrong; 3 where another process of the training was lost; 128 + n where training was stopped
        by signal n (130 for Ctrl-C, 138 for USR1, 143 for TERM).
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments:
        arguments = ["--help"]
    let_waiting_threads_sleep()
    name = next((word for word in arguments if not word.startswith("-")), "")
    command = import_module(f"tesseral.commands.{name}") if name in COMMANDS else None
    values = parse(arguments, name, command)
    assert command is not None  # any other word has ended in the parser
    try:
        status: int = command.run(values[name], Console())
    except (ValueError, OSError) as error:
        return complain(with_flags(str(error), command.parser()))
    except KeyboardInterrupt as stop:
        return complain(with_flags(str(stop), command.parser()), 130) if str(stop) else 130
    return status


def parse(arguments: Sequence[str], name: str, command: ModuleType | None) -> dict[str, Any]:
    """The options of a command line as nested plain values.

    Those of a model have the defaults of its architecture, which is known only once it is parsed.
    """
    if name == "fit":
        arguments = [OPTION.sub(lambda found: found[0].replace("-", "_"), w) for w in arguments]
    parser, own = make_parser(name, command)
    options = parser.parse_args(arguments)
    if name == "fit":
        from tesseral.potentials.config import DEFAULTS

        defaults = DEFAULTS.get(options["fit.model.architecture"], {})
        if defaults:
            own.set_defaults({f"model.{key}": value for key, value in defaults.items()})
            options = parser.parse_args(arguments)
    values: dict[str, Any] = options.as_dict()
    return values


def make_parser(name: str, command: ModuleType | None) -> tuple[Parser, Parser]:
    """Parser of a command line, and that of its command.

    Args:
        name: of the chosen command; any other word if none of them is chosen.
        command: its module. The others are not imported, which would take seconds.
    """
    parser = Parser(
        prog="train-potential",
        usage="train-potential COMMAND …",
        description="Equivariant interatomic potentials from DFT data.",
        epilog=EPILOG,
    )
    commands = parser.add_subcommands(metavar="COMMAND", title="commands", dest="command")
    chosen = parser
    for each, summary in COMMANDS.items():
        own = command.parser() if command is not None and each == name else Parser()
        own.description = summary[0].upper() + summary[1:] + "."
        commands.add_subcommand(each, own, help=summary)
        if command is not None and each == name:
            chosen = own
            if own.below:
                below = own.add_subcommands(metavar="COMMAND", title="commands", dest="command")
                for word, inner in own.below.items():
                    below.add_subcommand(word, inner, help=inner.description)
            parsers = [own, *own.below.values()]
            known = [word for part in parsers for word in option_names(part)]
            for part in (parser, *parsers):
                part.known = [*known, *own.below]
    if command is None:
        parser.known = list(COMMANDS)
    return parser, chosen


if __name__ == "__main__":
    sys.exit(main())
