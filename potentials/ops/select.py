"""Which form of the operators a potential uses."""

from __future__ import annotations

import torch
from torch import nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.blocks.sphere import EdgeHarmonics
from tesseral.potentials.ops.compiled import use_fused
from tesseral.potentials.ops.tables import L_MAX, L_MAX_ODD

# The modules with a compiled form, which is used where their attribute ``fused`` is set.
COMPILED = (DegreeLinear, EdgeHarmonics, PathConvolution, SphereMixing, SplineConvolution)


def select_ops(potential: nn.Module, mode: str = "auto") -> nn.Module:
    """Choose between the compiled kernels and plain PyTorch for all operators of a potential.

    The two agree to rounding. The kernels are for CPUs; on other devices, and for degrees that
    were not compiled, plain PyTorch is used with ``auto``.

    Args:
        potential: on its device; changed in place.
        mode: ``auto``, ``fused`` or ``reference``.

    Returns:
        The potential.

    Raises:
        ValueError: not a mode, or ``fused`` where there are no kernels for this potential.
    """
    fused = use_fused(mode)
    why = _obstacle(potential) if fused else None
    if why and mode == "fused":
        raise ValueError(f"ops is 'fused', but {why}; use ops='auto'")
    if fused and not why:
        import tesseral.potentials.ops.operators  # noqa: F401  defines torch.ops.tesseral
    for module in potential.modules():
        if isinstance(module, COMPILED):
            module.fused = fused and not why
    return potential


def _obstacle(potential: nn.Module) -> str | None:
    """Why the kernels cannot serve this potential, or None."""
    for parameter in potential.parameters():
        if parameter.device.type != "cpu":
            return f"the model is on {parameter.device}, and the compiled kernels are for CPUs"
        if parameter.dtype not in (torch.float32, torch.float64):
            return f"the model is in {parameter.dtype}"
    for module in potential.modules():
        paths = getattr(module, "paths", [])
        degree = max((max(path) for path in paths), default=0)
        if isinstance(module, EdgeHarmonics):
            degree = module.l_max
        if degree > L_MAX:
            return f"its harmonics go up to degree {degree}; the compiled kernels stop at {L_MAX}"
        degree = max((max(path) for path in paths if sum(path) % 2), default=0)
        if degree > L_MAX_ODD:
            return (
                f"its paths of degrees with an odd sum go up to degree {degree}; the compiled "
                f"kernels stop at {L_MAX_ODD}"
            )
    return None
