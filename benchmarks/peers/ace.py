"""Linear ACE by ace-jax with its C++ kernel, called as by LAMMPS, in the environment ``ace``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from ace_jax import ACECalculator
from ace_jax.eval import ffi, load
from ace_jax.eval.model import lean, with_radial_table
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list

from benchmarks.serve import Task
from benchmarks.silicon import SiliconSteps

SKIN = 0.5  # Å
AGREES = 1e-6  # eV/Å, the kernel and the calculator of ace-jax; its radial functions are tabulated

jax.config.update("jax_enable_x64", True)


class Matrix(NamedTuple):
    """Neighbours of each atom, among the atoms and their periodic images."""

    neighbors: Any  # (K, N) int32
    num_neighbors: Any  # (N,) int32


class Ace(SiliconSteps):
    """The kernel on a given neighbour list: energies and forces, float64, without stress."""

    def __init__(self, path: str) -> None:
        """Load a model that ``aj fit`` has written."""
        model, meta, *_ = load(path)
        weights = sum(int(np.size(part)) for part in (model.WB, model.Wpair))
        super().__init__(ACECalculator(path), parameters=weights, dtype="float64")
        ffi.register(ffi.library())
        self.cutoff = float(meta["rcut"])
        table, _ = with_radial_table(lean(model), True)
        energy, forces = ffi.lammps_fns(table, 1, [0], self.cutoff)
        del energy
        self.kernel = jax.jit(forces)

    def step(self, n_atoms: int) -> Task:
        """Forces at new positions of atoms and images; forces on images are added to the atoms."""
        self.set_up(n_atoms)
        owner, shift, graph = images(self.atoms, self.cutoff + SKIN)
        species = jax.numpy.zeros(len(owner), dtype=np.int32)

        def forces() -> np.ndarray:
            positions = self.atoms.positions[owner] + shift
            found = np.asarray(self.kernel(jax.numpy.asarray(positions), species, graph))
            return np.stack([np.bincount(owner, column, n_atoms) for column in found.T], axis=1)

        self.move()
        difference = np.abs(forces() - self.atoms.get_forces()).max()
        if not difference < AGREES:
            raise ValueError(f"the kernel differs from the calculator by {difference} eV/Å")
        return self.move, lambda: {"finite": bool(np.isfinite(forces()).all())}


def images(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, Matrix]:
    """The atoms and those periodic images that are neighbours, and the neighbour matrix.

    Returns:
        The atom of each, its shift (Å), and the matrix.
    """
    first, second, cells = primitive_neighbor_list("ijS", atoms.pbc, atoms.cell, atoms.positions,
                                                   cutoff)  # fmt: skip
    n = len(atoms)
    inside = (cells == 0).all(axis=1)
    keys, where = np.unique(np.column_stack([second, cells])[~inside], axis=0, return_inverse=True)
    column = second.copy()
    column[~inside] = n + where.ravel()
    owner = np.concatenate([np.arange(n), keys[:, 0]])
    shift = np.concatenate([np.zeros((n, 3)), keys[:, 1:] @ atoms.cell.array])
    counts = np.bincount(first, minlength=n)
    order = np.argsort(first, kind="stable")
    place = np.concatenate([np.arange(count) for count in counts])
    matrix = np.zeros((counts.max(), n), dtype=np.int32)
    matrix[place, first[order]] = column[order]
    return (
        owner,
        shift,
        Matrix(jax.numpy.asarray(matrix), jax.numpy.asarray(counts.astype(np.int32))),
    )
