"""Tasks for a universal potential in the environment of its own program.

Each factory returns a ``Subject``, whose methods are timed by benchmarks/serve.py. Needs only NumPy
and ASE besides the program.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import BFGS, FIRE

from benchmarks.accuracy.calculators import count
from benchmarks.serve import Task
from benchmarks.silicon import SiliconSteps, supercell

warnings.filterwarnings("ignore")

OPTIMIZERS = {"BFGS": BFGS, "FIRE": FIRE}
ORIGINAL = Path(__file__).parents[2] / "deploy" / "nequix" / "original.py"
MATERIALS = {"Si": ("Si", "diamond", 5.43), "MgO": ("MgO", "rocksalt", 4.21)}  # 8 atoms per cell


class Subject(SiliconSteps):
    """Predictions, steps of dynamics and relaxations with one calculator."""

    material = "Si"

    def predict(self, structures: str, output: str) -> Task:
        """Write energies (S,) eV, forces (N, 3) eV/Å, stresses (S, 6) eV/Å³ of a file as .npz.

        Stresses are in ASE order, and NaN for atoms without a periodic cell.
        """
        frames = read(structures, ":")

        def run() -> dict[str, Any]:
            energy, forces, stress = predict_frames(self.calculator, frames)
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            np.savez(output, energy=energy, forces=forces, stress=stress)
            return {}

        return (lambda: None), run

    def material_step(self, material: str, n_atoms: int) -> Task:
        """Energy, forces and stress of a warm crystal at new positions."""
        if material != self.material:
            self.material, self.atoms = material, Atoms()
        return self.step(n_atoms)

    def set_up(self, n_atoms: int) -> None:
        """Make atoms if their number or material has changed."""
        if len(self.atoms) != n_atoms:
            formula, structure, a = MATERIALS[self.material]
            repeats = round((len(supercell(n_atoms)) / 8) ** (1 / 3))
            self.atoms = bulk(formula, structure, a=a, cubic=True).repeat(repeats)
            self.lattice = self.atoms.positions.copy()
            self.atoms.calc = self.calculator

    def moved(self, structures: str, number: int) -> Task:
        """Energy, forces and stress of a structure of a file at slightly displaced positions."""
        atoms = read(structures, number)
        places = atoms.positions.copy()
        atoms.calc = self.calculator

        def prepare() -> None:
            atoms.positions = places + self.generator.normal(scale=0.01, size=places.shape)

        def run() -> None:
            self.atoms = atoms
            self.compute()
            self.atoms = Atoms()  # must not be confused with those of ``step``

        return prepare, run

    def relax(self, structures: str, number: int, optimizer: str, fmax: float, steps: int) -> Task:
        """Relax atoms and cell of a structure of a file to forces below fmax (eV/Å)."""
        source = read(structures, number)
        relaxed: list[Atoms] = []

        def prepare() -> None:
            atoms = source.copy()
            atoms.calc = self.calculator
            relaxed[:] = [atoms]

        def run() -> dict[str, Any]:
            atoms = relaxed[0]
            taken, converged = self.relax_cell(atoms, optimizer, fmax, steps)
            return {
                "converged": converged,
                "relaxation_steps": taken,
                "volume": float(atoms.get_volume() / len(atoms)),
                "energy": float(atoms.get_potential_energy() / len(atoms)),
            }

        return prepare, run

    def relax_cell(self, atoms: Atoms, optimizer: str, fmax: float, steps: int) -> tuple[int, bool]:
        """Relax atoms and cell with ASE; number of steps, and whether that was enough."""
        method = OPTIMIZERS[optimizer](FrechetCellFilter(atoms), logfile=None)
        converged = bool(method.run(fmax=fmax, steps=steps))
        return int(method.nsteps), converged


class Ours(Subject):
    """Ours relaxes as ``train-potential relax`` does."""

    def relax_cell(self, atoms: Atoms, optimizer: str, fmax: float, steps: int) -> tuple[int, bool]:
        """Relax atoms and cell; number of steps, and whether that was enough."""
        from tesseral.calculators.properties.relaxation import relaxing

        last = deque(
            relaxing(atoms, fmax=fmax, steps=steps, cell="free", optimizer=optimizer.lower()),
            maxlen=1,
        ).pop()
        return last.number, last.converged

    def relax_together(self, structures: str, fmax: float, steps: int) -> Task:
        """Relax atoms and cells of all structures of a file with BFGS."""
        from tesseral.calculators.properties.relaxing_together import relaxing_together

        source = read(structures, ":")
        made: list[Atoms] = []

        def prepare() -> None:
            made[:] = [atoms.copy() for atoms in source]

        def run() -> dict[str, Any]:
            events = relaxing_together(made, self.calculator, fmax=fmax, steps=steps, cell="free")
            last = {event.number: event.step for event in events}
            return {
                "relaxed": [
                    {
                        "converged": last[number].converged,
                        "relaxation_steps": last[number].number,
                        "volume": float(atoms.get_volume() / len(atoms)),
                        "energy": last[number].energy,
                    }
                    for number, atoms in enumerate(made)
                ]
            }

        return prepare, run


def predict_frames(
    calculator: Any, frames: list[Atoms]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies (S,), forces (N, 3), stresses (S, 6); see ``Subject.predict``."""
    energy, forces, stress = [], [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        periodic = atoms.pbc.any() and atoms.cell.rank == 3
        energy.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        stress.append(atoms.get_stress() if periodic else np.full(6, np.nan))
    return np.array(energy), np.concatenate(forces), np.array(stress)


def tesseral(path: str, dtype: str | None = None) -> Subject:
    """Our calculator from a model file."""
    from tesseral.calculators.ase import TesseralCalculator

    calculator = TesseralCalculator(path, device="cpu", dtype=dtype)
    return Ours(calculator, parameters=calculator.card.parameters)


def sevennet(name: str = "7net-0", dtype: str = "float32") -> Subject:
    """SevenNet with published weights; with float64, the same weights and all arithmetic in it."""
    import torch
    from sevenn import util
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(name, device="cpu")
    if dtype == "float64":
        calculator.model.double()
        calculator.model.onehot_idx_to_onehot.register_forward_hook(_widen)  # it calls .float()
        util.dtype_correct = functools.partial(util.dtype_correct, float_dtype=torch.float64)
    return Subject(calculator, parameters=count(calculator.model))


def _widen(module: Any, arguments: Any, data: Any) -> Any:
    """Numbers of a SevenNet graph in float64."""
    for name, value in data.items():
        if hasattr(value, "is_floating_point") and value.is_floating_point():
            data[name] = value.double()
    return data


def nequix(path: str, dtype: str = "float32") -> Subject:
    """Nequix with the weights of a file; with float64, the same weights and all arithmetic in it.

    Structures are padded to few sizes, because each size is compiled for half a minute.
    """
    calculator = _from_file(ORIGINAL).NequixOriginal(Path(path))
    if dtype == "float64":
        _widen_nequix(calculator)
    return Subject(calculator, parameters=_nequix_weights(calculator.network))


def _from_file(path: Path) -> Any:
    """A module of tesseral that needs only NumPy and ASE, where tesseral is not installed."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _widen_nequix(calculator: Any) -> None:
    """Make a Nequix network compute in float64, with the activations of the one in float32."""
    import equinox
    import jax
    from e3nn_jax._src import activation

    at = activation.normalspace(1_000_001)
    sizes = {phi: float((phi(at) ** 2).mean() ** 0.5) for phi in (jax.nn.silu, jax.nn.tanh)}
    activation.normalize_function = lambda phi: lambda x: phi(x) / sizes[phi]
    jax.config.update("jax_enable_x64", True)
    calculator.network = jax.tree.map(
        lambda leaf: leaf.astype("float64") if equinox.is_inexact_array(leaf) else leaf,
        calculator.network,
    )
    preprocess = calculator.data.preprocess_graph

    def exact(atoms: Atoms, *arguments: Any) -> dict[str, Any]:
        graph: dict[str, Any] = preprocess(atoms, *arguments)
        graph["positions"] = atoms.positions.copy()
        graph["shifts"] = graph["shifts"].astype(float)
        if graph["cell"] is not None:
            graph["cell"] = atoms.cell.array.copy()
        return graph

    calculator.data.preprocess_graph = exact


def nequix_calculator(path: str) -> Subject:
    """Nequix's own ASE calculator, with its own padding, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # XLA starts a thread for each core
    import jax

    jax.config.update("jax_platforms", "cpu")
    from nequix.calculator import NequixCalculator

    calculator = NequixCalculator(model_path=path, backend="jax", use_kernel=False)
    return Subject(calculator, parameters=_nequix_weights(calculator.model))


def _nequix_weights(network: Any) -> int:
    import equinox
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(equinox.filter(network, equinox.is_array)))


def chgnet() -> Subject:
    """CHGNet with the weights in its package."""
    from chgnet.model.dynamics import CHGNetCalculator

    calculator = CHGNetCalculator(use_device="cpu")
    return Subject(calculator, parameters=count(calculator.model))


def mace(hidden: str) -> Subject:
    """MACE of the size of MACE-MP-0 (6 Å, 89 elements), with random weights.

    128x0e is the small model, 128x0e+128x1o the medium one. The package has no trained weights, so
    the predictions are meaningless, but the time of a step is that of the trained model.
    """
    from benchmarks.peers.factories import random_mace

    numbers = [z for z in range(1, 95) if z not in (84, 85, 86, 87, 88)]
    first = "RealAgnosticResidualInteractionBlock"
    calculator, weights = random_mace(hidden, 6.0, 10, numbers, 60.0, first)
    return Subject(calculator, parameters=weights)
