"""Text outputs of pw.x, against the numbers in the XML of the same calculation."""

import gzip
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units

from tesseral.data.sources.espresso import read_espresso

FILES = Path(__file__).parent / "files"
CELL = [[0.1, 2.7, 2.75], [2.7, 0.05, 2.7], [2.65, 2.7, 0]]


def read(name):
    left_out = Counter()
    return list(read_espresso(str(FILES / name), left_out)), dict(+left_out)


def read_text(path, text):
    path.write_text(text)
    left_out = Counter()
    return list(read_espresso(str(path), left_out)), dict(+left_out)


def text_of(name):
    return gzip.decompress((FILES / name).read_bytes()).decode()


def test_the_first_step_of_a_dynamics():
    found, left_out = read("pwx_md.out.gz")
    assert len(found) == 3 and not left_out
    atoms, results = found[0], found[0].calc.results
    assert atoms.get_chemical_symbols() == ["Si", "Si"]
    np.testing.assert_allclose(atoms.cell.array, CELL, atol=4e-6)
    np.testing.assert_allclose(atoms.positions[1], [1.4, 1.33, 1.42], atol=4e-7)
    # From the XML, in Hartree atomic units; the x component of the first atom is fixed and zeroed
    # there, so the second atom's is the check.
    assert results["energy"] == pytest.approx(-7.766895678378987 * units.Hartree, abs=1e-6)
    assert results["free_energy"] == results["energy"]
    forces = np.array([[1.908064031544239e-2, -4.090943009813081e-3, 1.372275368261451e-2]])
    atomic = units.Hartree / units.Bohr
    np.testing.assert_allclose(results["forces"], atomic * np.vstack([forces, -forces]), atol=1e-6)


def test_the_stress_is_positive_under_tension():
    (atoms, *_), _ = read("pwx_md.out.gz")
    # Printed in kbar; the same cell with ecutwfc 40 Ry gives this sign by differences of energies.
    kbar = [133.90, 134.94, 142.25, -45.86, 16.52, -68.12]
    stress = -0.1 * units.GPa * np.array(kbar)
    np.testing.assert_allclose(atoms.calc.results["stress"], stress, atol=1e-5)


def test_positions_of_later_steps():
    found, _ = read("pwx_md.out.gz")
    np.testing.assert_array_equal(found[1].positions[0], [0, -0.0001353083, 0.0004538814])
    np.testing.assert_array_equal(found[1].cell.array, found[0].cell.array)


@pytest.mark.parametrize("name", ["pwx_md.out.gz", "pwx_vc-relax.out.gz"])
def test_ase_reads_the_same(name):
    theirs = ase.io.read(FILES / name, ":", format="espresso-out")
    for ours, other in zip(read(name)[0], theirs, strict=True):
        np.testing.assert_allclose(ours.positions, other.positions, atol=1e-7)
        np.testing.assert_allclose(ours.cell.array, other.cell.array, atol=1e-7)
        for label, value in ours.calc.results.items():
            np.testing.assert_allclose(value, other.calc.results[label], rtol=2e-7, atol=1e-7)


def test_cells_of_a_relaxation_and_its_last_calculation():
    found, left_out = read("pwx_vc-relax.out.gz")
    assert len(found) == 3 and not left_out
    np.testing.assert_allclose(found[0].cell.array, CELL, atol=4e-6)
    # Steps 2 and 3 are the same structure, the latter with plane waves for its cell.
    np.testing.assert_array_equal(found[1].cell.array[0], [0.078739115, 2.739324859, 2.795716347])
    np.testing.assert_array_equal(found[1].cell.array, found[2].cell.array)
    np.testing.assert_array_equal(found[1].positions, found[2].positions)
    energies = [atoms.calc.results["energy"] / units.Rydberg for atoms in found]
    print("energies in Ry:", energies)
    assert energies[1] != energies[2]


def test_exact_exchange_counts_with_its_last_cycle():
    found, _ = read("pwx_hybrid.out.gz")
    assert found[0].calc.results["energy"] == pytest.approx(-14.49396131 * units.Rydberg, rel=1e-9)
    assert "functional PBE0 with exact exchange" in found[0].info["settings"]


def test_steps_that_only_claim_to_have_converged_are_left_out():
    assert "convergence has been achieved" in text_of("pwx_unconverged.out.gz")
    found, left_out = read("pwx_unconverged.out.gz")
    assert not found
    assert left_out == {"steps left out (electronic steps did not converge)": 3}


def test_a_calculation_that_stopped_without_convergence(tmp_path):
    text = text_of("pwx_md.out.gz")
    start = text.index("     End of self-consistent calculation")
    stopped = (
        text[:start] + "     convergence NOT achieved after 3 iterations: stopping\n JOB DONE.\n"
    )
    found, left_out = read_text(tmp_path / "a.out", stopped)
    assert not found
    assert left_out == {"steps left out (electronic steps did not converge)": 1}


def test_a_file_cut_off_anywhere_gives_its_whole_steps(tmp_path, every_cut):
    every_cut(read_espresso, text_of("pwx_md.out.gz").encode(), tmp_path / "a.out")


def test_outputs_one_behind_the_other(tmp_path):
    text = text_of("pwx_md.out.gz") + text_of("pwx_vc-relax.out.gz")
    found, left_out = read_text(tmp_path / "a.out", text)
    assert len(found) == 6 and not left_out
    killed = text[: text.index("JOB DONE")] + text_of("pwx_vc-relax.out.gz")
    found, left_out = read_text(tmp_path / "a.out", killed)
    assert len(found) == 6 and sum(left_out.values()) == 1


def test_an_input_shown_before_the_output_does_not_matter(tmp_path):
    card = "CELL_PARAMETERS bohr\n5 0 0\n0 5 0\n0 0 5\nATOMIC_POSITIONS crystal\nSi 0 0 0\n"
    found, left_out = read_text(tmp_path / "a.out", card + text_of("pwx_md.out.gz"))
    assert len(found) == 3 and not left_out


@pytest.mark.parametrize(
    "card, factor",
    [("bohr", units.Bohr), ("alat", 7.285256 * units.Bohr), ("alat=  2.00000000", 2 * units.Bohr)],
)
def test_units_of_positions(tmp_path, card, factor):
    text = text_of("pwx_md.out.gz").replace(
        "ATOMIC_POSITIONS (angstrom)", f"ATOMIC_POSITIONS ({card})"
    )
    found, _ = read_text(tmp_path / "a.out", text)
    expected = factor * np.array([1.3993689060, 1.3301353083, 1.4195461186])
    np.testing.assert_allclose(found[1].positions[1], expected, rtol=1e-7)


def test_fractional_positions(tmp_path):
    text = text_of("pwx_md.out.gz").replace(
        "ATOMIC_POSITIONS (angstrom)", "ATOMIC_POSITIONS (crystal)"
    )
    found, _ = read_text(tmp_path / "a.out", text)
    fractions = [1.3993689060, 1.3301353083, 1.4195461186]
    np.testing.assert_allclose(found[1].positions[1], fractions @ found[1].cell.array, rtol=1e-9)


@pytest.mark.parametrize("label, symbol", [("Fe1", "Fe"), ("O_h", "O"), ("H2", "H"), ("c", "C")])
def test_labels_of_atoms(tmp_path, label, symbol):
    text = text_of("pwx_md.out.gz").replace("           Si  tau", f"           {label}  tau")
    found, _ = read_text(tmp_path / "a.out", text)
    assert found[0].get_chemical_symbols() == [symbol, symbol]


def test_the_settings():
    assert read("pwx_md.out.gz")[0][0].info["settings"] == (
        "code pw.x 6.7MaX; functional PBE; cutoff 204.1 eV; spin collinear; smearing Gaussian "
        "0.136 eV; k-points 8 irreducible; potentials Si = Si.pbe-rrkj.UPF"
    )
