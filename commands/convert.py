"""``train-potential convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser
from tesseral.deploy.convert import releases, write_converted
from tesseral.deploy.sevennet.convert import INTERVALS
from tesseral.deploy.universal import universal_path
from tesseral.screen import print_written, progress_line


def parser() -> Parser:
    """Options of ``convert``."""
    made = Parser(usage="train-potential convert sevennet-0 [-o MODEL.safetensors] [options]")
    made.add_argument(
        "source", type=str, help=f"file with weights, or one of {', '.join(releases())}"
    )
    made.add_argument(
        "-o",
        "--output",
        type=str | None,
        help="model file to write. Default: the location used by --model universal",
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
        help="level of theory to keep, if the checkpoint has several",
    )
    made.add_argument(
        "--no-short-range",
        action="store_true",
        help="leave out the repulsion of the nuclei below the distances of the training data",
    )
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Convert weights of another package; returns 0."""
    output = Path(values["output"]) if values["output"] else universal_path()
    with progress_line(console, "comparing with the original") as bar:
        deviation = write_converted(
            values["source"],
            output,
            intervals=values["intervals"],
            modality=values["modality"],
            short_range=not values["no_short_range"],
            progress=bar,
        )
    console.print(
        f"on {deviation.compared} crystals of all its elements it differs from the original by at "
        f"most {deviation.energy:.3f} meV/atom, {deviation.forces:.2f} meV/Å, "
        f"{deviation.stress:.4f} GPa"
    )
    if deviation.too_close:
        console.print(
            f"{deviation.too_close} more have atoms that are too close to compare, where it joins "
            "the repulsion of the nuclei (--no-short-range leaves it out)"
        )
    print_written(console, output)
    return 0
