"""Denoising as pre-training: whether weights that find displaced atoms learn from fewer labels.

Copies of unlabelled structures get random displacements of σ in each direction, and the potential
learns to find them: as its forces, -k times the displacement (``forces``; Zaidi et al., ICLR 2023),
or as a linear map of its features of degree 1 (``features``). Then it is trained on a few labelled
structures, for some steps or (``longer``) for as many steps as both together.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.accuracy.recipes import Recipe, all_recipes
from benchmarks.accuracy.structures import check_files, read_frames, split
from benchmarks.sheets import Sheet, save
from benchmarks.study.systems import settings
from tesseral.data.graph import Batch, edges_of, join_batches
from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import Structure, structure_from_atoms
from tesseral.deploy.modelfile import load_model, save_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.training.batches import FitData
from tesseral.training.config import FitConfig, LossConfig, TrainerConfig
from tesseral.training.evaluate import evaluate
from tesseral.training.fit import fit
from tesseral.training.initial_weights import start
from tesseral.training.soap import Soap

SIZE = 0.1  # Å, σ
STIFFNESS = 10.0  # eV/Å², k
COPIES = 4  # of each structure
BEFORE, AFTER = 500, 250  # steps of the pre-training and of the training
NUMBERS = (20, 50, 200)  # labelled structures
SEEDS = (0,)
STARTS = ("random", "forces", "features", "random, longer", "features, longer", "forces, longer")
BATCH = {"Si": 2, "AcAc": 5}
TEST = {"Si": "test", "AcAc": "300K"}


def denoising_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Run the missing trainings; make a table for each set."""
    sheets = []
    for name in options.sets:
        recipe = all_recipes()[name]
        check_files(recipe, options.data)
        folder = options.output / "denoising" / name
        sheet = Sheet(
            f"{name}: {AFTER} steps from weights learned in {BEFORE} steps without labels",
            ("labelled structures", "weights from", "energy", "forces"),
            "Mean over the seeds of the test MAE, meV/atom and meV/Å.",
        )
        results: dict[tuple[int, str], list[dict[str, float]]] = {}
        for seed in SEEDS:
            for number in NUMBERS:
                for kind in STARTS:
                    path = folder / f"{kind}, {number}, seed {seed}.json"
                    if not path.exists():
                        terminal.print(f"{name}: {path.stem}", soft_wrap=True)
                        save(path, learn(recipe, kind, number, seed, options.data, folder))
                    found = json.loads(path.read_text())
                    results.setdefault((number, kind), []).append(found)
        for (number, kind), found in sorted(results.items()):
            means = [np.mean([one[what] for one in found]) for what in ("energy", "forces")]
            sheet.rows.append((str(number), kind, *(f"{mean:.3g}" for mean in means)))
        sheets.append(sheet)
    return sheets


def learn(
    recipe: Recipe, kind: str, number: int, seed: int, data: Path, folder: Path
) -> dict[str, float]:
    """Train on so many labelled structures from some weights; test MAE (meV/atom, meV/Å)."""
    frames = [structure_from_atoms(atoms) for atoms in read_frames(data / recipe.train)]
    kept, validation = split(len(frames), recipe.validation, recipe.seed)
    frames, held = [frames[i] for i in kept], [frames[i] for i in validation]
    kind, _, longer = kind.partition(", ")
    before = None if kind == "random" else folder / f"{kind}, seed {seed}.safetensors"
    steps = AFTER + BEFORE if longer else AFTER
    if before is not None and not before.exists():
        pretrain(kind, frames, held, before, recipe.name, seed)
    order = np.random.default_rng(seed).permutation(len(frames))[:number]
    work = folder / f"{kind}, {steps} steps, {number}, seed {seed}"
    work.mkdir(parents=True, exist_ok=True)
    write_store(work / "train.h5", [frames[i] for i in sorted(order)])
    write_store(work / "validation.h5", held)
    result = fit(
        _fit_config(
            recipe.name, work, seed, steps, recipe.stress, None if before is None else str(before)
        )
    )
    potential, card = load_model(result.model)
    tests = read_frames(data / recipe.tests[TEST[recipe.name]])
    write_store(work / "test.h5", [structure_from_atoms(atoms) for atoms in tests])
    errors = evaluate(potential, open_store(work / "test.h5"), card.elements, keep=False).errors
    return {
        "energy": errors["energy_per_atom"]["mae"],
        "forces": errors["forces"]["mae"],
    }


def _fit_config(
    name: str, folder: Path, seed: int, steps: int, stress: bool, start_from: str | None
) -> FitConfig:
    return FitConfig(
        data=DataConfig(
            train=str(folder / "train.h5"),
            validation=str(folder / "validation.h5"),
            batch_structures=BATCH[name],
            seed=seed,
        ),
        model=FacetConfig() if start_from else FacetConfig(**settings("facet", name)["model"]),
        loss=LossConfig(stress_weight=float(stress)),
        trainer=TrainerConfig(
            max_steps=steps, accelerator="cpu", enable_progress_bar=False, validate_every=100
        ),
        seed=seed,
        init_from=start_from,
        output=str(folder / "model.safetensors"),
    )


def displaced(structures: Sequence[Structure], copies: int, seed: int) -> list[Structure]:
    """Copies with random displacements, and the forces of springs that pull them back."""
    rng = np.random.default_rng(seed)
    made = []
    for structure in structures:
        for _ in range(copies):
            moves = SIZE * rng.normal(size=structure.positions.shape)
            made.append(
                structure._replace(
                    positions=structure.positions + moves,
                    energy=0.0,
                    forces=-STIFFNESS * moves,
                    stress=np.full((3, 3), np.nan),
                )
            )
    return made


def pretrain(
    kind: str,
    structures: Sequence[Structure],
    held: Sequence[Structure],
    path: Path,
    name: str,
    seed: int,
) -> None:
    """Learn to find displacements; write a model file to start from."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    write_store(folder / "train.h5", displaced(structures, COPIES, seed))
    write_store(folder / "validation.h5", displaced(held, 1, seed + 1000))
    config = _fit_config(name, folder, seed, BEFORE, False, None)
    began = time.process_time()
    if kind == "forces":
        loss = LossConfig(energy_weight=0.0, stress_weight=0.0)
        error = fit(replace(config, loss=loss)).best["errors"]["forces"]["rmse"] / 1e3 / STIFFNESS
        (folder / "model.safetensors").rename(path)
    else:
        error = _from_features(config, path)
    seconds = time.process_time() - began
    save(path.with_suffix(".json"), {"rmse": error, "size": SIZE, "seconds": seconds})


def _from_features(config: FitConfig, path: Path) -> float:
    """Learn displacements from the features of degree 1; RMSE (Å) on the validation structures."""
    torch.manual_seed(config.seed)
    data = FitData(config.data, config.model.cutoff)
    data.setup("fit")
    card, potential, _ = start(data, config.model, None, dtype="float32", ops="auto")
    channels = config.model.channels
    heads = nn.Parameter(torch.zeros(config.model.layers, channels))
    optimizer = Soap([*potential.parameters(), heads], lr=config.optimization.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, BEFORE)

    def error(batch: Batch) -> Tensor:
        """Mean square, in units of σ²."""
        _, rows = potential.layer_features(batch.graph.species, edges_of(batch.graph))
        found = batch.labels.forces.new_zeros(batch.labels.forces.shape)
        for head, (features, _) in zip(heads, rows, strict=True):
            if features.shape[1] >= 4:  # the last layer has scalars only
                found = found + features[:, 1:4] @ head
        return (found + batch.labels.forces / (SIZE * STIFFNESS)).square().mean()

    batches = iter(data.train_dataloader())
    for _ in range(BEFORE):
        optimizer.zero_grad()
        error(next(batches)).backward()
        optimizer.step()
        schedule.step()
    save_model(path, potential, card)
    with torch.no_grad():
        every = [data.validation_dataset[k] for k in range(len(data.validation_dataset))]
        return SIZE * float(error(join_batches(every))) ** 0.5
