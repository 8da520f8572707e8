"""Units and signs that are wrong everywhere, and in some structures."""

import numpy as np
import pytest

from tesseral.data.doctor.descriptors import describe
from tesseral.data.doctor.units import recognise
from tesseral.data.units import ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS


def shown(found, measured):
    print({name: (one.found, one.rows) for name, one in found.items()}, measured)


def test_nothing_is_wrong_with_clean_labels(sic, examine):
    found, measured = examine(sic)
    shown(found, measured)
    assert not found
    ratios = [float(value.split()[0]) for value in measured.values()]
    assert len(ratios) == 3
    np.testing.assert_allclose(ratios, 1.0, atol=0.1)


@pytest.mark.parametrize(
    ("factor", "check", "words"),
    [
        (-1.0, "stress sign", "stress with the opposite sign"),
        (1 / STRESS_UNITS["kbar"], "stress unit", "kbar"),
        (-1 / STRESS_UNITS["kbar"], "stress unit", "kbar and with the opposite sign"),
        (1 / STRESS_UNITS["GPa"], "stress unit", "GPa"),
    ],
)
def test_stress_that_is_wrong_everywhere(sic, examine, factor, check, words):
    found, measured = examine([s._replace(stress=factor * s.stress) for s in sic])
    shown(found, measured)
    assert list(found) == [check]
    assert words in found[check].found
    assert found[check].rows == ()
    assert found[check].fix.factor == pytest.approx(1 / factor)


@pytest.mark.parametrize("pressure", [-20.0, 8.0])
def test_stresses_with_a_pressure_that_the_energies_lack(sic, examine, pressure):
    def with_it(structure):  # as from plane waves: in proportion to the number of atoms
        volume = abs(np.linalg.det(structure.cell)) / len(structure.numbers)
        stress = -pressure * STRESS_UNITS["GPa"] * usual / volume * np.eye(3)
        return structure._replace(stress=structure.stress + stress)

    usual = np.median([abs(np.linalg.det(s.cell)) / len(s.numbers) for s in sic])
    found, measured = examine([with_it(s) for s in sic])
    shown(found, measured)
    assert list(found) == ["stress offset"]
    assert float(found["stress offset"].found.split()[7]) == pytest.approx(pressure, abs=1.0)


def test_virials_in_place_of_stresses(sic, examine):
    wrong = [s._replace(stress=-abs(np.linalg.det(s.cell)) * s.stress) for s in sic]
    found, measured = examine(wrong)
    shown(found, measured)
    assert "virial" in found["stress unit"].found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s._replace(energy=s.energy / ENERGY_UNITS["Ha"]), "energy in Ha"),
        (lambda s: s._replace(forces=s.forces / FORCE_UNITS["Ha/Bohr"]), "forces in Ha/Bohr"),
        (lambda s: s._replace(forces=-s.forces), "forces with the opposite sign"),
    ],
    ids=["Hartree", "Ha/Bohr", "gradients"],
)
def test_energies_and_forces_that_do_not_fit_together(sic, examine, change, words):
    found, measured = examine([change(s) for s in sic])
    shown(found, measured)
    assert list(found) == ["energy and forces"]
    assert found["energy and forces"].found.endswith(words)


@pytest.mark.parametrize(
    ("label", "factor", "check"),
    [
        ("energy", 1 / ENERGY_UNITS["Ry"], "energy unit"),
        ("energy", 1 / ENERGY_UNITS["kcal/mol"], "energy unit"),
        ("forces", -1.0, "forces sign"),
        ("forces", 1 / FORCE_UNITS["Ha/Bohr"], "forces unit"),
        ("stress", 1 / STRESS_UNITS["kbar"], "stress unit"),
        ("stress", 0.0, "zero labels"),
    ],
)
def test_single_structures(sic, examine, label, factor, check):
    hot = [row for row, s in enumerate(sic) if "md" in s.config_type and abs(s.forces).max() > 2]
    planted = hot[:25:5]
    wrong = list(sic)
    for row in planted:
        wrong[row] = sic[row]._replace(**{label: factor * getattr(sic[row], label)})
    found, measured = examine(wrong)
    shown(found, measured)
    assert list(found) == [check]
    assert list(found[check].rows) == planted
    if factor:
        assert found[check].fix.factor == pytest.approx(1 / factor)
    else:
        assert np.isnan(found[check].fix.factor)


def test_factors_are_recognised():
    assert recognise("energy", 1 / 27.2, 1.1).unit == "Ha"
    assert recognise("stress", -1600.0, 1.1)[1:3] == ("kbar", -1)
    assert recognise("stress", 40.0, 1.1) is None
    assert recognise("energy", float("nan"), 1.1) is None


@pytest.mark.parametrize("elements", [(6, 14), (1, 3, 6, 8, 14)], ids=["apart", "pooled"])
def test_rows_of_the_model_are_derivatives(sic, elements):
    """Forces and stress of random coefficients against differences of the energy."""
    structure, n, h = sic[0], len(sic[0].numbers), 1e-4
    rows = describe(structure, elements)
    coefficients = np.random.default_rng(0).normal(size=len(rows.energy))

    def energy(positions, cell):
        moved = structure._replace(positions=positions, cell=cell)
        return n * float(describe(moved, elements).energy @ coefficients)

    step = np.zeros((n, 3))
    step[2, 1] = h
    plus, minus = (energy(structure.positions + sign * step, structure.cell) for sign in (1, -1))
    force = (minus - plus) / (2 * h)
    strain = np.zeros((3, 3))
    strain[0, 1] = strain[1, 0] = h / 2
    plus, minus = (
        energy(structure.positions @ change, structure.cell @ change)
        for change in (np.eye(3) + strain, np.eye(3) - strain)
    )
    stress = (plus - minus) / (2 * h) / abs(np.linalg.det(structure.cell))
    found = (rows.forces @ coefficients)[7], (rows.stress @ coefficients)[1]
    print(found, (force, stress))
    np.testing.assert_allclose(found, (force, stress), rtol=1e-4)
