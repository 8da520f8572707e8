"""What ``train-potential convert`` does: convert, compare, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tesseral.deploy.modelfile import save_model
from tesseral.deploy.sevennet.compare import Deviation, compare
from tesseral.deploy.sevennet.convert import INTERVALS, convert
from tesseral.deploy.sevennet.original import checkpoint_path
from tesseral.potentials.ops.select import select_ops

LARGEST = 0.05  # relative difference of the forces that splines of any sensible fineness keep to


def convert_command(
    source: str,
    output: Path,
    *,
    intervals: int = INTERVALS,
    modality: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Deviation:
    """Write a converted model, after it was compared with the original.

    Args:
        source: name of a release, or a checkpoint file.
        output: the model file; its folder is made.
        intervals: of the radial splines.
        modality: level of theory to keep.
        progress: called with how many structures have been compared, of how many.

    Returns:
        How far the two are apart, which the card of the model says too.

    Raises:
        FileNotFoundError: neither a release nor a file.
        ValueError: it cannot be converted, or the result is not like the original.
    """
    potential, card = convert(source, intervals=intervals, modality=modality)
    select_ops(potential)
    deviation = compare(potential, card, checkpoint_path(source), modality, progress)
    if not deviation.relative < LARGEST:
        raise ValueError(
            f"with {intervals} intervals the forces differ by {100 * deviation.relative:.1f}% from "
            f"those of {source}, too far to be of use; give more --intervals (default {INTERVALS})"
        )
    found = {
        "energy (meV/atom)": deviation.energy,
        "forces (meV/Å)": deviation.forces,
        "stress (GPa)": deviation.stress,
    }
    card = replace(card, training={**card.training, "largest difference from the original": found})
    output.parent.mkdir(parents=True, exist_ok=True)
    save_model(output, potential, card)
    return deviation
