"""Paths between two structures: barriers with EMT, and ends that do not belong together."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS

from tesseral.calculators.properties import band
from tesseral.calculators.properties.relaxation import relaxed


@pytest.fixture(scope="module")
def hop() -> tuple[Atoms, Atoms]:
    """Relaxed ends of the jump of an atom into a vacancy of copper; the second is wrapped."""
    crystal = bulk("Cu", cubic=True, a=3.6) * (2, 2, 2)
    jump = crystal.get_distance(1, 0, mic=True, vector=True)
    start, end = crystal.copy(), crystal.copy()
    end.positions[1] += jump
    ends = []
    for atoms in (start, end):
        del atoms[0]
        atoms.calc = EMT()
        ends.append(relaxed(atoms, fmax=0.01, cell="fixed").atoms)
    ends[1].wrap()
    return ends[0], ends[1]


def path_of(ends: tuple[Atoms, Atoms], images: int) -> list[Atoms]:
    path = band.first_path(ends[0], band.matched_end(*ends), images)
    for image in path:
        image.calc = EMT()
    return path


def test_the_barrier_is_that_of_a_plain_band_of_ase(hop: tuple[Atoms, Atoms]) -> None:
    path = path_of(hop, 5)
    *_, last = band.relaxing_path(path, fmax=0.02, steps=300)
    result = band.profile(path)
    # The saddle point is a stationary point without forces; found here by another optimizer.
    other = path_of(hop, 5)
    neb = NEB(other, climb=True, method="improvedtangent")
    BFGS(neb, logfile=None).run(fmax=0.02, steps=300)
    energies = [image.get_potential_energy() for image in other]
    assert last.converged and result.highest == 2
    assert result.forward == pytest.approx(max(energies) - energies[0], abs=0.002)
    assert result.reaction == pytest.approx(0.0, abs=1e-4)  # the same vacancy at another site
    assert result.backward == pytest.approx(result.forward, abs=1e-4)
    assert np.abs(path[2].get_forces()).max() < 0.03
    assert band.remarks(result) == []


def test_without_climbing_the_spline_finds_the_top_between_two_images(
    hop: tuple[Atoms, Atoms],
) -> None:
    path = path_of(hop, 6)  # none of them at the saddle point
    for _ in band.relaxing_path(path, fmax=0.05, steps=200, method="plain"):
        pass
    result = band.profile(path)
    assert result.forward > result.energies.max() + 0.005
    assert result.forward == pytest.approx(0.7765, abs=0.02)


def test_an_atom_that_crossed_the_boundary_takes_the_short_way(hop: tuple[Atoms, Atoms]) -> None:
    start, _ = hop
    end = start.copy()
    end.positions[3] += end.cell[0]
    moved = band.matched_end(start, end).positions - start.positions
    assert np.abs(moved).max() < 1e-9


def test_a_molecule_is_turned_onto_its_start() -> None:
    start = molecule("NH3")
    end = start.copy()
    end.rotate(70, "x")
    end.translate([1.0, 2.0, 3.0])
    np.testing.assert_allclose(band.matched_end(start, end).positions, start.positions, atol=1e-6)


def other_element(atoms: Atoms) -> None:
    atoms.numbers[4] = 47


def other_order(atoms: Atoms) -> None:
    atoms.numbers[[0, 1]] = atoms.numbers[[1, 0]]


def other_cell(atoms: Atoms) -> None:
    atoms.set_cell(atoms.cell * 1.01)


def no_boundaries(atoms: Atoms) -> None:
    atoms.pbc = False


def moved_fixed_atom(atoms: Atoms) -> None:
    atoms.positions[2] += [0.3, 0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_element, "the start is CuSi7 and the end AgCuSi6"),
        (other_order, "atom 0 (from 0) is Si in the start and Cu in the end"),
        (other_cell, "the cells of start and end differ by 0.0543 Å"),
        (no_boundaries, "pbc=[True, True, True] and the end [False, False, False]"),
        (moved_fixed_atom, "atoms that are fixed in the start are up to 0.3 Å away"),
    ],
)
def test_ends_that_do_not_belong_together_are_refused(change, words: str) -> None:
    start = bulk("Si", cubic=True)
    start.numbers[1] = 29
    start.set_constraint(FixAtoms([2]))
    end = start.copy()
    end.set_constraint()
    change(end)
    with pytest.raises(ValueError) as caught:
        band.matched_end(start, end)
    assert words in str(caught.value)


def test_equal_atoms_in_another_order_are_noticed(hop: tuple[Atoms, Atoms]) -> None:
    start, end = hop
    shuffled = end[np.random.default_rng(0).permutation(len(end))]
    assert band.doubt_about_order(start, band.matched_end(start, end)) == ""
    assert "same order" in band.doubt_about_order(start, band.matched_end(start, shuffled))


def test_the_same_structure_twice_is_refused(hop: tuple[Atoms, Atoms]) -> None:
    with pytest.raises(ValueError, match="start and end are the same structure"):
        band.first_path(hop[0], hop[0].copy(), 5)


def made(energies: list[float]) -> band.Profile:
    values = np.array(energies)
    return band.Profile(
        distance=np.arange(len(values)) * 1.0,
        energies=values,
        fine_distance=values,
        fine_energies=values,
        forward=0.0,
        backward=0.0,
        reaction=0.0,
        highest=int(values.argmax()),
    )


def test_a_minimum_between_the_ends_is_named() -> None:
    assert "image 2 is near a minimum" in band.remarks(made([0, 0.5, 0.1, 0.4, 0.0]))[0]
    assert band.remarks(made([0, 0.3, 0.5, -0.2, -0.4])) == []


def test_a_path_without_a_barrier_is_named() -> None:
    assert "no barrier" in band.remarks(made([0, 0.1, 0.2, 0.3]))[0]
