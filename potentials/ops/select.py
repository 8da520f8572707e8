"""Selection of the form of the operators of a potential."""

from __future__ import annotations

import torch
from torch import nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.fusable import Fusable
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.blocks.sphere import EdgeHarmonics
from tesseral.potentials.ops.compiled import MODES, use_fused
from tesseral.potentials.ops.tables import L_MAX, L_MAX_ODD


def select_ops(potential: nn.Module, mode: str = "auto") -> nn.Module:
    """Choose between the compiled kernels and plain PyTorch for all operators of a potential.

    The two agree within rounding errors. The operators are compiled for CPUs, and the engine
    (``potentials/engine``) for CPUs and GPUs: on a GPU, ``fused`` selects the engine and otherwise
    plain PyTorch. On other devices, and for degrees that are not compiled, ``auto`` selects plain
    PyTorch.

    Args:
        potential: potential on its device; changed in place.
        mode: ``auto``, ``fused`` or ``reference``.

    Returns:
        The potential.

    Raises:
        ValueError: the mode is unknown, or ``fused`` is given without kernels for this potential.
    """
    on_gpu = any(parameter.is_cuda for parameter in potential.parameters())
    if on_gpu and mode in MODES:
        fused = mode != "reference"  # the engine is compiled when it is first used
    else:
        fused = use_fused(mode)
    why = _obstacle(potential) if fused else None
    if why and mode == "fused":
        raise ValueError(f"ops is 'fused', but {why}; use ops='auto'")
    if fused and not why:
        import tesseral.potentials.ops.operators  # noqa: F401  defines torch.ops.tesseral
    for module in potential.modules():
        if isinstance(module, Fusable):
            module.fused = fused and not why
    return potential


def _obstacle(potential: nn.Module) -> str | None:
    """Reason why the kernels do not support this potential, or None."""
    for parameter in potential.parameters():
        if parameter.device.type not in ("cpu", "cuda"):
            return (
                f"the model is on {parameter.device}, and the compiled kernels are for CPUs and "
                "for GPUs of CUDA"
            )
        if parameter.dtype not in (torch.float32, torch.float64):
            return f"the model is in {parameter.dtype}"
    for module in potential.modules():
        paths = module.paths if isinstance(module, (SplineConvolution, PathConvolution)) else []
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
