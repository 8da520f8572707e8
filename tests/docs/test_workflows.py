"""The examples of docs/howto/workflows.md run, and give the numbers of tesseral's functions.

Those of tools that are not installed are skipped.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.units import _e, _hplanck

from tesseral import TesseralCalculator
from tesseral.calculators.properties.band import first_path, matched_end, profile, relaxing_path
from tesseral.calculators.properties.elastic import elastic_constants
from tesseral.calculators.properties.eos import equation_of_state, fit_birch_murnaghan
from tesseral.calculators.properties.phonons import EV_IN_KJ_MOL, force_constants, frequencies
from tesseral.calculators.properties.relaxation import relaxed

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/workflows.md"
pytestmark = pytest.mark.slow


def code(section: str) -> str:
    """Blocks of Python below a heading."""
    text = PAGE.read_text(encoding="utf-8")
    (part,) = re.findall(rf"^#+ {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return "\n".join(re.findall(r"```python\n(.*?)```", part, re.DOTALL))


@pytest.fixture
def run(stable_model, tmp_path, monkeypatch):
    """Runs a section in a folder with the model; returns its variables."""
    monkeypatch.chdir(tmp_path)
    Path("model.safetensors").write_bytes(stable_model.read_bytes())

    def call(section: str, *packages: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tools and what they import
            for package in packages:
                pytest.importorskip(package, exc_type=ImportError)
            for part in ("Workflow tools", section):
                exec(compile(code(part), str(PAGE), "exec"), names)
        return names

    return call


def crystal():
    """The crystal of the page with its calculator."""
    atoms = bulk("SiC", "zincblende", a=5.42)
    atoms.calc = TesseralCalculator("model.safetensors", dtype="float64")
    return atoms


@pytest.fixture
def ours(run):
    """The same crystal relaxed by tesseral."""
    return relaxed(crystal(), fmax=1e-4).atoms


def compared(capsys, name: str, found: Any, expected: Any, unit: str, limit: float) -> None:
    """Print the largest difference, which the page quotes, and check it."""
    off = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
    with capsys.disabled():
        print(f"\n{name}: {off:.2g} {unit} of {np.abs(np.asarray(expected)).max():.6g}")
    assert off < limit


def test_ase(run, capsys):
    energies = run("ASE")["energies"]
    expected = frequencies(force_constants(crystal(), length=10.0), [[0, 0, 0]])[0, 3:]
    thz = energies * _e / _hplanck * 1e-12
    compared(capsys, "ASE vibrations", thz, expected, "THz", 0.05)


def test_phonopy(run, capsys):
    phonons = run("phonopy", "phonopy")["phonons"]
    found = phonons.thermal_properties.heat_capacity
    kT = 300 * 1.380649e-23
    phonons.run_mesh([11, 11, 11], is_mesh_symmetry=False)
    x = _hplanck * 1e12 * phonons.mesh.frequencies / kT
    x = x[x > 1e-6]
    expected = 8.314462618 * (x**2 * np.exp(x) / np.expm1(x) ** 2).sum() / 11**3
    compared(capsys, "phonopy heat capacity", found, expected, "J/K/mol", 0.05)


def test_phono3py(run, capsys):
    third = run("phono3py", "phono3py")["third"]
    found = third.get_phonon_data()[0]
    gamma = np.sort(found[third.grid.grg2bzg[0]])[3:]
    constants = force_constants(crystal(), length=6.0)
    expected = frequencies(constants, [[0, 0, 0]])[0, 3:]
    compared(capsys, "phono3py frequencies", gamma, expected, "THz", 0.3)
    assert (np.linalg.eigvalsh(np.diag(third.thermal_conductivity.kappa.ravel()[:3])) > 0).all()


def test_matcalc(run, capsys, ours):
    names = run("matcalc", "matcalc")
    length = ours.cell.lengths()[0]
    compared(capsys, "matcalc a", names["relaxed"]["a"], length, "Å", 2e-3)
    stiffness = elastic_constants(ours).stiffness
    modulus = stiffness[:3, :3].sum() / 9
    compared(capsys, "matcalc B", names["elastic"]["bulk_modulus_vrh"], modulus, "GPa", 3)
    fitted = equation_of_state(ours).fit.bulk_modulus
    compared(capsys, "matcalc EOS", names["curve"]["bulk_modulus_bm"], fitted, "GPa", 3)


@pytest.mark.filterwarnings("ignore")  # of phonopy: the grid, and modes at Γ
def test_matcalc_free_energies(run, capsys):
    heated = run("matcalc", "matcalc")["heated"]
    cells = [crystal() for _ in heated["volumes"]]
    free = []
    for atoms, volume in zip(cells, heated["volumes"], strict=True):
        atoms.set_cell(atoms.cell * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
        phonons = force_constants(atoms, length=9.0).model  # 3 x 3 x 3 cells, as in matcalc
        phonons.run_mesh(heated["ha"][0]["phonon"].mesh_numbers)
        phonons.run_thermal_properties(temperatures=[300])
        kilojoules = float(np.ravel(phonons.thermal_properties.free_energy)[0])
        free.append(atoms.get_potential_energy() + kilojoules / EV_IN_KJ_MOL)
    fit = fit_birch_murnaghan(heated["volumes"], free)
    compared(capsys, "matcalc QHA G", heated["gibbs_free_energies"][-1], fit.energy, "eV", 2e-3)
    compared(capsys, "matcalc QHA B", heated["bulk_modulus_P"][-1], fit.bulk_modulus, "GPa", 2)


def test_matcalc_band(run, capsys):
    names = run("matcalc", "matcalc")
    path = first_path(names["crystal"], matched_end(names["crystal"], names["moved"]), images=7)
    for atoms in path:
        atoms.calc = TesseralCalculator("model.safetensors", dtype="float64")
    *_, last = relaxing_path(path, fmax=0.02, steps=200)
    assert last.converged and names["band"]["converged"]
    compared(capsys, "matcalc NEB", names["band"]["barrier"], profile(path).forward, "eV", 0.02)


def test_pymatgen(run, capsys, ours):
    names = run("pymatgen", "pymatgen")
    compared(capsys, "pymatgen V", names["relaxed"].volume, ours.get_volume(), "Å³", 0.02)
    energy = crystal().get_potential_energy()
    found = names["structure"].calculate(names["calculator"]).results["energy"]
    compared(capsys, "pymatgen E", found, energy, "eV", 1e-6)


def test_atomate2(run, capsys, ours):
    result = run("jobflow and atomate2", "atomate2", "jobflow")["result"].output
    compared(capsys, "atomate2 V", result.structure.volume, ours.get_volume(), "Å³", 0.02)
    compared(capsys, "atomate2 E", result.energy, ours.get_potential_energy(), "eV", 1e-4)


def test_quacc(run, capsys, ours):
    names = run("quacc", "quacc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = names["relax_job"](names["crystal"])
    compared(capsys, "quacc V", found["atoms"].get_volume(), ours.get_volume(), "Å³", 0.02)


def test_janus(run, capsys, ours):
    found = run("janus-core", "janus_core")["crystal"]
    compared(capsys, "janus-core V", found.get_volume(), ours.get_volume(), "Å³", 0.02)
