"""A neighbour list that stays in use while no unlisted pair can have come within the cutoff."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tesseral.data.cells import complete_cell
from tesseral.data.neighbors import NeighborList, neighbor_list

Floats = NDArray[np.float64]


class SkinNeighbors:
    """Pairs within a cutoff, searched with a skin and reused while that is provably safe.

    Write an atom's position as the deformed reference position plus its own displacement,
    ``r = r0 F + u`` with ``F`` the deformation of the cell. Then a pair vector is
    ``d = d0 F + u_j - u_i`` and ``|d| ≥ σ_min(F) |d0| - |u_i| - |u_j|``. A pair that is not listed
    had ``|d0| > cutoff + skin``, so that it is beyond the cutoff as long as
    ``σ_min(F) (cutoff + skin) - (two largest |u|) ≥ cutoff``. Only differences of u matter, so a
    common drift is taken out first.

    Attributes:
        builds: number of searches so far.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        """Start without a list.

        Args:
            cutoff: Å.
            skin: Å, 0 or more; 0 searches anew whenever anything comes closer.

        Raises:
            ValueError: a skin that is negative or not finite.
        """
        if not (np.isfinite(skin) and skin >= 0):
            raise ValueError(f"skin is {skin} Å; use a distance of 0 or more, usually 0.3 to 1")
        self.cutoff = cutoff
        self.skin = skin
        self.builds = 0
        self._edges: NeighborList | None = None
        self._positions: Floats = np.empty((0, 3))
        self._cell: Floats = np.empty((3, 3))
        self._pbc: NDArray[np.bool_] = np.zeros(3, dtype=bool)

    def edges(self, positions: Floats, cell: Floats, pbc: NDArray[np.bool_]) -> NeighborList:
        """Edges that include every pair within the cutoff, and others up to the skin.

        Args:
            positions: (N, 3) Å.
            cell: (3, 3) Å, rows are lattice vectors.
            pbc: (3,) bool.

        Returns:
            The same object as in the last call where that is still safe.
        """
        # Directions that are not periodic have no shifts, so that their vectors may change freely.
        lattice = complete_cell(cell, pbc)
        if self._edges is None or not self._is_safe(positions, lattice, pbc):
            self._edges = neighbor_list(positions, cell, pbc, self.cutoff + self.skin)
            self._positions, self._cell, self._pbc = positions.copy(), lattice, pbc.copy()
            self.builds += 1
        return self._edges

    def forget(self) -> None:
        """Drop the list; the next call searches."""
        self._edges = None

    def _is_safe(self, positions: Floats, lattice: Floats, pbc: NDArray[np.bool_]) -> bool:
        if positions.shape != self._positions.shape or bool((pbc != self._pbc).any()):
            return False
        reference, smallest = self._positions, 1.0
        if not np.array_equal(lattice, self._cell):
            deformation = np.linalg.solve(self._cell, lattice)
            smallest = float(np.linalg.svd(deformation, compute_uv=False)[-1])
            reference = reference @ deformation
        moved = positions - reference
        moved -= moved.mean(axis=0)
        lengths = np.sqrt(np.einsum("ij,ij->i", moved, moved))
        largest = float(np.partition(lengths, -2)[-2:].sum()) if len(lengths) > 1 else 0.0
        return bool(smallest * (self.cutoff + self.skin) - largest >= self.cutoff)
