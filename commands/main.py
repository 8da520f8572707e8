"""Entry point of `train-potential`: the table of commands, and the function that runs one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

import tesseral
from tesseral.commands.parser import Parser, complain, option_names, with_flags
from tesseral.process import let_waiting_threads_sleep

# Each is a module of this package with ``parser()`` and ``run(values, console) -> status``. The
# parsers of some depend on the command line, which names the architecture.
DEPENDING = ("fit", "learn")
PACKAGE = Path(tesseral.__file__).parent
COMMANDS = {
    "fit": "train a potential on a dataset",
    "distill": "train a fast potential of a material on a universal one; resumes when interrupted",
    "teach": "train a fast potential on labels, taught by a universal one that learned them too",
    "evaluate": "compare a model with a dataset: errors, tables, parity plots",
    "report": "check a model before use: errors, properties and MD runs, with verdicts",
    "info": "show the contents of a model file",
    "calibrate": "give a model its uncertainty, from its training set and a validation set",
    "symmetry": "show which symmetries a relaxed model breaks, and the point group that remains",
    "learn": "label what a model does not know, with DFT or another model, and train it, in rounds",
    "relax": "relax structures with a model; resumes after an interruption",
    "md": "molecular dynamics of structures (nve, nvt, npt); resumes after an interruption",
    "properties": "properties of materials: equation of state, elasticity, phonons, vacancies, …",
    "neb": "minimum-energy path and barrier between two structures; resumes after an interruption",
    "export": "write a model as TorchScript, for LAMMPS and plain PyTorch",
    "convert": "convert a SevenNet or Nequix model, of the installed package or a file, to a model",
    "universal": "list the universal models that can be had; make one (universal get)",
    "lammps": "compile the LAMMPS pair style; compare LAMMPS with Python (lammps build, verify)",
    "data": "create, check and merge datasets (data import, check, select, merge, …)",
}
MORE = "{} COMMAND --help shows the options of a command."
EPILOG = """\
example:
  train-potential data import runs/ more.extxyz -o set.h5
  train-potential data check set.h5
  train-potential fit --data.train set.h5 --output model.safetensors
  train-potential evaluate model.safetensors test.h5 --plots plots
  train-potential report model.safetensors --data test.h5 -o report

train-potential COMMAND --help describes each command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command-line arguments. Default: those of the process.

    Returns:
        0 on success; 1 if training diverged, a claim of a report fails, LAMMPS differs from
        Python, a dataset has errors or a structure could not be relaxed or run; 2 if an input is
        wrong; 3 if another process of the training was lost; 128 + n if training was stopped by
        signal n (130 for Ctrl-C, 138 for USR1, 143 for TERM).
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments:
        arguments = ["--help"]
    let_waiting_threads_sleep()
    for word in arguments:
        if not word.isascii() and word.encode("utf-8", "replace").decode() != word:
            return complain(f"{ascii(word)} is not UTF-8 text; rename the file")
    name = next((word for word in arguments if not word.startswith("-")), "")
    if arguments == ["--version"]:
        sys.stdout.write(f"tesseral {version('tesseral')}\n")
        return 0
    command = import_module(f"tesseral.commands.{name}") if name in COMMANDS else None
    try:
        values = make_parser(arguments, name, command).parse_args(arguments).as_dict()
    except ValueError as error:  # an architecture that is unknown, or not that of the model
        assert command is not None
        return complain(with_flags(str(error), command.parser()))
    assert command is not None  # any other word has already ended in the parser
    before = warnings.formatwarning
    warnings.formatwarning = warning_format(before, lambda: own_parser(arguments, name, command))
    try:
        status: int = command.run(values[name], Console())
    except (ValueError, OSError) as error:
        return complain(with_flags(str(error), own_parser(arguments, name, command)))
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "an allocation failed"
        return complain(f"there is not enough memory: {reason}")
    except KeyboardInterrupt as stop:
        if not str(stop):
            return 130
        return complain(with_flags(str(stop), own_parser(arguments, name, command)), 130)
    finally:
        warnings.formatwarning = before
    return status


def warning_format(
    otherwise: Callable[..., str], parser: Callable[[], Parser]
) -> Callable[..., str]:
    """Format of warnings that shows those of this package without the line of code.

    Args:
        otherwise: format of the others.
        parser: called for the parser of the command, whose options a warning may name.
    """

    def text(message: Warning | str, category: type[Warning], *where: Any) -> str:
        if category is not UserWarning or not Path(where[0]).is_relative_to(PACKAGE):
            return otherwise(message, category, *where)
        return f"train-potential: warning: {with_flags(str(message), parser())}\n"

    return text


def lacks_memory(error: Exception) -> bool:
    """Whether an exception of Python, NumPy or PyTorch says that memory could not be allocated."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def own_parser(arguments: Sequence[str], name: str, command: ModuleType) -> Parser:
    """Parser of one command; the options of a training depend on the architecture that is named."""
    parser: Parser = command.parser(arguments) if name in DEPENDING else command.parser()
    return parser


def make_parser(arguments: Sequence[str], name: str, command: ModuleType | None) -> Parser:
    """Parser of a command line.

    Args:
        arguments: command-line arguments.
        name: name of the chosen command; any other word if none is chosen.
        command: module of the command. The others are not imported, which would take seconds.
    """
    parser = Parser(
        prog="train-potential",
        usage="train-potential COMMAND …",
        description="Equivariant interatomic potentials from DFT data.",
        epilog=EPILOG,
    )
    commands = parser.add_subcommands(
        metavar="COMMAND",
        title="commands",
        dest="command",
        description=MORE.format("train-potential"),
    )
    for each, summary in COMMANDS.items():
        own = Parser()
        if command is not None and each == name:
            own = own_parser(arguments, name, command)
        own.description = summary[0].upper() + summary[1:] + "."
        commands.add_subcommand(each, own, help=summary)
        if command is not None and each == name:
            if own.below:
                below = own.add_subcommands(
                    metavar="COMMAND",
                    title="commands",
                    dest="command",
                    description=MORE.format(f"train-potential {name}"),
                )
                for word, inner in own.below.items():
                    below.add_subcommand(word, inner, help=inner.description)
            parsers = [own, *own.below.values()]
            known = [word for part in parsers for word in option_names(part)]
            for part in (parser, *parsers):
                part.known, part.elsewhere = [*known, *own.below], own.elsewhere
    if command is None:
        parser.known = list(COMMANDS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
