"""What the number of spline intervals costs and gives: errors of the whole network, parameters.

One model converted with very many intervals is all that is needed: its radial functions are fitted
again with fewer. A coarse spline lies within the space of a fine one whose knots include its own,
so one layer alone is made coarse by writing its coarse splines on the fine knots.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from rich.console import Console
from torch import Tensor

from benchmarks.accuracy.structures import read_frames
from benchmarks.sheets import Sheet, save
from benchmarks.universal.agreement import structure_file
from benchmarks.universal.calculators import predict_frames
from benchmarks.universal.interval_sheets import (
    Study,
    error_sheet,
    layer_sheet,
    parameter_sheet,
    plot_study,
)
from benchmarks.universal.predictions import Predictions, difference, predict
from benchmarks.universal.programs import ours, peer
from benchmarks.universal.zero_shot import errors, test_set
from tesseral.calculators.ase import TesseralCalculator
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.radial import fit_splines

FINE = 600  # intervals of the model to start from; a multiple of all below
INTERVALS = (10, 20, 30, 40, 50, 60, 100, 120, 150, 200, 300)
IN_ONE_LAYER = (10, 20, 30, 60, 100, 150)
EVERY = 5  # which structures of the set are taken

Model = tuple[MessagePassing, ModelCard]


def refit(into: Any, source: Any) -> None:
    """Let the splines of one convolution come as near as they can to those of another.

    Exact where the knots of ``into`` include those of ``source``.
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
    """The model with another number of intervals in all layers, with its kinks or without."""
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
    """The model with the radial functions of one layer of a coarser one."""
    potential = deepcopy(model[0])
    refit(potential.layers[number].convolution, coarse[0].layers[number].convolution)
    return potential, model[1]


def predicted(model: Model, frames: list[Atoms]) -> Predictions:
    """What the model says."""
    return Predictions(*predict_frames(TesseralCalculator.from_model(*model), frames))


def errors_of(model: Model, frames: list[Atoms], exact: Predictions) -> dict[str, float]:
    """Largest and mean differences from the original."""
    apart = difference(frames, predicted(model, frames), exact)
    found = {}
    for name, values in apart._asdict().items():
        found[name] = float(np.nanmax(values))
        found[f"{name}_mean"] = float(np.nanmean(values))
    return found


def subset(found: Predictions, frames: list[Atoms], every: int) -> Predictions:
    """Of every so many structures."""
    starts = np.cumsum([0, *map(len, frames)])
    chosen = range(0, len(frames), every)
    forces = [found.forces[starts[i] : starts[i + 1]] for i in chosen]
    return Predictions(found.energy[::every], np.concatenate(forces), found.stress[::every])


def interval_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """All layers at once, each alone, and against DFT; a figure.

    Raises:
        FileNotFoundError: there is no finely converted model.
        ValueError: its intervals are no multiple of those to compare.
    """
    fine_path = options.fine or options.output / f"sevennet-0-{FINE}.safetensors"
    if not fine_path.is_file():
        raise FileNotFoundError(
            f"there is no {fine_path}; make it with train-potential convert sevennet-0 "
            f"--intervals {FINE} -o {fine_path}, or give another with --fine"
        )
    fine = load_model(fine_path, device="cpu", dtype="float64", ops="reference")
    have = fine[1].config.spline_intervals
    wrong = [one for one in (*INTERVALS, *IN_ONE_LAYER) if have % one]
    if wrong:
        raise ValueError(
            f"{fine_path} has {have} intervals, no multiple of {wrong[0]}; convert it with "
            f"--intervals {FINE}"
        )
    path = structure_file(options.output)
    every = read(path, ":")
    original = peer(options, "sevennet", dtype="float64")
    exact = subset(predict(original, path, options.output), every, EVERY)
    single = subset(predict(peer(options, "sevennet"), path, options.output), every, EVERY)
    frames = every[::EVERY]
    silicon = read_frames(test_set(options, "Si"))
    study = Study(
        structures=len(frames),
        noise={k: float(np.nanmax(v)) for k, v in difference(frames, single, exact)._asdict().items()},
        original=options_parameters(original, options),
        radial=radial_sizes(fine[0]),
    )
    for intervals in (*INTERVALS, have):
        for kinks in (True, False):
            model = fine if intervals == have and kinks else with_intervals(fine, intervals, kinks)
            terminal.print(f"{intervals} intervals, {'with' if kinks else 'without'} kinks")
            found = errors_of(model, frames, exact)
            study.errors.append({"intervals": intervals, "kinks": kinks, **found})
            if kinks and intervals != have:
                study.dft.append((intervals, *errors(silicon, predicted(model, silicon))))
    for intervals in IN_ONE_LAYER:
        coarse = with_intervals(fine, intervals)
        for number in range(len(fine[0].layers)):
            terminal.print(f"{intervals} intervals in layer {number + 1}")
            found = errors_of(with_coarse_layer(fine, coarse, number), frames, exact)
            study.layers.append({"intervals": intervals, "layer": number + 1, **found})
    save(options.output / "intervals.json", study._asdict())
    plot_study(study, options.output / "intervals.png")
    return [error_sheet(study), layer_sheet(study), parameter_sheet(study)]
