"""Labels chosen by ``learn`` compared with labels drawn at random from MD: AlN with GPAW.

    python -m benchmarks.learn FOLDER --explorer universal [--rounds 4] [--minutes 1]
    python -m benchmarks.learn FOLDER --again 200

The second command trains on the labels that are there again, for so many steps. Stresses are not
learned: with this cutoff they contain a pressure of -40 GPa that the energies do not.
All parts resume. ``learn`` runs as a command, which is killed twice (SIGKILL) and started again.
Both others have the same ten first labels, and the same number in all: frames drawn at random from
MD with the model of the first ten, at 300 K, and at all temperatures at which ``learn`` explores.
They are trained on all labels at once, for as long (CPU time) as ``learn`` trains in all its
rounds. All three are tested on frames of MD with another model, the explorer, at 300, 1000 and
2000 K, labelled by GPAW. Needs ``gpaw`` and ``gpaw-data``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

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
from tesseral.training.config import FitConfig, LossConfig, OptimizationConfig, TrainerConfig
from tesseral.training.fit import fit

TEMPERATURES = [300.0, 1000.0, 2000.0]
FIRST, EACH = 10, 10  # labels
TEST = 8  # frames of each temperature
KILLS = 7, 16  # labels after which the command is killed
GPAW: dict[str, Any] = {
    "mode": {"name": "pw", "ecut": 400},
    "xc": "PBE",
    "kpts": {"size": [2, 2, 2]},
    "symmetry": {"point_group": False},
    "convergence": {"energy": 1e-4, "density": 1e-4},
    "txt": None,
}
LABELS = LabelConfig(calculator="gpaw.GPAW", arguments=GPAW, theory="GPAW PBE PW 400 eV")
MODEL = {"cutoff": 5.0}
DECAY, SHORT_DECAY = 0.999, 0.99  # of the average of the weights; a short training needs the second


def configuration(folder: Path, rounds: int, minutes: float) -> Path:
    """The file of options of ``learn``, and the start structure."""
    write(folder / "AlN.cif", bulk("AlN", "zincblende", a=4.40, cubic=True))
    options = {
        "structures": [str(folder / "AlN.cif")],
        "output": str(folder / "learn"),
        "labels": {
            "calculator": LABELS.calculator,
            "arguments": GPAW,
            "theory": LABELS.theory,
        },
        "explore": {"temperatures": TEMPERATURES, "time": 1.0},
        "fit": {
            "model": MODEL,
            "loss": {"stress_weight": 0.0},
            "trainer": {
                "max_time": f"{round(60 * minutes)}s",
                "clock": "cpu",
                "enable_progress_bar": False,
            },
        },
        "first_labels": FIRST,
        "labels_per_round": EACH,
        "rounds": rounds,
    }
    path = folder / "learn.yaml"
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def run_learn(folder: Path, config: Path) -> None:
    """Run the command to its end, killing it after some labels."""
    command = [sys.executable, "-m", "tesseral.commands.main", "learn", "--config", str(config)]
    note = folder / "kills.json"
    kills = json.loads(note.read_text()) if note.exists() else []
    while True:
        with (folder / "learn.log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        limit = KILLS[len(kills)] if len(kills) < len(KILLS) else None
        while process.poll() is None:
            time.sleep(0.2)
            done = len(list((folder / "learn").glob("round-*/labels/*.extxyz")))
            if limit is not None and done >= limit:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if process.returncode != -signal.SIGKILL:
            break
        kills.append(done)
        write_json(note, kills, indent=1)
    if process.returncode:
        raise SystemExit(f"learn ended with {process.returncode}; see {folder / 'learn.log'}")


def frames(model: Path | str, temperatures: list[float], folder: Path, seed: int) -> list[Atoms]:
    """Frames of MD with a model, without a stop rule."""
    start = bulk("AlN", "zincblende", a=4.40, cubic=True)
    options = ExploreConfig(time=4.0, every=100, stop_uncertainty=None, distorted=0)
    calculator = TesseralCalculator(model)
    calculator.card = replace(calculator.card, uncertainty={})  # no limit
    runs = [Run(f"md-{t:g}K", start, t) for t in temperatures]
    found = list(explore(runs, calculator, options, folder, seed=seed))
    return [atoms for atoms in found if len(atoms)]


def labels_of(structures: list[Structure], folder: Path, name: str) -> list[Structure]:
    """Labels of structures by GPAW, without those that failed."""
    named = {f"{name}-{n:03d}": structure for n, structure in enumerate(structures)}
    place = folder / name
    with open_executor(None, 1) as executor:
        for label in compute_labels(named, LABELS, place, executor):
            sys.stdout.write(f"{label.name} {label.reason}\n")
            sys.stdout.flush()
    known = [known_label(place, each) for each in named]
    return [label.structure for label in known if label is not None and label.structure is not None]


def drawn(found: list[Atoms], count: int, seed: int) -> list[Structure]:
    """Frames at random."""
    rows = np.random.default_rng(seed).permutation(len(found))[:count]
    return [structure_from_atoms(found[row]) for row in rows]


def trained(
    structures: list[Structure], folder: Path, name: str, trainer: TrainerConfig, decay: float
) -> Path:
    """Model of all labels at once; every fifth is for validation, as in ``learn``."""
    output = folder / name / "model.safetensors"
    done = folder / name / "done"
    if done.exists():
        return output
    done.parent.mkdir(parents=True, exist_ok=True)
    for part, chosen in (("train", False), ("validation", True)):
        kept = [each for n, each in enumerate(structures, 1) if (n % 5 == 0) == chosen]
        write_store(folder / name / f"{part}.h5", kept)
    fit(fit_options(folder, name, output, trainer, decay))
    done.touch()
    return output


def fit_options(
    folder: Path, name: str, output: Path, trainer: TrainerConfig, decay: float
) -> FitConfig:
    """Options of a training as those of the rounds."""
    from tesseral.potentials.architectures.facet import FacetConfig

    return FitConfig(
        data=DataConfig(
            train=str(folder / name / "train.h5"),
            validation=str(folder / name / "validation.h5"),
            batch_structures=8,
        ),
        output=str(output),
        model=FacetConfig(**MODEL),
        loss=LossConfig(stress_weight=0.0),
        optimization=OptimizationConfig(ema_decay=decay),
        trainer=trainer,
    )


def compare(
    models: dict[str, Path], test: dict[str, list[Structure]], results: dict[str, Any]
) -> None:
    """Errors of the models that have not been tested yet."""
    for name, path in models.items():
        if name not in results["models"]:
            calculator = TesseralCalculator(path)
            results["models"][name] = {
                part: {
                    key: value
                    for key, value in errors_of(calculator, kept).items()
                    if key.endswith(("mae", "rmse"))
                }
                for part, kept in {**test, "all": sum(test.values(), [])}.items()
            }


def main() -> int:
    """Run all parts and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--explorer", default="universal", help="model whose MD gives the test")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU time of a training")
    parser.add_argument("--again", type=int, help="only train again, for so many steps")
    options = parser.parse_args()
    folder: Path = options.folder
    if options.again is not None:
        train_again(folder, options.again)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    began = os.times()
    config = configuration(folder, options.rounds, options.minutes)
    run_learn(folder, config)
    more = EACH * (options.rounds - 1)
    test: dict[str, list[Structure]] = {}
    for number, temperature in enumerate(TEMPERATURES):
        name = f"test-{temperature:g}K"
        found = frames(options.explorer, [temperature], folder / f"{name}-md", 100 + number)
        test[name] = labels_of(drawn(found, TEST, number), folder, name)
    first = [s for s in known_of(folder / "learn" / "round-00" / "labels")]
    models = {"learn": folder / "learn" / "model.safetensors"}
    start = folder / "learn" / "round-00" / "model.safetensors"
    models["first ten"] = start
    results: dict[str, Any] = {"machine": machine(), "models": {}}
    for name, temperatures in (("random-all", TEMPERATURES), ("random-300K", [300.0])):
        compare(models, test, results)
        write_json(folder / "results.json", results, indent=1)
        found = frames(start, temperatures, folder / f"{name}-md", 7)
        chosen = labels_of(drawn(found, more, 3), folder, name)
        trainer = TrainerConfig(
            max_time=f"{round(60 * options.rounds * options.minutes)}s", clock="cpu"
        )
        models[name] = trained(first + chosen, folder, name, trainer, DECAY)
    compare(models, test, results)
    ended = os.times()
    results["kills"] = json.loads((folder / "kills.json").read_text())
    results["labels"] = len(open_store(folder / "learn" / "dataset.h5"))
    results["CPU seconds of this call"] = sum(ended[:4]) - sum(began[:4])
    write_json(folder / "results.json", results, indent=1)
    show(results)
    return 0


def train_again(folder: Path, steps: int) -> None:
    """Train on the labels of all three sets for a number of steps, and test the models."""
    parts = [f"test-{temperature:g}K" for temperature in TEMPERATURES]
    test = {part: known_of(folder / part) for part in parts}
    rounds = sorted((folder / "learn").glob("round-*/labels"))
    first, *others = [known_of(place) for place in rounds]
    sets = {"learn": first + sum(others, [])}
    sets |= {name: first + known_of(folder / name) for name in ("random-all", "random-300K")}
    trainer = TrainerConfig(max_steps=steps)
    models = {
        name: trained(structures, folder / f"again-{steps}", name, trainer, SHORT_DECAY)
        for name, structures in sets.items()
    }
    results: dict[str, Any] = {"machine": machine(), "models": {}}
    compare(models, test, results)
    write_json(folder / f"again-{steps}" / "results.json", results, indent=1)
    show(results)


def show(results: dict[str, Any]) -> None:
    """Write the errors of all models."""
    for name, parts in results["models"].items():
        line = "  ".join(f"{part} {each['forces_mae']:.4f}" for part, each in parts.items())
        sys.stdout.write(f"{name:12s} {line}  energy {parts['all']['energy_mae']:.1f} meV/atom\n")


def known_of(folder: Path) -> list[Structure]:
    """Labels of a folder."""
    return [structure_from_atoms(read(path)) for path in sorted(folder.glob("*.extxyz"))]


if __name__ == "__main__":
    sys.exit(main())
