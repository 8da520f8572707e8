"""Settings as texts, the level of theory in them, and in what they differ."""

import pytest
from ase import Atoms

from tesseral.data.sources.settings import (
    add_settings,
    settings_differences,
    settings_of_calculator,
    settings_text,
)
from tesseral.data.sources.vasp_settings import element_of

PBE = {"code": "VASP 6.3.0", "functional": "PBE", "cutoff": "520 eV", "k-points": "4 x 4 x 4"}


def test_parts_stand_in_one_order_and_unknown_ones_are_left_out():
    text = settings_text({"cutoff": "520 eV", "code": "VASP", "spin": ""}, {"Si": "PAW_PBE Si"})
    assert text == "code VASP; cutoff 520 eV; potentials Si = PAW_PBE Si"


@pytest.mark.parametrize(
    "changes, potentials, found",
    [
        ({}, {"Si": "a"}, []),
        ({"k-points": "1 x 1 x 1"}, {"Si": "a"}, []),
        ({"code": "VASP 5.4.4"}, {"Si": "a"}, []),
        ({"code": "pw.x 7.2"}, {"Si": "a"}, ["code VASP or pw.x"]),
        ({"cutoff": "400 eV"}, {"Si": "a"}, ["cutoff 520 eV or 400 eV"]),
        ({}, {"C": "b"}, []),
        ({}, {"C": "b", "Si": "c"}, ["potential of Si a or c"]),
    ],
)
def test_differences(changes, potentials, found):
    texts = [settings_text(PBE, {"Si": "a"}), settings_text({**PBE, **changes}, potentials)]
    assert settings_differences(texts) == found


@pytest.mark.parametrize(
    "settings, theory",
    [
        (settings_text(PBE, {"Si": "a"}), "VASP PBE 520 eV"),
        ("code GPAW 26.7.0; functional LDA; spin none", "GPAW LDA"),
        ("code emt", None),
        ("", None),
    ],
)
def test_the_level_of_theory_is_what_all_structures_can_share(settings, theory):
    atoms = Atoms("H")
    add_settings(atoms, settings)
    assert atoms.info.get("theory") == theory


@pytest.mark.parametrize(
    "name, parameters, text",
    [
        ("vasp", {"xc": "PBE", "encut": 520}, "code VASP; functional PBE; cutoff 520 eV"),
        ("gpaw", {"mode": "lcao", "xc": "LDA"}, "code GPAW; functional LDA"),
        ("emt", {}, "code emt"),
    ],
)
def test_of_a_calculator(name, parameters, text):
    assert settings_of_calculator(name, parameters) == text


@pytest.mark.parametrize(
    "title, symbol",
    [("PAW_PBE Fe_pv 02Aug2007", "Fe"), ("PAW_PBE H1.25 07Sep2000", "H"), ("US Si", "Si")],
)
def test_elements_of_potcars(title, symbol):
    assert element_of(title) == symbol


def test_a_title_without_an_element_is_refused():
    with pytest.raises(ValueError, match="names no element"):
        element_of("")
