"""Distillation: a fast potential of a material, learned from a universal one.

The teacher relaxes the structures and runs molecular dynamics of supercells. Its energies, forces
and stresses on the way are labels at no cost. A first model is trained on them and on strained
cells. Then `learn` takes over: the student, which is much faster, explores; the teacher labels what
the student does not know. The test set comes from dynamics of the teacher that nobody learns.

Everything is planned by the time that one step of the teacher takes. The files of the folder are
the state; each is written whole, and what exists is not made again.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from rich.console import Console

from tesseral.calculators.mean import MeanCalculator
from tesseral.calculators.properties.atoms import is_bulk, repeated
from tesseral.calculators.properties.dynamics import Unstable, simulate
from tesseral.calculators.properties.ensembles import SOON, langevin, start
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.calculators.simulations.folder import lock_folder
from tesseral.calculators.simulations.frames import write_frames
from tesseral.calculators.simulations.structures import read_jobs
from tesseral.data.sources.opening import read_frames
from tesseral.data.store.merge import merge_stores
from tesseral.data.store.write import write_store
from tesseral.data.structures import Structure
from tesseral.deploy.export import export_model
from tesseral.deploy.modelfile import read_card
from tesseral.deploy.universal import model_path
from tesseral.files import check_writable, make_folder, write_json, write_whole
from tesseral.learning.comparison import compare
from tesseral.learning.config import ExploreConfig, LabelConfig, LearnConfig, RoundFitConfig
from tesseral.learning.distill_config import DistillConfig
from tesseral.learning.explore import distorted
from tesseral.learning.label import finite_label
from tesseral.learning.rounds import Learned, learn
from tesseral.learning.settings import (
    keep_settings,
    model_with_content,
    seconds_of_a_step,
    shipped,
    structures_with_content,
)
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.config import PotentialConfig
from tesseral.process import ctrl_c
from tesseral.screen import Show, progress_line
from tesseral.training.config import LossConfig, OptimizationConfig, TrainerConfig
from tesseral.training.duration import parse_duration

PLAN, RELAXED, SUPERCELLS = "plan.json", "relaxed.extxyz", "supercells.extxyz"
SETTINGS = "distill.json"
TAUGHT, TEST, RESULT = "taught.h5", "test.h5", "distilled.json"
MODEL, EXPORT, LEARNED = "model.safetensors", "model.pt", "learn"
# Parts of the time; what is left is for the relaxation, the uncertainties and the comparison.
TEACHING, TESTING, EXPLORING, SHORT, LONG = 0.2, 0.03, 0.1, 0.08, 0.4
ROUNDS = 3  # of training: on the dynamics of the teacher, and twice on those of the student
SCALES = (1.0, 0.97, 1.03)  # of the lengths of the cells of bulk matter in dynamics
MOST_FRAMES, MOST_TESTS = 600, 60
USUAL = 60  # atoms of the cells that the numbers of structures are meant for; molecules have fewer
COPIES = 60  # strained and rattled, of each cell
RATTLE = 0.15  # Å, largest root mean square displacement of the copies
# Copies of the relaxed cells near the minimum, for elastic constants: stresses in dynamics are so
# much larger that errors at small strains hardly matter to the loss. They are counted in batches of
# the training, each of which has many small cells, but a single supercell of the dynamics.
NEAR, NEAR_STRAIN, NEAR_RATTLE = 150, 0.03, 0.03
STRESS = 10.0  # weight in the loss, for the same reason
BATCH = 8  # largest number of structures in a batch of the trainings
WARMUP = 0.1  # of a training; a hundredth of the few steps of a short one is none
SETTLED = 0.2  # ps before the first frame of the test
LABELS = 60  # structures of USUAL atoms in each round of the student


class Plan(NamedTuple):
    """How the time is spent; fixed when a distillation begins."""

    seconds: float  # in all
    step: float  # seconds that the teacher needs for one supercell
    runs: int  # of the teacher's dynamics, for each supercell
    steps: int  # of each
    every: int  # steps between frames that are learned
    test_steps: int
    labels: int  # in each round of the student
    explore: float  # ps, of each of its runs
    short: float  # seconds of each training but the last
    long: float  # seconds of the last training

    def lines(self, cells: Sequence[Atoms], timestep: float) -> list[str]:
        """The plan in words."""
        atoms = sum(map(len, cells))
        length = self.steps * timestep / 1000
        frames = self.runs * len(cells) * (self.steps // self.every)
        rounds = ROUNDS - 1
        many = "s" if len(cells) > 1 else ""
        return [
            f"{len(cells)} supercell{many} with {atoms} atoms; the teacher needs "
            f"{1e6 * self.step * len(cells) / atoms:.0f} µs/atom",
            f"dynamics of the teacher: {self.runs * len(cells)} runs of {length:.2g} ps, about "
            f"{frames} labels; {self.test_steps * timestep / 1000:.2g} ps for the test",
            f"dynamics of the student: {rounds} rounds of {self.explore:.2g} ps for each "
            f"temperature, {self.labels} labels in each",
            f"trainings: {rounds} of {self.short:.0f} s and one of {self.long:.0f} s",
        ]


class Distilled(NamedTuple):
    """Result of a distillation."""

    model: Path
    export: Path
    test: Path
    result: dict[str, Any] | None  # see `compare`; None if it was stopped
    signal: int | None = None  # that stopped a training


def distill(config: DistillConfig, console: Console | None = None) -> Distilled:
    """Learn a teacher's potential of a material; the same call resumes after an interruption.

    Args:
        config: structures, teacher and options.
        console: console for progress and results; silent if None.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a structure cannot be read, the teacher does not know an element, or the folder
            has other results.
        KeyboardInterrupt: after Ctrl-C.
    """
    folder = config.folder
    check_writable(folder)
    models = [model_path(name).absolute() for name in config.teachers]
    teacher = MeanCalculator(models, device=config.device)
    given = _structures(config, teacher)
    _check_start(config, given)

    make_folder(folder)
    with closing(lock_folder(folder)):
        keep_settings(folder / SETTINGS, _settings(config))
        with progress_line(console) as bar:
            cells = _supercells(given, teacher, config, bar)
            plan = _plan(cells, teacher, config)
        if console is not None:
            for line in plan.lines(cells, _timestep(config, cells)):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        with progress_line(console) as bar, ctrl_c() as stop:
            _teach(cells, teacher, config, plan, bar, stop)
            _make_test(cells, teacher, config, plan, bar, stop)
        learned = _learn(config, plan, models, teacher, console)
        model, export = folder / MODEL, folder / EXPORT
        if learned.signal is not None:
            return Distilled(learned.model, export, folder / TEST, None, learned.signal)
        with write_whole(model) as temporary:
            shutil.copyfile(learned.model, temporary)
        export_model(model, export)
        with progress_line(console) as bar:
            bar(0, 1, "comparing with the teacher")
            small = list(read_frames(folder / RELAXED))
            device = str(teacher.device)
            result = compare(model, models, small, cells, folder / TEST, device)
        result["plan"] = plan._asdict()
        write_json(folder / RESULT, result, indent=1)
        return Distilled(model, export, folder / TEST, result)


def _structures(config: DistillConfig, teacher: MeanCalculator) -> list[Atoms]:
    """The start structures, with the teacher's calculator.

    Raises:
        ValueError: one cannot be read, or has an element that the teacher does not know.
    """
    found = []
    for job in read_jobs(config.structures):
        atoms = job.structure()
        for name, model in zip(config.teachers, teacher.members, strict=True):
            unknown = set(atoms.numbers.tolist()) - set(model.card.elements)
            if unknown:
                symbols = sorted({a.symbol for a in atoms if a.number in unknown})
                raise ValueError(f"the teacher, {name}, does not know {', '.join(symbols)}")
        atoms.set_constraint()
        atoms.calc = teacher
        atoms.info = {"name": job.name}
        found.append(atoms)
    return found


def _check_start(config: DistillConfig, given: Sequence[Atoms]) -> None:
    """Check the model from which the student starts, before the teacher begins.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it does not know an element of the structures.
    """
    if config.init_from is None:
        return
    known = set(read_card(model_path(config.init_from)).elements)
    symbols = sorted({a.symbol for atoms in given for a in atoms if a.number not in known})
    if symbols:
        raise ValueError(
            f"`init_from` {config.init_from} does not know {', '.join(symbols)}; give a model of "
            "the same material, or leave it out"
        )


def _settings(config: DistillConfig) -> dict[str, Any]:
    """All that determines the results."""
    settings = {**asdict(config), "output": None, "device": None}
    settings["teacher"] = ", ".join(map(model_with_content, config.teachers))
    settings["structures"] = structures_with_content(config.structures)
    if config.init_from is not None:
        settings["init_from"] = model_with_content(config.init_from)
    return settings


def _timestep(config: DistillConfig, cells: Sequence[Atoms]) -> float:
    """Time step, fs."""
    light = any(1 in atoms.numbers for atoms in cells)
    return config.timestep or (1.0 if light else 2.0)


def _supercells(
    given: Sequence[Atoms], teacher: MeanCalculator, config: DistillConfig, bar: Show
) -> list[Atoms]:
    """Supercells of the relaxed structures, and those with vacancies, with the calculator."""
    path = config.folder / SUPERCELLS
    if not path.exists():
        small, large = [], []
        for number, atoms in enumerate(given):
            bar(number, len(given), f"relaxing {atoms.info['name']}")
            found = relaxed(atoms, fmax=0.01, steps=200).atoms
            found.info = dict(atoms.info)
            small.append(found)
            cell = repeated(found, config.atoms) if is_bulk(found) else found
            cell.info = dict(atoms.info)
            large.append(cell)
            symbols = cell.get_chemical_symbols()
            for symbol in dict.fromkeys(symbols) if config.vacancies else ():
                defect = cell.copy()
                del defect[symbols.index(symbol)]
                defect.info["name"] = f"{atoms.info['name']}-without-{symbol}"
                large.append(defect)
        write_frames(config.folder / RELAXED, _bare(small))
        write_frames(path, _bare(large))
    cells = list(read_frames(path))
    for atoms in cells:
        atoms.calc = teacher
    return cells


def _bare(structures: Sequence[Atoms]) -> Iterator[Atoms]:
    """Copies without calculator."""
    for atoms in structures:
        copy = atoms.copy()
        copy.info = dict(atoms.info)
        yield copy


def _plan(cells: Sequence[Atoms], teacher: MeanCalculator, config: DistillConfig) -> Plan:
    """The plan in the folder, or one by the speed of the teacher."""
    path = config.folder / PLAN
    if path.exists():
        return Plan(**json.loads(path.read_text("utf-8")))
    seconds = parse_duration(config.time)
    clock = time.process_time if config.clock == "cpu" else time.perf_counter
    step = float(np.mean([seconds_of_a_step(atoms, teacher, clock) for atoms in cells]))
    runs = 3 * (len(SCALES) if any(map(is_bulk, cells)) else 1)
    copies = (COPIES * len(cells) + NEAR) * step
    steps = max(20, int((TEACHING * seconds - copies) / (step * runs * len(cells))))
    frames = runs * len(cells) * steps
    share = max(1.0, USUAL * len(cells) / sum(map(len, cells)))
    timestep = _timestep(config, cells)
    settling = round(1000 * SETTLED / timestep)
    test_steps = int(TESTING * seconds / step / len(cells))
    test_steps = min(max(test_steps, settling + 20), settling + MOST_TESTS * 25)
    plan = Plan(
        seconds=seconds,
        step=step,
        runs=runs,
        steps=steps,
        every=max(5, math.ceil(frames / (share * MOST_FRAMES))),
        test_steps=test_steps,
        labels=round(share * LABELS),
        explore=_explored(seconds, step, len(cells), timestep),
        short=SHORT * seconds,
        long=LONG * seconds,
    )
    write_json(path, plan._asdict(), indent=1)
    return plan


FASTER = 6.0  # times that a student is faster than its teacher, at least


def _explored(seconds: float, step: float, cells: int, timestep: float) -> float:
    """Duration (ps) of each run of the student: six for each supercell in each round."""
    runs = 6 * cells * (ROUNDS - 1)
    steps = EXPLORING * seconds * FASTER / (step * runs)
    return float(min(max(steps, 50), 10_000) * timestep / 1000)


def _teach(
    cells: Sequence[Atoms],
    teacher: MeanCalculator,
    config: DistillConfig,
    plan: Plan,
    bar: Show,
    stop: Callable[[], None],
) -> None:
    """The data of the first training: dynamics of the teacher, strained and rattled copies."""
    target, place = config.folder / TAUGHT, config.folder / "teaching"
    if target.exists():
        return
    make_folder(place)
    low, high = config.temperatures
    parts: list[Path] = []
    for number, atoms in enumerate(cells):
        name = f"{number:02d}"
        rng = np.random.default_rng([config.seed, number])
        path = place / f"{name}-distorted.h5"
        parts.append(path)
        if not path.exists():
            bar(0, 1, f"{atoms.info['name']}: strained cells")
            copies = distorted(atoms, COPIES, config.strain, RATTLE, rng)
            write_store(path, _labels(copies, teacher, "distorted"))
        scales = SCALES[: plan.runs // 3] if is_bulk(atoms) else SCALES[:1]
        # The lowest temperature first, at all volumes.
        for turn, temperature in enumerate(np.linspace(low, high, 3)):
            for index, scale in enumerate(scales):
                path = place / f"{name}-{turn}-{index}.h5"
                parts.append(path)
                if path.exists():
                    continue
                trial = atoms.copy()
                trial.set_cell(atoms.cell.array * scale, scale_atoms=True)
                trial.calc = teacher
                words = f"{atoms.info['name']}: dynamics of the teacher at {temperature:.0f} K"
                seed = int(rng.integers(2**31)) + turn
                frames = _frames(
                    trial, temperature, plan.steps, plan.every, seed, config, words, bar, stop
                )
                kind = f"teacher {temperature:.0f} K" + (f" × {scale:g}" if scale != 1 else "")
                write_store(path, _labels(frames, teacher, kind))
    # Last, since the first structures calibrate the initial weights: they must differ much.
    bulk = list(filter(is_bulk, read_frames(config.folder / RELAXED)))
    for number, atoms in enumerate(bulk):
        path = place / f"{number:02d}-near.h5"
        parts.append(path)
        if not path.exists():
            together = min(BATCH, max(1, config.atoms // len(atoms)))
            copies = _near(atoms, max(2, NEAR * together // len(bulk)), config.seed)
            write_store(path, _labels(copies, teacher, "near"))
    merge_stores([str(path) for path in parts], str(target))
    shutil.rmtree(place)


def _near(atoms: Atoms, count: int, seed: int) -> Iterator[Atoms]:
    """Slightly strained copies of a relaxed cell; the atoms of half of them are displaced too."""
    rng = np.random.default_rng(seed)
    yield from distorted(atoms, count // 2, NEAR_STRAIN, 0.0, rng)
    yield from distorted(atoms, count // 2, NEAR_STRAIN, NEAR_RATTLE, rng)


def _labels(frames: Iterator[Atoms], teacher: MeanCalculator, kind: str) -> Iterator[Structure]:
    """Structures with labels of the teacher; those that it gives no finite label are left out."""
    for atoms in frames:
        atoms.calc = teacher
        label = finite_label(atoms)
        if label is not None:
            yield label._replace(config_type=kind, theory=teacher.theory)


def _frames(
    atoms: Atoms,
    temperature: float,
    steps: int,
    every: int,
    seed: int,
    config: DistillConfig,
    words: str,
    bar: Show,
    stop: Callable[[], None],
) -> Iterator[Atoms]:
    """Frames of dynamics with a thermostat, with their results; a run that diverges ends early."""
    timestep = _timestep(config, [atoms])
    moving, noise = start(atoms, temperature, seed)
    integrator = langevin(moving, timestep, temperature, SOON, noise)
    try:
        for step in simulate(
            moving, integrator, steps=steps, timestep=timestep, temperature=temperature, every=every
        ):
            bar(step.number, steps, words)
            stop()
            if step.row is not None:
                yield moving
    except (Unstable, ValueError, CalculationFailed):
        return


def _make_test(
    cells: Sequence[Atoms],
    teacher: MeanCalculator,
    config: DistillConfig,
    plan: Plan,
    bar: Show,
    stop: Callable[[], None],
) -> None:
    """The test set: other dynamics of the teacher."""
    path = config.folder / TEST
    if path.exists():
        return
    temperature = config.test_at
    found: list[Structure] = []
    for number, atoms in enumerate(cells):
        settling = round(1000 * SETTLED / _timestep(config, [atoms]))
        every = max(5, (plan.test_steps - settling) // MOST_TESTS)
        words = f"{atoms.info['name']}: test at {temperature:.0f} K"
        seed = 1_000_000 + 1000 * config.seed + number
        frames = _frames(atoms, temperature, plan.test_steps, every, seed, config, words, bar, stop)
        kind = f"test {temperature:.0f} K"
        own = list(_labels(frames, teacher, kind))
        found += own[settling // every :] or own
    write_store(path, found)


def _learn(
    config: DistillConfig,
    plan: Plan,
    models: Sequence[Path],
    teacher: MeanCalculator,
    console: Console | None,
) -> Learned:
    """The rounds: short trainings first, and a long one at the end."""
    folder = config.folder
    low, high = config.temperatures
    cells = list(read_frames(folder / SUPERCELLS))
    symbols = sorted({symbol for atoms in cells for symbol in atoms.get_chemical_symbols()})
    source, device = str(models[0]), {"device": str(teacher.device)}
    arguments: dict[str, Any] = device
    if len(models) > 1:
        source = f"{MeanCalculator.__module__}.{MeanCalculator.__name__}"
        arguments = {"models": [str(path) for path in models], **device}
    labels = LabelConfig(
        calculator=source,
        arguments=arguments,
        executor=f"{__name__}:this_process",
        theory=teacher.theory,
    )

    def options(seconds: float, rounds: int) -> LearnConfig:
        return LearnConfig(
            structures=[str(folder / SUPERCELLS)],
            output=str(folder / LEARNED),
            data=str(folder / TAUGHT),
            labels=labels,
            explore=ExploreConfig(
                temperatures=[float(t) for t in np.linspace(low, high, 3)],
                pressures=[0.0],
                time=plan.explore,
                timestep=_timestep(config, cells),
                every=20,
                seed=config.seed,
            ),
            fit=RoundFitConfig(
                model=_model(config, cells),
                batch_structures=BATCH,
                loss=LossConfig(stress_weight=STRESS),
                optimization=OptimizationConfig(warmup=WARMUP),
                trainer=TrainerConfig(max_time=f"{seconds:.1f}s", clock=config.clock),
                isolated_energies={each: _isolated(each, teacher) for each in symbols},
                init_from=config.init_from and str(model_path(config.init_from).absolute()),
                seed=config.seed,
            ),
            rounds=rounds,
            labels_per_round=plan.labels,
        )

    first = learn(options(plan.short, ROUNDS - 1), console)
    if first.signal is not None:
        return first
    return learn(options(plan.long, ROUNDS), console)


def _model(config: DistillConfig, cells: Sequence[Atoms]) -> PotentialConfig:
    """Model of the student: the default, that of a shipped file, or that of an earlier student."""
    if config.init_from is not None:
        return read_card(model_path(config.init_from)).config
    if config.fast:
        name = "fast.yaml"
    elif not any(atoms.pbc.any() for atoms in cells):
        name = "molecules.yaml"
    else:
        return FacetConfig()
    return FacetConfig(**shipped(name)["model"])


def this_process() -> Executor:
    """Executor of the labels: the teacher is fast, and it is loaded here already."""
    return ThreadPoolExecutor(1)


def _isolated(symbol: str, teacher: MeanCalculator) -> float:
    """The teacher's energy (eV) of an isolated atom."""
    atom = Atoms(symbol)
    atom.calc = teacher
    return float(atom.get_potential_energy())
