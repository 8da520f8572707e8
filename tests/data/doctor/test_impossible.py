"""Labels beyond what any atoms have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest

from tesseral.data.doctor.checkup import check_set
from tesseral.data.doctor.findings import Finding
from tesseral.data.doctor.impossible import (
    check_possible,
    energy_bound,
    energy_excess,
    forces_excess,
    guess,
    stress_excess,
)
from tesseral.data.doctor.sample import Sample, read_sample
from tesseral.data.imports.importer import ImportConfig, import_structures
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import Structure, atoms_from_structure, make_structure
from tesseral.data.units import ENERGY_UNITS, STRESS_UNITS

# Total energies of atoms with all electrons, Ha: Hartree-Fock, and Dirac-Fock for the heavy ones.
ALL_ELECTRON = {1: -0.5, 6: -37.7, 14: -288.9, 29: -1639.0, 79: -19040.0, 92: -28050.0}


@pytest.mark.parametrize("number", ALL_ELECTRON)
def test_the_bound_lies_a_little_beyond_all_electrons(number: int) -> None:
    energy = -ALL_ELECTRON[number] * ENERGY_UNITS["Ha"]
    bound = energy_bound(make_structure([number], [[0, 0, 0]]))
    assert energy < bound < 2 * energy


def found(structures: list[Structure], folder: Path) -> list[Finding]:
    write_store(folder / "a.h5", structures)
    return check_possible(read_sample(open_store(folder / "a.h5"), 10**9))


def test_nothing_in_the_shipped_set(sic_subject: Sample) -> None:
    assert check_possible(sic_subject) == []


@pytest.mark.parametrize(
    ("label", "factor", "unit"),
    [
        ("energy", 1e5, "meV"),
        ("forces", 1e4, "meV/A"),
        ("stress", 1 / STRESS_UNITS["kbar"], "kbar"),
    ],
)
def test_labels_in_another_unit_are_named_with_the_unit(
    sic: list[Structure], tmp_path: Path, label: str, factor: float, unit: str
) -> None:
    structures = list(sic[:20])
    structures[7] = structures[7]._replace(**{label: factor * getattr(structures[7], label)})
    (finding,) = found(structures, tmp_path)
    assert (finding.severity, finding.rows) == ("error", (7,))
    assert finding.found.startswith(f"{label} of 1 structure beyond what any atoms have")
    assert unit in finding.found and f"`{label}_unit`" in finding.advice


def test_short_bonds_and_strong_compression_are_possible() -> None:
    hydrogen = make_structure([1, 1], [[0, 0, 0], [0.5, 0, 0]], forces=[[-30, 0, 0], [30, 0, 0]])
    assert forces_excess(hydrogen) < 1 < forces_excess(hydrogen._replace(forces=60 * np.eye(3)[:2]))
    # Diamond at 2.7 Å has about 1500 GPa by Vinet's equation (446 GPa, slope 3.7).
    carbon = make_structure(
        [6, 6], [[0, 0, 0], [0.675] * 3], cell=1.35 * (1 - np.eye(3)), stress=-9.4 * np.eye(3)
    )
    assert stress_excess(carbon) < 1


def test_a_molecule_in_a_box_has_a_bound_like_its_own() -> None:
    """The strain of its bonds is a stress that vacuum dilutes."""
    water = make_structure(
        [8, 1, 1],
        [[0, 0, 0], [0.8, 0, 0], [0, 0.8, 0]],
        cell=20 * np.eye(3),
        stress=30 / 20**3 * np.eye(3),
    )
    assert 0 < stress_excess(water) < 1


def test_missing_labels_are_possible() -> None:
    structure = make_structure([6, 6], [[0, 0, 0], [1.4, 0, 0]])
    assert energy_excess(structure) == forces_excess(structure) == stress_excess(structure) == 0


def test_the_guess_makes_the_label_possible() -> None:
    assert guess("stress", 100.0) == "; the unit is perhaps GPa or kbar or MPa or bar or Pa"
    assert guess("energy", 1e9) == ""


def test_the_check_includes_it(sic: list[Structure], tmp_path: Path) -> None:
    structures = [s._replace(energy=1e5 * s.energy) for s in sic[:3]]
    write_store(tmp_path / "a.h5", structures)
    checkup = check_set(read_sample(open_store(tmp_path / "a.h5"), 10**9), cutoff=4.0)
    assert "impossible labels" in [finding.check for finding in checkup.findings]
    assert not checkup.safe


def test_the_import_says_it(make_structures: Callable, tmp_path: Path) -> None:
    wrong = make_structures(2)[1]._replace(energy=-1e7)
    ase.io.write(tmp_path / "a.extxyz", [atoms_from_structure(wrong)])
    report = import_structures(
        ImportConfig(sources=[str(tmp_path / "a.extxyz")], output=str(tmp_path / "a.h5"))
    )
    assert any("energy" in text and "`energy_unit`" in text for text in report.warnings)
