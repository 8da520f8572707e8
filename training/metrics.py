"""MAE and RMSE of energy per atom, forces and stress: overall, by element, by config type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from tesseral.data.graph import Batch, atom_counts
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.potentials.derivatives import Prediction, stress_from_virial

QUANTITIES = ("energy_per_atom", "forces", "stress")
UNITS = {"energy_per_atom": "meV/atom", "forces": "meV/Å", "stress": "GPa"}
FACTORS = (1e3, 1e3, EV_PER_A3_IN_GPA)
UPPER = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))  # rows and columns of the six stress components


class ErrorSums:
    """Running sums of |error|, error² and 1, from which the errors are computed.

    All sums are in one tensor whose shape is known beforehand, so that processes can combine theirs
    with one ``all_reduce`` of ``sums``.

    Args:
        elements: atomic numbers in the order of the species index.
        config_types: names of the config types with separate errors.
        type_of_row: (rows,) index into ``config_types`` of each row of the dataset. Default: all
            have the first type.
    """

    def __init__(
        self,
        elements: Sequence[int],
        config_types: Sequence[str] = ("",),
        type_of_row: Tensor | None = None,
    ) -> None:
        """Start at zero."""
        self.elements = tuple(elements)
        self.config_types = tuple(config_types)
        self.type_of_row = type_of_row
        # Per config type: energy, forces, stress, and the number of structures and atoms.
        # Then one row of forces for each element.
        self.n_types = len(self.config_types)
        self.sums = torch.zeros(4 * self.n_types + len(self.elements), 3, dtype=torch.float64)

    def add(self, batch: Batch, prediction: Prediction) -> None:
        """Add a batch; missing labels do not count."""
        graph, labels = batch.graph, batch.labels
        kind = torch.zeros_like(batch.index)
        if self.type_of_row is not None:
            kind = self.type_of_row.to(batch.index.device)[batch.index]
        atom_kind = kind[graph.structure]
        n_atoms = atom_counts(graph)
        energy = (prediction.energy - labels.energy) / n_atoms
        forces = prediction.forces - labels.forces
        stress = stress_from_virial(prediction.virial, graph.cell) - labels.stress
        upper = (slice(None), *UPPER)
        known = torch.isfinite(labels.forces)
        n = self.n_types
        sums = torch.zeros_like(self.sums, device=energy.device)
        _add(sums, kind, energy.unsqueeze(1), torch.isfinite(labels.energy).unsqueeze(1))
        _add(sums, n + atom_kind, forces, known)
        _add(sums, 2 * n + kind, stress[upper], torch.isfinite(labels.stress)[upper])
        _add(sums, 4 * n + graph.species, forces, known)
        labelled = torch.isfinite(labels.energy) | _any(known, graph.structure, len(kind))
        sums[3 * n : 4 * n, 0].index_add_(0, kind, labelled.to(sums.dtype))
        sums[3 * n : 4 * n, 1].index_add_(0, kind, (labelled * n_atoms).to(sums.dtype))
        self.sums += sums.cpu()

    @classmethod
    def of_energies(
        cls, errors: Tensor, config_types: Sequence[str], type_of_row: Tensor | None
    ) -> ErrorSums:
        """Sums of energy errors (G,) eV/atom of all structures of a dataset; NaN is missing."""
        made = cls((), config_types, type_of_row)
        kind = torch.zeros(len(errors), dtype=torch.int64) if type_of_row is None else type_of_row
        _add(made.sums, kind, errors.unsqueeze(1), torch.isfinite(errors).unsqueeze(1))
        return made

    def replace_energies(self, other: ErrorSums) -> None:
        """Take the energy errors of other sums with the same config types."""
        self.sums[: self.n_types] = other.sums[: self.n_types]

    def summary(self) -> dict[str, Any]:
        """Errors as plain numbers; a quantity without any label is absent.

        Returns:
            ``energy_per_atom`` in meV/atom, ``forces`` in meV/Å, ``stress`` in GPa, each
            ``{"mae", "rmse"}``; ``n_structures``, ``n_atoms``; ``by_element`` (forces) and
            ``by_config_type`` (empty if the structures have no config types).
        """
        by_type = self.sums[: 4 * self.n_types].view(4, self.n_types, 3)
        by_element = self.sums[4 * self.n_types :]
        errors: dict[str, Any] = _errors(by_type.sum(1))
        errors["by_element"] = {
            chemical_symbols[z]: {"forces": _mean(row, FACTORS[1])}
            for z, row in zip(self.elements, by_element, strict=True)
            if row[2] > 0
        }
        errors["by_config_type"] = {
            name: _errors(by_type[:, i])
            for i, name in enumerate(self.config_types)
            if by_type[3, i, 0] > 0 and self.config_types != ("",)
        }
        return errors


def _add(sums: Tensor, rows: Tensor, errors: Tensor, known: Tensor) -> None:
    """Add errors (n, k) with known labels to the rows (n,) of the sums."""
    errors = torch.where(known, errors, torch.zeros_like(errors))
    parts = torch.stack(
        [errors.abs().sum(1), errors.square().sum(1), known.sum(1).to(errors.dtype)], dim=1
    )
    sums.index_add_(0, rows, parts)


def _any(known: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Structures that have an atom with a known value, (G,) bool."""
    found = torch.zeros(n_structures, dtype=torch.float64, device=known.device)
    return found.index_add_(0, structure, known.any(1).to(torch.float64)) > 0


def _errors(rows: Tensor) -> dict[str, Any]:
    """Errors from the rows energy, forces, stress and counts (4, 3) of the sums."""
    errors: dict[str, Any] = {
        name: _mean(row, factor)
        for name, row, factor in zip(QUANTITIES, rows[:3], FACTORS, strict=True)
        if row[2] > 0
    }
    errors["n_structures"] = int(rows[3, 0])
    errors["n_atoms"] = int(rows[3, 1])
    return errors


def _mean(row: Tensor, factor: float) -> dict[str, float]:
    """MAE and RMSE of one row of sums."""
    absolute, square, number = row.tolist()
    return {"mae": factor * absolute / number, "rmse": factor * math.sqrt(square / number)}
