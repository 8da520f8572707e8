"""What a trained Facet can lose: its parts removed, against smaller models of the same training.

Degrees and grid channels are removed from a trained model, so that a smaller ordinary Facet
remains, which the compiled engine runs as it is. Grid channels are removed one by one, each time
the one whose loss the others make up for best (optimal brain surgeon, Hassibi and Stork 1992), and
the maps behind them are fitted again to the products of the full model. Then the smaller models are
trained further, and others of the same size from random weights for the same time. Last, training
itself closes paths and channels (``gates``).
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import ase.io
import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.accuracy.structures import write_files
from benchmarks.sheets import Sheet
from benchmarks.study.gates import close, gates_sheet
from benchmarks.study.systems import speeds
from benchmarks.study.trainings import Training, job_of, model_of, train
from tesseral.data.graph import AtomicGraph, edges_of, join_graphs
from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model, save_model
from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops
from tesseral.training.batches import FitData

SET = "Si"
GRID_CHANNELS = (30, 28, 24, 20, 16)  # of 32
CUTS: tuple[dict[str, int], ...] = (
    {"grid_channels": 16},
    {"l_max_message": 1},
    {"l_max": 3},
    {"l_max_message": 1, "grid_channels": 16},
    {"l_max": 2},
)
LARGE = 4.0  # times the minutes of the other trainings
LEARNING_RATE = 5e-3  # of the further training, half of that of a new one
SHRINKAGES = (0.0, 0.08, 0.1, 0.15, 0.2)  # of gates, as fractions of the learning rate
REPEATED = (0.0, 0.1)  # with three orders of the batches
SAMPLE = 24  # training structures to which maps are fitted again
RIDGE = 1e-9


class Kept(NamedTuple):
    """Grid channels that a mixing keeps, and its map behind them."""

    channels: Tensor  # (G')
    leave: Tensor  # (L, G', C), instead of scale * weight


@torch.no_grad()
def cut(
    potential: MessagePassing, card: ModelCard, sizes: dict[str, int], graph: AtomicGraph
) -> tuple[MessagePassing, ModelCard]:
    """A smaller Facet with the weights of a trained one.

    Args:
        potential: the trained model, in plain PyTorch.
        card: its card.
        sizes: smaller values of ``l_max``, ``l_max_message``, ``l_max_edge``, ``grid_channels``.
        graph: training structures, on which the loss of grid channels is measured.
    """
    card = replace(card, config=replace(card.config, **sizes), uncertainty={}, errors={})
    small = build_potential(card, "reference")
    kept = _kept(potential, small, graph)
    weights = potential.state_dict()
    for name, target in small.state_dict().items():
        value, (mixing, _, part) = weights[name], name.rpartition(".mixings.")
        number, _, part = part.partition(".")
        chosen = kept.get(f"{mixing}.mixings.{number}") if mixing else None
        if name.endswith("convolution.coefficients"):
            layer = int(name.split(".")[1])
            value = _paths(value, *(_convolution(one, layer) for one in (potential, small)))
        elif chosen is not None and part == "leave.weight":
            value = chosen.leave / weights[name.removesuffix("weight") + "scale"]
        elif chosen is not None and part.endswith(("weight", "bias")):
            value = value[..., chosen.channels]
        target.copy_(value[tuple(slice(0, size) for size in target.shape)])
    return small, card


def _convolution(potential: MessagePassing, layer: int) -> SplineConvolution:
    return cast("FacetLayer", potential.layers[layer]).convolution


def _paths(coefficients: Tensor, old: SplineConvolution, new: SplineConvolution) -> Tensor:
    """Coefficients (K, P, C) of the paths that are left, whose sums are divided by fewer."""
    before, after = (Counter(l3 for *_, l3 in one.paths) for one in (old, new))
    factors = [(after[path[2]] / before[path[2]]) ** 0.5 for path in new.paths]
    columns = [old.paths.index(path) for path in new.paths]
    return coefficients[:, columns] * coefficients.new_tensor(factors).unsqueeze(1)


def _kept(potential: MessagePassing, small: MessagePassing, graph: AtomicGraph) -> dict[str, Kept]:
    """The grid channels of each mixing of the smaller model, by the name of the mixing."""
    mixings = {n: m for n, m in potential.named_modules() if isinstance(m, SphereMixing)}
    smaller = {n: m for n, m in small.named_modules() if isinstance(m, SphereMixing)}
    products: dict[str, Tensor] = {}

    def remember(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            products[name] = inputs[0].double()

        return hook

    handles = [m.leave.register_forward_pre_hook(remember(n)) for n, m in mixings.items()]
    potential(graph.species, edges_of(graph))
    for handle in handles:
        handle.remove()
    return {
        name: chosen_channels(products[name], mixing.leave, smaller[name].bias.shape[1])
        for name, mixing in mixings.items()
    }


def chosen_channels(products: Tensor, leave: DegreeLinear, number: int) -> Kept:
    """The channels (N, M, G) that a linear map needs most, and the map from them.

    Removing a channel g changes the result by ``|W[g]|² / (A⁻¹)_gg``, with the products A of the
    channels that are left and the map W that is fitted to them.
    """
    weight = (leave.scale * leave.weight).double()  # (L, G, C)
    parts = torch.split(products, leave.sizes, dim=1)
    gram = torch.stack([torch.einsum("nmg,nmh->gh", part, part) for part in parts])
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
    gram = gram + ridge * torch.eye(gram.shape[1], dtype=gram.dtype)
    channels = list(range(gram.shape[1]))
    while True:
        inverse = torch.linalg.inv(gram[:, channels][:, :, channels])
        fitted = inverse @ (gram[:, channels] @ weight)  # (L, G', C)
        if len(channels) == number:
            return Kept(torch.tensor(channels), fitted)
        loss = fitted.square().sum(2) / inverse.diagonal(dim1=1, dim2=2)
        channels.pop(int(loss.sum(0).argmin()))


def graphs_of(path: Path, card: ModelCard) -> list[tuple[AtomicGraph, np.ndarray]]:
    """Graph and forces (N, 3) eV/Å of each structure of a file."""
    found = []
    for atoms in ase.io.read(path, ":"):
        where = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
        graph = atomic_graph(*where, card.elements, card.config.cutoff)
        found.append((graph, atoms.get_forces()))
    return found


def force_error(potential: MessagePassing, data: list[tuple[AtomicGraph, np.ndarray]]) -> float:
    """MAE of the forces, meV/Å."""
    compiled = select_ops(potential, "auto")
    wrong = [predict(compiled, graph).forces.numpy() - forces for graph, forces in data]
    select_ops(potential, "reference")
    return 1e3 * float(np.abs(np.concatenate(wrong)).mean())


def sparsity_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Train, remove parts, train further; two tables."""
    large = Training(SET, "facet, to be cut", {}, 0, LARGE * options.minutes)
    if train([large], options, terminal)[0] is None:
        return []
    potential, card = load_model(model_of(large, options), ops="reference")
    potential.uncertainty = None
    recipe, *_ = job_of(large, options.threads)
    files = write_files(recipe, options.data, options.output / recipe.name / "data")
    test = graphs_of(files.tests["test"], card)
    sample = graphs_of(files.fit, card)
    sample = sample[:: max(1, len(sample) // SAMPLE)]
    graph = join_graphs([one for one, _ in sample])

    channels = Sheet(
        "Grid channels removed, without further training",
        ("grid channels", "forces"),
        "Test MAE, meV/Å.",
        [(str(card.config.grid_channels), f"{force_error(potential, test):.1f}")],
    )
    for number in GRID_CHANNELS:
        small, _ = cut(potential, card, {"grid_channels": number}, graph)
        channels.rows.append((str(number), f"{force_error(small, test):.1f}"))

    models, trainings, before = {"full": potential}, [], []
    for sizes in CUTS:
        small, smaller_card = cut(potential, card, sizes, graph)
        path = options.output / SET / f"{_name(sizes)}.safetensors"
        save_model(path, small, smaller_card)
        before.append(force_error(small, test))
        models[_name(sizes)] = small
        further = {"init_from": str(path.resolve())}
        further |= {"optimization": {"learning_rate": LEARNING_RATE}}
        trainings.append(Training(SET, f"{_name(sizes)}, cut", further, 0, options.minutes))
        new = {"model": dict(sizes)}
        trainings.append(Training(SET, f"{_name(sizes)}, new", new, 0, options.minutes))
    results = train(trainings, options, terminal)
    for model in models.values():
        select_ops(model, "auto")
    microseconds = speeds(models)
    table = Sheet(
        f"Smaller models after {options.minutes:g} minutes",
        ("model", "time", "cut", "trained further", "from random weights"),
        "Time of energy and forces relative to the full model; test MAE of forces, meV/Å: as cut "
        "from the full model, after further training, and of a new model after the same time.",
        [("full", "1", f"{force_error(potential, test):.1f}", "–", "–")],
    )
    for number, sizes in enumerate(CUTS):
        relative = microseconds[_name(sizes)] / microseconds["full"]
        row = [_name(sizes), f"{relative:.2f}", f"{before[number]:.0f}"]
        for result in results[2 * number : 2 * number + 2]:
            row.append(f"{result['errors']['test']['forces_mae']:.1f}" if result else "failed")
        table.rows.append(tuple(row))
    return [channels, table, _gates(model_of(large, options), test, 60 * options.minutes, terminal)]


def _gates(
    path: Path, test: list[tuple[AtomicGraph, np.ndarray]], seconds: float, terminal: Console
) -> Sheet:
    """Train the model further for so many seconds with each shrinkage of its gates."""
    potential, card = load_model(path)
    potential.uncertainty = None
    runs = [(shrinkage, 0) for shrinkage in SHRINKAGES]
    rows = []
    for shrinkage, seed in [*runs, *itertools.product(REPEATED, (1, 2))]:
        terminal.print(f"gates, shrinkage {shrinkage:g}, seed {seed}", soft_wrap=True)
        config = DataConfig(
            train=str(path.with_name("fit.h5")),
            validation=str(path.with_name("validation.h5")),
            seed=seed,
        )
        data = FitData(config, card.config.cutoff)
        data.setup("fit")
        closed = close(
            potential,
            data.train_dataloader(),
            data.statistics.force_rms,
            shrinkage=shrinkage,
            learning_rate=LEARNING_RATE,
            seconds=seconds,
        )
        rows.append((shrinkage, seed, closed, force_error(closed, test)))
    return gates_sheet(rows)


def _name(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
