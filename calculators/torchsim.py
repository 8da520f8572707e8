"""The torch-sim model: many systems in one call, energies, forces and stresses out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase.calculators.calculator import CalculationFailed
from numpy.typing import NDArray
from torch import Tensor

from tesseral.calculators.ase import CLOSEST
from tesseral.calculators.skin import BatchNeighbors
from tesseral.data.cells import has_volume
from tesseral.data.graph import AtomicGraph, Edges
from tesseral.data.neighbors import NeighborList, species_index
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.derivatives import predict_edges, stress_from_virial
from tesseral.potentials.engine.near_edges import near_edges

try:
    from torch_sim.models.interface import ModelInterface
    from torch_sim.state import SimState
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "torch_sim":
        raise
    raise ModuleNotFoundError(
        'torch-sim is not installed; run pip install "tesseral[torchsim]" (Python 3.11 or newer)',
        name="torch_sim",
    ) from None

FAILED = ("raise", "nan")


class TesseralModel(ModelInterface):
    """A trained potential as a torch-sim model.

    All systems of a state go through the potential in one call. Each has its own neighbour list
    with a skin, which is reused while that is safe, also when torch-sim takes systems out of the
    batch and puts others in. Crystals of any cell, slabs, wires and molecules: ``pbc`` of the
    state may be one bool or one for each cell vector.

    Attributes:
        potential: the model, on its device.
        card: what the model is; see ``ModelCard``.
        neighbors: the neighbour lists; ``neighbors.builds`` counts the searches.
    """

    def __init__(
        self,
        path: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        ops: str = "auto",
        failed: str = "raise",
    ) -> None:
        """Load a model.

        Args:
            path: model file that ``train-potential fit`` wrote, or ``universal``.
            device: ``cpu``, ``cuda`` …; a GPU if there is one when not given.
            dtype: ``float32`` or ``float64`` of the features; that of the model if not given.
                The ``dtype`` that torch-sim reads, that of its states, is always float64.
            skin: Å added to the cutoff of the neighbour search, so that its result can be reused.
            ops: ``fused`` (compiled kernels), ``reference`` (plain PyTorch) or ``auto`` (the first
                where it can be used).
            failed: what to do with a system that has no answer (overlapping atoms, numbers that are
                not finite, no volume): ``raise``, or answer ``nan`` for this system alone.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a model file; a device or dtype that cannot be used; a negative skin;
                an unknown word for ``failed``.
        """
        super().__init__()
        if failed not in FAILED:
            raise ValueError(f"failed is {failed!r}; use one of {', '.join(FAILED)}")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        potential, self.card = load_model(path, device=device, dtype=dtype, ops=ops)
        self.potential = potential.eval().requires_grad_(False)
        self.neighbors = BatchNeighbors(self.card.config.cutoff, skin)
        self.failed = failed
        self._device = next(self.potential.parameters()).device
        self._dtype = torch.float64
        self._compute_forces = True
        self._compute_stress = True
        self._memory_scales_with = "n_atoms_x_density"
        self._listed: tuple[NeighborList, Tensor, Tensor, Tensor] | None = None

    def forward(self, state: SimState | dict[str, Tensor]) -> dict[str, Tensor]:
        """Energies, forces and stresses of the N atoms and G systems of a state.

        Args:
            state: torch-sim's, or a dictionary of its fields; not changed.

        Returns:
            ``energy`` (G,) eV, ``forces`` (N, 3) eV/Å and ``stress`` (G, 3, 3) eV/Å³, positive
            under tension, in the dtype of the positions. The stress of a system that is not
            periodic or has no volume is NaN.

        Raises:
            ValueError: an element that the model does not know; atoms that are not sorted by
                system; and unless ``failed`` is ``nan``, overlapping atoms, positions or cells that
                are not finite, a periodic cell without volume.
            CalculationFailed: the model's result is not finite, unless ``failed`` is ``nan``.
        """
        if isinstance(state, dict):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        graph, pbc = _graph(state, self.card.elements)
        broken = _broken(graph, pbc)
        if broken is None:
            energy, forces, stress = self._evaluate(graph, pbc)
        elif self.failed == "raise":
            raise ValueError(broken[1])
        else:
            energy, forces, stress = self._evaluate_some(graph, pbc, ~broken[0])
        results = {"energy": energy, "forces": forces, "stress": stress}
        return {name: value.to(state.positions) for name, value in results.items()}

    def _evaluate(self, graph: AtomicGraph, pbc: NDArray[np.bool_]) -> tuple[Tensor, ...]:
        """Energy, forces and stress of systems that have a neighbour list."""
        graph = self._with_edges(graph, pbc)
        edges = near_edges(graph, self.card.config.cutoff).edges
        n_systems = graph.cell.shape[0]
        prediction = predict_edges(self.potential, graph.species, edges, graph.structure, n_systems)
        stress = stress_from_virial(prediction.virial, graph.cell)
        if not pbc.any():
            stress = torch.full_like(stress, float("nan"))
        short = edges.vectors.square().sum(dim=1) < CLOSEST**2
        finite = prediction.atomic_energies.isfinite() & prediction.forces.isfinite().all(dim=1)
        lost = torch.zeros(n_systems, dtype=torch.bool, device=self._device)
        lost[graph.structure[edges.receivers[short]]] = True
        lost[graph.structure[~finite]] = True
        if lost.any() and self.failed == "raise":
            if short.any():
                raise ValueError(_describe_overlap(graph, edges, short))
            raise CalculationFailed(
                f"system {int(lost.nonzero()[0])}: the model gives energies or forces that are not "
                "finite; the structure is probably far from its training data"
            )
        prediction.energy[lost] = float("nan")
        prediction.forces[lost[graph.structure]] = float("nan")
        stress[lost] = float("nan")
        return prediction.energy, prediction.forces, stress

    def _evaluate_some(
        self, graph: AtomicGraph, pbc: NDArray[np.bool_], good: Tensor
    ) -> tuple[Tensor, ...]:
        """The same with NaN for the systems that are not ``good`` (G,)."""
        keep = good[graph.structure]
        positions, cell = graph.positions, graph.cell
        whole = positions.new_zeros(len(cell)), torch.zeros_like(positions), torch.zeros_like(cell)
        for result in whole:
            result.fill_(float("nan"))
        if good.any():
            some = graph._replace(
                positions=positions[keep],
                species=graph.species[keep],
                structure=(good.cumsum(0) - 1)[graph.structure[keep]],
                cell=cell[good],
            )
            for result, mask, part in zip(
                whole, (good, keep, good), self._evaluate(some, pbc), strict=True
            ):
                result[mask.to(result.device)] = part.to(result.device)
        return whole

    def _with_edges(self, graph: AtomicGraph, pbc: NDArray[np.bool_]) -> AtomicGraph:
        """The graph on the model's device with the edges of its lists, which have a skin."""
        edges = self.neighbors.edges(
            graph.positions.numpy(),
            torch.bincount(graph.structure).numpy(),
            graph.cell.numpy(),
            pbc,
        )
        if self._listed is None or self._listed[0] is not edges:
            parts = [torch.as_tensor(part, device=self._device) for part in edges]
            self._listed = (edges, parts[0], parts[1], parts[2])
        _, senders, receivers, shifts = self._listed
        return AtomicGraph(
            positions=graph.positions.to(self._device),
            species=graph.species.to(self._device),
            structure=graph.structure.to(self._device),
            cell=graph.cell.to(self._device),
            senders=senders,
            receivers=receivers,
            shifts=shifts,
        )


def _graph(state: SimState, elements: tuple[int, ...]) -> tuple[AtomicGraph, NDArray[np.bool_]]:
    """The state on the CPU in float64 without edges, and its periodic directions (3,)."""
    structure = state.system_idx.detach().cpu()
    if (structure.diff() < 0).any():
        raise ValueError("the atoms are not sorted by system; sort them by system_idx")
    pbc = torch.as_tensor(state.pbc).cpu().numpy().astype(bool)
    empty = torch.zeros(0, dtype=torch.int64)
    graph = AtomicGraph(
        positions=state.positions.detach().to("cpu", torch.float64).contiguous(),
        species=torch.from_numpy(species_index(state.atomic_numbers.cpu().numpy(), elements)),
        structure=structure,
        cell=state.cell.detach().mT.to("cpu", torch.float64).contiguous(),  # columns to rows
        senders=empty,
        receivers=empty,
        shifts=torch.zeros(0, 3, dtype=torch.float64),
    )
    return graph, np.broadcast_to(pbc, (3,))


def _broken(graph: AtomicGraph, pbc: NDArray[np.bool_]) -> tuple[Tensor, str] | None:
    """Systems (G,) that have no neighbour list, and what is wrong with the first; None if all do.

    The sentence counts systems and their atoms from 0.
    """
    atoms = ~graph.positions.isfinite().all(dim=1)
    cells = ~graph.cell.isfinite().flatten(1).all(dim=1)
    moved = torch.zeros_like(cells)
    moved[graph.structure[atoms]] = True
    finite = torch.where(cells.view(-1, 1, 1), 0.0, graph.cell)
    broken = moved | cells | ~torch.from_numpy(has_volume(finite.numpy(), pbc))
    if not broken.any():
        return None
    system = int(broken.nonzero()[0])
    if moved[system]:
        atom = int((atoms & (graph.structure == system)).nonzero()[0])
        where = graph.positions[atom].tolist()
        return broken, f"{_name(graph.structure, atom)}: its position {where} is not finite"
    cell = graph.cell[system].tolist()
    what = "is not finite" if cells[system] else f"has no volume (pbc {pbc.tolist()})"
    return broken, f"system {system}: its cell {cell} {what}"


def _describe_overlap(graph: AtomicGraph, edges: Edges, short: Tensor) -> str:
    edge = int(short.nonzero()[0])
    ends = int(edges.senders[edge]), int(edges.receivers[edge])
    one, other = (_name(graph.structure, atom) for atom in ends)
    return f"{one} and {other.split(', ')[1]} are less than {CLOSEST} Å apart; atoms overlap"


def _name(structure: Tensor, atom: int) -> str:
    """Which atom of which system this is, both counted from 0."""
    system = int(structure[atom])
    return f"system {system}, atom {atom - int((structure < system).sum())}"
