"""The Hessian of a large structure, made of its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from seeds import reseed

from tesseral.data.graph import edges_of
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials import hessian, testing
from tesseral.potentials.architectures.table import ARCHITECTURES, make_config
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops

CUTOFF = 3.2


def small(architecture: str) -> MessagePassing:
    """A potential of one architecture for carbon."""
    reseed(0)
    config = make_config(architecture, cutoff=CUTOFF, channels=4, layers=2)
    potential = MessagePassing(config, [6], mean_neighbors=4.0, dtype=torch.float64)
    select_ops(potential)
    return potential.eval().requires_grad_(False)


def graph_of(atoms: Atoms):
    cell, pbc = atoms.cell.array, atoms.pbc
    return atomic_graph(atoms.numbers, atoms.positions, cell, pbc, [6], CUTOFF)


def ring(number: int) -> Atoms:
    """A periodic zigzag of atoms with two neighbours on each side."""
    count = np.arange(number)[:, None]
    places = count * [1.4, 0, 0] + count % 2 * [0, 0.6, 0]
    atoms = Atoms(f"C{number}", places, cell=[1.4 * number, 9, 9], pbc=[True, False, False])
    atoms.rattle(0.05, seed=0)
    return atoms


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_of_a_long_chain_need_only_a_part_of_it(architecture: str) -> None:
    potential, graph = small(architecture), graph_of(ring(24))
    for row in hessian.hessian_rows(potential, graph.species, edges_of(graph), [3]):
        assert len(row.columns) == 1 + 2 * 8  # four steps on both sides
    scale = float(testing.hessian(potential, graph).abs().max())
    assert testing.hessian_error(potential, graph, 3e-6) < 1e-6 * scale


def test_sparse_is_dense() -> None:
    potential, graph = small("facet"), graph_of(ring(24))
    chosen = [20, 0, 7]

    def rows():
        return hessian.hessian_rows(potential, graph.species, edges_of(graph), chosen)

    whole = testing.hessian(potential, graph).numpy().reshape(24, 3, 24, 3)[chosen]
    found = hessian.dense(rows(), 3, 24)
    np.testing.assert_allclose(found, whole.reshape(9, 72), atol=1e-12)
    thin = hessian.sparse(rows(), 3, 24)
    assert thin.nnz == 9 * 17 * 3
    np.testing.assert_array_equal(thin.toarray(), found)


def test_an_atom_alone_has_no_curvature() -> None:
    assert not testing.hessian(small("facet"), testing.isolated_atom(0)).any()
