"""ASE calculator for model files: energy, forces and stress."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from numpy.typing import NDArray
from torch import Tensor

from tesseral.calculators.dispersion import Dispersion, choose_dispersion, theory_with
from tesseral.calculators.properties.atoms import changes, has_stress
from tesseral.calculators.skin import SkinNeighbors
from tesseral.data.graph import AtomicGraph, Edges, edge_vectors, edges_of
from tesseral.data.neighbors import (
    NeighborList,
    check_counts,
    check_geometry,
    species_index,
)
from tesseral.data.units import stress_voigt
from tesseral.deploy.card import ModelCard
from tesseral.deploy.modelfile import load_model
from tesseral.potentials import hessian
from tesseral.potentials.derivatives import Prediction, predict_edges
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.engine.near_edges import NearEdges, near_edges
from tesseral.potentials.heat_flux import energy_flow
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops

Floats = NDArray[np.float64]

CLOSEST = 0.2  # Å; far below any distance between nuclei in a meaningful simulation


class HeatFlux(NamedTuple):
    """Heat flux of a structure times its volume, d/dt Σ r_i E_i of its atoms."""

    exchanged: Floats  # (3,) eV Å/fs, energy that atoms exchange
    carried: Floats  # (3,) eV Å/fs, energy that moving atoms carry, with their reference energies

    @property
    def total(self) -> Floats:
        """Sum of both, (3,) eV Å/fs."""
        return self.exchanged + self.carried


class TesseralCalculator(Calculator):
    """Energy, forces and stress of a trained potential.

    Takes any ``atoms`` with elements that the model knows: crystals, slabs, wires, molecules. The
    neighbour list has a skin and is reused while that is safe, also when the cell changes. The
    calculator can be pickled; a copy builds its own neighbour list.

    Attributes:
        potential: the model, on its device.
        card: description of the model; see ``ModelCard``.
        neighbors: the neighbour list; ``neighbors.builds`` counts the searches.
        dispersion: the D3(BJ) correction; None without one.
    """

    name = "tesseral"
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]
    dispersion: Dispersion | None
    ignored_changes = {
        "initial_charges",
        "initial_magmoms",
    }  # no effect on the energy

    def __init__(
        self,
        path: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        ops: str = "auto",
        dispersion: str | None = None,
        dispersion_cutoff: float | None = None,
        level: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            path: model file written by ``train-potential fit``, ``universal``, or a name that
                ``train-potential universal`` lists.
            device: ``cpu``, ``cuda``, …. Default: a GPU if available.
            dtype: ``float32`` or ``float64``, the precision of the features. Default: that of the
                model. Geometry and energies are always float64.
            skin: distance (Å) added to the cutoff of the neighbour search, so that its result can
                be reused.
            ops: ``fused`` (compiled kernels), ``reference`` (plain PyTorch) or ``auto`` (compiled
                kernels where available).
            dispersion: functional whose D3(BJ) dispersion is added, such as ``pbe``, or ``auto``
                for that of the model's level of theory. The energies of atoms (``energies``) are
                then not available.
            dispersion_cutoff: largest distance (Å) of a pair in it. Default: 60 Bohr.
            level: level of theory, if the model has several. Default: its first.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a model file, the device or dtype cannot be used, the skin
                is negative, or the dispersion cannot be added to this model.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        potential, card = load_model(path, device=device, dtype=dtype, ops=ops, level=level)
        self._set_up(potential, card, skin)
        self.dispersion = choose_dispersion(dispersion, card.theory, dispersion_cutoff)

    @classmethod
    def from_model(cls, potential: MessagePassing, card: ModelCard, *, skin: float = 0.5) -> Any:
        """Make a calculator from a copy of a potential in memory.

        Args:
            potential: the potential; the copy has the same device and dtype.
            card: model card, which names the elements.
            skin: distance (Å) added to the cutoff of the neighbour search.
        """
        calculator = cls.__new__(cls)
        calculator._set_up(deepcopy(potential), card, skin)
        return calculator

    def _set_up(self, potential: MessagePassing, card: ModelCard, skin: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential = potential.eval().requires_grad_(False)
        self.card = card
        self.dispersion = None
        search = gpu.neighbor_search(self.potential)
        self.neighbors = SkinNeighbors(card.config.cutoff, skin, search)
        self._listed: tuple[NeighborList, Tensor, Tensor, Tensor] | None = None
        self._species = np.empty(0, np.int64), np.empty(0, np.int64)  # numbers, indices

    def __repr__(self) -> str:
        """Elements, cutoff, precision, device and dispersion."""
        added = "" if self.dispersion is None else f", {self.dispersion}"
        device = f"device={str(self.device)!r}"
        return f"TesseralCalculator({self.card.short}, {self.card.dtype}, {device}{added})"

    @property
    def theory(self) -> str:
        """Level of theory, with dispersion if it is added; empty if unknown."""
        return theory_with(self.card.theory, self.dispersion)

    @property
    def stop(self) -> float | None:
        """Expected force error (eV/Å) of an atom at which a simulation should stop, if known."""
        limit = self.card.uncertainty.get("stop")
        return None if limit is None else float(limit)

    @property
    def device(self) -> torch.device:
        """Device of the potential."""
        return next(self.potential.parameters()).device

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Names of what has changed since the last calculation; see `changes`.

        Args:
            atoms: the structure.
            tol: not used; any change counts.
        """
        return changes(self.atoms, atoms)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute all properties of ``atoms`` into ``results``.

        Stress (Voigt ``xx yy zz yz xz xy``, eV/Å³, positive under tension) is computed for periodic
        atoms in a cell with a volume, which includes any vacuum. If the model knows its
        uncertainty, ``results`` also has ``forces_uncertainty``, the expected length of the error
        of the force on each atom, (N,) eV/Å, and ``energy_uncertainty``, the expected error of the
        energy, eV.

        Raises:
            ValueError: there are no atoms, arrays have different lengths, an element is unknown to
                the model or to D3, positions are not finite, atoms overlap, or a periodic cell has
                no volume or too little for its atoms.
            PropertyNotImplementedError: the stress of atoms without a periodic cell is requested.
            CalculationFailed: the result of the model is not finite.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.results = {}
        if self.atoms is None:
            raise ValueError("there are no atoms to compute; pass some")
        atoms = self.atoms
        _check_cell(atoms)
        graph = self._graph(atoms)
        stressed = bool(atoms.pbc.all()) or has_stress(atoms)  # the graph needs a volume
        if "stress" in properties and not stressed:
            raise PropertyNotImplementedError(
                "stress needs periodic atoms in a cell with a volume; these have "
                f"pbc={atoms.pbc.tolist()} and {atoms.cell.rank} cell vectors"
            )
        prediction = self._predict(graph)
        energies = prediction.atomic_energies.cpu().numpy()
        forces = prediction.forces.cpu().numpy()
        if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
            raise CalculationFailed(
                "the model gives energies or forces that are not finite here; the structure is "
                "probably far from its training data"
            )
        results: dict[str, Any] = {}
        if self.dispersion is None:
            results["energies"] = energies
        else:
            count = np.array([len(atoms)])
            prediction = self.dispersion.add(
                prediction, atoms.numbers, atoms.positions, atoms.cell.array[None], atoms.pbc, count
            )
            forces = prediction.forces.cpu().numpy()
        energy = float(prediction.energy[0])
        results |= {"energy": energy, "free_energy": energy, "forces": forces}
        if prediction.uncertainty is not None and self.potential.uncertainty is not None:
            results["forces_uncertainty"] = prediction.uncertainty.cpu().numpy()
            expected = self.potential.uncertainty.energy(prediction.uncertainty, graph.structure, 1)
            results["energy_uncertainty"] = float(expected)
        if stressed:
            virial = prediction.virial[0].cpu().numpy()
            results["stress"] = stress_voigt(-virial / abs(np.linalg.det(atoms.cell.array)))
        self.results = results

    @overload
    def get_descriptors(
        self, atoms: Atoms | None = None, invariant: Literal[True] = True
    ) -> NDArray[np.float64]: ...

    @overload
    def get_descriptors(
        self, atoms: Atoms | None = None, *, invariant: Literal[False]
    ) -> list[NDArray[np.float64]]: ...

    def get_descriptors(
        self, atoms: Atoms | None = None, invariant: bool = True
    ) -> NDArray[np.float64] | list[NDArray[np.float64]]:
        """Features of the atoms: what the model knows of their surroundings.

        Args:
            atoms: the structure. Default: that of the last calculation.
            invariant: the numbers from which the energies are read, which rotations,
                reflections and translations do not change; otherwise all features.

        Returns:
            (N, D), the invariants of all layers side by side (those of the last layer are the last
            ``card.config.channels``). With ``invariant=False``, the features (N, R, C) of each
            layer. In a Facet the rows are real spherical harmonics, row ``l² + l + m`` for
            ``-l ≤ m ≤ l`` in the order of e3nn, and the last layer has invariants only. For other
            architectures the rows and channels are described in
            ``tesseral.potentials.architectures``.

        Raises:
            ValueError: the structure cannot be computed; see ``calculate``.
        """
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError("there are no atoms to compute; pass some")
        _check_cell(atoms)
        graph = self._graph(atoms)
        edges = self._near_edges(graph).edges
        with torch.no_grad():
            layers = self.potential.layer_features(graph.species, edges)[1]
        if invariant:
            joined = torch.cat([scalars for _, scalars in layers], dim=1)
            return joined.double().cpu().numpy()
        return [features.double().cpu().numpy() for features, _ in layers]

    def get_hessian(
        self, atoms: Atoms, indices: Sequence[int] | None = None, *, sparse: bool = False
    ) -> Any:
        """Second derivatives of the energy by the positions, without finite differences.

        The rows of an atom need only the atoms within 2L cutoffs of it, if the model has L layers.
        Constraints of the atoms have no effect. In float32 the result has rounding errors of
        float32, but no others.

        Args:
            atoms: the structure.
            indices: atoms whose rows are computed. Default: all.
            sparse: return a ``scipy.sparse.csr_array``, for large structures.

        Returns:
            (3n, 3N) eV/Å²; x, y and z of n atoms by x, y and z of all N atoms.

        Raises:
            ValueError: as in ``calculate``, an index is wrong, or the calculator adds dispersion,
                of which only first derivatives are known.
        """
        graph, edges = self._differentiable(atoms, "get_hessian")
        number = len(graph.species)
        chosen = np.arange(number) if indices is None else np.asarray(indices)
        if chosen.dtype.kind not in "iu" or not ((chosen >= 0) & (chosen < number)).all():
            raise ValueError(f"`indices` must be from 0 to {number - 1}; found {indices}")
        rows = hessian.hessian_rows(self.potential, graph.species, edges, chosen.tolist())
        matrix = hessian.sparse if sparse else hessian.dense
        return matrix(rows, len(chosen), number)

    def get_heat_flux(self, atoms: Atoms) -> HeatFlux:
        """Heat flux of moving atoms, times the volume; exact for any number of layers.

        Args:
            atoms: structure with velocities.

        Raises:
            ValueError: as in ``get_hessian``.
        """
        graph, _ = self._differentiable(atoms, "get_heat_flux")
        near = edge_vectors(graph).norm(dim=1) < self.card.config.cutoff
        edges = graph.senders[near], graph.receivers[near], graph.shifts[near]
        graph = graph._replace(senders=edges[0], receivers=edges[1], shifts=edges[2])
        velocities = atoms.get_velocities() * units.fs  # Å/fs
        moving = torch.as_tensor(velocities, device=self.device)
        energies, flow = energy_flow(self.potential, graph, moving)
        kinetic = 0.5 * atoms.get_masses() * (atoms.get_velocities() ** 2).sum(axis=1)
        carried = (energies.cpu().numpy() + kinetic) @ velocities
        return HeatFlux(flow.cpu().numpy(), carried)

    def _differentiable(self, atoms: Atoms, name: str) -> tuple[AtomicGraph, Edges]:
        """Graph and edges within the cutoff for a method of the model alone."""
        if self.dispersion is not None:
            raise ValueError(
                f"`{name}` is that of the model alone, but the calculator adds {self.dispersion}, "
                "of which only first derivatives are known; make a calculator without `dispersion`"
            )
        _check_cell(atoms)
        graph = self._graph(atoms)
        return graph, self._near_edges(graph).edges

    def _graph(self, atoms: Atoms) -> AtomicGraph:
        """The atoms and the edges of the list, including its skin, on the device of the model."""
        if len(atoms) == 0:
            raise ValueError("there are no atoms to compute")
        check_counts(atoms.numbers, atoms.positions)
        if not np.array_equal(atoms.numbers, self._species[0]):
            self._species = atoms.numbers.copy(), species_index(atoms.numbers, self.card.elements)
        check_geometry(atoms.positions, atoms.cell.array, atoms.pbc)
        species = torch.from_numpy(self._species[1])
        device = self.device
        edges = self.neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
        if self._listed is None or self._listed[0] is not edges:
            parts = [torch.as_tensor(part, device=device) for part in edges]
            self._listed = (edges, parts[0], parts[1], parts[2])
        _, senders, receivers, shifts = self._listed
        return AtomicGraph(
            positions=torch.tensor(atoms.positions, dtype=torch.float64, device=device),
            species=species.to(device),
            structure=torch.zeros(len(atoms), dtype=torch.int64, device=device),
            cell=torch.tensor(atoms.cell.array, dtype=torch.float64, device=device).unsqueeze(0),
            senders=senders,
            receivers=receivers,
            shifts=shifts,
        )

    def _predict(self, graph: AtomicGraph) -> Prediction:
        """Prediction; overlapping atoms are an error."""
        about = graph.structure, 1
        if not gpu.applies(self.potential):
            near = self._near_edges(graph)
            return predict_edges(self.potential, graph.species, near.edges, *about)
        edges = edges_of(graph)  # the kernels skip those in the skin
        prediction = predict_edges(self.potential, graph.species, edges, *about)
        squared = edges.vectors.square().sum(dim=1)  # read when the GPU has been given all its work
        if len(squared) and float(squared.min()) < CLOSEST**2:
            _refuse_overlap(graph, int(squared.argmin()))
        return prediction

    def _near_edges(self, graph: AtomicGraph) -> NearEdges:
        """The edges within the cutoff; overlapping atoms are an error."""
        near = near_edges(graph, self.card.config.cutoff)
        vectors = near.edges.vectors
        if len(vectors) and float(torch.linalg.vector_norm(vectors, dim=1).amin()) < CLOSEST:
            assert near.closest is not None
            _refuse_overlap(graph, near.closest)
        return near

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling, without the neighbour list and with weights any machine can read."""
        state = self.__dict__.copy()
        state["_listed"] = None
        state["neighbors"] = SkinNeighbors(self.neighbors.cutoff, self.neighbors.skin)
        if self.device.type != "cpu":
            state["potential"] = deepcopy(self.potential).cpu()
        state["_device"] = str(self.device)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore on the original device, or on the CPU if it is not available."""
        device = torch.device(state.pop("_device"))
        self.__dict__.update(state)
        if device.type != "cuda" or torch.cuda.is_available():
            self.potential = self.potential.to(device)
        if self.potential.harmonics.fused:  # this machine may have no compiled kernels
            select_ops(self.potential)
        self.neighbors.search = gpu.neighbor_search(self.potential)


def _refuse_overlap(graph: AtomicGraph, closest: int) -> None:
    """Raise an error if the shortest edge is one of overlapping atoms."""
    one = slice(closest, closest + 1)
    ends = graph._replace(
        senders=graph.senders[one], receivers=graph.receivers[one], shifts=graph.shifts[one]
    )
    distance = float(edge_vectors(ends).norm())
    if distance < CLOSEST:
        raise ValueError(
            f"atoms {int(ends.senders)} and {int(ends.receivers)} are {distance:.3f} Å apart; "
            "atoms overlap in this structure"
        )


def _check_cell(atoms: Atoms) -> None:
    """ASE does not check the shape of an array that is assigned to ``atoms.cell.array``."""
    if atoms.cell.array.shape != (3, 3):
        raise ValueError(f"the cell must have the shape (3, 3); found {atoms.cell.array.shape}")
