"""Selection of structures by the descriptors of a model, from any number of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

import ase.io
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tesseral.calculators.select_config import SelectConfig
from tesseral.data.graph import Batch, edges_of
from tesseral.data.imports.config import STORES
from tesseral.data.imports.importer import open_dataset
from tesseral.data.loading.datasets import EvaluationLoader, GraphDataset, check_elements
from tesseral.data.selection import Chosen, FarthestPoints
from tesseral.data.store.read import Store
from tesseral.data.store.write import write_store
from tesseral.data.structures import atoms_from_structure
from tesseral.deploy.modelfile import load_model
from tesseral.deploy.nequix.original import file_hash
from tesseral.deploy.universal import model_path
from tesseral.files import check_writable, make_folder, write_whole
from tesseral.potentials.message_passing import MessagePassing
from tesseral.process import ctrl_c

BATCH_EDGES = 20_000
STATE = "state.npz"
KEPT, TIMES = 16_384, 4  # points in memory: at least so many, and so many times those selected
SAVED = 60.0  # seconds between savings of an unfinished selection

Floats = NDArray[np.float32]
Show = Callable[[float, float, str], None]


class Described(NamedTuple):
    """Descriptors of G structures."""

    rows: NDArray[np.int64]  # (G,) in their dataset
    points: Floats  # (G, D)
    errors: Floats | None  # (G,) eV/Å, largest expected force error, if the model knows it


class Selection(NamedTuple):
    """Result of a selection."""

    chosen: Chosen
    seen: int  # structures that could be chosen
    bound: float  # no structure is further than this from a selected or known one


@torch.no_grad()
def describe(potential: MessagePassing, batch: Batch) -> Described:
    """Descriptors of structures: mean, least and largest invariants of the atoms of each.

    Structures that differ in one atom only differ in the extremes.

    Args:
        potential: potential with one level of theory.
        batch: G structures.
    """
    device = potential.embedding.device
    graph = type(batch.graph)(*(part.to(device) for part in batch.graph))
    layers = potential.layer_features(graph.species, edges_of(graph))[1]
    atoms = torch.cat([scalars for _, scalars in layers], dim=1)
    structures, owner = len(batch.index), graph.structure
    sums = atoms.new_zeros(structures, atoms.shape[1]).index_add_(0, owner, atoms)
    counts = torch.bincount(owner, minlength=structures).unsqueeze(1)
    parts = [sums / counts, *(_extreme(atoms, owner, structures, kind) for kind in EXTREMES)]
    points = torch.cat(parts, dim=1).float().cpu().numpy()
    errors: Floats | None = None
    if potential.uncertainty is not None:
        features = potential.readout_features([scalars for _, scalars in layers])
        expected = potential.uncertainty(features, potential.elements_of(graph.species))
        worst = _extreme(expected.unsqueeze(1), owner, structures, "amax")
        errors = worst.squeeze(1).float().cpu().numpy()
    return Described(batch.index.numpy(), points, errors)


EXTREMES = ("amin", "amax")


def _extreme(values: Tensor, owner: Tensor, structures: int, kind: str) -> Tensor:
    """Least or largest values (G, D) of the atoms of each structure."""
    made = values.new_zeros(structures, values.shape[1])
    index = owner.unsqueeze(1).expand_as(values)
    return made.scatter_reduce_(0, index, values, kind, include_self=False)


def described(
    potential: MessagePassing, store: Store, elements: tuple[int, ...], start: int = 0
) -> Iterator[Described]:
    """Descriptors of the structures of a dataset from a row on, in batches.

    Raises:
        ValueError: the dataset has an element that the model does not support, or a structure
            cannot be read.
    """
    check_elements(store, elements)
    rows = np.arange(start, len(store))
    dataset = GraphDataset(store, rows, elements, potential.cutoff)
    return (describe(potential, batch) for batch in EvaluationLoader(dataset, BATCH_EDGES))


def select_structures(
    config: SelectConfig, show: Show = lambda done, total, text: None
) -> Selection:
    """Select structures and write them to a file.

    The state is saved every minute next to the output, and after Ctrl-C; the same call resumes.

    Args:
        config: files and options.
        show: callback with the number of structures read, their total and a description.

    Returns:
        The numbers of the selected structures, in the order of the sources.

    Raises:
        FileNotFoundError: a file does not exist.
        FileExistsError: the output exists and ``overwrite`` is not set.
        ValueError: a file cannot be used, or the model does not know its uncertainty.
        KeyboardInterrupt: after Ctrl-C.
    """
    output = Path(config.output)
    if output.exists() and not config.overwrite:
        raise FileExistsError(f"{output} exists; pass `overwrite` to replace it")
    check_writable(output)
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    potential, card = load_model(config.model, device=device)
    if config.uncertain and potential.uncertainty is None:
        raise ValueError(
            f"`uncertain` is given, but {config.model} does not know its uncertainty; add it with "
            "train-potential calibrate"
        )
    folder = output.with_name(f".{output.name}.select")
    show(0, 1, "reading")
    names = [*config.known, *config.sources]
    stores = [open_dataset(name, folder / f"{n}") for n, name in enumerate(names)]
    for name, store in zip(names, stores, strict=True):
        check_elements(store, card.elements)
        if output.exists() and output.samefile(store.path):
            raise ValueError(f"{name} is both a source and the output")
    make_folder(folder)
    kept = max(KEPT, TIMES * config.count)
    identity = json.dumps(
        [
            [store.content_hash for store in stores],
            [len(config.known), kept, config.uncertain, file_hash(model_path(config.model))],
        ]
    )
    summary = _summary(config, potential, card.elements, stores, folder / STATE, identity, show)
    selection = summary.choose(config.count)
    _write(output, stores[len(config.known) :], selection.numbers)
    rmtree(folder, ignore_errors=True)
    return Selection(selection, summary.seen, selection.rest + summary.lost)


def _summary(
    config: SelectConfig,
    potential: MessagePassing,
    elements: tuple[int, ...],
    stores: list[Store],
    state: Path,
    identity: str,
    show: Show,
) -> FarthestPoints:
    """All structures, condensed; resumes from a saved state of the same selection."""
    summary, done = _load(state, identity, max(KEPT, TIMES * config.count))
    starts = np.cumsum([0, *(len(store) for store in stores)])
    first, saved = starts[len(config.known)], time.monotonic()
    with ctrl_c() as stop:
        for number, store in enumerate(stores):
            start = int(starts[number])
            for part in described(potential, store, elements, max(0, done - start)):
                if number < len(config.known):
                    summary.add_known(part.points)
                else:
                    errors = part.errors if config.uncertain else None
                    summary.add(part.points, start - first + part.rows, errors)
                done += len(part.rows)
                show(done, int(starts[-1]), "structures")
                try:
                    stop()
                except KeyboardInterrupt:
                    _save(state, identity, summary, done)
                    raise
                if time.monotonic() - saved > SAVED:
                    _save(state, identity, summary, done)
                    saved = time.monotonic()
    return summary


def _save(path: Path, identity: str, summary: FarthestPoints, done: int) -> None:
    """Save a state of a selection."""
    with write_whole(path) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = summary.arrays()
        np.savez(file, identity=identity, done=done, **arrays)


def _load(path: Path, identity: str, kept: int) -> tuple[FarthestPoints, int]:
    """The saved state, and the number of structures that it has seen; an empty one without it."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as found:
            if str(found["identity"]) == identity:
                return FarthestPoints.from_arrays(kept, found), int(found["done"])
    return FarthestPoints(kept), 0


def _write(output: Path, stores: list[Store], numbers: NDArray[np.int64]) -> None:
    """Write structures, given by their number in all datasets together, in this order."""
    starts = np.cumsum([0, *(len(store) for store in stores)])
    places = np.searchsorted(starts, numbers, side="right") - 1
    structures = (
        stores[place][number - starts[place]] for place, number in zip(places, numbers, strict=True)
    )
    if output.suffix in STORES:
        write_store(output, structures)
        return
    with write_whole(output) as temporary:
        form = ase.io.formats.filetype(str(output), read=False)
        ase.io.write(temporary, [atoms_from_structure(one) for one in structures], format=form)
