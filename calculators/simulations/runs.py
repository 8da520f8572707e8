"""Relaxations, molecular dynamics, properties and paths of many structures, in a folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ase.calculators.calculator import Calculator

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.ensembles import steps_of
from tesseral.calculators.properties.relaxing_together import STRUCTURES
from tesseral.calculators.simulations import band, dynamics, properties, relaxation
from tesseral.calculators.simulations.band import neb_one
from tesseral.calculators.simulations.config import (
    MdConfig,
    NebConfig,
    PropertiesConfig,
    RelaxConfig,
)
from tesseral.calculators.simulations.dynamics import md_one
from tesseral.calculators.simulations.folder import FILES, SUMMARY, RunFolder, same_run
from tesseral.calculators.simulations.frames import with_suffix, write_frames
from tesseral.calculators.simulations.properties import properties_one
from tesseral.calculators.simulations.relaxation import (
    Outcome,
    Show,
    can_join,
    relax_one,
    relax_together,
    theory_of,
)
from tesseral.calculators.simulations.structures import Job, fingerprint, read_jobs, read_pairs
from tesseral.data.boundaries import is_cut_out
from tesseral.data.neighbors import species_index
from tesseral.data.sources.opening import read_last_frame
from tesseral.deploy.universal import model_path
from tesseral.executors import side_by_side

BEFORE = ("name", "file", "frame", "formula", "atoms", "theory")
AFTER = ("steps", "outcome", "reason")
FAILED = "failed"
FREE = frozenset(
    {"structures", "model", "output", "processes", "executor", "device"}
)  # no effect on results
RELAXED = "relaxed.extxyz"
MANY_WORKERS = 64  # that an executor is taken to have

Row = dict[str, str]  # row of the summary by column
Task = tuple[Job, Path]  # a structure, and the prefix of its files


class Progress(NamedTuple):
    """State of a run."""

    done: int  # structures with a result
    total: int
    name: str = ""  # structure in progress, or just finished
    step: int = 0  # step of this structure
    steps: int | None = None  # maximum number of steps; None before the first
    text: str = ""  # description of the step
    outcome: str = ""  # outcome of the structure just finished


class RunResult(NamedTuple):
    """Results of many structures."""

    rows: list[Row]  # rows of the summary by column, as text; empty if unknown
    good: str  # outcome of a successful structure: converged, or done
    written: list[Path]  # summary, relaxed structures, folder of trajectories and tables
    cut_out: tuple[str, ...] = ()  # names of crystals without periodic directions, see `is_cut_out`

    @property
    def bad(self) -> list[Row]:
        """Rows of structures that failed or did not converge; ``reason`` gives the cause."""
        return [row for row in self.rows if row["outcome"] != self.good]


def _read(config: Any) -> list[Job]:
    """Structures of a configuration."""
    return read_jobs(config.structures, getattr(config, "repeat", (1, 1, 1)))


def _read_pairs(config: NebConfig) -> list[Job]:
    """Pairs of structures of a configuration."""
    return read_pairs(config.start, config.end)


class Kind(NamedTuple):
    """The differences between the kinds of runs."""

    name: str
    one: Callable[[Any, Calculator, Any, Path, Show], Outcome]  # of a structure, or of two ends
    columns: Sequence[str]  # columns of the summary, in the order of the values of an Outcome
    good: str  # outcome of a successful structure
    length: str = ""  # option that can be increased later
    free: frozenset[str] = frozenset()  # other options that may change
    read: Callable[[Any], list[Job]] = _read


RELAX = Kind("relax", relax_one, relaxation.COLUMNS, "converged", "steps")
MD = Kind(
    "md",
    md_one,
    dynamics.COLUMNS,
    "done",
    "time",
    frozenset({"stop_uncertainty", "no_stop_uncertainty"}),
)
PROPERTIES = Kind(  # each property is saved with the options that it depends on
    "properties",
    properties_one,
    properties.COLUMNS,
    "done",
    free=frozenset({"compute", "length", "miller", "thickness", "reservoirs"}),
)
NEB = Kind(
    "neb",
    neb_one,
    band.COLUMNS,
    "converged",
    "steps",
    free=frozenset({"start", "end"}),
    read=_read_pairs,
)


def relax_structures(
    config: RelaxConfig, show: Callable[[Progress], None] | None = None
) -> RunResult:
    """Relax many structures, and save each result in a folder as soon as it is complete.

    A call with the same configuration resumes an interrupted or killed run.

    Args:
        config: structures, model, and options of the relaxation.
        show: called at the start, with each step, and after each structure; with several
            processes, every half second instead of each step. Exceptions that it raises end the
            run.

    Returns:
        The summary and the written paths. A structure that cannot be relaxed does not stop the
        others: its row has the outcome ``failed`` and a reason.

    Raises:
        FileNotFoundError: a structure file or the model does not exist.
        ValueError: the model cannot be used, or the folder has other contents.
        ChildProcessError: one of several processes, or a worker of the executor, was killed.
        OSError: a file cannot be written; the same call resumes the run.
        KeyboardInterrupt: states the progress; the same call resumes the run.
    """
    return _run(RELAX, config, config.steps, show)


def run_dynamics(config: MdConfig, show: Callable[[Progress], None] | None = None) -> RunResult:
    """Run the molecular dynamics of many structures.

    Arguments, return value and errors are those of `relax_structures`.
    """
    return _run(MD, config, steps_of(config.time, config.timestep), show)


def compute_properties(
    config: PropertiesConfig, show: Callable[[Progress], None] | None = None
) -> RunResult:
    """Relax many structures, and compute their properties.

    Arguments, return value and errors are those of `relax_structures`.
    """
    return _run(PROPERTIES, config, None, show)


def compute_barriers(
    config: NebConfig, show: Callable[[Progress], None] | None = None
) -> RunResult:
    """Find the minimum-energy paths between pairs of structures, with their barriers.

    Arguments, return value and errors are those of `relax_structures`; a row belongs to a pair.
    """
    return _run(NEB, config, config.steps, show)


def _run(
    kind: Kind,
    config: Any,
    steps: int | None,
    show: Callable[[Progress], None] | None,
) -> RunResult:
    """Run the unfinished structures, and summarise all of them."""
    path = model_path(config.model)
    calculator = TesseralCalculator(
        path,
        device=config.device,
        dtype=config.dtype,
        level=config.level,
        dispersion=config.dispersion,
        dispersion_cutoff=config.dispersion_cutoff,
    )
    if calculator.dispersion is not None:  # the functional of the model is the same as by name
        config = replace(config, dispersion=calculator.dispersion.functional)
    jobs = kind.read(config)
    names = [job.name for job in jobs]
    free = FREE | kind.free | {kind.length}
    if getattr(config, "final_temperature", None) is not None:
        free -= {kind.length}  # a longer ramp is another one
    settings = {name: value for name, value in asdict(config).items() if name not in free}
    identity = {
        "command": kind.name,
        "settings": settings,
        "model": hashlib.sha256(path.read_bytes()).hexdigest(),
        "structures": {job.name: fingerprint(job) for job in jobs},
    }
    identity = json.loads(json.dumps(identity))
    identity |= {
        "model_file": path.name,
        "level_of_theory": calculator.theory,
    }  # to read, not compared
    output = Path(config.output) if config.output is not None else _output(kind, config, identity)
    with closing(RunFolder(output, identity, _columns(kind))) as folder:
        if steps is None:  # what is known of each structure is read from its files
            folder.keep([])
        else:
            folder.keep([name for name, row in folder.rows.items() if _finished(row, steps)])
        try:
            _work(kind, config, calculator, jobs, folder, show or _silent)
        except BaseException as error:
            with suppress(OSError):  # the disk may be full
                _summarise(kind, folder, names)
            done = f"{len(folder.rows)} of {len(jobs)} structures"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(f"stopped by Ctrl-C after {done}") from None
            if isinstance(error, OSError) and not isinstance(error, ChildProcessError):
                raise type(error)(
                    f"{error}; {done} have results, run it again to resume"
                ) from error
            raise
        _summarise(kind, folder, names)
        rows = [folder.rows[name] for name in names]
    written = [output / name for name in (SUMMARY, RELAXED, FILES) if (output / name).exists()]
    return RunResult(rows, kind.good, written, tuple(filter(None, map(_cut_out, jobs))))


def _cut_out(job: Job) -> str:
    """Name of a structure that seems to have lost its periodic directions; empty otherwise."""
    atoms = job.atoms
    if atoms is None or not is_cut_out(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        return ""
    return job.name


def _silent(state: Progress) -> None:
    """Show nothing."""


def _columns(kind: Kind) -> tuple[str, ...]:
    """Columns of the summary."""
    return (*BEFORE, *kind.columns, *AFTER)


def _output(kind: Kind, config: Any, identity: Mapping[str, Any]) -> Path:
    """The default folder: the first that is free or holds the results of these structures."""
    alone = len(config.structures) == 1
    name = f"{Path(config.structures[0]).stem}-{kind.name}" if alone else kind.name
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(path for path in map(Path, names) if not path.exists() or same_run(path, identity))


def _finished(row: Mapping[str, str], steps: int) -> bool:
    """Whether a structure is finished; failed structures are tried again."""
    return row["outcome"] == RELAX.good or (row["outcome"] != FAILED and int(row["steps"]) >= steps)


def _work(
    kind: Kind,
    config: Any,
    calculator: TesseralCalculator,
    jobs: Sequence[Job],
    folder: RunFolder,
    show: Callable[[Progress], None],
) -> None:
    """Run the structures without a row in the folder."""
    todo = [
        (job, folder.prefix(job.name).absolute()) for job in jobs if job.name not in folder.rows
    ]
    processes = min(config.processes, len(todo))
    elsewhere = config.executor is not None and todo
    total = len(jobs)

    def tell(name: str = "", step: int = 0, steps: int | None = None, text: str = "") -> None:
        show(Progress(len(folder.rows), total, name, step, steps, text))

    tell()
    if processes > 1 or elsewhere:
        rows = _side_by_side(kind, config, calculator, todo, processes, tell)
    else:
        rows = _one_by_one(kind, config, calculator, todo, tell)
    for row in rows:
        folder.add(row)
        show(Progress(len(folder.rows), total, row["name"], outcome=row["outcome"]))


def _one_by_one(
    kind: Kind,
    config: Any,
    calculator: TesseralCalculator,
    todo: Sequence[Task],
    tell: Callable[..., None],
) -> Iterator[Row]:
    """Rows of the structures; reports each step."""
    alone = list(todo)
    if kind is RELAX:
        joined = [each for each in todo if _joins(*each, calculator, config)]
        if len(joined) > 1:
            names = {job.name for job, _ in joined}
            alone = [each for each in todo if each[0].name not in names]
            yield from _together(config, calculator, joined, tell)
    for job, prefix in alone:
        tell(job.name)
        yield _row(kind, config, calculator, job, prefix, partial(tell, job.name))


def _joins(job: Job, prefix: Path, calculator: TesseralCalculator, config: RelaxConfig) -> bool:
    """Whether a structure can be relaxed together with others."""
    if job.atoms is None or not set(job.atoms.numbers) <= set(calculator.card.elements):
        return False
    return can_join(job.atoms, calculator, config, prefix)


def _together(
    config: RelaxConfig,
    calculator: TesseralCalculator,
    todo: Sequence[Task],
    tell: Callable[..., None],
) -> Iterator[Row]:
    """Rows of structures that are relaxed together, as they finish; reports each step."""
    structures = (
        (job.atoms, prefix, partial(tell, job.name))
        for job, prefix in todo
        if job.atoms is not None
    )
    for number, end in relax_together(structures, calculator, config):
        yield _result(RELAX, calculator, todo[number][0], end)


def _side_by_side(
    kind: Kind,
    config: Any,
    calculator: TesseralCalculator,
    todo: Sequence[Task],
    processes: int,
    tell: Callable[..., None],
) -> Iterator[Row]:
    """Rows of the structures, as they finish, from single-threaded processes."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for linear algebra libraries
    some = partial(_worker_rows, kind, *_for_workers(config, calculator))
    groups = [(group,) for group in _groups(kind, config, calculator, todo, processes)]
    with closing(side_by_side(some, groups, config.executor, processes)) as found:
        for results in found:
            yield from (row for _, rows in results for row in rows)
            tell()


def _groups(
    kind: Kind,
    config: Any,
    calculator: TesseralCalculator,
    todo: Sequence[Task],
    processes: int,
) -> list[list[Task]]:
    """Tasks of workers: one structure, or some that are relaxed together."""
    workers = processes if config.executor is None else MANY_WORKERS
    most = max(1, min(STRUCTURES // 2, len(todo) // (4 * workers)))  # so that all end together
    groups: list[list[Task]] = []
    joining: list[Task] = []
    for job, prefix in todo:
        if kind is RELAX and most > 1 and _joins(job, prefix, calculator, config):
            joining.append((job, prefix))
        else:
            groups.append([(job, prefix)])
    return groups + [joining[k : k + most] for k in range(0, len(joining), most)]


def _for_workers(config: Any, calculator: TesseralCalculator) -> tuple[Any, Mapping[str, Any]]:
    """Options that each task needs, and how a worker loads the model."""
    if any(each.name == "structures" for each in fields(config)):
        config = replace(config, structures=[])  # thousands, in every task
    if isinstance(config, PropertiesConfig):  # a worker may have another working folder
        files = [str(Path(file).absolute()) for file in config.reservoirs]
        config = replace(config, reservoirs=files)
    given = calculator.dispersion
    return config, {
        "path": str(model_path(config.model).absolute()),
        "device": config.device,
        "dtype": config.dtype,
        "level": config.level,
        "dispersion": None if given is None else config.dispersion,
        "dispersion_cutoff": config.dispersion_cutoff,
    }


class _Loaded(threading.local):
    """Calculator of a worker, which is kept for its next task; each thread has its own."""

    arguments: Mapping[str, Any] | None = None
    calculator: TesseralCalculator


_loaded = _Loaded()  # used in workers only


def _worker_rows(
    kind: Kind, config: Any, arguments: Mapping[str, Any], group: Sequence[Task]
) -> list[Row]:
    """The rows of some structures, in a worker."""
    if _loaded.arguments != arguments:
        torch.set_num_threads(1)
        _loaded.calculator = TesseralCalculator(**arguments)
        _loaded.arguments = arguments
    return list(_one_by_one(kind, config, _loaded.calculator, group, lambda *about: None))


def _row(
    kind: Kind,
    config: Any,
    calculator: TesseralCalculator,
    job: Job,
    prefix: Path,
    show: Show,
) -> Row:
    """The row of the summary for a structure, with its outcome."""
    if job.atoms is None:
        return _result(kind, calculator, job, ValueError(job.problem))
    try:
        species_index(job.atoms.numbers, calculator.card.elements)
        subject = job.atoms if job.end is None else (job.atoms, job.end)
        end: Outcome | Exception = kind.one(subject, calculator, config, prefix, show)
    except OSError:  # not caused by the structure (a full disk, for example)
        raise
    except Exception as error:  # one bad structure must not stop the others
        end = error
    return _result(kind, calculator, job, end)


def _result(kind: Kind, calculator: Calculator, job: Job, end: Outcome | Exception) -> Row:
    """The row of the summary for a structure with this outcome or error."""
    row = dict.fromkeys(_columns(kind), "")
    row |= {"name": job.name, "file": job.file, "frame": str(job.frame), "outcome": FAILED}
    if job.atoms is not None:
        row |= {"formula": job.atoms.get_chemical_formula(), "atoms": str(len(job.atoms))}
        row["theory"] = theory_of(calculator)
    if isinstance(end, Exception):
        what = "" if isinstance(end, ValueError | RuntimeError) else f"{type(end).__name__}: "
        return row | {"reason": " ".join(f"{what}{end}".split())}
    row |= {name: _text(value) for name, value in end.values.items()}
    reason = end.reason
    if not reason and end.word != kind.good:
        reason = f"`{kind.length}` was not enough"
    return row | {"steps": str(end.steps), "outcome": end.word, "reason": reason}


def _text(value: float | str) -> str:
    """A value of the summary; nothing for NaN."""
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.9g}"


def _summarise(kind: Kind, folder: RunFolder, names: Sequence[str]) -> None:
    """Write the summary in the order of the names, and the relaxed structures."""
    folder.keep(names)
    if kind is RELAX:
        _collect(folder, names)


def _collect(folder: RunFolder, names: Sequence[str]) -> None:
    """Write all relaxed structures to one file, each with its name and source."""
    found = []
    for name in names:
        row = folder.rows.get(name)
        if row is None or row["outcome"] == FAILED:
            continue
        path = with_suffix(folder.prefix(name), ".extxyz")
        atoms = read_last_frame(path)
        atoms.info |= {"name": name, "file": row["file"], "frame": int(row["frame"])}
        if row["theory"]:
            atoms.info["theory"] = row["theory"]
        found.append(atoms)
    if found:
        write_frames(folder.path / RELAXED, found)
