"""Errors and number of parameters of the converted network against the number of intervals.

Only one model converted with very many intervals is needed: its radial functions are fitted again
with fewer. A coarse spline is in the space of a fine one whose knots include its own, so a single
layer is made coarse by writing its coarse splines on the fine knots.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read, write
from rich.console import Console
from torch import Tensor

from benchmarks.accuracy.structures import read_frames
from benchmarks.sheets import Sheet, save
from benchmarks.universal.agreement import UNITS, structure_file
from benchmarks.universal.calculators import predict_frames
from benchmarks.universal.interval_sheets import (
    Sizes,
    Study,
    error_sheet,
    layer_sheet,
    parameter_sheet,
    plot_study,
)
from benchmarks.universal.predictions import Predictions, difference, predict
from benchmarks.universal.programs import peer
from benchmarks.universal.zero_shot import errors, mlearn
from tesseral.calculators.ase import TesseralCalculator
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model
from tesseral.potentials.blocks.radial import fit_splines
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops

FINE = 600  # intervals of the initial model; a multiple of all others
INTERVALS = (10, 20, 30, 40, 50, 60, 100, 120, 150, 200, 300, 600)
IN_ONE_LAYER = (10, 20, 30, 60, 100, 150)
EVERY = 5
ORIGINAL = 842_623  # weights of SevenNet-0, as counted by its program
RANK = 64  # functions mixed by the last matrix of each radial network

Model = tuple[MessagePassing, ModelCard]


def refit(into: Any, source: Any) -> None:
    """Fit the splines of one convolution to those of another.

    The fit is exact if the knots of ``into`` include those of ``source``.
    """
    coefficients = torch.cat(list(source.coefficients), dim=1).detach().double()

    def radial(radii: Tensor) -> Tensor:
        values: Tensor = source.basis(radii) @ coefficients
        return values

    fitted = fit_splines(radial, into.basis, into.pieces.shape[0], into.cutoff)
    parts = torch.split(fitted, into.channels, dim=1)
    with torch.no_grad():
        for spline, part in zip(into.coefficients, parts, strict=True):
            spline.copy_(part)


def with_intervals(model: Model, intervals: int, kinks: bool = True) -> Model:
    """The model with another number of intervals in all layers, with or without kinks."""
    potential, card = model
    config = replace(card.config, spline_intervals=intervals)
    if not kinks:
        config = replace(config, kinks=None)
    card = replace(card, config=config)
    other = build_potential(card, "reference").to(next(potential.parameters()).dtype)
    own = {name for name, _ in other.named_parameters() if ".convolution.coefficients." in name}
    state = {**other.state_dict()}
    state |= {name: value for name, value in potential.state_dict().items() if name not in own}
    other.load_state_dict(state)
    for into, source in zip(other.layers, potential.layers, strict=True):
        refit(into.convolution, source.convolution)
    return other, card


def with_coarse_layer(model: Model, coarse: Model, number: int) -> Model:
    """The model with the radial functions of a coarser model in one layer."""
    potential = deepcopy(model[0])
    refit(potential.layers[number].convolution, coarse[0].layers[number].convolution)
    return potential, model[1]


def predicted(model: Model, frames: list[Atoms]) -> Predictions:
    """Predictions of the model, with the compiled kernels if possible."""
    select_ops(model[0])
    return Predictions(*predict_frames(TesseralCalculator.from_model(*model), frames))


def errors_of(model: Model, frames: list[Atoms], exact: Predictions) -> dict[str, float]:
    """Largest and mean differences between a model and the original."""
    apart = difference(frames, predicted(model, frames), exact)
    largest = {name: float(np.nanmax(values)) for name, values in apart._asdict().items()}
    means = {f"{name}_mean": float(np.nanmean(v)) for name, v in apart._asdict().items()}
    return largest | means


def chosen(frames: list[Atoms]) -> list[Atoms]:
    """Every fifth structure of the set, and all with atoms so close that errors are largest."""
    return [
        atoms
        for number, atoms in enumerate(frames)
        if number % EVERY == 0 or atoms.info["sort"] in ("dimer", "hot", "molecule")
    ]


def sizes_of(model: Model, original: int) -> Sizes:
    """Numbers of weights."""
    layers: list[Any] = list(model[0].layers)
    radial = sum(part.numel() for layer in layers for part in layer.convolution.coefficients)
    return Sizes(
        original=original,
        other=model[1].parameters - radial,
        functions=[sum(layer.convolution.channels) for layer in layers],
        kinks=len(model[1].config.kinks or ()),
        rank=RANK,
    )


def load_fine(options: argparse.Namespace) -> Model:
    """The finely converted model in float64.

    Raises:
        FileNotFoundError: the model does not exist.
        ValueError: its number of intervals is not a multiple of those to compare.
    """
    path = options.fine or options.output / f"sevennet-0-{FINE}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; make it with train-potential convert sevennet-0 "
            f"--intervals {FINE} -o {path}, or give another with --fine"
        )
    model = load_model(path, device="cpu", dtype="float64", ops="reference")
    have = model[1].config.spline_intervals
    for intervals in (*INTERVALS, *IN_ONE_LAYER):
        if have % intervals:
            raise ValueError(
                f"{path} has {have} intervals, not a multiple of {intervals}; convert it with "
                f"--intervals {FINE}"
            )
    return model


def interval_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Study all layers together, each layer alone, and errors against DFT; make a figure."""
    fine = load_fine(options)
    silicon = read_frames(mlearn(options, "Si_test"))
    frames = chosen(read(structure_file(options.output), ":"))
    path = options.output / "interval_structures.xyz"
    write(path, frames, format="extxyz")
    exact = predict(peer(options, "sevennet", dtype="float64"), path, options.output)
    single = predict(peer(options, "sevennet"), path, options.output)
    noise = difference(frames, single, exact)
    study = Study(
        structures=len(frames),
        noise={name: float(np.nanmax(values)) for name, values in noise._asdict().items()},
        sizes=sizes_of(fine, ORIGINAL),
        errors=[],
        dft=[],
        layers=[],
    )
    for intervals in INTERVALS:
        terminal.print(f"{intervals} intervals in all layers")
        kinked, smooth = (with_intervals(fine, intervals, kinks) for kinks in (True, False))
        for kinks, model in ((True, kinked), (False, smooth)):
            found = errors_of(model, frames, exact)
            study.errors.append({"intervals": intervals, "kinks": kinks, **found})
        values = errors(silicon, predicted(kinked, silicon))
        study.dft.append({"intervals": intervals, **dict(zip(UNITS, values, strict=True))})
        if intervals not in IN_ONE_LAYER:
            continue
        for number in range(len(fine[0].layers)):
            found = errors_of(with_coarse_layer(fine, kinked, number), frames, exact)
            study.layers.append({"intervals": intervals, "layer": number + 1, **found})
    save(options.output / "intervals.json", study._asdict())
    plot_study(study, options.output / "intervals.png")
    return [error_sheet(study), layer_sheet(study), parameter_sheet(study)]
