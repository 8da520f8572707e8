"""``train-potential universal``."""

from __future__ import annotations

from typing import Any, Literal

from rich.console import Console

from tesseral.commands.convert import show_converted
from tesseral.commands.parser import Parser, with_flags
from tesseral.screen import print_table, progress_line

EPILOG = """\
The models are kept in your data folder, each under its name: --model NAME takes it in all commands.
--model universal is the default, or the one that is there.
"""


def parser() -> Parser:
    """Options of ``universal``."""
    made = Parser(
        usage="train-potential universal [list | get [NAME] [--weights FILE]]", epilog=EPILOG
    )
    made.add_argument(
        "action",
        type=Literal["list", "get"],
        nargs="?",
        default="list",
        help="list shows the models; get makes one, from a package, a file or a download",
    )
    made.add_argument(
        "name", type=str | None, nargs="?", help="name in the list. Default: the best"
    )
    made.add_argument("--weights", type=str | None, help="file with the weights of this model")
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Show the universal models, or make one; returns 0."""
    if values["action"] == "list":
        if values["name"] or values["weights"]:
            raise ValueError("list takes no further words; to make a model write get before them")
        _list(console)
        return 0
    from tesseral.deploy.obtain import get_model

    def tell(text: str) -> None:
        text = with_flags(text, parser())
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with progress_line(console, "comparing with the original") as bar:
        output, deviation = get_model(
            values["name"], weights=values["weights"], progress=bar, tell=tell
        )
    show_converted(console, output, deviation)
    return 0


def _list(console: Console) -> None:
    """Show the catalogue, and what the name universal means now."""
    from tesseral.deploy.catalogue import CATALOGUE, DEFAULTS, MACHINE
    from tesseral.deploy.obtain import state
    from tesseral.deploy.universal import model_path

    def number(value: float | None, digits: int = 0) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    every = CATALOGUE.values()
    heads: tuple[str, ...] = ("model", "trained on", "level", "licence", "here")
    rows = [[each.name, each.data, each.theory, each.licence, state(each)] for each in every]
    print_table(console, heads, rows)
    numbers = (
        "elements",
        "cutoff",
        "MB",
        "mirror",
        "µs/atom",
        "F meV/Å",
        "a %",
        "B %",
        "C %",
        "Γ %",
    )
    rows = [
        [
            *(each.name, str(each.elements), f"{each.cutoff:g}", number(each.size)),
            "equal" if each.mirror else "not",
            "–" if each.speed is None else "–".join(number(one) for one in each.speed),
            *(number(each.forces), number(each.lattice, 2), number(each.modulus, 1)),
            *(number(each.elastic), number(each.optical, 1)),
        ]
        for each in every
    ]
    print_table(console, ("model", *numbers), rows)
    lines = [
        "mirror: energies of mirror images. µs/atom: Si and MgO, " + MACHINE + ".",
        "F: mean length of the force error, mlearn test sets. a, B: mean errors of lattice "
        "constants and bulk moduli against PBE; C, Γ: of elastic constants and optical phonons "
        "against experiment.",
        f"default: {DEFAULTS[0]}; {DEFAULTS[1]} if it cannot be had.",
    ]
    try:
        lines.append(f"universal is now {model_path('universal')}")
    except FileNotFoundError:
        lines.append("there is no universal model yet: train-potential universal get")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
