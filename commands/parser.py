"""Parsers built from dataclasses, with one-sentence errors for wrong options."""

from __future__ import annotations

import re
import sys
from argparse import _SubParsersAction
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from itertools import groupby
from textwrap import wrap
from typing import Any, NoReturn, get_args, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, DefaultHelpFormatter

UNKNOWN = (
    re.compile(r"unrecognized arguments: (\S+)", re.IGNORECASE),
    re.compile(r"does not accept option '([^']+)'"),
    re.compile(r"[Kk]ey '([^']+)' is not expected"),
    re.compile(r"invalid choice: '([^']+)'"),
)
ARGUMENT = re.compile(r"`([A-Za-z_][\w.]*)(?:=([^`]*))?`")  # in messages of the library
QUOTES = re.compile(r"^[\[(]|[])]$|[\"']")


class Help(DefaultHelpFormatter):  # type: ignore[misc, unused-ignore]
    """Help formatter that keeps indented lines of descriptions and removes docstring markup."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for indented, group in groupby(text.splitlines(), lambda line: line[:1] in ("", " ")):
            kept = list(group)
            lines += kept if indented else wrap(" ".join(kept), width, break_long_words=False)
        return "\n".join(indent + line for line in lines)

    def _get_help_string(self, action: Any) -> str:
        """Help of an option with its default, if it has one that the text does not name."""
        if isinstance(action, _SubParsersAction):
            return ""
        text = str(super()._get_help_string(action))
        text = re.sub(r"(, )?type: %\(type\)s", "", text)
        nothing = action.default is None or action.default is False or action.default in ([], "")
        if nothing or "Default:" in (action.help or ""):
            text = text.replace("default: %(default)s", "")
        return re.sub(r" \((, )*\)$", "", re.sub(r"\((, )+", "(", text))

    def _format_action(self, action: Any) -> str:
        text = str(super()._format_action(action))
        # jsonargparse's own heading of the list of commands, below ours
        return text.split("\n", 1)[1] if isinstance(action, _SubParsersAction) else text

    def _expand_help(self, action: Any) -> str:
        return str(super()._expand_help(action)).replace("``", "")


class Parser(ArgumentParser):
    """Parser whose errors state in one sentence what is wrong and suggest a correction."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Like jsonargparse's parser, without abbreviations, which hide typing errors."""
        super().__init__(*args, allow_abbrev=False, formatter_class=Help, **kwargs)
        self.known: list[str] = []  # options of the chosen command; shared by all its parsers
        self.elsewhere: dict[str, str] = {}  # options that are absent here → message; also shared
        self.below: dict[str, Parser] = {}  # subcommands by name

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Write the message and exit with status 2."""
        self.exit(2, f"train-potential: {explain(message, self.known, self.elsewhere)}\n")


def explain(message: str, known: Sequence[str], elsewhere: Mapping[str, str]) -> str:
    """One-sentence form of a jsonargparse error, with the nearest known name.

    Args:
        message: error message of jsonargparse.
        known: names of the options and commands.
        elsewhere: messages about options that the command has in other cases.
    """
    for pattern in UNKNOWN:
        found = pattern.search(message)
        if found:
            name = found.group(1).split("=")[0]
            option = name.lstrip("-").replace("-", "_")
            same = [key for key in elsewhere if key == option or key.endswith(f".{option}")]
            if same:
                return elsewhere[same[0]]
            if pattern is UNKNOWN[0] and not name.startswith("-"):
                return f"{name} is not expected there; give all files together, before the options"
            bare = [k.lstrip("-") for k in known]
            near = [k for k in bare if k.startswith(name.lstrip("-"))][:1]  # an abbreviation
            near = near or get_close_matches(name.lstrip("-"), bare, n=1)
            choices = near or [k.lstrip("-") for k in known if "." not in k]
            dashes = "--" if name.startswith("--") else ""
            hint = f"did you mean {dashes}{near[0]}?" if near else f"known: {', '.join(choices)}"
            return f"there is no {dashes}{name.lstrip('-')}; {hint}"
    text = re.sub(r"\s+", " ", message).strip()
    text = re.sub(
        r'^Parser key "([^"]+)": ', lambda found: f"{_as_given(found.group(1), known)}: ", text
    )
    text = re.sub(r"Expected an? <class '(\w+)'>\. Got value:", r"expected \1, found", text)
    text = re.sub(r"Expected an? typing\.Literal\[(.*?)\]\. Got value:", r"use \1, not", text)
    required = re.match(r"the following arguments are required: (.*)", text)
    if required:
        missing = [_as_given(name, known) for name in required.group(1).split(", ")]
        return f"missing: {', '.join(missing)}"
    command = re.match(r'expected ".*" to be one of \{(.*)\}, but it was not provided', text)
    if command:
        return f"give one of the commands {command.group(1).replace(',', ', ')}"
    if text.startswith("Unexpected config:"):
        return "the configuration file is empty or has no `key: value` lines"
    union = re.match(r"(.*?)Does not validate against any of the Union subtypes.*: (.*)$", text)
    if union:
        kinds = re.search(r"Subtypes: \[(.*?), <class 'NoneType'>\]", text)
        expected = re.sub(r"<class '(\w+)'>", r"\1", kinds.group(1)) if kinds else "another type"
        return f"{union.group(1)}expected {expected}, found {union.group(2)}"
    return text


def _as_given(name: str, known: Sequence[str]) -> str:
    """A name of jsonargparse, which begins with those of the commands, as it is typed."""
    parts = name.split(".")
    ends = ["--" + ".".join(parts[start:]) for start in range(len(parts))]
    return next((end for end in ends if end in known), parts[-1])


def add_fields(
    parser: Parser,
    kind: type[Any],
    *,
    positional: dict[str, str | None],
    short: dict[str, str] | None = None,
) -> None:
    """Add an option for each field of a flat dataclass, with help from its docstring.

    Args:
        parser: parser that receives the options.
        kind: the dataclass.
        positional: positional fields → number of values (None for one).
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
        elif "alone" in item.metadata:  # the value of the option without one
            settings |= {"nargs": "?", "const": item.metadata["alone"]}
            parser.add_argument(*names, type=hints[item.name], **settings)
        elif hints[item.name] == tuple[int, int, int]:
            settings["default"] = list(settings["default"])  # jsonargparse writes into it
            parser.add_argument(*names, type=int, nargs=3, metavar=("A", "B", "C"), **settings)
        elif hints[item.name] == list[str]:
            settings["default"] = []
            parser.add_argument(*names, type=str, action="append", **settings)
        else:
            parser.add_argument(*names, type=hints[item.name], **settings)


def build(kind: type[Any], values: dict[str, Any]) -> Any:
    """Build a dataclass and its inner dataclasses from nested plain values or dataclasses."""
    hints = get_type_hints(kind)
    parts = {}
    for item in fields(kind):
        value = values[item.name]
        inner = hints[item.name]
        nested = isinstance(inner, type) and is_dataclass(inner)
        if nested and not isinstance(value, (dict, inner)):
            raise ValueError(f"{item.name} is {value!r:.60}; it must be a section of options")
        if value is None and type(None) not in get_args(inner):
            raise ValueError(f"{item.name} has no value; give one, or leave the option out")
        parts[item.name] = build(inner, value) if isinstance(value, dict) and nested else value
    return kind(**parts)


def option_names(parser: Parser) -> list[str]:
    """Names of all options of a parser."""
    return [name for action in parser._actions for name in action.option_strings if len(name) > 2]


def with_flags(message: str, parser: Parser) -> str:
    """Rewrite the argument names in a message of the library as options of the command.

    The library names an argument in backquotes, alone or with a value: `` `stress_unit` `` becomes
    ``--stress-unit`` and `` `allow_missing=['stress']` `` becomes ``--allow-missing stress``.
    For an option in a group, its last name is enough if no other group has it (`` `max_time` ``
    for ``--trainer.max_time``). Anything else stays unchanged.

    Args:
        message: error message of the library.
        parser: parser of the command; its subcommands are included.
    """
    parsers = [parser, *parser.below.values()]
    options = {
        name.lstrip("-").replace("-", "_"): name for part in parsers for name in option_names(part)
    }

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        same = [key for key in options if key == name] or [
            key for key in options if key.endswith(f".{name}")
        ]
        if len(same) != 1:
            return found[0]
        words = "" if value in (None, "True") else f" {QUOTES.sub('', value).replace(', ', ' ')}"
        return options[same[0]] + words

    return ARGUMENT.sub(flag, message)


@contextmanager
def resumable() -> Iterator[None]:
    """Let the message of an interruption say how to resume.

    Raises:
        KeyboardInterrupt: after Ctrl-C, with the message.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        reason = str(stop) or "stopped by Ctrl-C"
        raise KeyboardInterrupt(f"{reason}; the same command resumes") from None


def complain(message: str, status: int = 2) -> int:
    """Write a one-sentence error to stderr; returns the status."""
    sys.stderr.write(f"train-potential: {' '.join(message.split())}\n")
    return status
