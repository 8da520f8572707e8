"""Timed steps of our calculator; made in a worker by benchmarks/serve.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ase import units
from ase.md.verlet import VelocityVerlet
from torch import nn

from benchmarks.serve import Task
from benchmarks.silicon import SiliconSteps, noise, supercell
from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.graph import AtomicGraph
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.modelfile import ModelCard, build_potential, save_model
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing

FORCE_RMS = 0.5  # eV/Å, forces of the random model on warm silicon
MATRIX = 1024


def warm_graph(card: ModelCard, n_atoms: int, seed: int) -> AtomicGraph:
    """Perturbed silicon as a graph."""
    atoms = supercell(n_atoms)
    positions = atoms.positions + noise(n_atoms, np.random.default_rng(seed))
    return atomic_graph(
        atoms.numbers, positions, atoms.cell.array, atoms.pbc, card.elements, card.config.cutoff
    )


def random_model(config: dict[str, Any]) -> tuple[MessagePassing, ModelCard]:
    """A potential of silicon with random weights and forces of the usual size."""
    card = ModelCard(
        config=make_config(**config),
        elements=(14,),
        reference_energies=(-5.4,),
        energy_scale=1.0,
        mean_neighbors=28.0,
    )
    torch.manual_seed(0)
    forces = predict(build_potential(card), warm_graph(card, 64, seed=0)).forces
    card = replace(card, energy_scale=FORCE_RMS / float(forces.square().mean().sqrt()))
    torch.manual_seed(0)
    return build_potential(card), card


def is_fused(potential: nn.Module) -> bool:
    """Whether the compiled kernels are used."""
    return any(getattr(module, "fused", False) for module in potential.modules())


def sgemm(size: int = MATRIX) -> Task:
    """Product of two float32 matrices, as a measure of the machine."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    product = torch.empty(size, size)

    def run() -> None:
        torch.mm(a, b, out=product)

    return (lambda: None), run


class Inference(SiliconSteps):
    """The calculator, its neighbour list separately, and a matrix product for comparison."""

    def __init__(self, config: dict[str, Any], model: str | None, ops: str) -> None:
        """Load a model file, or make a model with random weights if none is given."""
        with TemporaryDirectory() as folder:
            path = Path(model) if model else Path(folder) / "random.safetensors"
            if model is None:
                save_model(path, *random_model(config))
            calculator = TesseralCalculator(path, device="cpu", ops=ops)
        card = calculator.card
        edges = len(warm_graph(card, 64, seed=0).senders)
        super().__init__(
            calculator,
            parameters=card.parameters,
            dtype=card.dtype,
            elements=len(card.elements),
            neighbors=edges / 64,
            fused=is_fused(calculator.potential),
            config={name: getattr(card.config, name) for name in ("channels", "l_max", "layers")},
        )

    def list_at_lattice(self, n_atoms: int) -> None:
        """A neighbour list for the lattice, valid for all positions drawn around it."""
        self.set_up(n_atoms)
        self.calculator.neighbors.forget()
        self.calculator.neighbors.edges(self.lattice, self.atoms.cell.array, self.atoms.pbc)

    def step(self, n_atoms: int) -> Task:
        """A step that reuses the neighbour list, as most steps of MD do."""
        self.list_at_lattice(n_atoms)
        return self.move, self.compute

    def rebuilt(self, n_atoms: int) -> Task:
        """A step with a neighbour search."""
        self.set_up(n_atoms)
        return self._move_and_forget, self.compute

    def search(self, n_atoms: int) -> Task:
        """The neighbour search only."""
        self.set_up(n_atoms)
        return self._move_and_forget, self._edges

    def check(self, n_atoms: int) -> Task:
        """Only the test whether the list is still valid."""
        self.list_at_lattice(n_atoms)
        return self.move, self._edges

    def dynamics(self, n_atoms: int, steps: int, temperature: float) -> Task:
        """NVE dynamics from the lattice with time steps of 1 fs; returns the number of searches."""
        atoms = supercell(n_atoms)
        atoms.calc = self.calculator
        # Half of the energy becomes potential energy: start with twice the temperature.
        width = np.sqrt(2 * temperature * units.kB * atoms.get_masses())[:, None]
        atoms.set_momenta(width * np.random.default_rng(0).normal(size=(n_atoms, 3)))
        verlet = VelocityVerlet(atoms, timestep=units.fs)

        def run() -> dict[str, int]:
            before = self.calculator.neighbors.builds
            verlet.run(steps)
            return {"steps": steps, "builds": self.calculator.neighbors.builds - before}

        return (lambda: None), run

    def sgemm(self) -> Task:
        """Product of two float32 matrices."""
        return sgemm()

    def _move_and_forget(self) -> None:
        self.move()
        self.calculator.neighbors.forget()

    def _edges(self) -> None:
        atoms = self.atoms
        self.calculator.neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
