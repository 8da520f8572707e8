"""Descriptors of the calculator: invariance, equivariance, layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from e3nn import o3

from tesseral import TesseralCalculator
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.derivatives import predict_edges


@pytest.fixture
def calculator(small_model: Path) -> TesseralCalculator:
    """A fresh float64 calculator on the CPU."""
    return TesseralCalculator(small_model, device="cpu", dtype="float64")


def crystal() -> Atoms:
    """Rattled zincblende SiC."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def rotated(atoms: Atoms, rotation: torch.Tensor) -> Atoms:
    """A rotated copy, moved and with its atoms in the opposite order."""
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.numpy().T)
    turned.set_positions(atoms.positions @ rotation.numpy().T + [0.3, -1.0, 7.0])
    return turned[::-1]


def test_invariants_stay_the_same_in_a_rotated_crystal(calculator: TesseralCalculator) -> None:
    torch.manual_seed(0)
    rotation = -o3.rand_matrix(dtype=torch.float64)
    before = calculator.get_descriptors(crystal())
    after = calculator.get_descriptors(rotated(crystal(), rotation))
    assert before.shape == (8, 2 * calculator.card.config.channels)
    assert np.abs(before - before.mean(axis=0)).max() > 1e-3
    np.testing.assert_allclose(after[::-1], before, rtol=0, atol=1e-9 * np.abs(before).max())


def test_features_rotate_like_harmonics_of_e3nn(calculator: TesseralCalculator) -> None:
    torch.manual_seed(0)
    rotation = o3.rand_matrix(dtype=torch.float64)
    first, last = calculator.get_descriptors(crystal(), invariant=False)
    turned = calculator.get_descriptors(rotated(crystal(), rotation), invariant=False)[0][::-1]
    degree = int(np.sqrt(first.shape[1])) - 1
    assert degree == calculator.card.config.message_degree > 0
    assert last.shape == (8, 1, calculator.card.config.channels)
    matrix = o3.Irreps([(1, (k, (-1) ** k)) for k in range(degree + 1)]).D_from_matrix(rotation)
    expected = np.einsum("rs,nsc->nrc", matrix.numpy(), first)
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-6 * np.abs(first).max())


def test_without_atoms_those_of_the_last_calculation_count(calculator: TesseralCalculator) -> None:
    with pytest.raises(ValueError, match="no atoms"):
        calculator.get_descriptors()
    atoms = crystal()
    atoms.calc = calculator
    atoms.get_potential_energy()
    np.testing.assert_array_equal(calculator.get_descriptors(), calculator.get_descriptors(atoms))


def test_energies_are_read_from_them(calculator: TesseralCalculator, small_model: Path) -> None:
    """The last numbers are the scalars of the last layer, as the potential computes them."""
    potential = load_model(small_model, dtype="float64", ops="reference")[0]
    atoms = crystal()
    graph = calculator._graph(atoms)
    edges = calculator._near_edges(graph).edges
    energies, features = potential.with_features(graph.species, edges)
    found = predict_edges(calculator.potential, graph.species, edges, graph.structure, 1)
    torch.testing.assert_close(energies.detach(), found.atomic_energies, rtol=1e-9, atol=1e-9)
    channels = calculator.card.config.channels
    own = torch.from_numpy(calculator.get_descriptors(atoms)[:, -channels:])
    torch.testing.assert_close(
        features[:, 2 * channels : 3 * channels].detach(), own, rtol=1e-8, atol=1e-9
    )
