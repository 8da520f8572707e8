"""Edges within the cutoff, compiled and in plain PyTorch."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.engine.near_edges import near_edges
from tesseral.potentials.ops import compiled

WITH_SKIN, CUTOFF = 4.0, 3.5


def structure(name):
    if name == "crystal":
        atoms = bulk("Si", cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.1 * np.triu(np.ones((3, 3)))), True)
    else:
        atoms = molecule("H2O" if name == "molecule" else "H")
    atoms.rattle(0.2, seed=3)
    return atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (1, 8, 14), WITH_SKIN
    )


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels")
@pytest.mark.parametrize("name", ["crystal", "molecule", "atom"])
def test_compiled_equals_plain(name, monkeypatch):
    graph = structure(name)
    found, closest = near_edges(graph, CUTOFF)
    monkeypatch.setattr(compiled, "available", lambda: False)
    plain, closest_plain = near_edges(graph, CUTOFF)
    assert torch.equal(found.senders, plain.senders)
    assert torch.equal(found.receivers, plain.receivers)
    torch.testing.assert_close(found.vectors, plain.vectors, rtol=0, atol=1e-13)
    assert closest == closest_plain


def test_only_edges_within_the_cutoff():
    graph = structure("crystal")
    near = near_edges(graph, CUTOFF).edges
    lengths = near.vectors.norm(dim=1)
    assert 0 < len(lengths) < len(graph.senders)
    assert float(lengths.max()) < CUTOFF
    assert (near.receivers.diff() >= 0).all()
