"""`train-potential relax` and `train-potential md`: many structures, one after the other."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from rich.console import Console
from rich.progress import Progress

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.ensembles import steps_of
from tesseral.calculators.simulations import dynamics, relaxation
from tesseral.calculators.simulations.dynamics import MdConfig, md_one
from tesseral.calculators.simulations.folder import FILES, SUMMARY, RunFolder
from tesseral.calculators.simulations.frames import with_suffix, write_frames
from tesseral.calculators.simulations.relaxation import Outcome, RelaxConfig, Show, relax_one
from tesseral.calculators.simulations.structures import Job, fingerprint, read_jobs
from tesseral.data.neighbors import species_index
from tesseral.deploy.universal import model_path
from tesseral.process import ctrl_c, finished, worker_pool
from tesseral.screen import Column, print_table, print_written, progress_bar

BEFORE = ("name", "file", "frame", "formula", "atoms")
AFTER = ("steps", "outcome", "reason")
FAILED = "failed"
SHOWN = 40  # structures on the screen; the summary has all
FREE = frozenset({"structures", "model", "output", "processes", "device"})  # change no result
RELAXED = "relaxed.extxyz"

Row = dict[str, str]  # of the summary, by column
Words = Callable[[str], str]
Task = tuple[Job, Path]  # a structure, and the start of its files


class Command(NamedTuple):
    """What distinguishes the two commands."""

    name: str
    one: Callable[[Atoms, Calculator, Any, Path, Show], Outcome]
    columns: Sequence[Column]  # of the summary, in the order of an Outcome's values
    length: str  # the option that may be raised later
    good: str  # outcome of a structure with which all is well


RELAX = Command("relax", relax_one, relaxation.COLUMNS, "steps", "converged")
MD = Command("md", md_one, dynamics.COLUMNS, "time", "done")


def relax_command(config: RelaxConfig, console: Console, words: Words = str) -> int:
    """Relax all structures.

    Args:
        config: what and how.
        console: shows progress and results.
        words: applied to the reasons that are shown, such as "`steps` was not enough"; a command
            turns names of arguments into its options.

    Returns:
        The exit status: 0, or 1 where a structure failed or did not converge.

    Raises:
        FileNotFoundError: no such structure file or model.
        ValueError: a model that cannot be used, or a folder that holds something else.
        KeyboardInterrupt: with what is done; another call resumes.
    """
    return _run(RELAX, config, config.steps, console, words)


def md_command(config: MdConfig, console: Console, words: Words = str) -> int:
    """Run the dynamics of all structures.

    Arguments, result and errors are those of `relax_command`; 1 is where a run failed.
    """
    return _run(MD, config, steps_of(config.time, config.timestep), console, words)


def _run(command: Command, config: Any, steps: int, console: Console, words: Words) -> int:
    """All structures that are not done yet, and the summary of all."""
    path = model_path(config.model)
    calculator = TesseralCalculator(path, device=config.device, dtype=config.dtype)
    jobs = read_jobs(config.structures, config.repeat)
    names = [job.name for job in jobs]
    columns = _columns(command)
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    del settings[command.length]
    identity = {
        "command": command.name,
        "settings": settings,
        "model": hashlib.sha256(path.read_bytes()).hexdigest(),
        "structures": {job.name: fingerprint(job) for job in jobs},
    }
    output = _output(command, config)
    with closing(RunFolder(output, json.loads(json.dumps(identity)), columns)) as folder:
        folder.keep([name for name, row in folder.rows.items() if _finished(row, steps)])
        try:
            _work(command, config, calculator, jobs, folder, console)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped by Ctrl-C after {len(folder.rows)} of {len(jobs)} structures"
            ) from None
        finally:
            folder.keep(names)
            if command is RELAX:
                _collect(folder, names)
        rows = [folder.rows[name] for name in names]
    _show(command, rows, console, words)
    written = [path for name in (SUMMARY, RELAXED, FILES) if (path := output / name).exists()]
    print_written(console, *written)
    return int(any(row["outcome"] != command.good for row in rows))


def _columns(command: Command) -> tuple[str, ...]:
    """Of the summary."""
    return (*BEFORE, *(column.name for column in command.columns), *AFTER)


def _output(command: Command, config: Any) -> Path:
    """The folder of the results."""
    if config.output is not None:
        return Path(config.output)
    alone = len(config.structures) == 1
    return Path(f"{Path(config.structures[0]).stem}-{command.name}" if alone else command.name)


def _finished(row: Mapping[str, str], steps: int) -> bool:
    """Whether there is nothing left to do for a structure; what has failed is tried again."""
    return row["outcome"] == RELAX.good or (row["outcome"] != FAILED and int(row["steps"]) >= steps)


def _work(
    command: Command,
    config: Any,
    calculator: TesseralCalculator,
    jobs: Sequence[Job],
    folder: RunFolder,
    console: Console,
) -> None:
    """Go through the structures that the folder has no row of."""
    todo = [(job, folder.prefix(job.name)) for job in jobs if job.name not in folder.rows]
    if len(todo) < len(jobs):
        console.print(f"{len(jobs) - len(todo)} of {len(jobs)} structures are done already")
    processes = min(config.processes, len(todo))
    with progress_bar(console) as progress, ctrl_c() as check:
        whole = progress.add_task("structures", total=len(jobs), completed=len(folder.rows))
        if processes > 1:
            rows = _side_by_side(command, config, calculator, todo, processes, check)
        else:
            rows = _one_by_one(command, config, calculator, todo, progress, check)
        for row in rows:
            folder.add(row)
            progress.update(whole, completed=len(folder.rows))
            if not console.is_terminal:  # where there is no bar, in a log, say
                count = f"{len(folder.rows)}/{len(jobs)}"
                console.print(f"{count} {row['name']}: {row['outcome']}", highlight=False)


def _one_by_one(
    command: Command,
    config: Any,
    calculator: TesseralCalculator,
    todo: Sequence[Task],
    progress: Progress,
    check: Callable[[], None],
) -> Iterator[Row]:
    """Rows of the structures; the bar below shows the steps of the current one."""
    current = progress.add_task("", total=None)
    for job, prefix in todo:

        def show(step: int, steps: int, text: str, name: str = job.name) -> None:
            progress.update(current, completed=step, total=steps, description=f"{name}, {text}")
            check()

        progress.reset(current, description=job.name)
        yield _row(command, config, calculator, job, prefix, show)
        check()
    progress.remove_task(current)


def _side_by_side(
    command: Command,
    config: Any,
    calculator: TesseralCalculator,
    todo: Sequence[Task],
    processes: int,
    check: Callable[[], None],
) -> Iterator[Row]:
    """Rows of the structures, as they are done, from several processes of one thread each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of their linear algebra
    try:
        with worker_pool(processes, _start_worker, (command, config, calculator)) as pool:
            for futures in finished([pool.submit(_worker_row, *task) for task in todo]):
                yield from (future.result() for future in futures)
                check()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process was killed, perhaps because memory ran out; run it again to "
            "resume, with fewer `processes` in less memory"
        ) from error


_worker: tuple[Command, Any, TesseralCalculator] | None = None  # set in worker processes alone


def _start_worker(command: Command, config: Any, calculator: TesseralCalculator) -> None:
    """Keep what all structures of this process have in common."""
    global _worker
    torch.set_num_threads(1)
    _worker = command, config, calculator


def _worker_row(job: Job, prefix: Path) -> Row:
    """The row of a structure, in a worker process."""
    assert _worker is not None
    return _row(*_worker, job, prefix, lambda step, steps, text: None)


def _row(
    command: Command,
    config: Any,
    calculator: TesseralCalculator,
    job: Job,
    prefix: Path,
    show: Show,
) -> Row:
    """The line of the summary for a structure, with what came of it."""
    row = dict.fromkeys(_columns(command), "")
    row |= {"name": job.name, "file": job.file, "frame": str(job.frame), "outcome": FAILED}
    if job.atoms is None:
        return row | {"reason": job.problem}
    row |= {"formula": job.atoms.get_chemical_formula(), "atoms": str(len(job.atoms))}
    try:
        species_index(job.atoms.numbers, calculator.card.elements)
        outcome = command.one(job.atoms, calculator, config, prefix, show)
    except OSError:  # a full disk, say, is not the structure's fault
        raise
    except Exception as error:  # one odd structure must not stop a thousand others
        kind = "" if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: "
        return row | {"reason": " ".join(f"{kind}{error}".split())}
    values = ["" if math.isnan(value) else f"{value:.9g}" for value in outcome.values]
    row |= zip((column.name for column in command.columns), values, strict=True)
    reason = "" if outcome.word == command.good else f"`{command.length}` was not enough"
    return row | {"steps": str(outcome.steps), "outcome": outcome.word, "reason": reason}


def _collect(folder: RunFolder, names: Sequence[str]) -> None:
    """All relaxed structures in one file, each with its name and where it came from."""
    found = []
    for name in names:
        row = folder.rows.get(name)
        if row is None or row["outcome"] == FAILED:
            continue
        path = with_suffix(folder.prefix(name), ".extxyz")
        atoms = ase.io.read(path, format="extxyz")  # named, since POSCAR.extxyz looks like VASP's
        assert isinstance(atoms, Atoms)
        atoms.info |= {"name": name, "file": row["file"], "frame": int(row["frame"])}
        found.append(atoms)
    if found:
        write_frames(folder.path / RELAXED, found)


def _show(
    command: Command, rows: Sequence[Mapping[str, str]], console: Console, words: Words
) -> None:
    """The summary on the screen; of many structures, those that want attention."""
    bad = [row for row in rows if row["outcome"] != command.good]
    shown = (rows if len(rows) <= SHOWN else bad)[:SHOWN]
    columns = [c for c in command.columns if c.title and any(row[c.name] for row in shown)]
    lines = []
    for row in shown:
        values = [f"{float(row[c.name]):.{c.decimals}f}" if row[c.name] else "–" for c in columns]
        ends = [row["steps"] or "–", row["outcome"]]
        lines.append([row["name"], row["formula"] or "–", row["atoms"] or "–", *values, *ends])
    if lines:
        heads = ("structure", "formula", "atoms", *(c.title for c in columns), "steps", "outcome")
        print_table(console, heads, lines)
    for row in bad[:SHOWN]:
        text = f"{row['name']} ({row['file']}, frame {row['frame']}): {words(row['reason'])}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(rows) - len(bad)} of {len(rows)} structures {command.good}")
