"""Elements and units that a file does not contain."""

import numpy as np
import pytest
from ase import units

from tesseral.data.sources.given import given_units, numbers_of_types


def test_units_of_the_user_come_before_those_of_the_file():
    said = {"length_unit": "Angstrom", "energy_unit": "hartree"}
    found = given_units({"energy_unit": "eV"}, said, "")
    np.testing.assert_allclose(found, [1.0, 1.0, 1.0])
    found = given_units({"length_unit": "Bohr"}, said, "")
    np.testing.assert_allclose(
        found, [units.Bohr, units.Hartree, units.Hartree / units.Bohr], rtol=1e-12
    )


@pytest.mark.parametrize(
    "text, factor",
    [
        ("hartree/bohr", units.Hartree / units.Bohr),
        ("kcal/mol/Ang", units.kcal / units.mol),
        ("Hartree / Angstrom", units.Hartree),
        ("eV/A", 1.0),
    ],
)
def test_spellings_of_the_unit_of_forces(text, factor):
    options = {"length_unit": "Bohr", "energy_unit": "Ry"}
    found = given_units(options, {"forces_unit": text}, "")
    assert found.forces == pytest.approx(factor)


def test_units_that_are_missing_or_unknown_are_named():
    with pytest.raises(ValueError, match="give `energy_unit`. Try eV"):
        given_units({"length_unit": "A"}, {}, "Try eV")
    with pytest.raises(ValueError, match="unknown unit 'furlong'"):
        given_units({"energy_unit": "eV"}, {"length_unit": "furlong"}, "")


def test_types_and_their_elements():
    assert numbers_of_types([1, 0, 1], ["O", "Si"]).tolist() == [14, 8, 14]
    assert numbers_of_types([0], ["C"], known=["O"]).tolist() == [6]
    for types, elements, message in (
        ([0, 2], ["O", "Si"], r"up to 2, but only 2 elements \(O, Si\)"),
        ([-1], ["O"], "only 1 elements"),
        ([0], ["type_1"], "'type_1' is not an element"),
    ):
        with pytest.raises(ValueError, match=message):
            numbers_of_types(types, elements)
