"""Parts of pages that are made from the code when the site is built.

A line ``% generated: NAME`` of a page is replaced by the Markdown that ``PARTS[NAME]`` returns.
"""

from __future__ import annotations

import inspect
import re
from argparse import SUPPRESS, Action
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesseral.commands.main import COMMANDS, DEPENDING
from tesseral.commands.parser import Parser
from tesseral.potentials.architectures.table import ARCHITECTURES, field_names
from tesseral.potentials.config import PotentialConfig
from tesseral.report.claims import CLAIMS
from tesseral.report.report import PARTS as SECTIONS
from tesseral.report.verdicts import threshold

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

KINDS = {"int": "integer", "float": "number", "str": "text", "bool": "true or false"}
MARK = re.compile(r"^% generated: (\w+)$", re.MULTILINE)


def expand(text: str) -> str:
    """A page with its generated parts."""
    return MARK.sub(lambda found: PARTS[found[1]](), text)


def command_parser(name: str, *arguments: str) -> Parser:
    """The parser of a command; that of some depends on the arguments."""
    module = import_module(f"tesseral.commands.{name}")
    parser: Parser = module.parser(arguments) if name in DEPENDING else module.parser()
    return parser


def commands() -> str:
    """All commands with their options."""
    return "\n".join(
        line for name in COMMANDS for line in _command(f"train-potential {name}", name)
    )


def _command(title: str, name: str) -> Iterator[str]:
    parser = command_parser(name)
    summary = COMMANDS[name]
    yield from _parser(title, parser, f"{summary[0].upper()}{summary[1:]}.", "##")
    if name == "fit":
        yield from _architectures()
    for inner, options in parser.below.items():
        yield from _parser(f"{title} {inner}", options, options.description or "", "###")


def _parser(title: str, parser: Parser, description: str, marks: str) -> Iterator[str]:
    """Usage, description, options and epilog of one parser."""
    yield from (f"{marks} `{title}`", "", _prose(description), "")
    yield from ("```", (parser.usage or title).strip(), "```", "")
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if _is_shown(action)]
        if not actions:
            continue
        if len(parser._action_groups) > 3 and group.title not in ("options", None):
            title = _prose(group.title).capitalize()
            yield from (f"{marks}# {_group_title(actions)}", "", f"{title}.", "")
        for action in actions:
            yield from _option(action)
    yield from (_prose(parser.epilog), "")


def _is_shown(action: Action) -> bool:
    kind = type(action).__name__
    return action.help != SUPPRESS and kind not in (
        *("_HelpAction", "_ActionConfigLoad", "_ActionPrintConfig", "ActionSubCommands"),
        "_ActionSubCommands",
    )


def _group_title(actions: list[Action]) -> str:
    """The part of a configuration that options belong to."""
    names = {action.dest.split(".")[0] for action in actions if "." in action.dest}
    return f"`{names.pop()}`" if names else "Output and start"


def _option(action: Action) -> Iterator[str]:
    """One entry of a definition list."""
    strings = [name for name in action.option_strings if not name.endswith("+")]
    heading = ", ".join(f"`{name}`" for name in strings or [_metavar(action)])
    takes_value = bool(strings) and action.nargs != 0
    if takes_value and _kind(action):
        heading += f", {_kind(action)}"
    if strings and action.required:
        heading += ", required"
    text = _sentence(action.help)
    default = action.default
    known = default is None or default in ("", [], {}, SUPPRESS)
    if takes_value and not action.required and not known:
        text += f" Default: `{_value(default)}`."
    yield from (heading, f": {text}", "")


def _metavar(action: Action) -> str:
    name = action.dest.upper()
    return f"{name}…" if action.nargs in ("+", "*") else name


def _kind(action: Action) -> str:
    """Type or choices of the values."""
    if action.choices is not None:
        return " | ".join(f"`{choice}`" for choice in action.choices)
    hint: Any = getattr(action, "_typehint", None) or action.type or ""
    found = re.findall(r"'([^']*)'", str(hint)) if "Literal" in str(hint) else []
    if found:
        return " | ".join(f"`{choice}`" for choice in found)
    text = str(hint) if hasattr(hint, "__args__") else getattr(hint, "__name__", str(hint))
    text = re.sub(r"typing\.Optional\[(.*)\]$", r"\1", text).replace(" | None", "")
    for word, name in KINDS.items():
        text = re.sub(rf"\b{word}\b", name, text)
    return re.sub(
        r"dict\[(\w+), (\w+)\]", r"\1 → \2", re.sub(r"list\[(\w+)\]", r"list of \1s", text)
    )


def _architectures() -> Iterator[str]:
    """Defaults of the common options, and the other options of each architecture."""
    common = [item.name for item in fields(PotentialConfig)]
    yield from ("### Options of each architecture", "")
    names = ", ".join(f"`{name}`" for name in common)
    yield from (f"All architectures have {names}, with these defaults:", "")
    yield from ("| architecture | defaults |", "| --- | --- |")
    for name, (kind, _) in ARCHITECTURES.items():
        values = {item: getattr(kind(), item) for item in common}
        yield f"| `{name}` | " + ", ".join(f"`{k}: {_value(v)}`" for k, v in values.items()) + " |"
    yield from ("", "The options of `facet` are above. Those of the others:", "")
    for name in ARCHITECTURES:
        own = [f"model.{item}" for item in field_names(name) if item not in common]
        if name == "facet" or not own:
            continue
        yield from (f"#### `{name}`", "")
        for action in command_parser("fit", "--model.architecture", name)._actions:
            if action.dest in own:
                yield from _option(action)


def claims() -> str:
    """All claims of a report, a table for each section."""
    titles = {part.key: part.title for part in SECTIONS}
    lines = []
    for section in dict.fromkeys(claim.section for claim in CLAIMS.values()):
        lines += [f"## {titles[section]}", ""]
        lines += ["| claim | value | passes; warns | reason |", "| --- | --- | --- | --- |"]
        for claim in CLAIMS.values():
            if claim.section == section:
                limits = threshold(claim)
                lines.append(f"| {claim.text} | {claim.unit} | {limits} | {claim.reason} |")
        lines.append("")
    return "\n".join(lines)


def _value(value: Any) -> str:
    """A default as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _prose(text: str | None) -> str:
    """Text of a help as Markdown."""
    words = re.sub(r"\s+", " ", (text or "").replace("``", "`")).strip()
    return re.sub(r"docs/(\w+/\w+\.md)", r"[](../\1)", words)


def _sentence(text: str | None) -> str:
    words = _prose(text)
    if not words:
        return ""
    return words if words[-1] in ".!?" else f"{words}."


PARTS: dict[str, Callable[[], str]] = {"claims": claims, "commands": commands}


def complete_docstring(
    app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]
) -> None:
    """Add the fields of a NamedTuple, with the comments behind them, which have the shapes."""
    # "K." (kelvin) would start an enumerated list.
    lines[:] = [re.sub(r"^( +)([A-Z]\.)$", r"\1\\\2", line) for line in lines]
    if what != "class" or not hasattr(item, "_fields"):
        return
    if any(line.startswith("Create new instance of") for line in lines):  # of __new__
        lines.clear()
    elif not any(line.startswith((":param", ".. attribute")) for line in lines):
        lines.append("")
        for line in inspect.getsource(item).splitlines():
            found = re.match(r"    (\w+): ([^#=]+?)(?: = [^#]+?)?(?:  # (.*))?$", line)
            if found and found[1] in item._fields:
                text = re.sub(r"\s+", " ", found[3] or "")
                lines += [f":var {found[1]}: {text}", f":vartype {found[1]}: {found[2]}"]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Replace the marks of each page before it is parsed."""

    def replace(_: Sphinx, __: str, source: list[str]) -> None:
        source[0] = expand(source[0])

    app.connect("source-read", replace)
    app.connect("autodoc-process-docstring", complete_docstring)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
