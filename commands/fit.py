"""``train-potential fit``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined, unused-ignore]
from rich.console import Console

from tesseral import configs
from tesseral.commands.parser import Parser, build, complain, with_flags
from tesseral.potentials.architectures.table import (
    ARCHITECTURES,
    config_class,
    field_names,
    make_config,
    no_such_field,
)
from tesseral.process import keep_freed_memory
from tesseral.training.config import FitConfig

CONFIGS = Path(configs.__path__[0])  # commented configurations of the package


class ConfigFile(ActionConfigFile):  # type: ignore[misc, unused-ignore]
    """Option that reads a configuration file, which may be one of the package."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        """Read the file."""
        super().__call__(parser, cfg, config_file(values), option_string)  # type: ignore[no-untyped-call, unused-ignore]


def config_file(name: str) -> str:
    """Path of a configuration file: as given, or that of the package with this name."""
    own = CONFIGS / name.removeprefix("configs/")
    shipped = not Path(name).exists() and own.parent == CONFIGS and own.is_file()
    return str(own) if shipped else name


def check_initial(arguments: Sequence[str]) -> None:
    """Check that given options of the model agree with the model to start from.

    Values that equal the defaults of another model look as if they were not given once the
    arguments are parsed.

    Raises:
        ValueError: an option on the command line or in a configuration file differs.
    """
    given: dict[str, tuple[str, Any]] = {}  # the last one counts: how it was given, and the value
    for option, value in _words(arguments):
        if option == "--config":
            content = _content(value)
            model = content.get("model")
            inside = model if isinstance(model, Mapping) else {}
            for name, each in (*content.items(), *((f"model.{n}", v) for n, v in inside.items())):
                given[str(name)] = (f"{name} in {value}", each)
        elif option.startswith("--"):
            given[option[2:].replace("-", "_")] = (option, value)
    initial = given.get("init_from", ("", None))[1]
    if initial is None:
        return
    from tesseral.deploy.card import config_to_values
    from tesseral.deploy.modelfile import read_card

    try:
        values = config_to_values(read_card(str(initial)).config)
    except (OSError, ValueError):  # said by the training
        return
    for option, (where, value) in given.items():
        name = option.removeprefix("model.")
        if name == option or name not in values:
            continue
        if (yaml.safe_load(value) if isinstance(value, str) else value) != values[name]:
            raise ValueError(
                f"{where} is {value}, but {initial}, the model to start from, has {values[name]}; "
                f"leave out this option, or {given['init_from'][0]}"
            )


def parser(arguments: Sequence[str] = ()) -> Parser:
    """Options of ``fit``, with those of one architecture.

    Args:
        arguments: command-line arguments, which name the architecture or a file that names it.

    Raises:
        ValueError: there is no such architecture, or it contradicts the model to start from.
    """
    check_initial(arguments)
    name = named_architecture(arguments)
    made = Parser(
        usage="train-potential fit --data.train SET.h5 --output MODEL [options]",
    )
    made.add_argument(
        "--config",
        action=ConfigFile,
        help="YAML file with any of these options, or the name of one that comes with the package: "
        f"{', '.join(sorted({path.name for path in CONFIGS.glob('*.yaml')} - {'learn.yaml'}))}.",
    )
    made.add_class_arguments(FitConfig, skip={"model"})
    add_architecture(made, name, "fit --model.architecture NAME --help")
    for option, action in list(made._option_string_actions.items()):  # --init-from is --init_from
        made._option_string_actions[option.replace("_", "-")] = action
    return made


def add_architecture(made: Parser, name: str, help_of: str, section: str = "") -> None:
    """Add the options of an architecture.

    Args:
        made: parser that receives them.
        name: name of the architecture.
        help_of: command that shows the options of another one.
        section: section of the options of the training, with a dot.
    """
    made.add_argument(
        f"--{section}model.architecture",
        default=name,
        help=f"One of {', '.join(ARCHITECTURES)}. This help shows the options of {name}. For the "
        f"options of another architecture use {help_of}.",
    )
    made.add_class_arguments(config_class(name), f"{section}model")
    own = field_names(name)
    made.elsewhere |= {
        f"{section}model.{option}": no_such_field(name, option)
        for other in ARCHITECTURES
        for option in field_names(other)
        if option not in own
    }


def named_architecture(arguments: Sequence[str], section: str = "") -> str:
    """Architecture named by a command line or its files; the last one counts.

    Args:
        arguments: command-line arguments.
        section: section of the options of the training, with a dot, such as ``fit.``.
    """
    found = "facet"
    for option, value in _words(arguments):
        if option == f"--{section}model.architecture":
            found = value
        elif option == "--config":
            content = _content(value)
            found = str(content.get(f"{section}model.architecture", found))
            inner = content.get(section.removesuffix(".")) if section else content
            if isinstance(inner, Mapping):
                found = _architecture(inner.get("model"), found)
        elif option == f"--{section}model":
            found = _architecture(value, found)
    return found


def _words(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word with what may be its value: what follows an equals sign, or else the next word."""
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        option, equals, value = word.partition("=")
        yield option, value if equals else following


def _architecture(model: Any, otherwise: str) -> str:
    """Architecture in a ``model`` section, or in the file that it names."""
    section = model if isinstance(model, Mapping) else _content(model)
    return str(section.get("architecture", otherwise))


def _content(source: Any) -> Mapping[str, Any]:
    """Content of a YAML file or text; empty if it cannot be read, which the parser reports."""
    try:
        path = Path(config_file(str(source)))
        content = yaml.safe_load(path.read_text("utf-8") if path.is_file() else str(source))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}


def fit_config(values: Mapping[str, Any]) -> FitConfig:
    """Configuration of a training from the values of the parser."""
    config: FitConfig = build(FitConfig, {**values, "model": make_config(**values["model"])})
    return config


def run(values: dict[str, Any], console: Console) -> int:
    """Train a potential; returns the exit status."""
    from tesseral.training.fit import fit
    from tesseral.training.module import DivergenceError
    from tesseral.training.processes import LOST, LostProcessError, own_rank

    own = parser(["--model.architecture", values["model"]["architecture"]])

    def tell(message: str, status: int = 2) -> int:
        return complain(with_flags(message, own), status)

    config = fit_config(values)
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
    # All processes end here together. Only the first may return a non-zero status: it may still be
    # writing, and launchers kill all processes as soon as one of them fails.
    return status if own_rank() == 0 else 0
