"""Uncertainty in the compiled function: the same numbers as in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk
from seeds import reseed

from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.blocks.uncertainty import Calibration
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops

needs_kernels = pytest.mark.skipif(not compiled.available(), reason="no compiled kernels here")
OPTIONS = {
    "facet": {"l_max": 2, "grid_channels": 8},
    "nequip": {"architecture": "nequip", "l_max": 1},
    "linear": {"architecture": "nequip", "l_max": 1, "linear_readout": True},
}


def knowing(ops: str, dtype: torch.dtype, options: dict[str, object]) -> MessagePassing:
    """A potential with a random metric; some distances are beyond the reach."""
    reseed(3)
    config = make_config(**{"cutoff": 4.0, "layers": 2, "channels": 6, **options})
    calibration = Calibration(0.1, exponent=1.7, reach=3.0, energy=0.01, bound=2.0, landmarks=5)
    model = MessagePassing(config, (6, 14), uncertainty=calibration, dtype=dtype)
    assert model.uncertainty is not None
    torch.nn.init.normal_(model.uncertainty.factor)
    torch.nn.init.normal_(model.uncertainty.center)
    return select_ops(model.requires_grad_(False).eval(), ops)


@needs_kernels
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiled_function_agrees_with_pytorch(dtype, options):
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True).repeat((3, 1, 1))
    atoms.rattle(0.1, seed=0)
    parts = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
    graph = atomic_graph(*parts, (6, 14), 4.0)
    mine, other = (
        predict(knowing(ops, dtype, options), graph).uncertainty for ops in ("fused", "reference")
    )
    assert mine is not None and other is not None
    assert 0.05 < float(other.min()) < float(other.max())
    terms = 1e3  # additions of features, of products with them, and of squares
    torch.testing.assert_close(mine, other, rtol=terms * torch.finfo(dtype).eps, atol=0)
