"""The scripts, each run whole, and its printed numbers beside those of another way."""

from __future__ import annotations

import csv
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111, molecule
from ase.constraints import FixAtoms

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.commands.main import main

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = (
    "relax",
    "equation_of_state",
    "elastic_constants",
    "phonons",
    "neb",
    "nve",
    "nvt",
    "npt",
    "adsorption",
    "defect_energy",
    "heat_flux",
)
PNG = b"\x89PNG\r\n"
CUBIC = "bulk('SiC', 'zincblende', a=5.42, cubic=True)"
PRIMITIVE = "bulk('SiC', 'zincblende', a=5.42)"


def energy_of(atoms: Atoms, model: Path) -> float:
    """eV, by a calculator that has not been used before."""
    atoms = atoms.copy()
    atoms.calc = TesseralCalculator(model)
    return float(atoms.get_potential_energy())


def frames_of(name: str) -> list[Atoms]:
    """The trajectory that a script has written."""
    frames = ase.io.read(f"{name}.traj", index=":")
    assert isinstance(frames, list)
    return frames


def test_relax(run_script: Callable, stable_model: Path) -> None:
    ran = run_script("relax", atoms=CUBIC.replace("5.42", "5.5"))
    assert "\nconverged\n" in ran.printed
    start, end = ran.number("energy at the start"), ran.number("energy   ")
    written = ase.io.read("relaxed.cif")
    assert end < start - 0.01
    assert end == pytest.approx(energy_of(written, stable_model) / 8, abs=1e-4)
    assert ran.numbers("cell lengths") == pytest.approx(written.cell.lengths(), abs=1e-4)
    assert ran.numbers("cell angles") == pytest.approx([90, 90, 90], abs=0.2)
    assert ran.number("largest force") < 0.006
    assert abs(ran.number("pressure")) < 0.05
    steps = frames_of("relax")
    assert steps[0].get_potential_energy() / 8 == pytest.approx(start, abs=1e-4)
    assert steps[-1].get_potential_energy() / 8 == pytest.approx(end, abs=1e-4)


def test_heat_flux(run_script: Callable) -> None:
    constants = {"TIME": "0.1", "EVERY": "10", "LONGEST": "50", "TEMPERATURE": "300"}
    cell = "bulk('SiC', 'zincblende', a=5.42, cubic=True)"
    ran = run_script("heat_flux", atoms=cell, **constants)
    first, second = ran.number("seed 0:"), ran.number("seed 1:")
    assert np.isfinite([first, second]).all() and first != second
    assert ran.names["record"].flux.shape == (11, 3)
    assert Path("heat_flux.png").read_bytes().startswith(PNG)


def test_relax_that_needs_more_steps_says_so(run_script: Callable) -> None:
    assert "not converged" in run_script("relax", atoms=CUBIC, STEPS="1").printed


def test_equation_of_state(run_script: Callable, stable_model: Path) -> None:
    ran = run_script("equation_of_state", atoms=PRIMITIVE)
    crystal = ran.names["crystal"]
    assert ran.number("volume") == pytest.approx(crystal.get_volume() / 2, rel=1e-3)
    assert ran.number("lattice a") == pytest.approx((4 * crystal.get_volume()) ** (1 / 3), rel=4e-4)
    assert ran.number("energy") == pytest.approx(energy_of(crystal, stable_model) / 2, abs=1e-4)
    pressures = []  # bulk modulus from the stress
    for scale in (0.999, 1.001):
        strained = crystal.copy()
        strained.set_cell(crystal.cell * scale, scale_atoms=True)
        strained.calc = TesseralCalculator(stable_model)
        pressures.append(-strained.get_stress()[:3].mean() / units.GPa)
    expected = -(pressures[1] - pressures[0]) / (1.001**3 - 0.999**3)
    assert ran.number("bulk modulus") == pytest.approx(expected, rel=0.03)
    volumes, energies = np.loadtxt("equation_of_state.txt").T
    assert len(volumes) == 9
    assert energies.min() == pytest.approx(2 * ran.number("energy"), abs=1e-3)
    assert Path("equation_of_state.png").read_bytes().startswith(PNG)


def test_elastic_constants(run_script: Callable, stable_model: Path) -> None:
    ran = run_script("elastic_constants", atoms=CUBIC, STRAINS="(0.004,)")
    c11, c12 = ran.number("C11 "), ran.number("C12 ")
    assert ran.number("bulk modulus") == pytest.approx((c11 + 2 * c12) / 3, abs=0.2)
    # C44 from the energies of a sheared crystal, in which the atoms relax.
    crystal = ran.names["crystal"]
    energies = []
    for shear in (-0.02, 0.0, 0.02):
        strained = crystal.copy()
        strain = np.eye(3)
        strain[1, 2] = strain[2, 1] = shear / 2
        strained.set_cell(crystal.cell.array @ strain, scale_atoms=True)
        strained.calc = TesseralCalculator(stable_model, dtype="float64")
        end = relaxed(strained, fmax=1e-4, cell="fixed")
        energies.append(end.atoms.get_potential_energy())
    curvature = (energies[0] - 2 * energies[1] + energies[2]) / 0.02**2
    expected = curvature / crystal.get_volume() / units.GPa
    assert ran.number("C44") == pytest.approx(expected, rel=0.03)
    assert "mechanically stable" in ran.printed


def test_phonons(run_script: Callable) -> None:
    ran = run_script("phonons", atoms="bulk('Si', 'diamond', a=5.85)", LENGTH="6.0")
    gamma = ran.numbers("at Γ")
    assert gamma[:3] == pytest.approx([0, 0, 0], abs=0.01)
    assert gamma[3] > 1 and gamma[3:] == pytest.approx([gamma[3]] * 3, rel=1e-3)
    assert ran.number("lowest") <= min(gamma) + 1e-3
    assert Path("phonons.png").read_bytes().startswith(PNG)
    import phonopy

    again = phonopy.load("phonopy_params.yaml", log_level=0)
    again.run_qpoints([[0, 0, 0]])
    assert again.qpoints.frequencies[0] == pytest.approx(gamma, abs=0.01)


def test_neb(run_script: Callable, stable_model: Path) -> None:
    crystal = "bulk('Si', 'diamond', a=5.85, cubic=True)"
    ran = run_script("neb", atoms=crystal, REPEATS="(1, 1, 1)", IMAGES="5")
    images = ran.names["images"]
    energies = [energy_of(image, stable_model) for image in images]
    assert ran.number("end above start") == pytest.approx(energies[-1] - energies[0], abs=2e-3)
    assert ran.number("end above start") == pytest.approx(0, abs=5e-3)  # the same by symmetry
    assert "\nconverged" in ran.printed
    assert ran.number("barrier") == pytest.approx(max(energies) - energies[0], abs=0.02)
    last = frames_of("neb")[-5:]
    assert [frame.get_potential_energy() for frame in last] == pytest.approx(energies, abs=2e-3)
    assert Path("neb.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("name", ["nve", "nvt", "npt"])
def test_molecular_dynamics(name: str, run_script: Callable, stable_model: Path) -> None:
    atoms = CUBIC.replace("5.42", "5.38")
    ran = run_script(name, atoms=atoms, TEMPERATURE="300", TIME="0.1")
    frames = frames_of(name)
    assert len(frames) == 11  # every tenth of 100 steps, with the start
    late = frames[5:]
    temperatures = [frame.get_temperature() for frame in late]
    if name == "nve":
        totals = np.array([frame.get_total_energy() for frame in frames]) / 8
        slope = np.polyfit(0.01 * np.arange(11), 1000 * totals, 1)[0]
        drift = ran.number("drift   ")
        assert drift == pytest.approx(0.1 * slope, abs=1e-4)
        work = 1000 * np.ptp([frame.get_potential_energy() / 8 for frame in frames])
        assert abs(drift) < 0.03 * work
        temperatures = [frame.get_temperature() for frame in frames]
        assert ran.number("mean temperature") == pytest.approx(np.mean(temperatures), abs=0.1)
    else:
        assert ran.number("temperature") == pytest.approx(np.mean(temperatures), abs=0.1)
    if name == "nvt":
        assert ran.number("its fluctuation") == pytest.approx(np.std(temperatures), abs=0.1)
        assert ran.number("canonical") == pytest.approx(300 / 12**0.5, abs=0.1)
        mean = np.mean([energy_of(frame, stable_model) / 8 for frame in late])
        assert ran.number("potential energy") == pytest.approx(mean, abs=1e-5)
        assert np.ptp([frame.get_volume() for frame in frames]) == 0
    if name == "npt":
        volumes = [frame.get_volume() / 8 for frame in frames]
        assert ran.number("volume") == pytest.approx(np.mean(volumes[5:]), abs=1e-4)
        change = 100 * ((np.mean(volumes[5:]) / volumes[0]) ** (1 / 3) - 1)
        assert ran.number("lengths") == pytest.approx(change, abs=1e-3)
        assert np.ptp(volumes) > 1e-3
    assert Path(f"{name}.png").read_bytes().startswith(PNG)


def test_adsorption(run_script: Callable, stable_model: Path) -> None:
    ran = run_script(
        "adsorption",
        slab="fcc111('Si', (1, 1, 3), a=4.6, vacuum=6.0)",
        gas="molecule('Si2')",
        SITES="('ontop', 'fcc')",
        FMAX="0.05",
    )
    separate = sum(energy_of(ran.names[part], stable_model) for part in ("slab", "gas"))
    for site, together in zip(("ontop", "fcc"), frames_of("adsorption"), strict=True):
        expected = energy_of(together, stable_model) - separate
        assert ran.number(f"{site}  ") == pytest.approx(expected, abs=2e-3)
        assert len(together) == 5
        # The lowest layer has stayed where it was.
        assert together.positions[0] == pytest.approx(ran.names["slab"].positions[0], abs=1e-9)


def test_adsorption_energy_by_commands_is_that_of_the_script(
    run_script: Callable, stable_model: Path
) -> None:
    script_slab = "fcc111('Si', (1, 1, 3), a=4.6, vacuum=6.0, periodic=True)"
    ran = run_script(
        "adsorption", slab=script_slab, gas="molecule('Si2')", SITES="('ontop',)", FMAX="0.005"
    )
    slab = fcc111("Si", (1, 1, 3), a=4.6, vacuum=6.0, periodic=True)
    slab.set_constraint(FixAtoms(mask=[atom.tag > 2 for atom in slab]))
    slab.write("slab.traj")
    molecule("Si2").write("gas.xyz")
    energies = {}
    settings = ["--model", str(stable_model), "--fmax", "0.005", "-o"]
    assert main(["relax", "slab.traj", "gas.xyz", *settings, "parts"]) == 0
    slab, gas = (ase.io.read(f"parts/structures/{name}.extxyz") for name in ("slab", "gas"))
    slab.info["adsorbate_info"] = fcc111("Si", (1, 1, 3), a=4.6, vacuum=6.0).info["adsorbate_info"]
    add_adsorbate(slab, gas, 1.9, "ontop", mol_index=int(gas.positions[:, 2].argmin()))
    slab.write("together.traj")
    assert main(["relax", "together.traj", *settings, "both"]) == 0
    for folder in ("parts", "both"):
        with Path(folder, "summary.csv").open() as file:
            energies |= {row["name"]: float(row["energy_eV"]) for row in csv.DictReader(file)}
    by_commands = energies["together"] - energies["slab"] - energies["gas"]
    assert by_commands == pytest.approx(ran.number("ontop  "), abs=2e-3)
    moved = ase.io.read("both/relaxed.extxyz").positions - slab.positions
    assert np.abs(moved[0]).max() < 1e-7 < np.abs(moved[1:]).max()


def test_defect_energy(run_script: Callable, stable_model: Path) -> None:
    ran = run_script(
        "defect_energy",
        compound=CUBIC,
        silicon="bulk('Si', 'diamond', a=5.85)",
        carbon="bulk('C', 'diamond', a=5.45)",
        REPEATS="(1, 1, 1)",
        FMAX="0.02",
    )
    crystal = ran.names["crystal"]
    reservoirs = {"Si": ran.names["silicon"], "C": ran.names["carbon"]}
    mu = {symbol: energy_of(atoms, stable_model) / 2 for symbol, atoms in reservoirs.items()}
    formation = energy_of(crystal, stable_model) / 4 - mu["Si"] - mu["C"]
    assert ran.number("formation energy of SiC") == pytest.approx(formation, abs=2e-3)
    relaxations = iter(
        float(line.split()[-2]) for line in ran.printed.splitlines() if "its relaxation" in line
    )
    for symbol in ("Si", "C"):
        defect = crystal.copy()
        del defect[defect.get_chemical_symbols().index(symbol)]
        unrelaxed = energy_of(defect, stable_model) - energy_of(crystal, stable_model) + mu[symbol]
        rich = ran.number(f"vacancy of {symbol}, rich")
        relaxation = next(relaxations)
        assert relaxation <= 0
        assert rich - relaxation == pytest.approx(unrelaxed, abs=3e-3)
        poor = ran.number(f"vacancy of {symbol}, poor")
        assert poor - rich == pytest.approx(formation, abs=2e-3)


def test_a_constant_that_is_missing_is_noticed(run_script: Callable) -> None:
    with pytest.raises(KeyError, match="the script assigns nothing to TEMPERATURE"):
        run_script("relax", TEMPERATURE="300")


def test_the_scripts_are_short_and_say_what_they_make() -> None:
    folder = ROOT / "md_examples"
    for name in SCRIPTS:
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert 20 <= len(text.splitlines()) <= 50, name
        for option in ("argparse", "sys.argv", "def "):
            assert option not in text, (name, option)


@pytest.mark.slow
def test_a_script_runs_as_a_file_and_says_which_model_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "md_examples" / "relax.py"
    command = [sys.executable, str(path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert "there is no model file quickstart/model.safetensors" in result.stderr
    monkeypatch.chdir(tmp_path)  # the quickstart may have left its model in the repository
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        runpy.run_path(str(path), run_name="__main__")
