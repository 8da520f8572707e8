"""The options of `train-potential`, made from dataclasses; what is said about wrong ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, NoReturn, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, DefaultHelpFormatter

COMMANDS = {
    "fit": "train a potential on a dataset",
    "evaluate": "compare a model with a dataset: errors, tables, parity plots",
    "report": "test a model for use: one page of errors, properties, MD runs and verdicts",
    "info": "show what a model file holds",
    "symmetry": "show what a relaxed model has broken, and the point group that is left",
    "relax": "relax structures with a model; goes on after an interruption",
    "md": "molecular dynamics of structures (nve, nvt, npt); goes on after an interruption",
    "export": "write a model as TorchScript, for LAMMPS and plain PyTorch",
    "convert": "make a universal model from a SevenNet checkpoint, with nothing downloaded",
    "lammps": "compile the LAMMPS pair style; compare LAMMPS with Python (lammps build, verify)",
    "data": "make, check and join datasets (data import, check, merge, append, verify)",
}
EPILOG = """\
a first training:
  train-potential data import runs/ more.extxyz -o set.h5
  train-potential data check set.h5
  train-potential fit --data.train set.h5 --output model.safetensors --trainer.max_time 10m
  train-potential evaluate model.safetensors test.h5 --plots plots
  train-potential report model.safetensors --data test.h5 -o report

train-potential COMMAND --help tells more about each command.
"""
OPTION = re.compile(r"(?<=^--)[^=]+")
UNKNOWN = (
    re.compile(r"unrecognized arguments: (\S+)", re.IGNORECASE),
    re.compile(r"does not accept option '([^']+)'"),
    re.compile(r"[Kk]ey '([^']+)' is not expected"),
    re.compile(r"invalid choice: '([^']+)'"),
)


class Help(DefaultHelpFormatter):  # type: ignore[misc, unused-ignore]
    """Help that keeps the lines of descriptions, and leaves out the marks of docstrings."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))

    def _expand_help(self, action: Any) -> str:
        return str(super()._expand_help(action)).replace("``", "")


class Parser(ArgumentParser):
    """A parser that says in one sentence what is wrong and what was probably meant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As jsonargparse's, without abbreviations, which hide typing errors."""
        super().__init__(*args, allow_abbrev=False, formatter_class=Help, **kwargs)
        self.known: list[str] = []  # of the chosen command; shared by all its parsers

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Write the sentence and exit with status 2."""
        self.exit(2, f"train-potential: {explain(message, self.known)}\n")


def explain(message: str, known: Sequence[str]) -> str:
    """What jsonargparse complains about, in one sentence, with the nearest known name."""
    for pattern in UNKNOWN:
        found = pattern.search(message)
        if found:
            name = found.group(1).split("=")[0]
            if pattern is UNKNOWN[0] and not name.startswith("-"):
                return f"{name} is not expected there; give all files together, before the options"
            near = get_close_matches(name.lstrip("-"), [k.lstrip("-") for k in known], n=1)
            choices = near or [k.lstrip("-") for k in known if "." not in k]
            dashes = "--" if name.startswith("--") else ""
            hint = f"did you mean {dashes}{near[0]}?" if near else f"known: {', '.join(choices)}"
            return f"there is no {dashes}{name.lstrip('-')}; {hint}"
    text = re.sub(r"\s+", " ", message).strip()
    text = re.sub(r'^Parser key "([^"]+)": ', r"\1: ", text)
    text = re.sub(r"Expected an? <class '(\w+)'>\. Got value:", r"expected \1, found", text)
    text = re.sub(r"Expected an? typing\.Literal\[(.*?)\]\. Got value:", r"use \1, not", text)
    required = re.match(r"the following arguments are required: (.*)", text)
    if required:
        missing = [re.sub(r"^\w+\.(import\.)?", "", n) for n in required.group(1).split(", ")]
        text = f"missing: {', '.join(missing)}"
    return text


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of a command line as nested plain values.

    Those of a model have the defaults of its architecture, which is known only once it is parsed.
    ``--init-from`` is understood as ``--init_from``, which is how the options of fit are named.
    """
    if "fit" in arguments[:1]:
        arguments = [OPTION.sub(lambda found: found[0].replace("-", "_"), w) for w in arguments]
    parser, own = make_parser(arguments)
    options = parser.parse_args(arguments)
    if options["command"] == "fit":
        from tesseral.potentials.config import DEFAULTS

        defaults = DEFAULTS.get(options["fit.model.architecture"], {})
        if defaults:
            own.set_defaults({f"model.{name}": value for name, value in defaults.items()})
            options = parser.parse_args(arguments)
    values: dict[str, Any] = options.as_dict()
    return values


def make_parser(arguments: Sequence[str]) -> tuple[Parser, Parser]:
    """The parser for a command line, and that of its command.

    Only the chosen command gets its options: the others would cost seconds of imports.
    """
    parser = Parser(
        prog="train-potential",
        usage="train-potential COMMAND …",
        description="Equivariant interatomic potentials from DFT data.",
        epilog=EPILOG,
    )
    chosen = next((word for word in arguments if not word.startswith("-")), "")
    commands = parser.add_subcommands(metavar="COMMAND", title="commands", dest="command")
    own = parser
    for name, summary in COMMANDS.items():
        options = MAKERS[name]() if name == chosen else Parser()
        options.description = summary[0].upper() + summary[1:] + "."
        commands.add_subcommand(name, options, help=summary)
        if name == chosen:
            own = options
            below = ADDERS[name](options) if name in ADDERS else {}
            parsers = [parser, options, *below.values()]
            known = [option for part in parsers[1:] for option in _names(part)]
            for part in parsers:
                part.known = known + list(below)
    if chosen not in COMMANDS:
        parser.known = list(COMMANDS)
    return parser, own


def _fit_options() -> Parser:
    from tesseral.training.config import FitConfig

    parser = Parser(
        usage="train-potential fit --data.train SET.h5 --output MODEL.safetensors [options]",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_class_arguments(FitConfig)
    return parser


def _evaluate_options() -> Parser:
    from tesseral.training.evaluate import EvaluateConfig

    parser = Parser(usage="train-potential evaluate MODEL.safetensors SET.h5 [options]")
    add_fields(parser, EvaluateConfig, positional={"model": None, "data": None})
    return parser


REPORT_EPILOG = """\
The folder gets report.html (open it in a browser; it needs no network) and report.json. Every
claim is held against a threshold: pass, warn or fail. The exit status is 1 if a claim fails, 0 if
none does. A full report of a small model takes some minutes on one core, --quick about one.
"""


def _report_options() -> Parser:
    from tesseral.training.report.config import ReportConfig

    parser = Parser(
        usage="train-potential report MODEL.safetensors --data TEST.h5 -o FOLDER [options]",
        epilog=REPORT_EPILOG,
    )
    add_fields(parser, ReportConfig, positional={"model": None}, short={"output": "-o"})
    return parser


def _info_options() -> Parser:
    parser = Parser(usage="train-potential info MODEL.safetensors")
    parser.add_argument("model", type=str, help="model file, or universal")
    return parser


def _symmetry_options() -> Parser:
    from tesseral.training.symmetry import SymmetryConfig

    parser = Parser(usage="train-potential symmetry MODEL.safetensors [options]")
    add_fields(parser, SymmetryConfig, positional={"model": None})
    return parser


def _export_options() -> Parser:
    from tesseral.training.deploy_options import export_parser

    return export_parser()


def _convert_options() -> Parser:
    from tesseral.training.deploy_options import convert_parser

    return convert_parser()


def _relax_options() -> Parser:
    from tesseral.training.run_options import relax_parser

    return relax_parser()


def _md_options() -> Parser:
    from tesseral.training.run_options import md_parser

    return md_parser()


# Commands below a command can be added only after it is. Each of these returns them by name.


def _add_data(parser: Parser) -> dict[str, Parser]:
    from tesseral.training.data_options import add_data

    return add_data(parser)


def _add_lammps(parser: Parser) -> dict[str, Parser]:
    from tesseral.training.deploy_options import add_lammps

    return add_lammps(parser)


ADDERS: dict[str, Callable[[Parser], dict[str, Parser]]] = {
    "data": _add_data,
    "lammps": _add_lammps,
}
MAKERS: dict[str, Callable[[], Parser]] = {
    "fit": _fit_options,
    "evaluate": _evaluate_options,
    "report": _report_options,
    "info": _info_options,
    "symmetry": _symmetry_options,
    "export": _export_options,
    "convert": _convert_options,
    "relax": _relax_options,
    "md": _md_options,
    "lammps": lambda: Parser(usage="train-potential lammps build | verify MODEL.pt"),
    "data": lambda: Parser(usage="train-potential data import | check | merge | append | verify …"),
}


def add_fields(
    parser: Parser,
    kind: type[Any],
    *,
    positional: dict[str, str | None],
    short: dict[str, str] | None = None,
) -> None:
    """Options with dashes for the fields of a flat dataclass; help comes from its docstring.

    Args:
        parser: to add to.
        kind: the dataclass.
        positional: fields without dashes → how many values (None for one).
        short: fields → one-letter option.
    """
    hints = get_type_hints(kind)
    texts = {p.arg_name: p.description for p in parse_docstring(kind.__doc__ or "").params}
    for item in fields(kind):
        settings: dict[str, Any] = {"help": texts.get(item.name)}
        if item.name in positional:
            several = positional[item.name]
            if several is not None:
                settings["nargs"] = several
            parser.add_argument(item.name, type=str, **settings)
            continue
        names = [f"--{item.name.replace('_', '-')}"]
        if short and item.name in short:
            names.insert(0, short[item.name])
        if item.default is MISSING and item.default_factory is MISSING:
            settings["required"] = True
        elif item.default is not MISSING:
            settings["default"] = item.default
        if hints[item.name] is bool:
            parser.add_argument(*names, action="store_true", help=settings["help"])
        elif hints[item.name] == tuple[int, int, int]:
            settings["default"] = list(settings["default"])  # jsonargparse writes into it
            parser.add_argument(*names, type=int, nargs=3, metavar=("A", "B", "C"), **settings)
        elif hints[item.name] == list[str]:
            settings["default"] = []
            parser.add_argument(*names, type=str, action="append", **settings)
        else:
            parser.add_argument(*names, type=hints[item.name], **settings)


def _names(parser: Parser) -> list[str]:
    """All option names of a parser."""
    return [name for action in parser._actions for name in action.option_strings if len(name) > 2]
