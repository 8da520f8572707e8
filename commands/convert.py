"""``train-potential convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tesseral.commands.parser import Parser
from tesseral.deploy.releases import INTERVALS, RELEASES
from tesseral.deploy.universal import kept_path
from tesseral.screen import print_written, progress_line

if TYPE_CHECKING:
    from tesseral.deploy.convert import Deviation


def parser() -> Parser:
    """Options of ``convert``."""
    made = Parser(usage="train-potential convert sevennet-0 [-o MODEL.safetensors] [options]")
    made.add_argument(
        "source", type=str, help=f"file with weights, or one of {', '.join(RELEASES)}"
    )
    made.add_argument(
        "-o",
        "--output",
        type=str | None,
        help="model file to write. Default: in your data folder, where --model NAME, or --model "
        "universal for a file, finds it",
    )
    made.add_argument(
        "--intervals",
        type=int,
        default=INTERVALS,
        help="number of intervals of the splines that replace the radial networks",
    )
    made.add_argument(
        "--modality",
        type=str | None,
        help="level of theory to keep, if the checkpoint has several. Default: all; --level of the "
        "other commands chooses one",
    )
    made.add_argument(
        "--no-short-range",
        action="store_true",
        help="leave out the repulsion of the nuclei below the distances of the training data",
    )
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Convert weights of another package; returns 0."""
    from tesseral.deploy.convert import write_converted

    output = Path(values["output"]) if values["output"] else kept_path(values["source"])
    with progress_line(console, "comparing with the original") as bar:
        deviation = write_converted(
            values["source"],
            output,
            intervals=values["intervals"],
            modality=values["modality"],
            short_range=not values["no_short_range"],
            progress=bar,
        )
    show_converted(console, output, deviation)
    return 0


def show_converted(console: Console, output: Path, deviation: Deviation) -> None:
    """Show how far a converted model agrees with the original, its licence, and its file."""
    from tesseral.deploy.modelfile import read_card

    training = read_card(output).training
    lines = [
        f"on {deviation.compared} crystals of all its elements it differs from the original by at "
        f"most {deviation.energy:.3f} meV/atom, {deviation.forces:.2f} meV/Å, "
        f"{deviation.stress:.4f} GPa",
    ]
    if deviation.too_close:
        lines.append(
            f"{deviation.too_close} more have atoms that are too close to compare, where it joins "
            "the repulsion of the nuclei (convert --no-short-range leaves it out)"
        )
    for name, text in (("licence", "licence of the weights"), ("citation", "cite")):
        if name in training:
            lines.append(f"{text}: {training[name]}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print_written(console, output)
