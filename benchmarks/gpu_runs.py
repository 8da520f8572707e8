"""Batches of structures, and LAMMPS, on a GPU; a part of benchmarks/gpu.py."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import bulk
from ase.io.lammpsdata import write_lammps_data

from benchmarks.lammps import run, script, step_time
from benchmarks.ours import random_model
from benchmarks.silicon import LATTICE, noise, supercell
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.skin import GpuNeighbors
from tesseral.calculators.together import Crystals, Together
from tesseral.deploy.export import export_model
from tesseral.deploy.lammps import plugin_folder
from tesseral.deploy.lammps.build import PLUGIN, build_plugin
from tesseral.deploy.modelfile import save_model

Median = Callable[[Callable[[], object]], float]  # seconds of a task


def batches(
    calculator: TesseralCalculator, path: Path, sizes: Sequence[int], median: Median, until: float
) -> list[dict[str, Any]]:
    """Time of a step of crystals of 8 atoms by their number: joined relaxations and torch-sim.

    Args:
        calculator: calculator on the GPU.
        path: file of its model.
        sizes: numbers of crystals.
        median: median duration of a task.
        until: time after which nothing is begun.
    """
    rows: list[dict[str, Any]] = []
    for number in sizes:
        if time.perf_counter() > until:
            print(f"no time left for {number} crystals", flush=True)
            break
        random, unit = np.random.default_rng(number), bulk("Si", a=LATTICE, cubic=True)
        lattice = np.tile(unit.positions, (number, 1))
        counts = np.full(number, len(unit))
        kinds, cells = np.zeros(len(lattice), np.int64), np.stack([unit.cell.array] * number)
        together = Together(calculator)
        row: dict[str, Any] = {"crystals": number, "atoms": len(lattice)}

        def joined(together: Together = together, about: Any = (kinds, counts, lattice, cells)):
            kinds, counts, lattice, cells = about
            moved = lattice + 0.3 * noise(len(lattice), random)  # noqa: B023
            assert together.evaluate(Crystals(kinds, counts, moved, cells)) is not None

        def forgetful(together: Together = together, joined: Any = joined) -> None:
            together.neighbors = GpuNeighbors(
                calculator.potential, calculator.card.config.cutoff, calculator.neighbors.skin
            )
            joined()

        row["joined_us_atom"] = 1e6 * median(joined) / len(lattice)
        row["joined_new_lists_us_atom"] = 1e6 * median(forgetful) / len(lattice)
        row |= torch_sim(path, str(calculator.device), lattice, counts, cells, median)
        print(row, flush=True)
        rows.append(row)
    return rows


def torch_sim(
    path: Path,
    device: str,
    positions: np.ndarray,
    counts: np.ndarray,
    cells: np.ndarray,
    median: Median,
) -> dict[str, Any]:
    """Time of a call of the torch-sim model on a state that stays on the device."""
    try:
        from tesseral.calculators.torchsim import TesseralModel
    except ModuleNotFoundError as error:
        return {"torch-sim": str(error)}
    from torch_sim.state import SimState

    model = TesseralModel(path, device=device)
    state = SimState(
        positions=torch.tensor(positions, device=device),
        masses=torch.ones(len(positions), dtype=torch.float64, device=device),
        cell=torch.tensor(cells, device=device).mT.contiguous(),
        pbc=True,
        atomic_numbers=torch.full((len(positions),), 14, device=device),
        system_idx=torch.repeat_interleave(
            torch.arange(len(counts), device=device), torch.tensor(counts, device=device)
        ),
    )

    def step() -> None:
        state.positions += 1e-4 * torch.randn_like(state.positions)
        model(state)

    return {"torch-sim_us_atom": 1e6 * median(step) / len(positions)}


def lammps(config: dict[str, Any], sizes: Sequence[int], until: float) -> list[dict[str, Any]]:
    """Time of a step of MD in LAMMPS on one GPU by number of atoms, in float32."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model.safetensors", *random_model(config))
        try:
            export_model(folder / "model.safetensors", folder / "model.pt", gpu=True)
            if not Path(plugin_folder(), PLUGIN).exists():
                build_plugin()
        except ValueError as error:
            return [{"error": str(error)}]
        pair = "pair_style tesseral gpu\npair_coeff * * model.pt Si"
        for size in sizes:
            if time.perf_counter() > until:
                print(f"no time left for LAMMPS with {size} atoms", flush=True)
                break
            data, atoms = folder / "si.data", supercell(size)
            write_lammps_data(data, atoms, specorder=["Si"], masses=True, atom_style="atomic")
            row: dict[str, Any] = {"atoms": size}
            try:
                text = run(folder, script(data, pair, 600, steps := 50, steps), 1)
                row["lammps_us_atom"] = 1e6 * step_time(text, steps) / size
            except ValueError as error:
                row["error"] = str(error)
            print(row, flush=True)
            rows.append(row)
    return rows
