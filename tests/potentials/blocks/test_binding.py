"""The mean binding energy: none alone, all of it in a crystal, smooth in between."""

import torch

from tesseral.potentials.blocks.binding import BindingEnergy

CUTOFF = 5.0


def energy_of_dimer(distance):
    """eV of both atoms, and the module's derivative by the distance."""
    binding = BindingEnergy([-4.0, -6.0], CUTOFF)
    radius = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
    species, receivers = torch.tensor([0, 1]), torch.tensor([0, 1])
    energy = binding(radius.expand(2), species, receivers).sum()
    return energy, radius


def test_nothing_alone_and_nearly_all_of_it_at_a_bonds_length():
    alone, _ = energy_of_dimer(CUTOFF)
    bound, _ = energy_of_dimer(1.1)
    print(f"dimer at 1.1 Å: {float(bound.detach()):.3f} of -10 eV")
    assert float(alone.detach()) == 0.0
    assert -10.0 <= float(bound.detach()) < -9.9


def test_flat_in_a_dense_environment():
    """What is switched on already pulls no atom."""
    binding = BindingEnergy([-5.0], CUTOFF)
    radii = torch.full((16,), 2.4, dtype=torch.float64, requires_grad=True)  # four bonds an atom
    energy = binding(
        radii, torch.zeros(4, dtype=torch.int64), torch.arange(4).repeat_interleave(4)
    ).sum()
    (gradient,) = torch.autograd.grad(energy, radii)
    print(f"largest force {float(gradient.abs().max()):.1e} eV/Å of -5 eV an atom")
    assert abs(float(energy.detach()) + 20.0) < 1e-6
    assert float(gradient.abs().max()) < 1e-6


def test_value_slope_and_curvature_vanish_at_the_cutoff():
    energy, radius = energy_of_dimer(CUTOFF - 1e-4)
    (slope,) = torch.autograd.grad(energy, radius, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, radius)
    assert abs(float(energy.detach())) < 1e-12
    assert abs(float(slope.detach())) < 1e-9
    assert abs(float(curvature)) < 1e-6
