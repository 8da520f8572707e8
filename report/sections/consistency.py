"""Sections: symmetries and derivatives; smoothness at the cutoff."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from tesseral.calculators.properties.cutoff import Path, move_atom
from tesseral.data.cells import has_volume
from tesseral.data.graph import AtomicGraph, join_graphs
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.deploy.modelfile import load_model
from tesseral.potentials import testing
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.report.content import Picture, Section, number, table
from tesseral.report.context import Context
from tesseral.report.figures import BLUE, GREY, ORANGE, finish, panels, picture
from tesseral.report.verdicts import judge

ROTATIONS = 8
STEP = 1e-3  # Å, steps of an atom that crosses the cutoff


def consistency(context: Context) -> Section:
    """Each law on a few test structures, in the precision used and in float64."""
    graphs = context.graphs()
    used, _ = load_model(context.config.model, dtype=context.dtype)
    exact, card = load_model(context.config.model, dtype="float64")
    columns = {context.dtype: _laws(used, graphs)}
    columns["float64"] = _laws(exact, graphs)
    values = columns[context.dtype]
    periodic = [graph for graph in graphs if has_volume(graph.cell[0])]
    force = 1000 * max(testing.force_error(exact, graph) for graph in graphs)
    off = [predict(used, g).forces - predict(exact, g).forces for g in graphs]
    precision = 1000 * max(float(part.abs().max()) for part in off)
    # A relaxed potential does not claim these symmetries.
    free = ("rotation", "reflection") if card.config.relaxed else ()
    verdicts = [judge(key, values[key]) for key in values if key not in free]
    verdicts += [judge("precision", precision), judge("force-derivative", force)]
    rows: list[tuple[str, ...]] = [
        (LABELS[key], number(values[key]), number(columns["float64"][key]), UNITS[key])
        for key in values
    ]
    numbers = {name: dict(part) for name, part in columns.items()}
    rows.append(("forces compared with float64", number(precision), "0", "meV/Å"))
    rows.append(("forces compared with finite differences", "–", number(force), "meV/Å"))
    numbers["float64"]["force-derivative"] = force
    numbers[context.dtype]["precision"] = precision
    if periodic:
        stress = EV_PER_A3_IN_GPA * max(testing.stress_error(exact, graph) for graph in periodic)
        verdicts.append(judge("stress-derivative", stress))
        rows.append(("stress compared with finite differences", "–", number(stress), "GPa"))
        numbers["float64"]["stress-derivative"] = stress
    header: tuple[str, ...] = ("law", f"as used ({context.dtype})", "in float64", "unit")
    if context.dtype == "float64":
        header, rows = (header[0], *header[2:]), [(row[0], *row[2:]) for row in rows]
    sizes = ", ".join(str(len(graph.species)) for graph in graphs)
    return Section(
        lead="Physical laws that every model must obey, whatever it has learned. Measured on test "
        f"structures of {sizes} atoms with {ROTATIONS} random rotations. Derivatives are compared "
        "with finite differences of the energy in float64, where rounding errors are negligible.",
        blocks=(table(header, rows),),
        verdicts=tuple(verdicts),
        numbers=numbers,
    )


LABELS = {
    "rotation": "rotation: RMS change of the forces",
    "reflection": "reflection: RMS change of the forces",
    "permutation": "permutation: largest change of the forces",
    "translation": "translation: largest change of the forces",
    "extensivity": "two copies: energy compared with twice the energy",
}
UNITS = dict.fromkeys(LABELS, "meV/Å") | {"extensivity": "meV/atom"}


def _laws(potential: MessagePassing, graphs: Sequence[AtomicGraph]) -> dict[str, float]:
    """The largest violation over the graphs of each law, in meV."""
    found = {
        "rotation": max(testing.rotation_errors(potential, g, ROTATIONS)[1] for g in graphs),
        "reflection": max(testing.reflection_errors(potential, g, ROTATIONS)[1] for g in graphs),
        "permutation": max(testing.permutation_error(potential, g) for g in graphs),
        "translation": max(testing.translation_error(potential, g) for g in graphs),
        "extensivity": max(_extensivity(potential, g) for g in graphs),
    }
    return {name: 1000 * value for name, value in found.items()}


def _extensivity(potential: MessagePassing, graph: AtomicGraph) -> float:
    """Difference between the energy of a doubled structure and twice the energy, eV/atom.

    A periodic structure is doubled along its first cell vector: the atoms have the same
    neighbourhoods through other images. Without a cell, the two copies do not interact.
    """
    n_atoms = graph.species.shape[0]
    once = float(predict(potential, graph).energy.sum())
    cell = graph.cell[0]
    if not bool((graph.shifts != 0).any()):
        twice = float(predict(potential, join_graphs([graph, graph])).energy.sum())
        return abs(twice - 2 * once) / (2 * n_atoms)
    return abs(float(predict(potential, doubled(graph, cell)).energy.sum()) - 2 * once) / (
        2 * n_atoms
    )


def doubled(graph: AtomicGraph, cell: torch.Tensor) -> AtomicGraph:
    """The graph of two cells along the first cell vector (cell: (3, 3) Å)."""
    n_atoms = graph.species.shape[0]
    first = graph.shifts[:, 0]
    senders, receivers, shifts = [], [], []
    for image in (0, 1):  # image of the receiver; the sender is `first` cells back
        from_image = torch.remainder(image - first, 2).to(torch.int64)
        shift = graph.shifts.clone()
        shift[:, 0] = (first - image + from_image) / 2
        senders.append(graph.senders + n_atoms * from_image)
        receivers.append(graph.receivers + n_atoms * image)
        shifts.append(shift)
    large = graph.cell.clone()
    large[0, 0] *= 2
    joined = torch.cat(receivers)
    order = torch.argsort(joined, stable=True)
    return AtomicGraph(
        positions=torch.cat([graph.positions, graph.positions + cell[0]]),
        species=torch.cat([graph.species, graph.species]),
        structure=torch.zeros(2 * n_atoms, dtype=torch.int64),
        cell=large,
        senders=torch.cat(senders)[order],
        receivers=joined[order],
        shifts=torch.cat(shifts)[order],
    )


def cutoff_section(context: Context) -> Section:
    """Energy and force while an atom crosses the cutoff of a neighbour, and in the material."""
    symbols = context.symbols
    pair = (symbols[0], symbols[-1])
    atoms = Atoms(list(pair), positions=[(0, 0, 0), (0, 0, context.cutoff)])
    atoms.calc = context.exact
    near = move_atom(atoms, 1, (0, 0, 1), np.arange(-20, 21) * STEP)
    material = context.sample.copy()
    material.calc = context.exact
    reach = context.effort.path_steps
    inside = move_atom(material, 0, (0.36, 0.48, 0.8), np.arange(-reach, reach + 1) * STEP)
    energy = max(near.energy_jump, inside.energy_jump)
    force = max(near.force_jump, inside.force_jump)
    name = "–".join(pair)
    rows = [
        (f"{name} in vacuum", number(near.energy_jump), number(near.force_jump)),
        (context.sample_name, number(inside.energy_jump), number(inside.force_jump)),
    ]
    header = ("path", "energy not explained by forces (eV)", "jump of the force (eV/Å)")
    return Section(
        lead="One atom is moved in steps of 0.001 Å: in the material, along a path on which many "
        "neighbours enter and leave the cutoff, and in vacuum through the cutoff of a single "
        "neighbour. Energy and force must have no step (float64).",
        blocks=(_cutoff_picture(context, near, inside, name), table(header, rows)),
        verdicts=(judge("energy-jump", energy), judge("force-jump", force)),
        numbers={
            "pair": {
                **near._asdict(),
                "energy_jump": near.energy_jump,
                "force_jump": near.force_jump,
            },
            "material": {"energy_jump": inside.energy_jump, "force_jump": inside.force_jump},
            "step_A": STEP,
        },
    )


def _cutoff_picture(context: Context, near: Path, inside: Path, name: str) -> Picture:
    figure, axes = panels(1, 3, height=2.7)
    first, second, third = axes[0]
    distance = context.cutoff + near.offsets
    first.plot(distance, 1e6 * (near.energies - near.energies[-1]), color=BLUE)
    finish(first, f"{name} in vacuum", "distance (Å)", "energy (µeV)")
    second.plot(distance, 1e6 * near.forces, color=ORANGE)
    finish(second, f"{name} in vacuum", "distance (Å)", "force (µeV/Å)")
    for axis in (first, second):
        axis.axvline(context.cutoff, color=GREY, linewidth=0.8, linestyle="--")
        axis.ticklabel_format(useOffset=False, axis="x")
    third.plot(inside.offsets[1:-1], np.diff(inside.forces, 2) / STEP**2, color=ORANGE)
    finish(third, "in the material", "displacement (Å)", "d²F/dx² (eV/Å³)")
    return picture(
        figure,
        "energy and force at the cutoff",
        "Left and middle: one pair around the cutoff (dashed). Right: second derivative of the "
        "force, in which a jump would be a spike.",
    )
