"""vaspout.h5: the same numbers as in the vasprun.xml of the same calculation."""

from collections import Counter

import h5py
import numpy as np
import pytest

from tesseral.data.sources.formats import find_format
from tesseral.data.sources.vaspout import UNTOLD, read_vaspout
from tesseral.data.sources.vasprun import read_vasprun

UNCONVERGED = "steps left out (electronic steps did not converge)"
NO_STRESS = "stresses left out (ISIF 0 computes none, ISIF 1 the pressure only)"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vaspout.h5"


def read(path):
    left_out = Counter()
    return list(read_vaspout(str(path), left_out)), dict(+left_out)


def test_the_same_as_in_a_vasprun(tmp_path, path, vasp):
    steps = vasp.make_steps(3)
    vasp.vaspout(path, steps)
    found, left_out = read(path)
    (tmp_path / "vasprun.xml").write_text(vasp.vasprun(steps))
    assert len(found) == 3 and not left_out
    others = read_vasprun(str(tmp_path / "vasprun.xml"), Counter())
    for ours, other in zip(found, others, strict=True):
        assert ours.info == other.info  # settings and theory
        assert ours.get_chemical_symbols() == other.get_chemical_symbols()
        np.testing.assert_allclose(ours.positions, other.positions, atol=1e-7)
        np.testing.assert_allclose(ours.cell.array, other.cell.array, atol=1e-8)
        for name, value in other.calc.results.items():
            np.testing.assert_allclose(ours.calc.results[name], value, atol=2e-7)


def test_molecular_dynamics_has_the_free_energy_only(path, vasp):
    (step,) = vasp.make_steps(1)
    vasp.vaspout(path, [step], dynamics=True)
    results = read(path)[0][0].calc.results
    assert results["energy"] == results["free_energy"] == step.free_energy


@pytest.mark.parametrize("told", ["both", "flags", "steps"])
def test_steps_that_did_not_converge_are_left_out(path, vasp, told):
    first, second = vasp.make_steps(2)
    vasp.vaspout(path, [first._replace(converged=False), second], told=told)
    found, left_out = read(path)
    assert [atoms.calc.results["energy"] for atoms in found] == [second.energy]
    assert left_out == {UNCONVERGED: 1}


def test_what_the_file_does_not_tell_is_counted(path, vasp):
    vasp.vaspout(path, vasp.make_steps(2), told="nothing")
    found, left_out = read(path)
    assert len(found) == 2 and left_out == {UNTOLD: 2}


@pytest.mark.parametrize("tags", [{"ICHARG": 11}, {"ALGO": b"None"}, {"ALGO": b"Eigenval"}])
def test_a_fixed_density_is_left_out(path, vasp, tags):
    vasp.vaspout(path, vasp.make_steps(1), **tags)
    found, left_out = read(path)
    assert not found and ["not self-consistent" in what for what in left_out] == [True]


def test_a_bad_number_costs_its_step(path, vasp):
    steps = vasp.make_steps(3)
    steps[1].forces[0, 0] = np.nan
    vasp.vaspout(path, steps)
    found, left_out = read(path)
    assert len(found) == 2
    assert left_out == {"steps left out (numbers missing or overflowed to ***)": 1}


def test_a_step_that_vasp_did_not_fill_is_no_step(path, vasp):
    vasp.vaspout(path, vasp.make_steps(2))
    with h5py.File(path, "a") as file:
        for name in ("energies", "forces"):
            file[f"intermediate/ion_dynamics/{name}"][-1] = 0.0
    found, left_out = read(path)
    assert len(found) == 1 and ["end before" in what for what in left_out] == [True]


def test_steps_of_which_an_array_lacks_some_are_told(path, vasp):
    vasp.vaspout(path, vasp.make_steps(3))
    with h5py.File(path, "a") as file:
        forces = file["intermediate/ion_dynamics/forces"][:-1]
        del file["intermediate/ion_dynamics/forces"]
        file["intermediate/ion_dynamics/forces"] = forces
    found, left_out = read(path)
    assert len(found) == 2 and ["end before" in what for what in left_out] == [True]


def test_isif_is_0_by_default_in_molecular_dynamics(path, vasp):
    vasp.vaspout(path, vasp.make_steps(1), IBRION=0)
    with h5py.File(path, "a") as file:
        del file["input/incar/ISIF"]
    found, left_out = read(path)
    assert "stress" not in found[0].calc.results and left_out == {NO_STRESS: 1}


def test_defaults_of_the_settings(path, vasp):
    vasp.vaspout(path, vasp.make_steps(1))
    with h5py.File(path, "a") as file:
        for name in ("ENCUT", "GGA", "ISMEAR", "SIGMA"):
            del file[f"input/incar/{name}"]
    (atoms,), _ = read(path)
    assert atoms.info["theory"] == "VASP PBE 245.345 eV"  # functional and cutoff of the POTCARs
    assert "smearing Methfessel-Paxton 1 0.2 eV" in atoms.info["settings"]


def test_a_truncated_symbol_comes_from_the_potcar(path, vasp):
    vasp.vaspout(path, vasp.make_steps(1))
    with h5py.File(path, "a") as file:
        file["results/positions/ion_types"][...] = np.array([b"i ", b"C "])
    assert read(path)[0][0].get_chemical_symbols() == ["Si", "C", "C"]


@pytest.mark.parametrize(
    "tags, text", [({"ML_LMLFF": 1}, "learned force field"), ({"PSTRESS": 10.0}, "PSTRESS")]
)
def test_doubtful_energies_are_refused(path, vasp, tags, text):
    vasp.vaspout(path, vasp.make_steps(1), **tags)
    with pytest.raises(ValueError, match=text):
        read(path)


def test_a_file_without_steps_is_refused(path):
    with h5py.File(path, "w") as file:
        file["results/positions/ion_types"] = np.array([b"Si"])
    with pytest.raises(ValueError, match="has no ionic steps"):
        read(path)


def test_the_content_tells(tmp_path, vasp):
    vasp.vaspout(tmp_path / "a.h5", vasp.make_steps(1))
    assert find_format(str(tmp_path / "a.h5")) == "vasp-h5"
