"""Conversion of foreign potentials: convert, compare with the original, write the model file.

A converter is a folder of this package with a function that turns the foreign weights into a
potential, and an entry in `CONVERTERS`. Only the converter opens foreign files, which are often
pickles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.units import GPa

from tesseral.data.graph import AtomicGraph, edge_vectors
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.card import ModelCard
from tesseral.deploy.modelfile import save_model
from tesseral.deploy.nequix.convert import convert as convert_nequix
from tesseral.deploy.nequix.original import originals as nequix_originals
from tesseral.deploy.releases import (
    INNER_OTHERS,
    INNER_RELAXATIONS,
    INTERVALS,
    NEQUIX_NAMES,
    RELEASES,
    SEVENNET_NAMES,
    TRAINED_ON_RELAXATIONS,
)
from tesseral.deploy.sevennet.convert import convert as convert_sevennet
from tesseral.deploy.sevennet.original import levels_of
from tesseral.deploy.sevennet.original import originals as sevennet_originals
from tesseral.files import check_writable, make_folder
from tesseral.potentials.blocks.short_range import (
    ShortRange,
    flat_pairs,
    inner_radii,
    square_pairs,
)
from tesseral.potentials.derivatives import predict, stress_from_virial
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops

LARGEST = 0.05  # relative difference of the forces that any sensible number of intervals meets


def no_levels(source: str | Path) -> list[str]:
    """Names of the levels of theory of a potential with one level, which need none."""
    return []


class Converter(NamedTuple):
    """Converter for one kind of foreign potential.

    Attributes:
        releases: names of published weights that the foreign package contains.
        suffixes: suffixes of files with such weights.
        convert: ``(source, *, intervals, modality) -> (potential, card)`` of a release or a file.
        originals: ``(source, modality, elements)`` to crystals that contain all elements, each with
            an ASE calculator of the foreign package's results.
        levels: names of the levels of theory of a release or a file, the default first; empty for
            one level.
    """

    releases: Sequence[str]
    suffixes: tuple[str, ...]
    convert: Callable[..., tuple[MessagePassing, ModelCard]]
    originals: Callable[[str | Path, str | None, Sequence[int]], list[Atoms]]
    levels: Callable[[str | Path], list[str]] = no_levels


CONVERTERS = {
    "sevennet": Converter(
        tuple(SEVENNET_NAMES), (".pth", ".pt"), convert_sevennet, sevennet_originals, levels_of
    ),
    "nequix": Converter(NEQUIX_NAMES, (".nqx",), convert_nequix, nequix_originals),
}


def find_converter(source: str | Path) -> Converter:
    """Converter for a release or a file.

    Raises:
        FileNotFoundError: the source is neither a release nor a file.
        ValueError: no converter reads this kind of file.
    """
    for converter in CONVERTERS.values():
        if str(source) in converter.releases:
            return converter
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a checkpoint file; give one, or one of {', '.join(RELEASES)}"
        )
    for converter in CONVERTERS.values():
        if path.suffix in converter.suffixes:
            return converter
    known = sorted({suffix for each in CONVERTERS.values() for suffix in each.suffixes})
    raise ValueError(f"{path} has none of the known suffixes of weights: {', '.join(known)}")


class Deviation(NamedTuple):
    """Largest differences between a converted model and the original."""

    energy: float  # meV/atom
    forces: float  # meV/Å, of a component
    stress: float  # GPa, of a component
    relative: float  # RMS of the force differences relative to that of the forces
    compared: int  # number of structures
    too_close: int  # number of structures left out, with a pair closer than its inner radius


def write_converted(
    source: str,
    output: Path,
    *,
    intervals: int = INTERVALS,
    modality: str | None = None,
    short_range: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Deviation:
    """Convert a model, compare it with the original, and write it.

    Args:
        source: name of a release, or a checkpoint file.
        output: the model file; its folder is created.
        intervals: number of intervals of the radial splines.
        modality: level of theory to keep. Default: all, of which a user chooses one when the model
            is loaded (``level``).
        short_range: join the model to the repulsion of the nuclei where atoms are closer than in
            its training data.
        progress: callback with the number of compared structures and the total.

    Returns:
        Largest differences from the original; they are also on the card of the model.

    Raises:
        FileNotFoundError: the source is neither a release nor a file.
        ValueError: it cannot be converted, or the result differs too much from the original.
        OSError: the output cannot be written.
    """
    converter = find_converter(source)
    check_writable(output)
    names: list[str | None] = [modality]
    if modality is None:
        names = [*converter.levels(source)] or [None]
    made = []
    parts = []
    for number, name in enumerate(names):
        potential, card = converter.convert(source, intervals=intervals, modality=name)
        if short_range:
            card = replace(card, inner_radii=universal_radii(card))
            potential.short_range = ShortRange(card.elements, card.inner_radii)
        select_ops(potential)
        crystals = converter.originals(source, name, card.elements)

        def show(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(names) * total)

        parts.append(compare(potential, card, crystals, show))
        made.append((potential, replace(card, level=name or "")))
    deviation = Deviation(*(max(column) for column in zip(*parts, strict=True)))
    if not deviation.relative < LARGEST:
        raise ValueError(
            f"with {intervals} intervals the forces differ by {100 * deviation.relative:.1f}% from "
            f"those of {source}, which is too much; give more `intervals` (default {INTERVALS})"
        )
    found = {
        "energy (meV/atom)": deviation.energy,
        "forces (meV/Å)": deviation.forces,
        "stress (GPa)": deviation.stress,
    }
    potential, card = made[0]
    card = replace(card, training={**card.training, "largest difference from the original": found})
    make_folder(output.parent)
    save_model(output, potential, card, made[1:])
    return deviation


def universal_radii(card: ModelCard) -> tuple[float, ...]:
    """Inner radii of a converted model for its card, by the distances of its training data."""
    relaxations = card.training["converted_from"] in TRAINED_ON_RELAXATIONS
    fraction = INNER_RELAXATIONS if relaxations else INNER_OTHERS
    return flat_pairs(inner_radii(card.elements, fraction, card.config.cutoff))


def compare(
    potential: MessagePassing,
    card: ModelCard,
    crystals: Sequence[Atoms],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Deviation:
    """Compare a converted model with the original on the same crystals.

    Structures with a pair closer than its inner radius are left out.

    Args:
        potential: converted potential, on the CPU.
        card: card of the potential.
        crystals: structures with an ASE calculator of the original's results.
        progress: callback with the number of completed crystals and the total.
    """
    differences = []
    for done, atoms in enumerate(crystals):
        graph = graph_of(card, atoms)
        if _too_close(card, graph):
            continue
        energy, forces, stress = _ours(potential, graph)
        reference = atoms.get_forces()
        differences.append(
            (
                abs(energy - atoms.get_potential_energy()) / len(atoms),
                np.abs(forces - reference).max(),
                np.abs(stress - atoms.get_stress(voigt=False)).max(),
                np.square(forces - reference).sum(),
                np.square(reference).sum(),
            )
        )
        progress(done + 1, len(crystals))
    if not differences:
        raise ValueError(
            f"all {len(crystals)} structures to compare with have atoms that are too close"
        )
    table = np.array(differences)
    energy, force, stress = table[:, :3].max(axis=0)
    relative = (table[:, 3].sum() / table[:, 4].sum()) ** 0.5
    return Deviation(
        1e3 * energy,
        1e3 * force,
        stress / GPa,
        float(relative),
        compared=len(differences),
        too_close=len(crystals) - len(differences),
    )


def graph_of(card: ModelCard, atoms: Atoms) -> AtomicGraph:
    """Graph of a structure for the model of a card."""
    return atomic_graph(
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        card.elements,
        card.config.cutoff,
    )


def _too_close(card: ModelCard, graph: AtomicGraph) -> bool:
    """Whether a pair is closer than its inner radius, where the model is no longer the original."""
    if not card.inner_radii:
        return False
    inner = square_pairs(card.inner_radii, len(card.elements))
    limits = inner[graph.species[graph.senders], graph.species[graph.receivers]]
    return bool((edge_vectors(graph).norm(dim=1) < limits).any())


def _ours(potential: MessagePassing, graph: AtomicGraph) -> tuple[float, Any, Any]:
    """Energy in eV, forces in eV/Å and stress in eV/Å³."""
    answer = predict(potential, graph)
    stress = stress_from_virial(answer.virial, graph.cell)[0]
    return (
        float(answer.energy[0]),
        answer.forces.detach().numpy(),
        stress.detach().numpy().astype(np.float64),
    )
