"""Train our potential and its peers on the same data, cores and time; test them alike.

    python -m benchmarks.accuracy [Si Mo Li … or RECIPE.yaml …] [--minutes M] [--threads 1]
        [--seeds 3] [--clock cpu] [--only tesseral,MACE] [--data FOLDER] [--output runs/accuracy]
        [--parallel 2] [-- OPTIONS OF train-potential fit]

See docs/measurements/accuracy.md. Tables and figures are written to the output folder. Finished
trainings are not repeated, unless --again is given. Peers take part if they are installed:
python -m benchmarks.peers install --only mace,nequip,sevenn.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from benchmarks.accuracy.process import Place, places
from benchmarks.accuracy.programs import Program
from benchmarks.accuracy.programs.mace import Mace
from benchmarks.accuracy.programs.nequip import Nequip
from benchmarks.accuracy.programs.ours import Ours, Taught
from benchmarks.accuracy.programs.sevennet import SevenNet
from benchmarks.accuracy.recipes import Recipe, all_recipes, read_recipe
from benchmarks.accuracy.results import (
    Job,
    find_results,
    folder_of,
    gather,
    wanted,
    write_result,
)
from benchmarks.accuracy.structures import Files, check_files, write_files
from benchmarks.accuracy.summary import write_summary
from benchmarks.accuracy.train import Setting, TrainingFailed, measure
from benchmarks.machine import machine
from benchmarks.peers.environments import Peers
from benchmarks.sheets import console

INSTALL = "python -m benchmarks.peers install --only mace,nequip,sevenn"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command-line options."""
    arguments = list(arguments)
    extra = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=(__doc__ or "").splitlines()[0],
        epilog="options of train-potential fit, for our training only, follow --",
    )
    known = list(all_recipes())
    parser.add_argument(
        "sets", nargs="*", metavar="SET", help=f"sets to train on: {', '.join(known)}. Default: all"
    )
    parser.add_argument(
        "--minutes", type=float, help="training time in minutes. Default: that of the recipe"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each training")
    parser.add_argument("--parallel", type=int, default=1, help="number of parallel trainings")
    parser.add_argument("--seeds", type=int, default=1, help="number of our trainings of a set")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="clock of our training time: wall, or cpu for the CPU time of the process",
    )
    parser.add_argument(
        "--teach",
        action="store_true",
        help="train with train-potential teach in place of fit; OPTIONS after -- are its own",
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="programs")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TESSERAL_DATA", "../shared/data"))
    )
    parser.add_argument("--envs", type=Path, default=Path("runs/peers"), help="environments")
    parser.add_argument("--output", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--again", action="store_true", help="repeat finished trainings")
    options = parser.parse_args(arguments[: len(arguments) - len(extra) - bool(extra)])
    options.extra = extra
    options.sets = options.sets or known
    if options.minutes is not None and not options.minutes > 0:
        parser.error(f"--minutes is {options.minutes}; it must be positive")
    for name in ("threads", "parallel", "seeds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be 1 or more")
    return options


def choose_recipes(sets: Sequence[str]) -> list[Recipe]:
    """The recipes with these names or in these files.

    Raises:
        ValueError: a name is unknown or used twice, or a file is not a recipe.
        FileNotFoundError: a file does not exist.
    """
    known = all_recipes()
    chosen: dict[str, Recipe] = {}
    for name in sets:
        if name not in known and not name.endswith(".yaml"):
            raise ValueError(f"there is no set {name}; there are {', '.join(known)}")
        recipe = known[name] if name in known else read_recipe(Path(name))
        if recipe.name in chosen:  # their results would share a folder
            raise ValueError(f"{recipe.name} is given twice; remove one of them")
        chosen[recipe.name] = recipe
    return list(chosen.values())


def choose_programs(
    peers: Peers, only: Sequence[str], terminal: Console, *, teach: bool = False
) -> list[Program]:
    """Our program and the installed peers, or the requested programs.

    Args:
        peers: environments of the peers.
        only: names of the requested programs; empty for all.
        terminal: console for messages.
        teach: whether ours is ``train-potential teach``.

    Raises:
        ValueError: a name is unknown, or a peer is not installed.
    """
    everyone: dict[str, tuple[Program, bool]] = {
        "tesseral": (Taught() if teach else Ours(), True),
        "MACE": (Mace(peers), peers.installed("mace")),
        "NequIP": (Nequip(peers), peers.installed("nequip")),
        "SevenNet": (SevenNet(peers), peers.installed("sevenn")),
    }
    for name in only:
        if name not in everyone:
            raise ValueError(f"there is no program {name}; there are {', '.join(everyone)}")
        if not everyone[name][1]:
            raise ValueError(f"{name} is not in {peers.folder}; run {INSTALL}")
    missing = [name for name, (_, installed) in everyone.items() if not installed]
    if missing and not only:
        terminal.print(
            f"without {', '.join(missing)}: not in {peers.folder}; run {INSTALL}", soft_wrap=True
        )
    return [
        program
        for name, (program, there) in everyone.items()
        if there and name in (only or everyone)
    ]


def train_all(
    missing: Sequence[Job],
    files: dict[str, Files],
    facts: dict[str, str],
    options: argparse.Namespace,
    terminal: Console,
) -> list[str]:
    """Run the trainings in parallel as requested; returns the failures."""
    free: queue.Queue[Place] = queue.Queue()
    everywhere = places(options.threads, options.parallel)
    for place in everywhere:
        free.put(place)

    def work(job: Job) -> str:
        place = free.get()
        try:
            train_one(job, files[job[0].name], options.output, facts, place, terminal)
        except (TrainingFailed, ValueError) as error:
            if not place.closed:
                terminal.print(f"{title(job)}: {error}", markup=False, soft_wrap=True)
            return f"{title(job)}: {str(error).splitlines()[0]}"
        finally:
            free.put(place)
        return ""

    pool = ThreadPoolExecutor(options.parallel)
    try:
        failures = [failure for failure in pool.map(work, missing) if failure]
    except BaseException:  # Ctrl-C: the threads wait for their processes
        pool.shutdown(wait=False, cancel_futures=True)
        for place in everywhere:
            place.close()
        raise
    pool.shutdown()
    return failures


def title(job: Job) -> str:
    """Name of a training in messages."""
    recipe, setting, program = job
    return f"{recipe.name} {program.name}" + f", seed {setting.seed}" * bool(setting.seed)


def train_one(
    job: Job,
    files: Files,
    output: Path,
    facts: dict[str, str],
    place: Place,
    terminal: Console,
) -> None:
    """Run one training and save its result.

    Raises:
        TrainingFailed: the training gave no model.
    """
    recipe, setting, program = job

    def show(text: str) -> None:
        terminal.print(f"{title(job)}: {text}", highlight=False, soft_wrap=True, markup=False)

    show(f"{setting.minutes:g} min on {setting.threads} thread{'s' * (setting.threads > 1)}")
    folder = folder_of(output, recipe, program.name, setting.seed)
    result = measure(program, recipe, files, folder, setting, place, show)
    write_result(folder, {**result, "wanted": wanted(recipe, setting, program), "machine": facts})
    show(f"done, {result['epochs']:.1f} epochs in {result['seconds']:.0f} s")


def run(options: argparse.Namespace, command: Sequence[str], terminal: Console) -> int:
    """Run the missing trainings, then write the tables and figures.

    Raises:
        FileNotFoundError: the data do not exist.
        ValueError: an option is invalid.
    """
    recipes = []
    for recipe in choose_recipes(options.sets):
        check_files(recipe, options.data)
        minutes = options.minutes or recipe.minutes
        for seed in range(options.seeds):
            setting = Setting(
                minutes=minutes,
                threads=options.threads,
                extra=options.extra,
                seed=seed,
                clock=options.clock,
            )
            recipes.append((recipe, setting))
    programs = choose_programs(
        Peers(options.envs, options.data), options.only, terminal, teach=options.teach
    )
    done, missing = find_results(options.output, recipes, programs, again=options.again)
    for job in done:
        folder = folder_of(options.output, job[0], job[2].name, job[1].seed)
        terminal.print(
            f"{title(job)}: trained already, see {folder}; --again repeats it", soft_wrap=True
        )
    files = {
        recipe.name: write_files(recipe, options.data, options.output / recipe.name / "data")
        for recipe in {recipe.name: recipe for recipe, _, _ in missing}.values()
    }
    failures = train_all(missing, files, machine(), options, terminal)
    known = all_recipes() | {recipe.name: recipe for recipe, _ in recipes}
    write_summary(gather(options.output, known.values()), known, options.output, command, terminal)
    for failure in failures:
        terminal.print(f"failed: {failure}", style="bold", markup=False, soft_wrap=True)
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0, or 1 if a training failed, or 2 if an option is invalid."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    terminal = console()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return run(options, ["python", "-m", "benchmarks.accuracy", *arguments], terminal)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"benchmarks.accuracy: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("benchmarks.accuracy: stopped; the same command resumes from here\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
