"""Crystals held together by dispersion: relaxed with and without D3(BJ); programs; time."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data
from ase.spacegroup import crystal
from rich.console import Console

from benchmarks.sheets import Sheet, cell, save
from benchmarks.silicon import supercell
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.dispersion import Dispersion
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.deploy.export import export_model
from tesseral.deploy.lammps.verify import BAR, call_lammps

FMAX, STEPS = 0.005, 400  # eV/Å
SIZES = (64, 216, 512, 1000)
SHORT = 20.0  # Å, a shorter cutoff


@lru_cache
def d3() -> Dispersion:
    """D3(BJ) of PBE; not made on import, because it needs the package dftd3."""
    return Dispersion("pbe")


class Held(NamedTuple):
    """A crystal held together by dispersion."""

    make: Callable[[], Atoms]  # at experimental lattice constants
    quantity: str
    measure: Callable[[Atoms], float]
    experiment: str


def graphite() -> Atoms:
    """AB-stacked, four atoms."""
    sites = [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)]
    return crystal("CC", sites, spacegroup=194, cellpar=[2.461, 2.461, 6.708, 90, 90, 120])


def molybdenum_sulfide() -> Atoms:
    """2H-MoS2, six atoms."""
    sites = [(1 / 3, 2 / 3, 0.25), (1 / 3, 2 / 3, 0.621)]
    return crystal(["Mo", "S"], sites, spacegroup=194, cellpar=[3.16, 3.16, 12.294, 90, 90, 120])


def dry_ice() -> Atoms:
    """CO2 I, four molecules."""
    sites = [(0, 0, 0), (0.1185, 0.1185, 0.1185)]
    return crystal(["C", "O"], sites, spacegroup=205, cellpar=[5.624, 5.624, 5.624, 90, 90, 90])


def benzene() -> Atoms:
    """Benzene I, four molecules."""
    sites = [(-0.0569, 0.1387, -0.0054), (-0.1335, 0.0460, 0.1264), (-0.0774, -0.0925, 0.1295)]
    sites += [(-0.0976, 0.2447, -0.0177), (-0.2409, 0.0794, 0.2218), (-0.1371, -0.1631, 0.2312)]
    return crystal("CCCHHH", sites, spacegroup=61, cellpar=[7.39, 9.42, 6.81, 90, 90, 90])


def layers(atoms: Atoms) -> float:
    """Distance of neighbouring layers (Å), of two in the cell."""
    return float(atoms.cell.lengths()[2]) / 2


def volume(atoms: Atoms) -> float:
    """Volume (Å³) of a molecule, of four in the cell."""
    return float(atoms.get_volume()) / 4


CRYSTALS = {
    "graphite": Held(graphite, "layers, Å", layers, "3.336 (4 K)"),
    "2H-MoS2": Held(molybdenum_sulfide, "layers, Å", layers, "6.147 (300 K)"),
    "CO2": Held(dry_ice, "volume, Å³", volume, "44.5 (150 K)"),
    "benzene": Held(benzene, "volume, Å³", volume, "115.5 (4 K)"),
}


def dispersion_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Relax the crystals, compare the programs, and time a step."""
    models = options.models or [options.model or options.output / "sevennet-0.safetensors"]
    for path in models:
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}; give model files with --models")
    found = {path.stem: _relaxed(path, terminal) for path in models}
    save(options.output / "dispersion.json", found)
    agreement = [_agreement(path, terminal) for path in models]
    return [_relaxations(found), *agreement, _time(models[0], terminal)]


def _relaxed(path: Path, terminal: Console) -> dict[str, dict[str, Any]]:
    """The quantity of each crystal relaxed without and with D3, by crystal."""
    results: dict[str, dict[str, Any]] = {}
    for name, held in CRYSTALS.items():
        for functional in (None, "pbe"):
            atoms = held.make()
            atoms.calc = TesseralCalculator(path, dtype="float64", dispersion=functional)
            run = relaxed(atoms, fmax=FMAX, steps=STEPS, cell="free")
            value = held.measure(run.atoms) if run.converged else None
            results.setdefault(name, {})[functional or "without"] = value
            results[name][f"cell {functional}"] = run.atoms.cell.cellpar().tolist()
            terminal.print(f"{path.stem} {name} {functional}: {value} after {run.steps} steps")
    return results


def _relaxations(found: dict[str, dict[str, dict[str, Any]]]) -> Sheet:
    """Table of the relaxed crystals."""
    names = [f"{name}, {how}" for name in found for how in ("without", "with D3(BJ)")]
    sheet = Sheet("Relaxed crystals", ("crystal", "", *names, "experiment"))
    for name, held in CRYSTALS.items():
        pairs = [(results[name]["without"], results[name]["pbe"]) for results in found.values()]
        numbers = [cell(value, 4) for pair in pairs for value in pair]
        sheet.rows.append([name, held.quantity, *numbers, held.experiment])
    return sheet


def _agreement(path: Path, terminal: Console) -> Sheet:
    """Largest differences of torch-sim and LAMMPS from ASE, in float64."""
    from tesseral.calculators.torchsim import TesseralModel  # torch-sim is optional

    columns = ("crystal", "energy, eV/atom", "forces, eV/Å", "stress, GPa")
    sheet = Sheet(
        f"Differences from ASE, {path.stem} with D3(BJ), float64",
        ("program", *columns),
        "Atoms displaced by 0.05 Å.",
    )
    model = TesseralModel(path, dtype="float64", device="cpu", dispersion="pbe")
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.pt"
        export_model(path, exported, dtype="float64")
        for name, held in CRYSTALS.items():
            atoms = held.make()
            atoms.rattle(0.05, seed=0)
            atoms.calc = TesseralCalculator(path, dtype="float64", device="cpu", dispersion="pbe")
            for program, values in (
                ("torch-sim", with_torch_sim(atoms, model)),
                ("LAMMPS", with_lammps(atoms, exported)),
            ):
                energy = abs(values[0] - atoms.get_potential_energy()) / len(atoms)
                forces = np.abs(values[1] - atoms.get_forces()).max()
                stress = np.abs(values[2] - atoms.get_stress(voigt=False)).max() / units.GPa
                row = [program, name, f"{energy:.1e}", f"{forces:.1e}", f"{stress:.1e}"]
                sheet.rows.append(row)
                terminal.print(" ".join(row))
    return sheet


Values = tuple[float, np.ndarray, np.ndarray]  # eV, (N, 3) eV/Å, (3, 3) eV/Å³


def with_torch_sim(atoms: Atoms, model: Any) -> Values:
    """Energy, forces and stress of torch-sim."""
    import torch_sim

    state = torch_sim.initialize_state([atoms], torch.device("cpu"), torch.float64)
    out = model(state)
    return float(out["energy"]), out["forces"].numpy(), out["stress"][0].numpy()


def with_lammps(atoms: Atoms, exported: Path) -> Values:
    """Energy, forces and stress of LAMMPS with its own D3."""
    symbols = sorted(set(atoms.get_chemical_symbols()))
    prism = Prism(atoms.cell.array, pbc=atoms.pbc)
    names, reach = " ".join(symbols), d3()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"specorder": symbols, "masses": True, "atom_style": "atomic"}
        write_lammps_data(folder / "data", atoms, prismobj=prism, **settings)
        (folder / "in").write_text(
            f"""units metal
atom_style atomic
read_data data
pair_style hybrid/overlay tesseral dispersion/d3 bj pbe {reach.cutoff:.12g} &
  {reach.counting_cutoff:.12g}
pair_coeff * * tesseral "{exported}" {names}
pair_coeff * * dispersion/d3 {names}
neigh_modify one 50000 page 500000
thermo_style custom step pe pxx pyy pzz pxy pxz pyz
dump forces all custom 1 forces id fx fy fz
dump_modify forces sort id format float %.17g
run 0
print "$(pe:%.17g) $(pxx:%.17g) $(pyy:%.17g) $(pzz:%.17g) $(pxy:%.17g) $(pxz:%.17g) $(pyz:%.17g)" &
  file values
""",
            encoding="utf-8",
        )
        call_lammps(["-in", "in", "-log", "none"], 1, folder)
        energy, xx, yy, zz, xy, xz, yz = map(float, (folder / "values").read_text().split())
        forces = np.loadtxt(folder / "forces", skiprows=9, ndmin=2)[:, 1:]
    pressure = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    stress = prism.rot_mat @ (-pressure / BAR) @ prism.rot_mat.T
    return energy, forces @ prism.rot_mat.T, stress


def _time(path: Path, terminal: Console) -> Sheet:
    """Time of a step of the model alone and of D3 alone, on silicon."""
    sheet = Sheet(
        f"Time of energy, forces and stress of silicon, {path.stem}, one thread, µs/atom",
        ("atoms", "model", f"D3(BJ), {d3().cutoff:.1f} Å", f"D3(BJ), {SHORT:g} Å"),
    )
    torch.set_num_threads(1)
    for size in SIZES:
        atoms = supercell(size)
        atoms.rattle(0.05, seed=0)
        atoms.calc = TesseralCalculator(path, device="cpu")
        structure = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
        tasks: Sequence[Callable[[], Any]] = (
            lambda atoms=atoms: atoms.calc.calculate(atoms),
            lambda structure=structure: d3().evaluate(*structure),
            lambda structure=structure: Dispersion("pbe", SHORT).evaluate(*structure),
        )
        rounds = [[_seconds(task) for task in tasks] for _ in range(4)]
        times = 1e6 * np.median(rounds[1:], axis=0) / size
        sheet.rows.append([str(size), *(f"{value:.0f}" for value in times)])
        terminal.print(" ".join(sheet.rows[-1]))
    return sheet


def _seconds(task: Callable[[], Any]) -> float:
    """CPU time of a task."""
    start = time.process_time()
    task()
    return time.process_time() - start
