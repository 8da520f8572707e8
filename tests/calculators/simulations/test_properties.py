"""Properties of structures: values with EMT, files, and that known ones are not computed again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT

from tesseral.calculators.properties.elastic import hill_averages
from tesseral.calculators.properties.eos import equation_of_state
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.calculators.simulations import properties
from tesseral.calculators.simulations.properties import PropertiesConfig, properties_one
from tesseral.calculators.simulations.relaxation import Outcome


def compute(atoms: Atoms, prefix: Path, compute: str | None = None, **options: Any) -> Outcome:
    """Properties with EMT."""
    config = PropertiesConfig(structures=[], compute=compute, **options)
    return properties_one(atoms, EMT(), config, prefix, lambda step, steps, text: None)


@pytest.fixture(scope="module")
def copper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """Everything about copper."""
    prefix = tmp_path_factory.mktemp("copper") / "cu"
    names = "eos,elastic,phonons,vacancies,surface"
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    return compute(atoms, prefix, names, length=7.0, thickness=8.0), prefix


def test_the_values_are_those_of_emt(copper: tuple[Outcome, Path]) -> None:
    outcome, _ = copper
    values: Any = outcome.values
    print(values)
    assert outcome.word == "done" and values["space_group"] == "Fm-3m (225)"
    # EMT was fitted to a0 = 3.61 Å and B = 142 GPa (Jacobsen, Stoltze and Nørskov 1996); its
    # published vacancy energy is 1.3 eV; Cu(111) has about 0.9 J/m².
    assert values["a_A"] == pytest.approx(3.60, abs=0.02)
    assert values["B0_GPa"] == pytest.approx(140, abs=15)
    assert values["bulk_modulus_GPa"] == pytest.approx(values["B0_GPa"], rel=0.03)
    assert values["lowest_frequency_THz"] > -0.05
    assert values["heat_capacity_J_K_mol"] == pytest.approx(23.8, abs=0.6)  # 24.5 measured, C_p
    assert values["lowest_vacancy_eV"] == pytest.approx(1.3, abs=0.3)
    assert 0.5 < values["surface_energy_J_m2"] < 1.5


def test_other_programs_read_the_files(copper: tuple[Outcome, Path]) -> None:
    _, prefix = copper
    import phonopy

    files = {path.name for path in prefix.parent.iterdir()}
    assert {"cu.cif", "cu.extxyz", "cu-eos.png", "cu-elastic.png", "cu-phonons.png"} <= files
    assert ase.io.read(prefix.with_name("cu.cif")).get_volume() == pytest.approx(3.6**3, rel=0.02)
    again = phonopy.load(str(prefix.with_name("cu-phonopy.yaml")), log_level=0)
    again.run_qpoints([[0.5, 0.0, 0.0]])
    assert again.qpoints.frequencies.min() > 0
    text = prefix.with_name("cu-FORCE_SETS").read_text()
    numbers = json.loads(prefix.with_name("cu-phonons.json").read_text())
    assert text.split()[0] == str(4 * np.prod(numbers["supercell"]))


def test_known_properties_are_not_computed_again(
    copper: tuple[Outcome, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, prefix = copper
    counted = []
    one = properties.PROPERTIES["surface"]

    def count(*arguments: Any) -> dict[str, Any]:
        counted.append(arguments)
        return one.compute(*arguments)

    changed = {name: each._replace(compute=count) for name, each in properties.PROPERTIES.items()}
    monkeypatch.setattr(properties, "PROPERTIES", {**changed})
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    options = {"length": 7.0, "thickness": 8.0}
    again = compute(atoms, prefix, "eos", **options)
    assert not counted
    for name in ("B0_GPa", "bulk_modulus_GPa", "surface_energy_J_m2"):  # also those not named
        assert again.values[name] == pytest.approx(first.values[name])
    compute(atoms, prefix, "surface", miller=(1, 0, 0), **options)  # another plane
    assert len(counted) == 1


def test_a_molecule_has_vibrations(tmp_path: Path) -> None:
    outcome = compute(molecule("CO"), tmp_path / "co")
    print(outcome)
    assert outcome.word == "done" and outcome.values["computed"] == "vibrations"
    assert outcome.values["lowest_mode_cm"] == outcome.values["highest_mode_cm"]


def test_what_does_not_apply_is_said(tmp_path: Path) -> None:
    outcome = compute(molecule("CO"), tmp_path / "co", "eos,vibrations")
    assert outcome.word == "incomplete" and outcome.values["computed"] == "vibrations"
    assert outcome.reason.startswith("eos: needs a crystal")
    slab = fcc111("Cu", (1, 1, 3), vacuum=8.0, periodic=True)
    with pytest.raises(ValueError, match="neither a crystal without vacuum nor a molecule"):
        compute(slab, tmp_path / "slab")
    alloy = bulk("CuAu", "cesiumchloride", a=3.0)
    outcome = compute(alloy, tmp_path / "alloy", "vacancies")
    assert "needs a reservoir of Au, Cu" in outcome.reason


def test_vacancies_of_a_compound_take_reservoirs(tmp_path: Path) -> None:
    paths = []
    for symbol in ("Cu", "Au"):
        path = tmp_path / f"{symbol}.cif"
        bulk(symbol, "fcc").write(path)
        paths.append(str(path))
    alloy = bulk("CuAu", "cesiumchloride", a=3.0)
    outcome = compute(alloy, tmp_path / "alloy", "vacancies", reservoirs=paths)
    found = json.loads((tmp_path / "alloy-vacancies.json").read_text())["vacancies"]
    print(found)
    assert outcome.word == "done" and {one["symbol"] for one in found} == {"Cu", "Au"}


def test_the_shape_of_the_cell_is_relaxed_at_each_volume() -> None:
    cell = [2.8, 2.8, 3.8]
    tetragonal = Atoms("CuAu", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=cell, pbc=True)
    tetragonal.calc = EMT()
    atoms = relaxed(tetragonal, fmax=1e-4).atoms
    free = equation_of_state(atoms)
    fixed = equation_of_state(atoms, fixed_shape=True)
    print(free.fit, fixed.fit)
    assert (free.energies <= fixed.energies + 1e-6).all()
    assert free.energies[0] < fixed.energies[0] - 1e-6
    assert free.fit.bulk_modulus < fixed.fit.bulk_modulus


def test_averages_of_an_isotropic_solid_are_exact() -> None:
    bulk_modulus, shear = 160.0, 80.0
    stiffness = np.diag([2 * shear] * 3 + [shear] * 3)
    stiffness[:3, :3] += bulk_modulus - 2 * shear / 3
    found = hill_averages(stiffness)
    assert found["bulk_modulus_GPa"] == pytest.approx(160)
    assert found["shear_modulus_GPa"] == pytest.approx(80)
    assert found["young_modulus_GPa"] == pytest.approx(9 * 160 * 80 / (3 * 160 + 80))
    with pytest.raises(ValueError, match="unstable"):
        hill_averages(np.diag([1.0, 1, 1, 1, 1, -1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute": "eos,phonon"}, "`compute` has 'phonon'; use some of eos"),
        ({"miller": (0, 0, 0)}, "`miller` is 0 0 0"),
        ({"length": -1.0}, "`length` is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PropertiesConfig(structures=[], **options)
