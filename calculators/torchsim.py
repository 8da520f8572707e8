"""torch-sim model: energies, forces and stresses of many systems in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.calculators.calculator import CalculationFailed
from numpy.typing import NDArray
from torch import Tensor

from tesseral.calculators.ase import CLOSEST
from tesseral.calculators.dispersion import choose_dispersion
from tesseral.calculators.skin import BatchNeighbors, GpuNeighbors
from tesseral.data.cells import THINNEST, has_volume
from tesseral.data.graph import AtomicGraph, Edges, edges_of
from tesseral.data.neighbors import FARTHEST, NeighborList, species_index
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.derivatives import (
    predict_edges,
    stress_from_virial,
)
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.engine.near_edges import near_edges
from tesseral.potentials.engine.state import state_of

try:
    from torch_sim.models.interface import ModelInterface
    from torch_sim.state import SimState
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "torch_sim":
        raise
    raise ModuleNotFoundError(
        "torch-sim is not installed; run pip install torch-sim-atomistic (Python 3.11 or newer)",
        name="torch_sim",
    ) from None

NAMES = "energy", "forces", "stress", "forces_uncertainty"  # the last one if it is known
FAILED = ("raise", "nan")


class TesseralModel(ModelInterface):
    """A trained potential as a torch-sim model.

    All systems of a state are evaluated in one call. Neighbour lists have a skin and are reused
    while that is safe. On the CPU each system has its own, also when torch-sim removes systems from
    the batch and adds others; with the kernels for GPUs, one search on the GPU finds those of all.
    Systems may be crystals of any cell, slabs, wires and molecules: ``pbc`` of the state
    may be one bool or one for each cell vector.

    Attributes:
        potential: the model, on its device.
        card: description of the model; see ``ModelCard``.
        neighbors: the neighbour lists; ``neighbors.builds`` counts the searches.
        dispersion: the D3(BJ) correction, computed on the CPU; None without one.
    """

    def __init__(
        self,
        path: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        ops: str = "auto",
        failed: str = "raise",
        dispersion: str | None = None,
        dispersion_cutoff: float | None = None,
        level: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            path: model file written by ``train-potential fit``, or ``universal``.
            device: ``cpu``, ``cuda``, …. Default: a GPU if available.
            dtype: ``float32`` or ``float64``, the precision of the features. Default: that of the
                model. The ``dtype`` read by torch-sim, that of its states, is always float64.
            skin: distance (Å) added to the cutoff of the neighbour search, so that its result can
                be reused.
            ops: ``fused`` (compiled kernels), ``reference`` (plain PyTorch) or ``auto`` (compiled
                kernels where available).
            failed: treatment of systems that cannot be evaluated (overlapping atoms, values that
                are not finite, no volume): ``raise``, or ``nan`` to return NaN for these systems.
            dispersion: functional whose D3(BJ) dispersion is added, such as ``pbe``, or ``auto``
                for that of the model's level of theory.
            dispersion_cutoff: largest distance (Å) of a pair in it. Default: 60 Bohr.
            level: level of theory, if the model has several. Default: its first.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a model file, the device or dtype cannot be used, the skin
                is negative, ``failed`` has an unknown value, or the dispersion cannot be added to
                this model.
        """
        super().__init__()
        if failed not in FAILED:
            raise ValueError(f"failed is {failed!r}; use one of {', '.join(FAILED)}")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        potential, self.card = load_model(path, device=device, dtype=dtype, ops=ops, level=level)
        self.potential = potential.eval().requires_grad_(False)
        cutoff = self.card.config.cutoff
        self.neighbors: BatchNeighbors | GpuNeighbors = BatchNeighbors(cutoff, skin)
        if gpu.applies(self.potential):
            self.neighbors = GpuNeighbors(self.potential, cutoff, skin)
        self.dispersion = choose_dispersion(dispersion, self.card.theory, dispersion_cutoff)
        self.failed = failed
        self._device = next(self.potential.parameters()).device
        self._dtype = torch.float64
        self._compute_forces = True
        self._compute_stress = True
        self._memory_scales_with = "n_atoms_x_density"
        self._listed: tuple[NeighborList, Tensor, Tensor, Tensor] | None = None
        self._known: _Known | None = None

    def forward(self, state: SimState | dict[str, Tensor]) -> dict[str, Tensor]:
        """Energies, forces and stresses of the N atoms and G systems of a state.

        Args:
            state: torch-sim state, or a dictionary of its fields; not changed.

        Returns:
            ``energy`` (G,) eV, ``forces`` (N, 3) eV/Å and ``stress`` (G, 3, 3) eV/Å³, positive
            under tension, in the dtype of the positions. The stress of a system that is not
            periodic or has no volume is NaN. If the model knows its uncertainty, also
            ``forces_uncertainty``, the expected lengths of the force errors, (N,) eV/Å, and
            ``energy_uncertainty``, the expected errors of the energies, (G,) eV.

        Raises:
            ValueError: an element is unknown to the model or to D3, or atoms are not sorted by
                system. Unless ``failed`` is ``nan``: atoms overlap, positions or cells are not
                finite, or a periodic cell has no volume.
            CalculationFailed: the result of the model is not finite, unless ``failed`` is ``nan``.
        """
        if isinstance(state, dict):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        graph, pbc = self._graph(state)
        broken = _broken(graph, pbc)
        if broken is None:
            found = self._evaluate(graph, pbc)
        elif self.failed == "raise":
            raise ValueError(broken[1])
        else:
            found = self._evaluate_some(graph, pbc, ~broken[0])
        results = dict(zip(NAMES, found, strict=False))
        known = self.potential.uncertainty
        if known is not None:
            structure = graph.structure.to(self._device)
            forces = results["forces_uncertainty"]
            results["energy_uncertainty"] = known.energy(forces, structure, len(graph.cell))
        return {name: value.to(state.positions) for name, value in results.items()}

    def _evaluate(self, graph: AtomicGraph, pbc: NDArray[np.bool_]) -> tuple[Tensor, ...]:
        """Energy, forces, stress and, if known, uncertainty of systems with a neighbour list."""
        graph = self._with_edges(graph, pbc)
        if isinstance(self.neighbors, GpuNeighbors):  # the kernels skip the edges in the skin
            edges = edges_of(graph)
        else:
            edges = near_edges(graph, self.card.config.cutoff).edges
        n_systems = graph.cell.shape[0]
        prediction = predict_edges(self.potential, graph.species, edges, graph.structure, n_systems)
        short = edges.vectors.square().sum(dim=1) < CLOSEST**2
        finite = prediction.atomic_energies.isfinite() & prediction.forces.isfinite().all(dim=1)
        lost = torch.zeros(n_systems, dtype=torch.bool, device=self._device)
        failed = bool(short.any() | ~finite.all())  # read when the GPU has been given all its work
        if failed:
            lost[graph.structure[edges.receivers[short]]] = True
            lost[graph.structure[~finite]] = True
        if failed and self.failed == "raise":
            if short.any():
                raise ValueError(_describe_overlap(graph, edges, short))
            raise CalculationFailed(
                f"system {int(lost.nonzero()[0])}: the model gives energies or forces that are not "
                "finite; the structure is probably far from its training data"
            )
        if self.dispersion is not None:
            prediction = self.dispersion.add(
                prediction,
                np.array(self.card.elements)[graph.species.cpu().numpy()],
                graph.positions.cpu().numpy(),
                graph.cell.cpu().numpy(),
                pbc,
                graph.structure.bincount(minlength=n_systems).cpu().numpy(),
                ~lost.cpu().numpy(),
            )
        stress = stress_from_virial(prediction.virial, graph.cell)
        if not pbc.any():
            stress = torch.full_like(stress, float("nan"))
        results = [prediction.energy, prediction.forces, stress]
        if prediction.uncertainty is not None:
            results.append(prediction.uncertainty)
        if failed:
            atoms = lost[graph.structure]
            for result, mask in zip(results, (lost, atoms, lost, atoms), strict=False):
                result[mask] = float("nan")
        return tuple(results)

    def _evaluate_some(
        self, graph: AtomicGraph, pbc: NDArray[np.bool_], good: Tensor
    ) -> tuple[Tensor, ...]:
        """The results with NaN for the systems that are not ``good`` (G,)."""
        keep = good[graph.structure]
        positions, cell = graph.positions, graph.cell
        whole = [
            positions.new_zeros(len(cell)),
            torch.zeros_like(positions),
            torch.zeros_like(cell),
        ]
        if self.potential.uncertainty is not None:
            whole.append(positions.new_zeros(len(positions)))
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
                whole, (good, keep, good, keep), self._evaluate(some, pbc), strict=False
            ):
                result[mask.to(result.device)] = part.to(result.device)
        return tuple(whole)

    def _graph(self, state: SimState) -> tuple[AtomicGraph, NDArray[np.bool_]]:
        """The state in float64 without edges, and its periodic directions (3,).

        It is on the CPU, or on the GPU if neighbours are found there.
        """
        device = self._device if isinstance(self.neighbors, GpuNeighbors) else torch.device("cpu")
        inputs, known = [state.system_idx, state.atomic_numbers], self._known
        counted = not any(each.is_inference() for each in inputs)  # others have no version
        shapes = [each.shape for each in (state.cell, *inputs)]
        version = (*shapes, *state_of(inputs)) if counted else ()
        if known is None or not counted or known.version != version:
            about = (each.to(device) for each in _checked(state, self.card.elements))
            known = self._known = _Known(inputs, version, *about)
        atoms, systems = len(known.structure), state.cell.shape[0]
        for name, shape in (("positions", (atoms, 3)), ("cell", (systems, 3, 3))):
            _check_shape(state, name, shape)
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        graph = AtomicGraph(
            positions=state.positions.detach().to(device, torch.float64).contiguous(),
            species=known.species,
            structure=known.structure,
            cell=state.cell.detach().mT.to(device, torch.float64).contiguous(),  # columns to rows
            senders=empty,
            receivers=empty,
            shifts=torch.zeros(0, 3, dtype=torch.float64, device=device),
        )
        pbc = torch.as_tensor(state.pbc).cpu().numpy().astype(bool)
        return graph, np.broadcast_to(pbc, (3,))

    def _with_edges(self, graph: AtomicGraph, pbc: NDArray[np.bool_]) -> AtomicGraph:
        """The graph on the device of the model, with the edges of its lists, including the skin."""
        if isinstance(self.neighbors, GpuNeighbors):
            return self.neighbors.with_edges(graph, pbc)
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


class _Known(NamedTuple):
    """Atoms of the last state, which are usually those of the next."""

    inputs: list[Tensor]  # kept, so that their addresses are not used again
    version: tuple[Any, ...]  # shapes of cells and inputs, and versions of the inputs
    species: Tensor
    structure: Tensor


def _checked(state: SimState, elements: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Species and systems of the atoms, on the CPU."""
    structure = state.system_idx.detach().cpu()
    atoms, systems = len(structure), state.cell.shape[0]
    _check_shape(state, "atomic_numbers", (atoms,))
    if not atoms or int(structure.min()) < 0 or int(structure.max()) >= systems:
        raise ValueError(f"system_idx must have values from 0 to {systems - 1} for all atoms")
    if (structure.diff() < 0).any():
        raise ValueError("the atoms are not sorted by system; sort them by system_idx")
    without = (torch.bincount(structure, minlength=systems) == 0).nonzero().flatten().tolist()
    if without:
        raise ValueError(f"system {without[0]} has no atoms; remove it from the state")
    species = species_index(state.atomic_numbers.cpu().numpy(), elements)
    return torch.from_numpy(species), structure


def _check_shape(state: SimState, name: str, shape: tuple[int, ...]) -> None:
    found = tuple(getattr(state, name).shape)
    if found != shape:
        raise ValueError(f"{name} must have the shape {shape}; found {found}")


def _broken(graph: AtomicGraph, pbc: NDArray[np.bool_]) -> tuple[Tensor, str] | None:
    """Systems (G,) without a neighbour list, and the error of the first; None if there are none.

    The error message counts systems and their atoms from 0.
    """
    atoms = ~(graph.positions.abs() <= FARTHEST).all(dim=1)  # NaN is not
    cells = ~graph.cell.isfinite().flatten(1).all(dim=1)
    vectors = graph.cell[:, pbc.tolist()]
    # The smallest of k singular values is at least their product over the norm to the power k - 1.
    volumes = torch.linalg.det(vectors @ vectors.mT).clamp(min=0).sqrt()
    thick = volumes >= THINNEST * vectors.flatten(1).norm(dim=1) ** max(0, vectors.shape[1] - 1)
    if bool(thick.all() & ~(atoms.any() | cells.any())):
        return None
    moved = torch.zeros_like(cells)
    moved[graph.structure[atoms]] = True
    finite = torch.where(cells.view(-1, 1, 1), 0.0, graph.cell).cpu().numpy()
    broken = moved | cells | ~torch.from_numpy(has_volume(finite, pbc)).to(cells.device)
    if not broken.any():
        return None
    system = int(broken.nonzero()[0])
    if moved[system]:
        atom = int((atoms & (graph.structure == system)).nonzero()[0])
        where = graph.positions[atom].tolist()
        kind = "too far away" if graph.positions[atom].isfinite().all() else "not finite"
        return broken, f"{_name(graph.structure, atom)}: its position {where} is {kind}"
    cell = graph.cell[system].tolist()
    what = "is not finite" if cells[system] else f"has no volume (pbc {pbc.tolist()})"
    return broken, f"system {system}: its cell {cell} {what}"


def _describe_overlap(graph: AtomicGraph, edges: Edges, short: Tensor) -> str:
    edge = int(short.nonzero()[0])
    ends = int(edges.senders[edge]), int(edges.receivers[edge])
    one, other = (_name(graph.structure, atom) for atom in ends)
    return f"{one} and {other.split(', ')[1]} are less than {CLOSEST} Å apart; atoms overlap"


def _name(structure: Tensor, atom: int) -> str:
    """Description of an atom by its system and its index in it, both counted from 0."""
    system = int(structure[atom])
    return f"system {system}, atom {atom - int((structure < system).sum())}"
