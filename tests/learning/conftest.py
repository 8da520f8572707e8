"""Executors that compute at once or die, and programs that write the outputs of DFT codes."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk

from tesseral.data.structures import Structure, structure_from_atoms


class Killed(BaseException):
    """Stands for a signal that ends the process."""


class Here(Executor):
    """Computes each task when it is submitted, and dies before one of them."""

    def __init__(self, tasks: float = float("inf")) -> None:
        self.tasks, self.done = tasks, 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self.done >= self.tasks:
            raise Killed
        self.done += 1
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture
def copper() -> Callable[[int], list[Structure]]:
    """``copper(n)``: rattled cells of copper."""

    def make(count: int) -> list[Structure]:
        made = []
        for seed in range(count):
            atoms: Atoms = bulk("Cu", cubic=True)
            atoms.rattle(0.05, seed=seed)
            structure = structure_from_atoms(atoms)
            made.append(structure._replace(config_type="rattled", group=f"run {seed}"))
        return made

    return make


def program(path: Path, body: str, unconverged: int | None) -> Path:
    """A program that computes with EMT; the run with this number does not converge."""
    head = f"""#!{sys.executable}
from pathlib import Path
import numpy as np
from ase.calculators.emt import EMT
from ase.io import read

counter = Path({str(path)!r} + ".count")
number = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(number + 1))
converged = number != {unconverged}
"""
    path.write_text(head + body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


PW_X = """
from ase import units
atoms = read("espresso.pwi")
atoms.calc = EMT()
energy, forces = atoms.get_potential_energy() / units.Ry, atoms.get_forces() / units.Ry * units.Bohr
stress = -atoms.get_stress(voigt=False) / units.Ry * units.Bohr**3
alat = atoms.cell.lengths()[0] / units.Bohr
print("     Program PWSCF v.6.7MaX starts on 21Nov2026 at 20:29:35")
print(f"     number of atoms/cell      = {len(atoms):12d}")
print("     kinetic-energy cutoff     =      40.0000  Ry")
print("     scf convergence threshold =      1.0E-08")
print("     Exchange-correlation= SLA  PW   PBE  PBE")
print(f"     celldm(1)={alat:12.7f}  celldm(2)=   0.000000  celldm(3)=   0.000000")
print("     crystal axes: (cart. coord. in units of alat)")
for i, row in enumerate(atoms.cell.array / units.Bohr / alat, 1):
    print(f"               a({i}) = (" + "".join(f"{x:12.7f}" for x in row) + " )")
print("     PseudoPot. # 1 for Cu read from file:\\n     pseudo/Cu.upf")
print("     site n.     atom                  positions (alat units)")
for i, row in enumerate(atoms.positions / units.Bohr / alat, 1):
    text = "".join(f"{x:13.8f}" for x in row)
    print(f"      {i:4d}           Cu  tau({i:4d}) = ({text}  )")
print("     number of k points=     8")
if converged:
    print("     End of self-consistent calculation")
    print(f"!    total energy              = {energy:17.8f} Ry")
    print("     estimated scf accuracy    <          8.4E-09 Ry")
    print("     convergence has been achieved in   8 iterations")
else:
    print("     convergence NOT achieved after 100 iterations: stopping")
print("     Forces acting on atoms (cartesian axes, Ry/au):\\n")
for i, row in enumerate(forces, 1):
    text = "".join(f"{x:14.8f}" for x in row)
    print(f"     atom {i:4d} type  1   force = {text}")
print("     Computing stress (Cartesian axis) and pressure\\n")
print("          total   stress  (Ry/bohr**3)                   (kbar)     P=      137.03")
for row in stress:
    print("".join(f"{x:14.8f}" for x in row) + "      0.00      0.00      0.00")
print("   JOB DONE.")
"""

VASP = """
atoms = read("POSCAR")
atoms.calc = EMT()
energy, forces = atoms.get_potential_energy(), atoms.get_forces()
bar = -atoms.get_stress(voigt=False) * 1602.1766208
rule = " " + 83 * "-"
lines = [" vasp.6.3.0 20Jan22 (build May 08 2022 00:08:36) complex", " INCAR:"]
lines += [" POTCAR:    PAW_PBE Cu 22Jun2005", "   TITEL  = PAW_PBE Cu 22Jun2005"]
lines += [f"   ions per type = {len(atoms):15d}", "   ENCUT  =  400.0 eV  29.40 Ry   5.42 a.u."]
lines += ["   NELM   =     60;   NELMIN=  2; NELMDL= -5     # of ELM steps"]
lines += ["   ISIF   =      3    stress and relaxation"]
for i in range(1, 5 if converged else 61):
    lines += [f"{39 * '-'} Iteration      1({i:4d})  {39 * '-'}"]
if converged:
    lines += [f"{24 * '-'} aborting loop because EDIFF is reached {30 * '-'}"]
lines += ["  FORCE on cell =-STRESS in cart. coord.  units (eV):"]
order = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
lines += ["  in kB   " + "".join(f"{bar[pair]:12.5f}" for pair in order)]
lines += [" VOLUME and BASIS-vectors are now :"]
lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
for row in atoms.cell.array:
    lines += ["   " + "".join(f"{x:13.9f}" for x in [*row, 0, 0, 0])]
lines += [f" POSITION {38 * ' '}TOTAL-FORCE (eV/Angst)", rule]
for r, f in zip(atoms.positions, forces):
    lines += ["".join(f"{x:13.5f}" for x in r) + "".join(f"{x:14.6f}" for x in f)]
lines += [rule, "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)"]
lines += [f"  free  energy   TOTEN  = {energy:18.8f} eV", ""]
lines += [f"  energy  without entropy={energy:18.8f}  energy(sigma->0) ={energy:18.8f}", ""]
lines += [" General timing and accounting informations for this job:"]
Path("OUTCAR").write_text("\\n".join(lines) + "\\n")
"""


@pytest.fixture
def pw_x(tmp_path) -> Callable[..., Path]:
    """``pw_x(unconverged=None)``: a program that writes outputs of pw.x."""
    return lambda unconverged=None: program(tmp_path / "pw.x", PW_X, unconverged)


@pytest.fixture
def vasp_std(tmp_path) -> Callable[..., Path]:
    """``vasp_std(unconverged=None)``: a program that writes outputs of VASP."""
    return lambda unconverged=None: program(tmp_path / "vasp_std", VASP, unconverged)


@pytest.fixture
def here() -> type[Here]:
    return Here


@pytest.fixture
def killed() -> type[Killed]:
    return Killed
