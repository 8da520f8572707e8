import pytest
import torch

from tesseral.potentials.blocks.short_range import (
    WIDTH,
    ShortRange,
    flat_pairs,
    inner_radii,
    square_pairs,
)
from tesseral.potentials.blocks.zbl import NuclearRepulsion

INNER = 1.5
ENDS = torch.tensor([0, 1])


def joined(distance, elements=(6, 14)):
    """Seen distance of two atoms of different elements, and the energy of the pair."""
    distance = torch.as_tensor(distance, dtype=torch.float64)
    direction = torch.tensor([0.48, -0.64, 0.6], dtype=torch.float64)
    vectors = torch.stack([direction, -direction]) * distance
    block = ShortRange(elements, (1.0, INNER, 1.8))
    seen, energies = block(vectors, ENDS, ENDS.flip(0), ENDS)
    torch.testing.assert_close(seen[0], -seen[1])
    return seen[0] @ direction, energies.sum()


def derivatives(distance, number):
    """The seen distance and the energy with their derivatives by the distance."""
    at = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
    found = []
    for value in joined(at):
        row = [value]
        while len(row) <= number:
            if not row[-1].requires_grad:
                row.append(torch.zeros((), dtype=torch.float64))
                continue
            (slope,) = torch.autograd.grad(row[-1], at, create_graph=True, allow_unused=True)
            row.append(torch.zeros((), dtype=torch.float64) if slope is None else slope)
        found.append(torch.stack(row).detach())
    return torch.stack(found)


def repulsion(distance):
    """Of carbon and silicon."""
    nuclei = NuclearRepulsion((6, 14))
    radii = torch.as_tensor(distance, dtype=torch.float64).reshape(1)
    return float(nuclei.repulsion(radii, ENDS[:1], ENDS[1:]))


def test_nothing_changes_beyond_the_inner_radius():
    vectors = torch.tensor([[0.0, 0.0, INNER], [0.0, 1.6, 0.0]], dtype=torch.float64)
    block = ShortRange((6, 14), (1.0, INNER, 1.8))
    seen, energies = block(vectors, ENDS, ENDS.flip(0), ENDS)
    assert seen is vectors and not energies.any()


def test_a_close_pair_leaves_the_others_alone():
    vectors = torch.tensor([[0.0, 0.0, 0.9], [0.0, 1.6, 0.0]], dtype=torch.float64)
    block = ShortRange((6, 14), (1.0, INNER, 1.8))
    seen, energies = block(vectors, ENDS, ENDS.flip(0), ENDS)
    assert torch.equal(seen[1], vectors[1]) and energies[1] == 0
    assert not torch.equal(seen[0], vectors[0]) and energies[0] > 0


@pytest.mark.parametrize("place", [INNER, (1 - WIDTH) * INNER], ids=["outer end", "inner end"])
def test_the_join_is_smooth(place):
    """Energies and seen distances have equal third derivatives on both sides of each end."""
    low, high = derivatives(place - 1e-8, 3), derivatives(place + 1e-8, 3)
    torch.testing.assert_close(low[:, :3], high[:, :3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(low[:, 3], high[:, 3], rtol=1e-3, atol=1e-2)


def test_the_seen_distance_rises_from_the_middle_of_the_join():
    distances = torch.linspace(0.2, 1.6, 141, dtype=torch.float64)
    seen = torch.stack([joined(distance)[0] for distance in distances])
    assert float(seen[0]) == pytest.approx((1 - WIDTH / 2) * INNER)
    steps = seen.diff()
    assert (steps > -1e-14).all() and (steps < distances.diff() + 1e-14).all()


@pytest.mark.parametrize("distance", [0.1, 0.6, 1.1])
def test_energy_inside_is_that_of_the_nuclei(distance):
    seen = (1 - WIDTH / 2) * INNER
    expected = repulsion(distance) - repulsion(seen)
    assert float(joined(distance)[1]) == pytest.approx(expected, rel=1e-12)


def test_atoms_at_one_place_have_finite_derivatives():
    vectors = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    block = ShortRange((6, 14), (1.0, INNER, 1.8))
    seen, energies = block(vectors, ENDS, ENDS.flip(0), ENDS)
    (slope,) = torch.autograd.grad(energies.sum() + seen.sum(), vectors)
    assert torch.isfinite(slope).all() and torch.isfinite(energies).all()


def test_pairs_are_symmetric_and_rounded_down():
    square = inner_radii((2, 8, 92), 0.6, 5.0)
    flat = flat_pairs(square)
    assert len(flat) == 6
    again = square_pairs(flat, 3)
    assert torch.equal(again, again.T)
    assert (again <= square).all() and (again > square - 0.001).all()


def test_inner_radii_are_below_bonds_and_the_cutoff():
    hydrogen, nitrogen = 0, 1
    inner = inner_radii((1, 7, 55), 0.75, 4.0)
    assert inner[hydrogen, hydrogen] < 0.74 and inner[nitrogen, nitrogen] < 1.10
    assert float(inner.max()) == 3.2
