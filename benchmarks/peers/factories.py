"""Calculators of the peers; each function runs in the environment of its peer.

Weights are random if possible, since they do not change the time.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from benchmarks.silicon import SiliconSteps

warnings.filterwarnings("ignore")


def count(model: Any) -> int:
    """Number of trainable weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def mace(hidden: str) -> SiliconSteps:
    """MACE with the defaults of mace_run_train: correlation 3, l_max 3, 2 interactions, 5 Å."""
    calculator, weights = random_mace(hidden)
    return SiliconSteps(calculator, parameters=weights)


def random_mace(
    hidden: str,
    cutoff: float = 5.0,
    bessel: int = 8,
    numbers: Sequence[int] = (14,),
    neighbors: float = 28.0,
    first: str = "RealAgnosticInteractionBlock",
    device: str = "cpu",
    cueq: bool = False,
) -> tuple[Any, int]:
    """Calculator and number of weights of a MACE with random weights.

    Args:
        hidden: irreps of the features.
        cutoff: cutoff (Å).
        bessel: number of radial functions.
        numbers: atomic numbers of its elements.
        neighbors: mean number of neighbours.
        first: class of the first interaction.
        device: ``cpu`` or ``cuda``.
        cueq: use the kernels of cuEquivariance.
    """
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    import numpy as np
    import torch
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator

    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    blocks = modules.interaction_classes
    model = modules.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=bessel,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=blocks[first],
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(hidden),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=neighbors,
        atomic_numbers=list(numbers),
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        radial_type="bessel",
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    weights = count(model)
    own = {"device": device, "enable_cueq": cueq}
    return MACECalculator(models=model.to(device), default_dtype="float32", **own), weights


def nequip_eager(path: str) -> SiliconSteps:
    """NequIP or Allegro from a checkpoint, without compilation."""
    from nequip.integrations.ase import NequIPCalculator

    calculator = NequIPCalculator._from_saved_model(path, device="cpu", compile_mode="eager")
    return SiliconSteps(calculator, parameters=count(calculator.model))


def nequip_compiled(path: str) -> SiliconSteps:
    """NequIP or Allegro compiled by AOTInductor."""
    from nequip.integrations.ase import NequIPCalculator

    return SiliconSteps(NequIPCalculator.from_compiled_model(path, device="cpu"))


def sevennet(channel: int, lmax: int, layers: int) -> SiliconSteps:
    """SevenNet without parity, 5 Å."""
    import sevenn._keys as key
    import torch
    from sevenn._const import DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG
    from sevenn.calculator import SevenNetCalculator
    from sevenn.model_build import build_E3_equivariant_model
    from sevenn.util import chemical_species_preprocess

    torch.manual_seed(0)
    config = {
        **DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG,
        key.CUTOFF: 5.0,
        key.NODE_FEATURE_MULTIPLICITY: channel,
        key.LMAX: lmax,
        key.NUM_CONVOLUTION: layers,
        key.IS_PARITY: False,
        key.CONV_DENOMINATOR: 28.0,
        key.SHIFT: 0.0,
        key.SCALE: 1.0,
        **chemical_species_preprocess(["Si"]),
    }
    model = build_E3_equivariant_model(config)
    weights = count(model)
    calculator = SevenNetCalculator(model, file_type="model_instance", device="cpu")
    return SiliconSteps(calculator, parameters=weights)
