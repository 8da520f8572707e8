import pytest
import torch

from tesseral.data.units import covalent_radius
from tesseral.potentials.blocks.zbl import ZBLRepulsion


def pair_energy(distance, elements=(14, 6)):
    radii = torch.as_tensor(distance, dtype=torch.float64).expand(2)
    ends = torch.tensor([0, 1])
    return ZBLRepulsion(elements)(radii, ends, ends.flip(0), ends).sum()


def test_bare_coulomb_repulsion_at_tiny_distance():
    distance = 1e-4
    assert float(pair_energy(distance)) == pytest.approx(14.3996 * 14 * 6 / distance, rel=2e-3)


def test_published_value_of_the_universal_function():
    """ZBL, Si–Si at 1 Å without the switch: 14.3996 · 196 · φ(1 / 0.1387) = 109.3 eV."""
    switch = ZBLRepulsion((14, 14))
    switch.outer.fill_(1e9)
    ends = torch.tensor([0, 1])
    radii = torch.ones(2, dtype=torch.float64)
    energy = float(switch(radii, ends, ends.flip(0), ends).sum())
    length = 0.8854 * 0.529177 / (2 * 14**0.23)
    parts = [(0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4029), (0.02817, 0.2016)]
    screen = sum(a * torch.exp(torch.tensor(-b / length)).item() for a, b in parts)
    assert energy == pytest.approx(14.39965 * 196 * screen, rel=1e-4)


def test_vanishes_smoothly_at_the_sum_of_covalent_radii():
    outer = covalent_radius(14) + covalent_radius(6)
    distance = torch.tensor(outer - 1e-4, dtype=torch.float64, requires_grad=True)
    energy = pair_energy(distance)
    (slope,) = torch.autograd.grad(energy, distance, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, distance)
    assert abs(energy.item()) < 1e-9
    assert abs(slope.item()) < 1e-5
    assert abs(curvature.item()) < 0.1
    assert float(pair_energy(outer + 0.1)) == 0
