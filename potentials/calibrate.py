"""Calibration of a new potential: features of known size, energies that start at E0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesseral.data.graph import AtomicGraph, edges_of
from tesseral.potentials.blocks.flat import FlatLinear
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.readout import LinearReadout, Readout

# Size of the input of linear maps in degree l + 1 relative to degree l. Fine angular detail starts
# small and is learned slowly. On small sets this reduces overfitting: forces of Mo improve by 3%
# (docs/measurements/experiments.md).
DAMPING = 0.75


def calibrate(potential: nn.Module, graph: AtomicGraph) -> None:
    """Fit the constants of a potential with random weights to a sample of its training data.

    Every ``DegreeLinear`` and ``FlatLinear`` is scaled so that its input has an RMS of
    ``DAMPING**l`` in degree l: sums over neighbours are large for scalars, which add up, and small
    for higher degrees, which cancel, by amounts that depend on the data. The readouts are set to
    zero, since large random energies would delay the first part of training.

    Args:
        potential: potential of this package; changed in place.
        graph: some tens of training structures.
    """

    @torch.no_grad()
    def set_scale(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, (DegreeLinear, FlatLinear))
        parts = torch.split(inputs[0], module.sizes, dim=1)
        sizes = torch.stack([part.square().mean().sqrt() for part in parts])
        floor = 0.03 * sizes.max() + 1e-12  # a degree absent by symmetry must not be amplified
        wanted = DAMPING ** torch.arange(len(sizes), dtype=sizes.dtype, device=sizes.device)
        module.scale.copy_((wanted / sizes.clamp(min=floor)).view(-1, 1, 1))

    kinds = (DegreeLinear, FlatLinear)
    linear = [module for module in potential.modules() if isinstance(module, kinds)]
    # The input of a module depends on earlier scales: set each scale when the pass reaches it.
    handles = [module.register_forward_pre_hook(set_scale) for module in linear]
    try:
        with torch.no_grad():  # energies suffice and need a third of the memory
            potential(graph.species, edges_of(graph))
    finally:
        for handle in handles:
            handle.remove()
    for module in potential.modules():
        if isinstance(module, (LinearReadout, Readout)):
            module.silence()
