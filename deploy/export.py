"""TorchScript export: one file for plain PyTorch, in Python or C++, and for LAMMPS.

    module = torch.jit.load("model.pt")
    energies = module(species, vectors, senders, receivers, n_local)
    out = module.predict(positions, species, cell, senders, receivers, shifts, structure)

The first call is the basic contract: atomic energies, whose derivatives with respect to the edge
vectors give the forces, the virial and the virial of each atom. A message-passing model whose atoms
are distributed over several processes runs layer by layer (``module.potential.begin`` and
``layer``, see ``FlatPotential``), with an exchange of features in between. The file also contains
the card (``tesseral_card.json``), a probe (``tesseral_contract.txt``) and, if the compiled kernels
can run the model, its weights in their layout (``tesseral_weights.bin``). LAMMPS then needs no
PyTorch. With ``gpu=True`` there are also the launches of the kernels for GPUs
(``tesseral_gpu.txt``), these kernels as PTX (``tesseral_gpu.ptx``) and the weights in their layout
(``tesseral_gpu.bin``).

The first two calls of a loaded module are slow, while TorchScript profiles and compiles it (again
for each way of calling it). On a GPU with changing sizes,
``torch.jit.set_fusion_strategy([("DYNAMIC", 2)])`` prevents a compilation for each size. The module
may be called under ``torch.no_grad``, but not under ``torch.inference_mode``, which forbids the
derivatives needed for the forces.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tesseral.data.graph import AtomicGraph, Edges, edge_vectors
from tesseral.deploy.card import DTYPES, ModelCard, card_from_json, card_to_json
from tesseral.deploy.contract import CONTRACT_FILE, contract_probe, contract_text
from tesseral.deploy.modelfile import load_model
from tesseral.deploy.probe import TOLERANCE, make_probe, probe_deviation
from tesseral.files import write_whole
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.derivatives import (
    forces_and_virial,
    stress_from_virial,
    sum_by_structure,
)
from tesseral.potentials.engine.gpu import plan
from tesseral.potentials.engine.gpu.cuda import CudaError, portable_code
from tesseral.potentials.engine.packing import can_pack
from tesseral.potentials.engine.weights_bytes import weights_bytes
from tesseral.potentials.message_passing import MessagePassing

CARD_FILE = "tesseral_card.json"
WEIGHTS_FILE = "tesseral_weights.bin"
GPU_PLAN, GPU_WEIGHTS, GPU_KERNELS = "tesseral_gpu.txt", "tesseral_gpu.bin", "tesseral_gpu.ptx"


class FlatPotential(nn.Module):
    """Methods of ``MessagePassing`` with plain tensors, for callers in C++."""

    def __init__(self, potential: MessagePassing) -> None:
        """Wrap."""
        super().__init__()
        self.model = potential

    def forward(
        self,
        species: Tensor,
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        n_local: int | None = None,
    ) -> Tensor:
        """Atomic energies; see ``MessagePassing.forward``."""
        energies: Tensor = self.model(species, Edges(vectors, senders, receivers), n_local)
        return energies

    @torch.jit.export
    def begin(
        self, species: Tensor, vectors: Tensor, senders: Tensor, receivers: Tensor, n_local: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Part of the forward pass before the layers.

        Returns:
            Features (N, 1, C) of all atoms, harmonics (E, M) and lengths (E,) Å of the edges, and
            energies (n_local,) eV without the contributions of the layers.
        """
        features, edges, energies = self.model.begin(
            species, Edges(vectors, senders, receivers), n_local
        )
        return features, edges.harmonics, edges.radii, energies

    @torch.jit.export
    def layer(
        self,
        number: int,
        features: Tensor,
        species: Tensor,
        harmonics: Tensor,
        radii: Tensor,
        senders: Tensor,
        receivers: Tensor,
        n_local: int,
    ) -> tuple[Tensor, Tensor]:
        """Layer and its readout; see ``MessagePassing.layer``."""
        edges = EdgeFeatures(harmonics, radii, senders, receivers)
        return self.model.layer(number, features, species, edges, n_local)


class ExportedPotential(nn.Module):
    """Exported form of a potential, with flat tensors in and out."""

    def __init__(self, potential: MessagePassing) -> None:
        """Wrap."""
        super().__init__()
        self.potential = FlatPotential(potential)
        self.cutoff, self.n_layers = potential.cutoff, len(potential.layers)

    def forward(
        self,
        species: Tensor,
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        n_local: int,
    ) -> Tensor:
        """Atomic energies.

        Args:
            species: (N,) int64 index into the card's elements.
            vectors: (E, 3) Å float64, sender to receiver.
            senders: (E,) int64.
            receivers: (E,) int64, sorted, below n_local.
            n_local: number of atoms with an energy. The atoms after them only send, which is valid
                for models with one layer.

        Returns:
            (n_local,) eV float64, differentiable in ``vectors``.
        """
        if self.n_layers > 1 and n_local < species.shape[0]:
            raise RuntimeError(
                "ghost atoms need the features that their owners have after each layer; call "
                "potential.begin and potential.layer, and exchange features in between"
            )
        energies: Tensor = self.potential(species, vectors, senders, receivers, n_local)
        return energies

    @torch.jit.export
    def predict(
        self,
        positions: Tensor,
        species: Tensor,
        cell: Tensor,
        senders: Tensor,
        receivers: Tensor,
        shifts: Tensor,
        structure: Tensor,
    ) -> dict[str, Tensor]:
        """Energy and derivatives of G structures.

        Args:
            positions: (N, 3) Å float64.
            species: (N,) int64 index into the card's elements.
            cell: (3, 3) or (G, 3, 3) Å float64, rows are lattice vectors; zeros without a cell.
            senders: (E,) int64.
            receivers: (E,) int64, sorted.
            shifts: (E, 3) float64, whole lattice translations of the receiver; the vector of an
                edge is ``r[receiver] - r[sender] + shift @ cell``.
            structure: (N,) int64, index of the structure of each atom, sorted.

        Returns:
            ``energy`` (G,) eV, ``atomic_energies`` (N,) eV, ``forces`` (N, 3) eV/Å, ``virial``
            (G, 3, 3) eV, ``stress`` (G, 3, 3) eV/Å³ (positive under tension; NaN without a cell);
            float64.
        """
        cells = cell.reshape(-1, 3, 3).to(torch.float64)
        n_structures = cells.shape[0]
        graph = AtomicGraph(
            positions=positions.to(torch.float64),
            species=species,
            structure=structure,
            cell=cells,
            senders=senders,
            receivers=receivers,
            shifts=shifts.to(torch.float64),
        )
        outside = torch.is_grad_enabled()  # TorchScript does not support enable_grad
        torch.set_grad_enabled(True)
        edges = Edges(edge_vectors(graph).detach().requires_grad_(True), senders, receivers)
        energies: Tensor = self.potential.model(species, edges)
        forces, virial = forces_and_virial(energies, edges, structure, n_structures, False)
        torch.set_grad_enabled(outside)
        energies = energies.detach()
        return {
            "energy": sum_by_structure(energies, structure, n_structures),
            "atomic_energies": energies,
            "forces": forces.detach(),
            "virial": virial.detach(),
            "stress": stress_from_virial(virial.detach(), cells),
        }


class AsPotential:
    """Python ``Potential`` that calls an exported module."""

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        """Wrap."""
        self.module = module
        self.cutoff: float = module.cutoff

    def __call__(self, species: Tensor, edges: Edges) -> Tensor:
        """Energies of the atoms, (N,) eV float64."""
        energies: Tensor = self.module.potential(
            species, edges.vectors, edges.senders, edges.receivers
        )
        return energies


def export_model(
    model_path: str | Path,
    output_path: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    level: str | None = None,
    gpu: bool = False,
) -> None:
    """Write a model file as TorchScript, with its card inside.

    The export is read back and compared with the model before it gets its final name.

    Args:
        model_path: model file (from ``train-potential fit``).
        output_path: file to write, usually ``….pt``.
        dtype: ``float32`` or ``float64``. Default: that of the model.
        level: level of theory, if the model has several. Default: its first.
        gpu: add kernels with which LAMMPS can use a GPU of NVIDIA. They are compiled here, which
            needs no GPU.

    Raises:
        FileNotFoundError: the model or the folder of the output does not exist.
        ValueError: the file is not a model, the output would overwrite it, the export does not
            reproduce the model, there are no kernels for it, or they cannot be compiled here.
    """
    output = Path(output_path)
    if output.suffix == ".safetensors":
        raise ValueError(f"{output} will contain TorchScript, not safetensors; name it ….pt")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {output.parent} to write {output.name} to")
    potential, card = load_model(model_path, dtype=dtype, ops="reference", level=level)
    potential.requires_grad_(False)
    name = {value: key for key, value in DTYPES.items()}[next(potential.parameters()).dtype]
    card = replace(card, dtype=name)
    probe = make_probe(potential, card, torch.device("cpu"))
    extra: dict[str, str | bytes] = {
        CARD_FILE: card_to_json(card),
        CONTRACT_FILE: contract_text(card, probe),
    }
    if can_pack(potential):
        extra[WEIGHTS_FILE] = weights_bytes(potential)
    if gpu:
        extra |= _for_gpu(potential)
    content = io.BytesIO()  # PyTorch aborts the process if it cannot write a file
    with _quiet_torchscript():
        torch.jit.save(torch.jit.script(ExportedPotential(potential)), content, extra)
    with write_whole(output) as temporary:
        temporary.write_bytes(content.getvalue())
        loaded, _ = load_exported(temporary)
        deviation = probe_deviation(AsPotential(loaded), card, probe, torch.device("cpu"))
        if not deviation <= 1e-3 * TOLERANCE[name]:
            raise ValueError(
                f"the export of {model_path} does not reproduce it (relative deviation "
                f"{deviation:.1e}); nothing was written; please report this"
            )


def _for_gpu(potential: MessagePassing) -> dict[str, bytes]:
    """Launches, weights and kernels for GPUs."""
    if not plan.supports(potential):
        raise ValueError(
            "`gpu` needs a Facet with the default `activation` and `order`; there are no kernels "
            "for this model that LAMMPS can use on a GPU"
        )
    made = plan.make_plan(potential)
    try:
        kernels = portable_code(made.source)
    except CudaError as error:
        raise ValueError(f"`gpu`: {error}") from None
    return {GPU_PLAN: made.text.encode(), GPU_WEIGHTS: made.weights, GPU_KERNELS: kernels}


def load_exported(
    path: str | Path, *, device: str | torch.device = "cpu"
) -> tuple[torch.jit.ScriptModule, ModelCard]:
    """Load an exported model and its card, and check that it still reproduces its probe.

    Plain PyTorch loads the model with ``torch.jit.load``; the card is the JSON file
    ``tesseral_card.json`` of ``extra_files``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not an export of this package, or gives different numbers here.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no exported model {path}")
    extra: dict[str, str | bytes] = {CARD_FILE: "", CONTRACT_FILE: ""}
    try:
        with _quiet_torchscript():
            module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location=device, _extra_files=extra
            )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(
            f"{path} cannot be read as TorchScript ({reason}); give a file that train-potential "
            "export wrote"
        ) from None
    texts = [text.decode() if isinstance(text, bytes) else text for text in extra.values()]
    if not all(texts):
        what = "contract: export the model again" if texts[0] else "card: another program wrote it"
        raise ValueError(f"{path} is TorchScript without a tesseral {what}")
    try:
        card, probe = card_from_json(texts[0]), contract_probe(texts[1])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    deviation = probe_deviation(AsPotential(module), card, probe, torch.device(device))
    if not deviation <= TOLERANCE[card.dtype]:
        raise ValueError(
            f"{path} gives different energies and forces here than when it was exported (relative "
            f"deviation {deviation:.1e}): export the model again"
        )
    return module, card


@contextmanager
def _quiet_torchscript() -> Iterator[None]:
    """Suppress PyTorch's deprecation warnings for TorchScript, which appear at every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        yield
