"""Comparison of converted potentials with the originals; docs/measurements/universal.md.

    python -m benchmarks.universal agreement|zero-shot|intervals|speed|relax|finetune
    python -m benchmarks.universal properties|dispersion
    python -m benchmarks.universal score FILE… --models MODEL… [--peers NAME…]
    python -m benchmarks.universal physics|times --models MODEL…
    python -m benchmarks.universal close|hot --models FILE…
    python -m benchmarks.universal nequix-agreement|nequix-intervals|nequix-speed|nequix-store
        [--model FILE] [--output runs/universal] [--envs runs/peers] [--data FOLDER]
        [--markdown FILE]

Predictions of the peers are saved in the output folder and not computed again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.machine import machine
from benchmarks.sheets import Sheet, console, report
from benchmarks.silicon import supercell
from benchmarks.universal import nequix
from benchmarks.universal.agreement import agreement_sheets
from benchmarks.universal.calculators import OPTIMIZERS
from benchmarks.universal.close import close_sheets
from benchmarks.universal.dispersion import dispersion_sheets
from benchmarks.universal.finetune import finetune_sheets
from benchmarks.universal.hot import hot_sheets
from benchmarks.universal.intervals import interval_sheets
from benchmarks.universal.physics import physics_sheets
from benchmarks.universal.properties import properties_sheets
from benchmarks.universal.relax import relax_sheets
from benchmarks.universal.score import score_sheets
from benchmarks.universal.speed import SIZES, model_sheets, speed_sheets
from benchmarks.universal.zero_shot import zero_shot_sheets

Part = Callable[[argparse.Namespace, Console], list[Sheet]]
PARTS: dict[str, tuple[Part, str]] = {
    "agreement": (agreement_sheets, "differences from the original on 200 structures"),
    "zero-shot": (zero_shot_sheets, "errors of both against DFT, mlearn test sets"),
    "intervals": (interval_sheets, "errors and weights against the number of spline intervals"),
    "speed": (speed_sheets, "time and memory of a step compared with the original"),
    "relax": (relax_sheets, "50 perturbed crystals relaxed by several potentials"),
    "dispersion": (dispersion_sheets, "crystals with and without D3(BJ), programs, time"),
    "close": (close_sheets, "forces of close atoms with and without the nuclear repulsion"),
    "hot": (hot_sheets, "MD of random oxides at 2000 K"),
    "finetune": (finetune_sheets, "20 silicon structures, fine-tuned and from scratch"),
    "properties": (properties_sheets, "properties of ten materials, beside matcalc"),
    "score": (score_sheets, "errors of models and peers against labelled structures"),
    "physics": (physics_sheets, "properties of 50 crystals against PBE and experiment"),
    "times": (model_sheets, "time of a step of several models"),
    "nequix-agreement": (nequix.agreement_sheets, "converted Nequix and Nequix, 200 structures"),
    "nequix-intervals": (nequix.interval_sheets, "the same against the number of intervals"),
    "nequix-speed": (nequix.speed_sheets, "time of a step compared with Nequix"),
    "nequix-store": (nequix.store_sheets, "write the predictions stored in deploy/nequix"),
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.universal", description=(__doc__ or "").splitlines()[0]
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--model", type=Path, help="converted model (OUTPUT/sevennet-0.safetensors)"
    )
    shared.add_argument("--output", type=Path, default=Path("runs/universal"))
    shared.add_argument("--envs", type=Path, default=Path("runs/peers"))
    shared.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TESSERAL_DATA", "../shared/data"))
    )
    shared.add_argument("--markdown", type=Path, help="file to write the tables to")
    commands = parser.add_subparsers(dest="part", required=True)
    made = {
        name: commands.add_parser(name, parents=[shared], help=what, description=what)
        for name, (_, what) in PARTS.items()
    }
    made["intervals"].add_argument("--fine", type=Path, help="model converted with 600 intervals")
    made["properties"].add_argument("--only", nargs="+", help="names of materials")
    made["dispersion"].add_argument("--models", type=Path, nargs="+", help="instead of --model")
    tuning = made["finetune"]
    tuning.add_argument("--minutes", type=float, default=5.0, help="time of each training")
    tuning.add_argument(
        "--rates", type=_rates, default=[0.004, 0.002], help="learning rates, such as 0.001,0.002"
    )
    for name, part in made.items():
        if name.startswith("nequix"):
            part.add_argument("--weights", type=Path, help=".nqx (DATA/nequix/nequix-oam-1-pft)")
            part.add_argument("--edges", type=int, default=1024, help="of a structure, at most")
    made["nequix-agreement"].add_argument("--float64", action="store_true", help="in float64 too")
    for name in ("score", "physics", "times", "close", "hot", "relax"):
        made[name].add_argument("--models", nargs="*", default=[], help="files, or names")
    score = made["score"]
    score.add_argument("files", nargs="+", type=Path, help="labelled structures")
    score.add_argument("--peers", nargs="*", default=[], choices=("sevennet", "chgnet", "nequix"))
    score.add_argument("--weights", type=Path, help="file of the peer nequix")
    score.add_argument("--number", type=int, default=200, help="structures of a file, at most")
    score.add_argument("--kinds", action="store_true", help="a table by kind of structure too")
    made["physics"].add_argument("--number", type=int, default=50, help="crystals out of the 50")
    speed, relax, nequix_speed = made["speed"], made["relax"], made["nequix-speed"]
    times = made["times"]
    for one, sizes in ((speed, SIZES), (nequix_speed, nequix.SIZES), (times, (216,))):
        one.add_argument("--sizes", type=_sizes, default=list(sizes), help="numbers of atoms")
        one.add_argument("--rounds", type=int, default=3)
    for one in (speed, nequix_speed, times, relax):
        one.add_argument("--seconds", type=float, default=0.5, help="duration of each burst")
    close, hot = made["close"], made["hot"]
    close.add_argument("--number", type=int, default=1000, help="structures")
    hot.add_argument("--number", type=int, default=50, help="oxides")
    hot.add_argument("--time", type=float, default=2.0, help="ps")
    relax.add_argument("--number", type=int, default=50, help="crystals out of the 50")
    relax.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="BFGS")
    programs = ("sevennet", "chgnet", "mace")
    relax.add_argument("--peers", nargs="*", default=programs, choices=programs)
    relax.add_argument("--fmax", type=float, default=0.02, help="maximum force in eV/Å")
    relax.add_argument("--steps", type=int, default=300, help="maximum number of steps")
    options = parser.parse_args(arguments)
    for name in ("rounds", "number", "fmax", "steps", "minutes"):
        if not getattr(options, name, 1) > 0:
            parser.error(f"--{name} is {getattr(options, name)}; it must be positive")
    if options.part in ("close", "hot") and not options.models:
        parser.error(f"{options.part} needs --models")
    return options


def _rates(text: str) -> list[float]:
    """Learning rates.

    Raises:
        ArgumentTypeError: a rate is not a positive number.
    """
    try:
        rates = [float(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if min(rates) <= 0:
        raise argparse.ArgumentTypeError(f"{text}: rates must be positive")
    return rates


def _sizes(text: str) -> list[int]:
    """Numbers of atoms that fill a cube.

    Raises:
        ArgumentTypeError: a number does not fill a cube.
    """
    try:
        sizes = [int(word) for word in text.split(",")]
        for size in sizes:
            supercell(size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return sizes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0, or 2 if an option is invalid."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    terminal = console()
    command = ["python", "-m", "benchmarks.universal", *arguments]
    facts = machine()
    try:
        sheets = PARTS[options.part][0](options, terminal)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.stderr.write(f"benchmarks.universal: {error}\n")
        return 2
    markdown = options.markdown or options.output / f"{options.part}.md"
    report(sheets, facts, command, terminal, markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
