"""Relax many structures in one batch with torch-sim: positions, and cells of crystals.

python -m tesseral.md_examples.batch_relaxation structures.extxyz model.safetensors
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from rich.console import Console

from tesseral.data.neighbors import species_index
from tesseral.data.sources.opening import read_frames
from tesseral.data.units import stress_voigt
from tesseral.process import ctrl_c, keep_freed_memory
from tesseral.screen import print_table, progress_bar

try:
    from torch_sim import optimizers
    from torch_sim.autobatching import InFlightAutoBatcher
    from torch_sim.runners import generate_force_convergence_fn
    from torch_sim.state import SimState

    from tesseral.calculators.torchsim import TesseralModel
except ModuleNotFoundError as error:
    if __name__ == "__main__" and (error.name or "").split(".")[0] == "torch_sim":
        sys.exit(
            "error: torch-sim is not installed; run pip install torch-sim-atomistic "
            "(Python 3.11 or newer)"
        )
    raise

OUTCOMES = ("converged", "not converged", "failed")
COLUMNS = ("number", "formula", "atoms", "start_eV", "end_eV", "steps", "max_force_eV_A", "outcome")
SHOWN = 20  # structures listed on the screen; the table has all

OnStep = Callable[[int], None]


class Relaxed(NamedTuple):
    """A structure that has left the batch."""

    number: int  # index among the given structures
    atoms: Atoms  # with energy, forces, and stress if the cell moved; NaN if it failed
    start: float  # eV
    end: float  # eV
    steps: int
    max_force: float  # eV/Å, on the atoms
    outcome: str  # one of OUTCOMES


def relax_batch(
    structures: Sequence[Atoms],
    model: TesseralModel,
    *,
    fmax: float = 0.02,
    steps: int = 500,
    fixed_cell: bool = False,
    batch_atoms: int = 5000,
    on_step: OnStep | None = None,
) -> Iterator[Relaxed]:
    """Relax copies of ``structures`` together with FIRE, as implemented in ASE, step by step.

    A converged structure is replaced by the next one. The cell is relaxed if it is periodic in all
    three directions (by deformation gradient, as in ASE's ``UnitCellFilter``).

    Args:
        structures: structures to relax; not changed.
        model: torch-sim model. With ``failed="nan"`` a structure without an energy fails alone;
            otherwise it raises an error.
        fmax: convergence criterion: maximum force (eV/Å), including the force on the cell.
        steps: maximum number of steps per structure.
        fixed_cell: relax the positions only.
        batch_atoms: maximum number of atoms in a batch; a larger structure has its own batch.
        on_step: called after each step with the number of structures in the batch.

    Yields:
        Each structure when it is finished, in the order of completion.

    Raises:
        ValueError: a setting is not positive, an element is unknown to the model, or a structure
            has no atoms or has constraints.
    """
    if not fmax > 0 or steps < 1 or batch_atoms < 1:
        raise ValueError(
            f"fmax is {fmax}, steps {steps}, atoms in a batch {batch_atoms}; use positive numbers"
        )
    _check_structures(structures, model.card.elements)
    groups: dict[tuple[bool, ...], list[int]] = {}
    for index, atoms in enumerate(structures):
        groups.setdefault(tuple(bool(axis) for axis in atoms.pbc), []).append(index)
    for pbc, members in groups.items():
        group = [structures[index] for index in members]
        batch = Batch(group, model, batch_atoms, cell_moves=all(pbc) and not fixed_cell)
        for result in batch.relax(fmax, steps, on_step):
            yield result._replace(number=members[result.number])


class Batch:
    """Relaxation of structures with the same periodic directions in torch-sim."""

    def __init__(
        self, structures: Sequence[Atoms], model: TesseralModel, batch_atoms: int, cell_moves: bool
    ) -> None:
        """Compute the first forces of all structures, batch by batch."""
        self.structures = structures
        self.cell_moves = cell_moves
        initialize, self.step = fire_of(model, cell_moves)
        states = [
            state
            for chunk in in_chunks(structures, batch_atoms)
            for state in initialize(make_state(chunk, model.device)).split()
        ]
        self.start = [float(state.energy[0]) for state in states]
        self.batcher = InFlightAutoBatcher(
            model,
            memory_scales_with="n_atoms",
            max_memory_scaler=max(batch_atoms, *(len(atoms) for atoms in structures)),
        )
        self.batcher.load_states(states)

    def relax(self, fmax: float, steps: int, on_step: OnStep | None) -> Iterator[Relaxed]:
        """Step all structures until each is finished."""
        is_relaxed = generate_force_convergence_fn(fmax, include_cell_forces=self.cell_moves)
        taken = torch.zeros(len(self.structures), dtype=torch.int64)
        state = self.batcher.next_batch(None, None)[0]
        while state is not None:
            members = list(self.batcher.current_idx)
            here = torch.tensor(members)
            relaxed, lost = is_relaxed(state).cpu(), ~state.energy.isfinite().cpu()
            done = relaxed | lost | (taken[here] >= steps)
            for place in done.nonzero().flatten().tolist():
                outcome = OUTCOMES[2 if lost[place] else 0 if relaxed[place] else 1]
                yield self._result(state, place, members[place], int(taken[here[place]]), outcome)
            if done.any():
                state = self.batcher.next_batch(state, done.to(state.device))[0]
                continue  # a new structure may be relaxed already
            state = self.step(state)
            taken[here] += 1
            if on_step is not None:
                on_step(len(members))

    def _result(self, state: Any, place: int, index: int, steps: int, outcome: str) -> Relaxed:
        """A structure of the batch as ASE atoms with its energy and forces."""
        mine = state.system_idx == place
        atoms = self.structures[index].copy()
        atoms.calc = None
        cell = state.cell[place].mT.cpu().numpy()
        if self.cell_moves:
            atoms.set_cell(cell[_vector_order(atoms)])
        atoms.positions[:] = state.positions[mine].cpu().numpy()
        energy, forces = float(state.energy[place]), state.forces[mine].cpu().numpy()
        results = {"energy": energy, "forces": forces}
        if self.cell_moves:
            results["stress"] = stress_voigt(state.stress[place].cpu().numpy())
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["relaxation"] = outcome
        max_force = float(np.linalg.norm(forces, axis=1).max())
        return Relaxed(index, atoms, self.start[index], energy, steps, max_force, outcome)


def fire_of(model: TesseralModel, cell_moves: bool) -> tuple[Any, Any]:
    """Functions that initialize and step FIRE, of positions or also of cells by their gradient."""
    if hasattr(optimizers, "unit_cell_fire"):  # torch-sim 0.3
        made: tuple[Any, Any] = (optimizers.unit_cell_fire if cell_moves else optimizers.fire)(
            model
        )
        return made
    from torch_sim.optimizers.cell_filters import CellFilter

    cell = {"cell_filter": CellFilter.unit} if cell_moves else {}
    return (
        partial(optimizers.fire_init, model=model, **cell),
        partial(optimizers.fire_step, model=model),
    )


def in_chunks(structures: Sequence[Atoms], limit: int) -> Iterator[list[Atoms]]:
    """Consecutive structures with up to ``limit`` atoms in all; a larger structure is alone."""
    chunk: list[Atoms] = []
    for atoms in structures:
        if chunk and sum(map(len, chunk)) + len(atoms) > limit:
            yield chunk
            chunk = []
        chunk.append(atoms)
    yield chunk


def make_state(structures: Sequence[Atoms], device: torch.device) -> SimState:
    """Structures with the same periodic directions as one torch-sim state in float64.

    Unlike the conversion in torch-sim, it keeps slabs and wires periodic and makes the cells of
    crystals right-handed, since the optimizers of torch-sim use the signed volume.
    """
    cells = [atoms.cell.array[_vector_order(atoms)] for atoms in structures]
    sizes = torch.tensor([len(atoms) for atoms in structures])

    def join(arrays: list[Any], dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.tensor(np.concatenate(arrays), dtype=dtype, device=device)

    return SimState(
        positions=join([atoms.positions for atoms in structures]),
        masses=join([atoms.get_masses() for atoms in structures]),
        cell=join([cell.T[None] for cell in cells]),  # columns are lattice vectors
        pbc=tuple(bool(axis) for axis in structures[0].pbc),
        atomic_numbers=join([atoms.numbers for atoms in structures], torch.int64),
        system_idx=torch.arange(len(structures)).repeat_interleave(sizes).to(device),
    )


def _vector_order(atoms: Atoms) -> list[int]:
    """The right-handed order of the cell vectors of a crystal; its own inverse."""
    left_handed = atoms.pbc.all() and np.linalg.det(atoms.cell.array) < 0
    return [1, 0, 2] if left_handed else [0, 1, 2]


def _check_structures(structures: Sequence[Atoms], elements: tuple[int, ...]) -> None:
    """Check that all structures can be relaxed; errors name the index of the structure."""
    if not structures:
        raise ValueError("there are no structures to relax")
    for index, atoms in enumerate(structures):
        try:
            species_index(atoms.numbers, elements)
        except ValueError as error:
            raise ValueError(f"structure {index}: {error}") from None
        if len(atoms) == 0:
            raise ValueError(f"structure {index} has no atoms")
        if atoms.constraints:
            raise ValueError(
                f"structure {index} has constraints, which torch-sim's optimizers do not know; "
                "remove them, or relax it with train-potential relax"
            )


def read_structures(path: Path) -> list[Atoms]:
    """All structures of a file that ASE reads.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no structure file {path}")
    try:
        return list(read_frames(path))
    except Exception as error:  # every format of ASE raises different errors
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be read as structures ({reason})") from None


def write_results(results: Sequence[Relaxed], output: Path) -> Path:
    """Write structures as extended XYZ with a table next to it; returns the path of the table."""
    output.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(results, key=lambda result: result.number)
    ase.io.write(output, [result.atoms for result in ordered], format="extxyz")
    table = output.with_suffix(".csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_row(result) for result in ordered)
    return table


def _row(result: Relaxed) -> tuple[str, ...]:
    """A row of the table in the order of COLUMNS."""
    energies = f"{result.start:.6f}", f"{result.end:.6f}"
    formula = result.atoms.get_chemical_formula()
    names = str(result.number), formula, str(len(result.atoms))
    return *names, *energies, str(result.steps), f"{result.max_force:.5f}", result.outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    keep_freed_memory()
    try:
        _run(arguments, Console())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the files have all results so far", file=sys.stderr)
        return 130
    return 0


def _run(arguments: argparse.Namespace, console: Console) -> None:
    """Relax the structures of the command line; the results so far are written in any case."""
    structures = read_structures(arguments.structures)
    model = TesseralModel(
        arguments.model, device=arguments.device, dtype=arguments.dtype, failed="nan"
    )
    output = arguments.output or Path(f"{arguments.structures.stem}-batch_relaxation.extxyz")
    if output.suffix == ".csv":
        raise ValueError(
            f"the output {output} would be overwritten by the table; end it on .extxyz"
        )
    results: list[Relaxed] = []
    try:
        with progress_bar(console) as progress, ctrl_c() as check:
            task = progress.add_task("relax", total=len(structures))

            def on_step(in_batch: int) -> None:
                text = f"relax, {in_batch} in the batch"
                progress.update(task, completed=len(results), description=text)
                check()

            for result in relax_batch(
                structures,
                model,
                fmax=arguments.fmax,
                steps=arguments.steps,
                fixed_cell=arguments.fixed_cell,
                batch_atoms=arguments.batch_atoms,
                on_step=on_step,
            ):
                results.append(result)
            progress.update(task, completed=len(results))
    finally:
        if results:
            table = write_results(results, output)
    _report(console, results, moved=not arguments.fixed_cell)
    console.print(f"wrote {output}, {table}", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tesseral.md_examples.batch_relaxation",
        description="Relax many structures in one batch with torch-sim.",
    )
    add = parser.add_argument
    add("structures", type=Path, help="file with structures in any format ASE reads")
    add("model", type=Path, help="model file, or universal")
    output = "relaxed structures as extended XYZ, with a table next to it as .csv"
    add(
        "-o",
        "--output",
        type=Path,
        help=f"{output}. Default: STRUCTURES-batch_relaxation.extxyz",
    )
    add("--fmax", type=float, default=0.02, help="maximum force in eV/Å (%(default)s)")
    add("--steps", type=int, default=500, help="maximum number of steps (%(default)s)")
    add("--fixed-cell", action="store_true", help="relax the positions only")
    atoms = "maximum number of atoms in a batch (%(default)s)"
    add("--batch-atoms", type=int, default=5000, help=atoms)
    add("--device", help="cpu, cuda, …. Default: a GPU if available")
    add("--dtype", choices=("float32", "float64"), help="precision. Default: that of the model")
    return parser


def _report(console: Console, results: Sequence[Relaxed], *, moved: bool) -> None:
    """Print a summary of the results."""
    counts = [sum(result.outcome == outcome for result in results) for outcome in OUTCOMES]
    steps = np.array([result.steps for result in results])
    gains = [1000 * (r.end - r.start) / len(r.atoms) for r in results if r.outcome != "failed"]
    rows = [(name, str(count)) for name, count in zip(OUTCOMES, counts, strict=True)]
    rows.append(("steps, median and maximum", f"{np.median(steps):.0f}, {steps.max()}"))
    if gains:
        rows.append(("energy change (meV/atom), mean", f"{np.mean(gains):.2f}"))
    print_table(console, ("structures", str(len(results))), rows)
    if moved and (kept := sum(not result.atoms.pbc.all() for result in results)):
        console.print(f"{kept} not periodic in all directions: their cells were kept")
    bad = [
        result
        for result in sorted(results, key=lambda result: result.number)
        if result.outcome != OUTCOMES[0]
    ]
    if bad:
        print_table(console, COLUMNS, [_row(result) for result in bad[:SHOWN]])
    if len(bad) > SHOWN:
        console.print(f"… and {len(bad) - SHOWN} more in the table")
    if counts[1]:
        console.print("not converged: raise --steps")
    if counts[2]:
        console.print("failed: atoms that overlap, or a structure that the model cannot evaluate")


if __name__ == "__main__":
    sys.exit(main())
