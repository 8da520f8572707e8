"""Readouts from invariant features to atomic energies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.exact import ExactBuffers


class Readout(nn.Module):
    """Atomic energy from invariant features: a linear map plus an MLP with one hidden layer."""

    def __init__(self, channels: int) -> None:
        """Make the weights.

        Args:
            channels: C, the number of channels.
        """
        super().__init__()
        self.n_features = 2 * channels
        self.linear = nn.Linear(channels, 1)
        self.hidden = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, 1, bias=False)

    def silence(self) -> None:
        """Set the last weights to zero, so that the energy is zero until training changes them."""
        for parameter in (self.linear.weight, self.linear.bias, self.output.weight):
            nn.init.zeros_(parameter)

    def forward(self, scalars: Tensor) -> Tensor:
        """(N, C) to (N,), in units of the energy scale."""
        energy: Tensor = self.linear(scalars) + self.output(
            nn.functional.silu(self.hidden(scalars))
        )
        return energy.squeeze(-1)

    def features(self, scalars: Tensor) -> Tensor:
        """(N, C) to (N, 2 C), the numbers of which the energy is a linear function."""
        return torch.cat([scalars, nn.functional.silu(self.hidden(scalars))], dim=1)


class LinearReadout(nn.Module):
    """Atomic energy as a linear function of invariant features."""

    def __init__(self, channels: int) -> None:
        """Make the weights.

        Args:
            channels: C, the number of channels.
        """
        super().__init__()
        self.n_features = channels
        self.linear = nn.Linear(channels, 1)

    def silence(self) -> None:
        """Set the weights to zero, so that the energy is zero until training changes them."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, scalars: Tensor) -> Tensor:
        """(N, C) to (N,), in units of the energy scale."""
        energy: Tensor = self.linear(scalars)
        return energy.squeeze(-1)

    def features(self, scalars: Tensor) -> Tensor:
        """(N, C), the numbers of which the energy is a linear function."""
        return scalars


class EnergyScale(ExactBuffers):
    """Scale of the network output in eV, and the reference energies to which it is added."""

    def __init__(self, reference_energies: Tensor, scale: float) -> None:
        """Store the constants.

        Args:
            reference_energies: (S,) eV, one per element.
            scale: energy (eV) of one unit of network output.
        """
        super().__init__()
        self.register_buffer("reference_energies", reference_energies.to(torch.float64))
        self.register_buffer(
            "scale", torch.full_like(reference_energies, scale, dtype=torch.float64)
        )
        self.reference_energies: Tensor
        self.scale: Tensor

    def forward(self, outputs: Tensor, species: Tensor) -> Tensor:
        """(N,) network output and (N,) species to (N,) eV float64, without reference energies."""
        return self.scale[species] * outputs.to(torch.float64)
