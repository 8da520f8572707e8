"""Vectors among the features of PaiNN and EGNN: they turn with the structure."""

import pytest
import torch
from ase.build import bulk

from tesseral.data.graph import Edges, edge_vectors, edges_of
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.calibrate import calibrate
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.testing import random_rotations

pytestmark = pytest.mark.usefixtures("seed")
CUTOFF = 4.0


def crystal():
    atoms = bulk("SiC", "zincblende", a=4.38, cubic=True)
    atoms.rattle(0.2, seed=0)
    return atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (6, 14), CUTOFF
    )


def potential(architecture, **options):
    config = make_config(architecture, cutoff=CUTOFF, channels=6, layers=3, **options)
    made = MessagePassing(config, (6, 14), mean_neighbors=12.0, dtype=torch.float64)
    calibrate(made, crystal())
    return made.requires_grad_(False)


def features_after(model, layers, vectors, graph):
    """Features after so many layers."""
    n = len(graph.species)
    edges = Edges(vectors, graph.senders, graph.receivers)
    features, seen, _ = model.begin(graph.species, edges, n)
    for number in range(layers):
        features, _ = model.layer(number, features, graph.species, seen, n)
    return features


@pytest.mark.parametrize("architecture", ["egnn", "painn"])
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_vectors_turn_with_the_structure(architecture, mirror):
    model, graph = potential(architecture), crystal()
    turn = mirror * random_rotations(1)[0]
    vectors = edge_vectors(graph)

    def vectors_of(features):
        if architecture == "painn":
            return features[:, 1:].mT  # (N, C, 3)
        return features[:, :, -3:]

    before = vectors_of(features_after(model, 2, vectors, graph))
    after = vectors_of(features_after(model, 2, vectors @ turn.T, graph))
    size = float(before.square().mean().sqrt())
    print(f"RMS {size:.1e}, largest difference {float((after - before @ turn.T).abs().max()):.1e}")
    assert size > 1e-5
    torch.testing.assert_close(after, before @ turn.T, rtol=0, atol=1e-11 * max(size, 1.0))


def test_atoms_begin_near_their_places():
    displaced = features_after(potential("egnn"), 2, edge_vectors(crystal()), crystal())[..., -3:]
    largest = float(displaced.norm(dim=-1).max())
    print(f"largest displacement {largest:.1e} Å")
    assert 0 < largest < 0.2


def test_without_moves_features_are_scalars():
    model = potential("egnn", move_atoms=False)
    assert features_after(model, 2, edge_vectors(crystal()), crystal()).shape == (8, 1, 6)
    names = [name for name, _ in model.named_parameters()]
    assert not any("step" in name for name in names)


def test_displacements_are_seen_by_the_next_layer():
    """The energy does not forget them: without, forces are others."""
    model, graph = potential("egnn"), crystal()
    for readout in model.readouts:
        torch.nn.init.normal_(readout.linear.weight)
    arguments = graph.species, edges_of(graph)
    with_moves = model(*arguments)
    for layer in model.layers[:2]:
        torch.nn.init.zeros_(layer.step[2].weight)
        torch.nn.init.zeros_(layer.step[2].bias)
    difference = float((model(*arguments) - with_moves).abs().max())
    print(f"largest difference {difference:.1e} eV")
    assert difference > 1e-5
