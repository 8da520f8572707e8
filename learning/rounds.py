"""Rounds of exploration, labels and training, which resume after an interruption.

The state is the files of the folder: each is written whole, and what exists is not made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import closing, suppress
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from rich.console import Console

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.simulations.folder import lock_folder
from tesseral.calculators.simulations.frames import write_frames
from tesseral.calculators.simulations.structures import Job, read_jobs
from tesseral.data.loading.config import DataConfig
from tesseral.data.loading.splits import split_store
from tesseral.data.sources.opening import read_frames
from tesseral.data.store.read import Store, open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import Structure, atoms_from_structure, structure_from_atoms
from tesseral.deploy.card import config_to_values
from tesseral.executors import open_executor
from tesseral.files import json_text, make_folder, write_json, write_text, write_whole
from tesseral.learning.config import MANUAL, ExploreConfig, LearnConfig
from tesseral.learning.errors import errors_of
from tesseral.learning.explore import explore, runs_of
from tesseral.learning.label import (
    FAILED,
    Label,
    Round,
    compute_labels,
    find_calculator,
    forget_failures,
    known_label,
    match_labels,
    of_same_origin,
    read_outputs,
    write_label,
)
from tesseral.learning.page import write_page
from tesseral.learning.select import select
from tesseral.learning.settings import (
    keep_settings,
    model_with_content,
    structures_with_content,
    with_content,
)
from tesseral.learning.training import train
from tesseral.process import ctrl_c
from tesseral.screen import progress_line
from tesseral.training.config import FitConfig

SETTINGS, DATASET, MODEL, PAGE = "learn.json", "dataset.h5", "model.safetensors", "learn.html"
EXPLORED, SELECTED, TESTED = "explored.h5", "selected.extxyz", "tested.json"
LABELS, TRAINING, BY_HAND = "labels", "training", "by_hand"
BREAKS = 5  # times that the processes of the labels may end abruptly in a round


class Learned(NamedTuple):
    """Result of `learn`."""

    rounds: list[Round]
    model: Path
    dataset: Path
    page: Path
    ending: str  # the reason why it ended, in words
    waiting: bool = False  # for labels by hand
    signal: int | None = None  # that stopped a training


def learn(config: LearnConfig, console: Console | None = None) -> Learned:
    """Learn a potential in rounds, in a folder; the same call resumes after an interruption.

    Args:
        config: start structures, options and the folder.
        console: console for progress and results; silent if None.

    Returns:
        The rounds so far, the last model and the dataset.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: something in the configuration, a file or the folder does not fit, or no label
            could be computed.
        ChildProcessError: the processes of the labels end abruptly again and again.
        DivergenceError: a training diverged.
        KeyboardInterrupt: after Ctrl-C.
    """
    make_folder(config.output)
    with closing(lock_folder(Path(config.output))):
        return Loop(config, console).run()


class Loop:
    """State of the rounds in their folder."""

    def __init__(self, config: LearnConfig, console: Console | None) -> None:
        """Check the options, and compare them with those of the folder."""
        self.config, self.console = config, console
        self.folder = Path(config.output)
        self.jobs = _start_structures(config)
        _check_source(config, self.jobs)
        self.base = None if config.data is None else open_store(config.data)
        _same_settings(self.folder / SETTINGS, config)

    def run(self) -> Learned:
        """All rounds."""
        config, rounds = self.config, list[Round]()
        ending = f"{config.rounds} rounds are complete"
        for number in range(config.rounds):
            done = self.round(number, rounds)
            if isinstance(done, Learned):
                return done
            rounds.append(done)
            if config.target is not None and done.tested is not None:
                error = done.tested["forces_mae"]
                if error <= config.target:
                    ending = (
                        f"the force error on the structures selected last is {error:.3f} eV/Å, "
                        f"below the target of {config.target:g}"
                    )
                    break
            if config.budget is not None and self.spent(rounds) >= config.budget:
                ending = f"the budget of {config.budget} labels is spent"
                break
        return self.result(rounds, ending)

    def round(self, number: int, before: Sequence[Round]) -> Round | Learned:
        """Complete a round, or return early if it has to wait."""
        folder = self.folder / f"round-{number:02d}"
        make_folder(folder)
        explorer = self.explorer(number)
        selected = self.selected(number, folder, explorer, before)
        if self.config.labels.calculator == MANUAL:
            waiting = self.labels_by_hand(selected, folder)
            if waiting:
                return self.result(before, waiting, waiting=True)
        else:
            self.compute_labels(selected, folder)
        known = [known_label(folder / LABELS, name) for name in selected]
        labels = [label for label in known if label is not None]
        self.report_labels(labels, number)
        tested = self.tested(folder, explorer, labels)
        done = Round(number, folder, labels, tested, tuple(selected))
        signal = self.train(done, before)
        if signal is not None:
            return self.result(before, "stopped", signal=signal)
        self.write(*before, done)
        return done

    def explorer(self, number: int) -> TesseralCalculator | None:
        """Calculator of the model that a round begins with."""
        if number:
            return TesseralCalculator(self.model_of(number - 1))
        name = self.config.explore.model or self.config.fit.init_from
        return None if name is None else TesseralCalculator(name)

    def model_of(self, number: int) -> Path:
        """Model file of a round."""
        return self.folder / f"round-{number:02d}" / MODEL

    def selected(
        self,
        number: int,
        folder: Path,
        explorer: TesseralCalculator | None,
        before: Sequence[Round],
    ) -> dict[str, Structure]:
        """Structures to label, by name; read from their file if it exists."""
        path = folder / SELECTED
        if not path.exists():
            found = self.select(number, folder, explorer, before)
            frames = []
            for index, (structure, error) in enumerate(found):
                frame = atoms_from_structure(structure)
                frame.info["name"] = f"r{number:02d}-{index:03d}"
                if np.isfinite(error):
                    frame.info["expected_force_error"] = error
                frames.append(frame)
            write_frames(path, frames)
        if not path.stat().st_size:
            return {}
        return {frame.info["name"]: _structure(frame) for frame in read_frames(path)}

    def select(
        self,
        number: int,
        folder: Path,
        explorer: TesseralCalculator | None,
        before: Sequence[Round],
    ) -> list[tuple[Structure, float]]:
        """Explore and select; each structure with its largest expected force error."""
        config = self.config
        count = config.labels_per_round if number else config.first_labels
        if config.budget is not None:
            count = min(count, config.budget - self.spent(before))
        if number == 0 and explorer is None and self.base is not None:
            return []  # the first model is that of the dataset
        candidates = self.explored(number, folder, explorer, count)
        if explorer is None:
            found = _first_of_each(candidates, count)
            return [(structure, np.nan) for structure in found]
        known = [] if self.base is None else [self.base]
        if any(each.labels for each in before):
            known.append(open_store(self.folder / DATASET))
        with ctrl_c() as check:
            structures, errors = select(explorer, candidates, known, count, check)
        if not structures:
            candidates.close()
            candidates.path.unlink()  # so that the same command explores again
            raise ValueError(
                f"round {number} found no structure that is not known; explore more, with higher "
                "`explore.temperatures` or longer `explore.time`"
            )
        return list(zip(structures, errors, strict=True))

    def explored(
        self, number: int, folder: Path, explorer: TesseralCalculator | None, count: int
    ) -> Store:
        """Structures among which a round selects."""
        path, options = folder / EXPLORED, self.config.explore
        if path.exists():
            return open_store(path)
        if number:
            options = replace(options, distorted=0)
        if explorer is None:  # nothing is selected among them: as many as are needed
            copies = -(-count // len(self.jobs))
            options = replace(options, distorted=max(options.distorted, copies))
        runs = runs_of(self.jobs, options, dynamics=explorer is not None)
        place = folder / "explored"
        _keep_options(place, options)
        self.say(f"round {number}: exploring with {len(runs)} runs")
        with progress_line(self.console, "exploring") as bar, ctrl_c() as check:
            found = explore(
                runs,
                explorer,
                options,
                place,
                seed=number,
                check=check,
                show=lambda name, done, total: bar(done, total, name),
            )
            first = next(found, None)
            if first is None:
                shutil.rmtree(place)
                raise ValueError(
                    f"round {number} explored no structure whose atoms are apart; raise "
                    "`explore.temperatures`, `explore.distorted` or `explore.time`, or lower "
                    "`explore.closest`"
                )
            write_store(path, map(structure_from_atoms, chain([first], found)))
        shutil.rmtree(place)
        return open_store(path)

    def compute_labels(self, selected: dict[str, Structure], folder: Path) -> None:
        """Compute the labels that are missing."""
        config, place = self.config.labels, folder / LABELS
        todo = [name for name in selected if known_label(place, name) is None]
        if not todo:
            return
        self.say(f"labels: {len(todo)} by {config.calculator}")
        for _ in range(BREAKS):
            try:
                with (
                    progress_line(self.console, "labels") as bar,
                    open_executor(config.executor, config.processes) as executor,
                    ctrl_c() as check,
                ):
                    done = len(selected) - len(todo)
                    for label in compute_labels(selected, config, place, executor, check):
                        done += 1
                        bar(done, len(selected), f"labels, {label.name}")
                return
            except BrokenExecutor as error:
                self.say(f"a process of the labels ended abruptly ({error}); trying again")
        raise ChildProcessError(
            "the processes of the labels end abruptly again and again, perhaps because memory runs "
            "out; the same command resumes"
        )

    def labels_by_hand(self, selected: dict[str, Structure], folder: Path) -> str:
        """Read labels that somebody else has put in a folder; the reason to wait, if any."""
        place, given = folder / LABELS, folder / BY_HAND
        make_folder(place)
        make_folder(given)
        todo = {n: s for n, s in selected.items() if known_label(place, n) is None}
        if todo and any(given.iterdir()):
            labels, others = match_labels(todo, read_outputs(*given.iterdir()))
            for name, label in labels.items():
                theory = self.config.labels.theory or label.theory
                label = label._replace(theory=theory, source=f"by hand {name}")
                write_label(place, name, of_same_origin(label, todo.pop(name)))
            if others:
                self.say(f"note: {given} has {others} structures that were not asked for")
        if not todo or (self.config.labels.partial and len(todo) < len(selected)):
            return ""
        inputs = folder / "to_label"
        make_folder(inputs)
        for name, structure in todo.items():
            write_frames(inputs / f"{name}.extxyz", [atoms_from_structure(structure)])
        return (
            f"{len(todo)} structures wait for labels: compute energies, forces and stresses of "
            f"those in {inputs}, put the outputs (anything that data import reads) into {given}, "
            "and run the same command again"
        )

    def report_labels(self, labels: Sequence[Label], number: int) -> None:
        """Say which labels failed.

        Raises:
            ValueError: all labels of the first round, or of this one, failed.
        """
        failed = [label for label in labels if label.structure is None]
        for label in failed[:3]:
            self.say(f"{label.name} has no label and is not learned: {label.reason}")
        if len(failed) > 3:
            self.say(f"{len(failed) - 3} more labels failed")
        if labels and len(failed) == len(labels):
            where = self.folder / f"round-{number:02d}" / LABELS
            forget_failures(where)
            raise ValueError(
                f"all {len(labels)} labels of round {number} failed (files in {where}), the first "
                f"because: {failed[0].reason}; correct the cause and run the same command again"
            )

    def tested(
        self, folder: Path, explorer: TesseralCalculator | None, labels: Sequence[Label]
    ) -> dict[str, Any] | None:
        """Errors of the model on the labels of a round, before they are learned."""
        path = folder / TESTED
        good = [label.structure for label in labels if label.structure is not None]
        if not path.exists():
            if explorer is None or not good:
                return None
            write_json(path, errors_of(explorer, good), indent=1)
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        errors = f"{1000 * found['forces_mae']:.0f} meV/Å"
        self.say(f"force error on the structures just selected, before they are learned: {errors}")
        return found

    def train(self, now: Round, before: Sequence[Round]) -> int | None:
        """Train the model of a round; returns the signal that stopped it, if there was one."""
        if self.model_of(now.number).exists():
            return None
        parts = self.parts((*before, now))
        for name, structures in parts.items():
            write_store(now.folder / f"{name}.h5", structures)
        options = self.config.fit
        config = FitConfig(
            data=DataConfig(
                train=str(now.folder / "train.h5"),
                validation=str(now.folder / "validation.h5"),
                batch_structures=options.batch_structures,
                batch_edges=options.batch_edges,
                isolated_energies=options.isolated_energies,
            ),
            output=str(now.folder / TRAINING / MODEL),
            model=options.model,
            loss=options.loss,
            optimization=options.optimization,
            trainer=options.trainer,
            seed=options.seed,
            init_from=str(self.model_of(now.number - 1)) if now.number else options.init_from,
            short_range=options.short_range,
        )
        return train(config, self.model_of(now.number), self.console)

    def parts(self, rounds: Sequence[Round]) -> dict[str, list[Structure]]:
        """Training and validation structures; a label stays in its part in all rounds."""
        train: list[Structure] = []
        validation: list[Structure] = []
        fraction = self.config.fit.validation_fraction
        if self.base is not None:
            split = split_store(self.base, method="auto", fraction=fraction, seed=0)
            train += [self.base[row] for row in split.train]
            validation += [self.base[row] for row in split.validation]
        count = 0  # of the structures to label: labels that come later must not move others
        for each in rounds:
            labels = {label.name: label.structure for label in each.labels}
            for name in each.selected:
                chosen = int((count + 1) * fraction) > int(count * fraction)
                count += 1
                structure = labels.get(name)
                if structure is not None:
                    structure = structure._replace(group="")  # both parts have some of each run
                    (validation if chosen else train).append(structure)
        if not validation and len(train) > 1:
            validation.append(train.pop())
        if not validation:
            raise ValueError(
                "one label is too few to train and to validate; correct the cause of the failed "
                f"labels, remove {self.folder}/round-*/{LABELS}/*{FAILED} and run the same command "
                "again, or give another `output` and more `first_labels`"
            )
        return {"train": train, "validation": validation}

    def write(self, *rounds: Round) -> None:
        """Write the dataset with all labels, the last model, and the page."""
        labels = list(labelled(rounds))
        if labels:
            attributes = {
                "source": f"train-potential learn, labels by {self.config.labels.calculator}",
                "labels": json_text(asdict(self.config.labels)),
            }
            write_store(self.folder / DATASET, labels, attributes=attributes)
        with write_whole(self.folder / MODEL) as temporary:
            shutil.copyfile(self.model_of(rounds[-1].number), temporary)
        write_page(self.folder / PAGE, rounds, self.config)

    def spent(self, rounds: Sequence[Round]) -> int:
        """Number of labels so far, with those that failed."""
        return sum(len(each.labels) for each in rounds)

    def result(
        self,
        rounds: Sequence[Round],
        ending: str,
        *,
        waiting: bool = False,
        signal: int | None = None,
    ) -> Learned:
        """The result so far."""
        return Learned(
            list(rounds),
            model=self.folder / MODEL,
            dataset=self.folder / DATASET,
            page=self.folder / PAGE,
            ending=ending,
            waiting=waiting,
            signal=signal,
        )

    def say(self, text: str) -> None:
        """Write a line."""
        if self.console is not None:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def labelled(rounds: Sequence[Round]) -> Iterator[Structure]:
    """The structures with labels of all rounds; their group has the round in its name."""
    for each in rounds:
        for label in each.labels:
            if label.structure is not None:
                group = f"round {each.number} {label.structure.group}"
                yield label.structure._replace(group=group)


def _structure(frame: Any) -> Structure:
    """A selected structure, which has no labels."""
    bare = frame.copy()
    bare.info = {key: frame.info[key] for key in ("config_type", "group") if key in frame.info}
    return structure_from_atoms(bare)


def _start_structures(config: LearnConfig) -> list[Job]:
    """The start structures.

    Raises:
        ValueError: one cannot be read.
    """
    jobs = read_jobs(config.structures, config.explore.repeat)
    for job in jobs:
        job.structure()
    return jobs


def _check_source(config: LearnConfig, jobs: Sequence[Job]) -> None:
    """Check that the source of the labels exists, and knows the elements if it is a model."""
    if config.labels.calculator == MANUAL:
        return
    source = find_calculator(config.labels)
    if isinstance(source, TesseralCalculator):
        numbers = {int(z) for job in jobs for z in job.structure().numbers}
        unknown = sorted(numbers - set(source.card.elements))
        if unknown:
            names = ", ".join(chemical_symbols[number] for number in unknown)
            raise ValueError(
                f"`labels.calculator` {config.labels.calculator} does not know {names}, which the "
                "start structures have"
            )


def _keep_options(place: Path, options: ExploreConfig) -> None:
    """Remove what was explored with other options."""
    now = json_text(asdict(options))
    note = place / "options.json"
    if note.exists() and note.read_text("utf-8") != now:
        shutil.rmtree(place)
    make_folder(place)
    write_text(note, now)


def _same_settings(path: Path, config: LearnConfig) -> None:
    """Write the settings that must not change, or compare them with those of the folder."""
    data, start = config.data, config.fit.init_from
    now = {
        "structures": structures_with_content(config.structures),
        "repeat": list(config.explore.repeat),
        "data": None if data is None else with_content(data, open_store(data).content_hash),
        "calculator": _identity(config.labels.calculator),
        "arguments": _identity(config.labels.arguments),
        "model": config_to_values(config.fit.model),
        "init_from": None if start is None else model_with_content(start),
        "validation_fraction": config.fit.validation_fraction,
    }
    if path.exists():
        with suppress(ValueError, AttributeError):  # damaged
            known = json.loads(path.read_text("utf-8"))
            known["arguments"] = _identity(known.get("arguments", {}))
            if not any(path.parent.glob(f"round-*/{LABELS}/*.extxyz")):
                known |= {name: now[name] for name in ("calculator", "arguments")}
            write_json(path, known, indent=1)
    keep_settings(path, now)


def _identity(value: Any) -> Any:
    """The source of the labels without the device, and with the content of its models."""
    if isinstance(value, Mapping):
        return {name: _identity(each) for name, each in value.items() if name != "device"}
    if isinstance(value, list | tuple):
        return [_identity(each) for each in value]
    if isinstance(value, str) and value.endswith(".safetensors") and Path(value).is_file():
        return model_with_content(value)
    return value


def _first_of_each(candidates: Store, count: int) -> list[Structure]:
    """The first structures of all groups in turn."""
    groups: dict[str, list[int]] = {}
    for row, group in enumerate(candidates.texts("group")):
        groups.setdefault(group, []).append(row)
    turns = sorted((turn, row) for rows in groups.values() for turn, row in enumerate(rows))
    return [candidates[row] for _, row in turns[:count]]
