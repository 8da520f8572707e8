"""Surface energies and slabs, with ASE's simple potentials."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.spacegroup import crystal

from tesseral.calculators.properties.surface import lowest_slab, surface_energy


def layers(slab: Atoms) -> list[int]:
    """Numbers of atoms in the layers of a slab, from below."""
    heights = np.sort(slab.positions[:, 2])
    starts = np.flatnonzero(np.diff(heights, prepend=-np.inf, append=np.inf) > 0.1)
    return np.diff(starts).tolist()


@pytest.mark.parametrize("miller", [(1, 0, 0), (1, 1, 0), (2, 0, 0)])
def test_rounding_of_positions_does_not_break_up_a_layer(miller: tuple[int, int, int]) -> None:
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.positions += 1e-6 * np.random.default_rng(0).normal(size=(4, 3))
    atoms.calc = EMT()
    assert len(set(layers(lowest_slab(atoms, miller)))) == 1


def test_the_termination_of_lowest_energy_is_taken() -> None:
    # Pairs of close-packed layers: to cut between the pairs breaks the fewest bonds.
    atoms = crystal(["Ar"], [(0, 0, 0.1)], spacegroup=166, cellpar=[3.8, 3.8, 20, 90, 90, 120])
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.01, rc=8.0)
    heights = np.sort(lowest_slab(atoms, (0, 0, 1)).positions[:, 2])
    gaps = np.diff(heights)
    assert gaps[0] == pytest.approx(gaps.min()) and gaps[-1] == pytest.approx(gaps.min())


def test_surface_energies_of_copper_have_the_order_of_the_broken_bonds() -> None:
    atoms = bulk("Cu", "fcc", a=3.59, cubic=True)
    atoms.calc = EMT()
    found = [surface_energy(atoms, plane).relaxed for plane in ((1, 1, 1), (1, 0, 0), (1, 1, 0))]
    assert found == sorted(found) and found[0] > 0
