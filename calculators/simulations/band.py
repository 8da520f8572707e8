"""Minimum-energy path between two structures, resumed by replaying its trajectory."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator

from tesseral.calculators.properties import band
from tesseral.calculators.properties.atoms import largest_force
from tesseral.calculators.simulations import pictures
from tesseral.calculators.simulations.config import NebConfig, RelaxConfig
from tesseral.calculators.simulations.frames import (
    Table,
    frame_of,
    readable_frames,
    with_suffix,
    write_frames,
)
from tesseral.calculators.simulations.relaxation import (
    Outcome,
    Remembered,
    Show,
    open_after,
    relax_one,
    theory_of,
)
from tesseral.files import write_json

COLUMNS = (
    "forward_barrier_eV",
    "backward_barrier_eV",
    "reaction_energy_eV",
    "path_length_A",
    "max_force_eV_A",
    "note",
)
IMAGE_COLUMNS = ("image", "distance_A", "energy_eV", "max_force_eV_A")


def neb_one(
    ends: tuple[Atoms, Atoms], calculator: Calculator, config: NebConfig, prefix: Path, show: Show
) -> Outcome:
    """Relax the ends of a path and the structures between them, or resume this.

    Args:
        ends: first and last structure; not changed. The constraints of the first apply.
        calculator: calculator of the model; each structure gets a copy.
        config: options.
        prefix: path of the files without their endings: ``.extxyz`` (path), ``.csv``, ``.json``,
            ``.png``, ``.traj`` (all steps), and those of the relaxations of ``-start`` and
            ``-end``.
        show: called with each step.

    Raises:
        ValueError: the ends do not belong together, or the model cannot evaluate a structure.
        CalculationFailed: energies or forces are not finite.
    """
    start, end = ends[0].copy(), band.matched_end(*ends)
    doubt = band.doubt_about_order(start, end)
    end.set_constraint(start.constraints)
    reason = ""
    if not config.keep_ends:
        start, first = _relaxed(start, "start", calculator, config, prefix, show)
        end, second = _relaxed(end, "end", calculator, config, prefix, show)
        reason = first or second
        end = band.matched_end(start, end)
    try:
        return _path(start, end, calculator, config, prefix, show, [doubt], reason)
    except (ValueError, RuntimeError) as error:
        raise type(error)(f"{error}; {doubt}" if doubt else str(error)) from error


def _relaxed(
    atoms: Atoms, name: str, calculator: Calculator, config: NebConfig, prefix: Path, show: Show
) -> tuple[Atoms, str]:
    """A relaxed end, and why it is not converged."""
    options = RelaxConfig(structures=[], cell="fixed", fmax=config.fmax, steps=config.steps)
    prefix = with_suffix(prefix, f"-{name}")

    def tell(step: int, steps: int, text: str) -> None:
        show(step, steps, f"{name}: {text}")

    outcome = relax_one(atoms, copy(calculator), options, prefix, tell)
    *_, relaxed = readable_frames(with_suffix(prefix, ".traj"))
    relaxed.set_constraint(atoms.constraints)
    converged = outcome.word == "converged"
    return relaxed, "" if converged else f"`steps` was not enough for the {name}"


def _path(
    start: Atoms,
    end: Atoms,
    calculator: Calculator,
    config: NebConfig,
    prefix: Path,
    show: Show,
    notes: list[str],
    reason: str,
) -> Outcome:
    """The relaxed path, its files, and its most important numbers."""
    path = band.first_path(start, end, config.images)
    inner, width = path[1:-1], len(path) - 2
    file = with_suffix(prefix, ".traj")
    known = list(readable_frames(file))
    memories = [Remembered(copy(calculator), known[i::width]) for i in range(width)]
    for image, memory in zip(inner, memories, strict=True):
        image.calc = memory
    for image in (start, end):
        image.calc = Remembered(copy(calculator), [])
    trajectory = None
    try:
        for step in band.relaxing_path(
            path, fmax=config.fmax, steps=config.steps, method=config.method
        ):
            used = min(memory.used for memory in memories)
            if step.number >= used:
                if trajectory is None:
                    trajectory = open_after(file, known[: used * width])
                for image in inner:
                    trajectory.add(frame_of(image, start.constraints))
            text = f"barrier {step.energies.max() - step.energies[0]:.3f} eV, "
            show(step.number, config.steps, f"{text}largest force {step.max_force:.3f} eV/Å")
    finally:
        if trajectory is not None:
            trajectory.close()
    result = band.profile(path)
    notes = [*filter(None, notes), *band.remarks(result)]
    values: dict[str, float | str] = {
        "forward_barrier_eV": result.forward,
        "backward_barrier_eV": result.backward,
        "reaction_energy_eV": result.reaction,
        "path_length_A": float(result.distance[-1]),
        "max_force_eV_A": step.max_force,
        "note": "; ".join(notes),
    }
    rows = [
        (number, distance, energy, largest_force(image))
        for number, (distance, energy, image) in enumerate(
            zip(result.distance.tolist(), result.energies.tolist(), path, strict=True)
        )
    ]
    write_frames(with_suffix(prefix, ".extxyz"), [frame_of(i, start.constraints) for i in path])
    Table(with_suffix(prefix, ".csv"), IMAGE_COLUMNS, rows).close()
    pictures.draw_profile(result, with_suffix(prefix, ".png"))
    word = "converged" if step.converged and not reason else "not converged"
    numbers: dict[str, Any] = {
        **values,
        "outcome": word,
        "steps": step.number,
        "method": config.method,
        "level_of_theory": theory_of(calculator),
        "highest_image": result.highest,
        "images": [dict(zip(IMAGE_COLUMNS, row, strict=True)) for row in rows],
        "spline": {
            "distance_A": result.fine_distance.tolist(),
            "energy_eV": result.fine_energies.tolist(),
        },
    }
    write_json(with_suffix(prefix, ".json"), numbers, indent=1)
    return Outcome(word, step.number, values, reason)
