"""Structures with short distances: rattled, compressed and random cells of 40 elements."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from benchmarks.universal.structures import cell_of, compounds
from tesseral.data.neighbors import neighbor_list

ELEMENTS = "H Li Be B C N O F Na Mg Al Si P S Cl K Ca Ti V Cr Mn Fe Ni Cu Zn Ga Ge As Se Br Sr Zr"
ELEMENTS += " Mo Pd Ag Sn I Ba W Pb"
SIMPLE = "Li Be C Na Mg Al Si K Ca Ti V Cr Fe Ni Cu Zn Ge Sr Zr Mo Pd Ag Ba W Pb"
KINDS = ("rattled", "compressed", "random")
CLOSEST = 0.45  # smallest distance in a structure, as a fraction of the sum of the covalent radii
LARGEST_CELL = 12  # atoms


def close_structures(number: int = 1000, seed: int = 2026) -> list[Atoms]:
    """Structures with their ``sort`` in ``info``, the three kinds in turn.

    - rattled: crystals at their experimental volume, moved by Gaussian noise of 0.2 to 0.6 Å;
    - compressed: the same at 60 to 80% of the volume, moved by 0.05 to 0.4 Å;
    - random: four to eight atoms of up to three elements anywhere in a box, with 80 to 150% of the
      volume of close-packed spheres of the covalent radii, 10 Å³ an atom at least.

    No two atoms are closer than ``CLOSEST``, and all elements are among ``ELEMENTS``.
    """
    generator = np.random.default_rng(seed)
    crystals = _crystals()
    made = []
    for count in range(number):
        kind, turn = KINDS[count % len(KINDS)], count // len(KINDS)
        while True:
            if kind == "random":
                atoms = _random_box(turn, generator)
            else:
                atoms = _moved(crystals[turn % len(crystals)], kind, generator)
            if closest(atoms) >= CLOSEST:
                break
        atoms.info = {"sort": kind, "label": str(atoms.symbols)}
        made.append(atoms)
    return made


def _crystals() -> list[Atoms]:
    """Elements and compounds, all of small cells."""
    found = [cell_of(symbol) for symbol in SIMPLE.split()] + [atoms for _, atoms in compounds()]
    known = set(ELEMENTS.split())
    return [
        Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        for atoms in found
        if len(atoms) <= LARGEST_CELL and known >= set(atoms.symbols)
    ]


def _moved(source: Atoms, kind: str, generator: np.random.Generator) -> Atoms:
    atoms = source.copy()
    width = generator.uniform(0.2, 0.6)
    if kind == "compressed":
        volume, width = generator.uniform(0.6, 0.8), generator.uniform(0.05, 0.4)
        atoms.set_cell(volume ** (1 / 3) * atoms.cell.array, scale_atoms=True)
    atoms.positions += generator.normal(scale=width, size=atoms.positions.shape)
    return atoms


def _random_box(turn: int, generator: np.random.Generator) -> Atoms:
    """Atoms anywhere in a skewed box; every element is the first one in turn."""
    symbols = ELEMENTS.split()
    chosen = [symbols[turn % len(symbols)], *generator.choice(symbols, 2)]
    chosen, n = chosen[: generator.integers(1, 4)], int(generator.integers(4, 9))
    atoms = Atoms([chosen[k % len(chosen)] for k in range(n)], pbc=True)
    spheres = 4 / 3 * np.pi * covalent_radii[atoms.numbers] ** 3 / 0.74
    volume = generator.uniform(0.8, 1.5) * np.maximum(spheres, 10.0).sum()
    cell = np.eye(3) + generator.uniform(-0.2, 0.2, size=(3, 3))
    atoms.set_cell(cell * (volume / abs(np.linalg.det(cell))) ** (1 / 3))
    atoms.set_scaled_positions(generator.random((n, 3)))
    return atoms


def closest(atoms: Atoms) -> float:
    """Smallest distance over the sum of the covalent radii; infinite without neighbours."""
    radii = covalent_radii[atoms.numbers]
    reach = 2 * float(radii.max())
    senders, receivers, shifts = neighbor_list(atoms.positions, atoms.cell, atoms.pbc, reach)
    vectors = atoms.positions[receivers] - atoms.positions[senders] + shifts @ atoms.cell.array
    ratios = np.linalg.norm(vectors, axis=1) / (radii[senders] + radii[receivers])
    return float(ratios.min(initial=np.inf))
