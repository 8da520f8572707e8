"""Equation of state: the fit and the curve, on EMT aluminium where the answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from tesseral.calculators.properties.atoms import pressure_gpa
from tesseral.calculators.properties.eos import (
    equation_of_state,
    fit_birch_murnaghan,
    reference_atoms,
)

A_EMT = 3.9944  # Å, EMT aluminium


def aluminium(a: float, cubic: bool = True) -> Atoms:
    """Aluminium with EMT, four atoms or one."""
    atoms = bulk("Al", "fcc", a=a, cubic=cubic)
    atoms.calc = EMT()
    return atoms


def test_birch_murnaghan_fit_recovers_its_parameters() -> None:
    v0, e0, b0, b1 = 41.2, -7.3, 95.0, 4.6
    volumes = v0 * np.linspace(0.92, 1.08, 7)
    x = (v0 / volumes) ** (2 / 3)
    energies = e0 + 9 / 16 * v0 * b0 * units.GPa * ((x - 1) ** 3 * b1 + (x - 1) ** 2 * (6 - 4 * x))
    fit = fit_birch_murnaghan(volumes, energies)
    assert fit[:4] == pytest.approx((v0, e0, b0, b1), rel=1e-6)
    np.testing.assert_allclose(fit(volumes), energies, atol=1e-10)


def test_energies_without_a_minimum_are_refused() -> None:
    volumes = np.linspace(10, 12, 7)
    with pytest.raises(ValueError, match=r"no minimum between 10\.00 and 12\.00"):
        fit_birch_murnaghan(volumes, -volumes)


def test_equation_of_state_agrees_with_the_stress() -> None:
    result = equation_of_state(aluminium(4.0), points=9)
    assert result.lattice == pytest.approx({"a": A_EMT}, abs=1e-3)
    pressures = [pressure_gpa(aluminium(A_EMT * scale)) for scale in (0.999, 1.001)]
    bulk_modulus = -(pressures[1] - pressures[0]) / (1.001**3 - 0.999**3)
    assert result.fit.bulk_modulus == pytest.approx(bulk_modulus, rel=0.03)


def test_the_result_does_not_depend_on_the_cell() -> None:
    for cubic, number in ((True, 4), (False, 1)):
        result = equation_of_state(aluminium(4.0, cubic), fixed_positions=True)
        assert result.n_atoms == number
        assert result.lattice["a"] == pytest.approx(A_EMT, rel=2e-4)
        assert result.fit.volume / number == pytest.approx(A_EMT**3 / 4, rel=6e-4)


@pytest.mark.parametrize("atoms", [Atoms("Al"), fcc111("Al", (1, 1, 2), vacuum=5.0)])
def test_only_a_crystal_has_an_equation_of_state(atoms: Atoms) -> None:
    atoms.calc = EMT()
    with pytest.raises(ValueError, match="needs a crystal"):
        equation_of_state(atoms)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="`points` is 3"):
        equation_of_state(aluminium(4.0), points=3)


def test_the_cell_of_a_reference_is_known_by_its_energy() -> None:
    volumes = np.linspace(56, 72, 7)
    energies = -15.0 + 0.002 * (volumes - 63.9) ** 2
    reference = {"e0_eV_per_atom": -3.75, "eos": {"V": volumes, "E": energies}}
    assert reference_atoms(reference) == 4
