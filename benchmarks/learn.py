"""Labels chosen by ``learn`` compared with labels drawn at random from MD.

    python -m benchmarks.learn FOLDER --system Li3N --labels universal [--seed 1]
    python -m benchmarks.learn FOLDER --system Li3N --labels gpaw

The first is cheap: a model labels. The second needs ``gpaw`` and ``gpaw-data``. All parts resume.
``learn`` runs as a command; with GPAW it is killed twice (SIGKILL) and started again. Its first
labels are of the MD of the explorer, a model, or of distorted copies only (``--first``). The frames
drawn at random are of MD with the explorer: at all temperatures at which ``learn`` explores, and,
if labels are cheap, at the lowest of them. The test is on frames of other MD of the explorer. All
sets have as many labels, and every fifth of them is for validation. All are learned from random
weights in as many steps as all rounds have; ``learn, own`` is the last model of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.spacegroup import crystal

from benchmarks.machine import machine
from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.loading.config import DataConfig
from tesseral.data.store.read import open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import Structure, structure_from_atoms
from tesseral.executors import open_executor
from tesseral.files import write_json
from tesseral.learning.config import ExploreConfig, LabelConfig
from tesseral.learning.errors import errors_of
from tesseral.learning.explore import Run, explore
from tesseral.learning.label import compute_labels, known_label
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.training.config import FitConfig, OptimizationConfig, TrainerConfig
from tesseral.training.fit import fit

ROUNDS, EACH = 3, 10  # labels of each round, also of the first
TEST = 10  # frames of each temperature
KILLS = 7, 16  # labels after which the command is killed
GPAW: dict[str, Any] = {
    "mode": {"name": "pw", "ecut": 600},
    "xc": "PBE",
    "kpts": {"size": [2, 2, 2]},
    "symmetry": {"point_group": False},
    "convergence": {"energy": 1e-4, "density": 1e-4},
    "txt": None,
}
MODEL = {"cutoff": 5.0}
DECAY = 0.99  # of the average of the weights, for short trainings


def start_of(system: str) -> tuple[Atoms, list[float]]:
    """A small crystal, and the temperatures (K) at which its potential will be used."""
    if system == "AlN":
        return bulk("AlN", "zincblende", a=4.40, cubic=True), [300.0, 1000.0, 2000.0]
    if system == "SiO2":
        sites = [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2144)]
        cell = [5.02, 5.02, 5.51, 90, 90, 120]
        return crystal(["Si", "O"], sites, spacegroup=152, cellpar=cell), [300.0, 1000.0, 2000.0]
    sites = [(0, 0, 0), (1 / 3, 2 / 3, 0), (0, 0, 0.5)]
    cell = [3.65, 3.65, 3.87, 90, 90, 120]
    atoms = crystal(["N", "Li", "Li"], sites, spacegroup=191, cellpar=cell)
    return atoms.repeat((1, 1, 2)), [300.0, 600.0, 1000.0]


def source(labels: str) -> LabelConfig:
    """GPAW, or a model."""
    if labels != "gpaw":
        return LabelConfig(calculator=labels)
    return LabelConfig(calculator="gpaw.GPAW", arguments=GPAW, theory="GPAW PBE PW 600 eV")


def configuration(options: argparse.Namespace) -> Path:
    """The file of options of ``learn``, and the start structure."""
    folder: Path = options.folder
    atoms, temperatures = start_of(options.system)
    write(folder / "start.extxyz", atoms)
    values = {
        "structures": [str(folder / "start.extxyz")],
        "output": str(folder / "learn"),
        "labels": asdict(source(options.labels)),
        "explore": {
            "temperatures": temperatures,
            "time": 0.5,
            "seed": options.seed,
            "model": options.explorer if options.first == "explorer" else None,
        },
        "fit": {
            "model": MODEL,
            "optimization": {"ema_decay": DECAY},
            "trainer": {"max_steps": options.steps, "enable_progress_bar": False},
            "seed": options.seed,
        },
        "first_labels": EACH,
        "labels_per_round": EACH,
        "rounds": ROUNDS,
    }
    path = folder / "learn.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def run_learn(folder: Path, config: Path, limits: Sequence[int]) -> list[int]:
    """Run the command to its end; the numbers of labels after which it was killed."""
    command = [sys.executable, "-m", "tesseral.commands.main", "learn", "--config", str(config)]
    note = folder / "kills.json"
    kills: list[int] = json.loads(note.read_text()) if note.exists() else []
    while True:
        with (folder / "learn.log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(0.2)
            done = len(list((folder / "learn").glob("round-*/labels/*.extxyz")))
            if len(kills) < len(limits) and done >= limits[len(kills)]:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if process.returncode != -signal.SIGKILL:
            break
        kills.append(done)
        write_json(note, kills, indent=1)
    if process.returncode:
        raise SystemExit(f"learn ended with {process.returncode}; see {folder / 'learn.log'}")
    return kills


def frames(options: argparse.Namespace, kind: str, temperature: float) -> list[Atoms]:
    """Frames of MD with the explorer, without a stop rule; those for the test have another seed."""
    calculator = TesseralCalculator(options.explorer)
    calculator.card = replace(calculator.card, uncertainty={})  # no limit
    run = Run(f"{kind}-{temperature:g}K", start_of(options.system)[0], temperature)
    limits = ExploreConfig(time=0.6, every=15, stop_uncertainty=None, distorted=0)
    folder = options.folder / "md"
    return list(explore([run], calculator, limits, folder, seed=int(kind == "test")))[1:]


def drawn(found: list[Atoms], count: int, seed: int) -> list[Structure]:
    """Frames at random."""
    rows = np.random.default_rng(seed).permutation(len(found))[:count]
    return [structure_from_atoms(found[row]) for row in rows]


def labels_of(structures: list[Structure], options: argparse.Namespace, name: str) -> Any:
    """Structures with labels, without those that failed."""
    named = {f"{name}-{n:03d}": structure for n, structure in enumerate(structures)}
    place = options.folder / "labels" / name
    with open_executor(None, 1) as executor:
        for label in compute_labels(named, source(options.labels), place, executor):
            if label.reason:
                sys.stdout.write(f"{label.name} {label.reason}\n")
    known = [known_label(place, each) for each in named]
    return [label.structure for label in known if label is not None and label.structure is not None]


def trained(structures: list[Structure], options: argparse.Namespace, name: str) -> Path:
    """Model of all labels at once; every fifth is for validation, as in ``learn``."""
    folder = options.folder / f"{name}-{options.steps}".replace(" ", "-")
    output: Path = folder / "model.safetensors"
    if (folder / "done").exists():
        return output
    folder.mkdir(parents=True, exist_ok=True)
    for part, chosen in (("train", False), ("validation", True)):
        kept = [each for n, each in enumerate(structures, 1) if (n % 5 == 0) == chosen]
        write_store(folder / f"{part}.h5", [each._replace(group="") for each in kept])
    data = DataConfig(
        train=str(folder / "train.h5"),
        validation=str(folder / "validation.h5"),
        batch_structures=8,
    )
    fit(
        FitConfig(
            data=data,
            output=str(output),
            model=FacetConfig(**MODEL),
            optimization=OptimizationConfig(ema_decay=DECAY),
            trainer=TrainerConfig(max_steps=ROUNDS * options.steps, enable_progress_bar=False),
            seed=options.seed,
        )
    )
    (folder / "done").touch()
    return output


def errors_at(model: Path, test: dict[str, list[Structure]]) -> dict[str, Any]:
    """Errors of a model on each part of the test, and on all."""
    calculator = TesseralCalculator(model)
    parts = {**test, "all": sum(test.values(), [])}
    found = {name: errors_of(calculator, structures) for name, structures in parts.items()}
    return {
        name: {key: errors[key] for key in ("forces_mae", "energy_mae")}
        for name, errors in found.items()
    }


def main() -> int:
    """Run all parts and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--system", choices=["AlN", "Li3N", "SiO2"], default="Li3N")
    parser.add_argument("--labels", default="gpaw", help="gpaw, or a model that labels")
    parser.add_argument("--explorer", default="universal", help="model whose MD is drawn from")
    parser.add_argument("--first", choices=["explorer", "distorted"], default="explorer")
    parser.add_argument("--steps", type=int, default=300, help="of each round's training")
    parser.add_argument("--seed", type=int, default=0, help="of all but the MD and the test")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    began = os.times()
    config = configuration(options)
    sets: dict[str, list[Structure]] = {}
    temperatures = start_of(options.system)[1]
    found = {temperature: frames(options, "drawn", temperature) for temperature in temperatures}
    sources = {"all": sum(found.values(), [])}
    if options.labels != "gpaw":
        sources[f"{temperatures[0]:g} K"] = found[temperatures[0]]
    for name, given in sources.items():
        chosen = drawn(given, ROUNDS * EACH, options.seed)
        sets[f"random {name}"] = labels_of(chosen, options, f"random-{name.split()[0]}")
    test = {}
    for temperature in temperatures:
        chosen = drawn(frames(options, "test", temperature), TEST, 0)
        test[f"{temperature:g} K"] = labels_of(chosen, options, f"test-{temperature:g}")
    kills = run_learn(options.folder, config, KILLS if options.labels == "gpaw" else ())
    store = open_store(options.folder / "learn" / "dataset.h5")
    sets["learn"] = [store[row] for row in range(len(store))]
    models = {"learn, own": options.folder / "learn" / "model.safetensors"}
    models |= {name: trained(structures, options, name) for name, structures in sets.items()}
    ended = os.times()
    results = {
        "machine": machine(),
        "labels": {name: len(structures) for name, structures in sets.items()},
        "killed after labels": kills,
        "CPU seconds of this call": sum(ended[:4]) - sum(began[:4]),
        "models": {name: errors_at(path, test) for name, path in models.items()},
    }
    write_json(options.folder / "results.json", results, indent=1)
    for name, parts in results["models"].items():
        line = "  ".join(f"{part} {each['forces_mae']:.4f}" for part, each in parts.items())
        sys.stdout.write(f"{name:14s} {line}  energy {parts['all']['energy_mae']:.1f} meV/atom\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
