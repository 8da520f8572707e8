"""Models compiled for one machine by PyTorch's AOTInductor, ``….pt2``.

For models that the compiled kernels cannot run (``activation: silu``, ``order: 3``), in Python:
where they can, those are tens of times faster. The file holds machine code: it is refused where
processor or PyTorch are others than those it was compiled with.
"""

from __future__ import annotations

import json
import os
import platform
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tesseral.deploy.card import DTYPES, ModelCard, card_from_json, card_to_json
from tesseral.deploy.modelfile import load_model
from tesseral.deploy.probe import (
    TOLERANCE,
    Probe,
    make_probe,
    probe_edges,
    probe_from_json,
    probe_to_json,
    relative_deviation,
)
from tesseral.potentials.derivatives import Prediction, from_gradient, sum_by_structure
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.convolution import SplineConvolution
from tesseral.potentials.ops.path_convolution import PathConvolution

CARD, PROBE, MACHINE = "tesseral_card.json", "tesseral_probe.json", "tesseral_machine.json"
Compiled = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def this_machine() -> dict[str, str]:
    """What machine code depends on."""
    return {
        "processor": platform.machine(),
        "instructions": str(torch.backends.cpu.get_cpu_capability()),
        "system": platform.system(),
        "torch": str(torch.__version__),
    }


def export_compiled(
    model_path: str | Path, output_path: str | Path, *, dtype: str | torch.dtype | None = None
) -> None:
    """Compile a model file for this machine; takes some minutes.

    Args:
        model_path: file that ``train-potential fit`` wrote.
        output_path: ``….pt2``.
        dtype: ``float32`` or ``float64``; that of the model if not given.

    Raises:
        FileNotFoundError: no such model, or no such folder to write to.
        ValueError: not a model file, a name that does not end in ``.pt2``, or a result that does
            not reproduce the model.
    """
    output = Path(output_path)
    if output.suffix != ".pt2":
        raise ValueError(f"{output} is to hold a compiled model; name it ….pt2")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {output.parent} to write {output.name} to")
    potential, card = load_model(model_path, dtype=dtype, ops="reference")
    name = {value: key for key, value in DTYPES.items()}[next(potential.parameters()).dtype]
    card = replace(card, dtype=name)
    probe = make_probe(potential, card, torch.device("cpu"))
    temporary = output.with_name(f".{output.stem}.{os.getpid()}.pt2")
    try:
        _compile(potential, (probe.species, *probe_edges(probe, card.config.cutoff)), temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            for member, text in (
                (CARD, card_to_json(card)),
                (PROBE, probe_to_json(probe)),
                (MACHINE, json.dumps(this_machine())),
            ):
                archive.writestr(member, text)
        load_compiled(temporary)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def _compile(potential: MessagePassing, example: tuple[Tensor, ...], path: Path) -> None:
    """Energies and their gradient by the vectors, for any number of atoms and edges."""
    from torch.fx.experimental import _config
    from torch.fx.experimental.proxy_tensor import make_fx

    potential.requires_grad_(False)
    for module in potential.modules():
        if isinstance(module, (SplineConvolution, PathConvolution)):
            module.padded = False

    def energies_and_gradient(
        species: Tensor, vectors: Tensor, senders: Tensor, receivers: Tensor
    ) -> tuple[Tensor, Tensor]:
        vectors = vectors.detach().requires_grad_(True)
        energies = potential(species, vectors, senders, receivers)
        (gradient,) = torch.autograd.grad([energies.sum()], [vectors])
        return energies.detach(), gradient

    # Equal sizes in the example (atoms, channels, …) are not the same size for that.
    settings: Any = _config
    with settings.patch(use_duck_shape=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = make_fx(
            energies_and_gradient, tracing_mode="symbolic", _allow_non_fake_inputs=True
        )(*example)
        atoms, edges = torch.export.Dim("atoms", min=2), torch.export.Dim("edges", min=2)
        sizes = ({0: atoms}, {0: edges}, {0: edges}, {0: edges})
        exported = torch.export.export(traced, example, dynamic_shapes=sizes)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(path))


class CompiledPotential:
    """A model compiled for this machine.

    Called with species (N,), vectors (E, 3) Å float64, senders (E,) and receivers (E,) it gives
    energies (N,) eV and their gradient by the vectors (E, 3) eV/Å; two atoms and edges at least.
    """

    def __init__(self, function: Compiled) -> None:
        """Wrap."""
        self.function = function

    def __call__(
        self, species: Tensor, vectors: Tensor, senders: Tensor, receivers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Atomic energies and gradient."""
        if min(len(species), len(senders)) < 2:
            raise ValueError(
                f"a compiled model needs two atoms and edges at least; there are {len(species)} "
                f"and {len(senders)}; use the model file itself"
            )
        return self.function(species, vectors, senders, receivers)

    def predict(
        self,
        species: Tensor,
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        structure: Tensor,
        n_structures: int,
    ) -> Prediction:
        """As ``potentials.derivatives.predict_edges``."""
        energies, gradient = self(species, vectors, senders, receivers)
        edges = vectors, senders, receivers
        forces, virial = from_gradient(gradient, *edges, structure, n_structures)
        total = sum_by_structure(energies, structure, n_structures)
        return Prediction(total, energies, forces, virial)


def load_compiled(path: str | Path) -> tuple[CompiledPotential, ModelCard]:
    """A model that ``export_compiled`` wrote, and its card.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, compiled for another machine, or giving other numbers here.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no compiled model {path}")
    card, probe = _checked(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own
        function: Any = torch._inductor.aoti_load_package(str(path))
    potential = CompiledPotential(lambda *inputs: tuple(function(*inputs)))
    edges = probe_edges(probe, card.config.cutoff)
    one = torch.zeros_like(probe.species)
    answer = potential.predict(probe.species, *edges, one, 1)
    deviation = relative_deviation(card, probe, answer.atomic_energies, answer.forces)
    if not deviation <= TOLERANCE[card.dtype]:
        raise ValueError(
            f"{path} gives other energies and forces here than when it was compiled (relative "
            f"deviation {deviation:.1e}); compile it again"
        )
    return potential, card


def _checked(path: Path) -> tuple[ModelCard, Probe]:
    """Card and probe of a file that was compiled for this machine."""
    try:
        with zipfile.ZipFile(path) as archive:
            card, probe, machine = (archive.read(name) for name in (CARD, PROBE, MACHINE))
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"{path} is not a whole file that train-potential export --format aoti wrote"
        ) from None
    there, here = json.loads(machine), this_machine()
    if there != here:
        other = ", ".join(
            f"{key} {there.get(key)}, here {here[key]}"
            for key in here
            if there.get(key) != here[key]
        )
        raise ValueError(
            f"{path} was compiled for another machine ({other}); export the model again here"
        )
    return card_from_json(card.decode()), probe_from_json(probe.decode())
