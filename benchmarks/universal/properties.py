"""`train-potential properties` beside matcalc with SevenNet's own calculator, for ten materials."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from ase.spacegroup import crystal
from rich.console import Console

from benchmarks.peers.environments import Peers
from benchmarks.sheets import Sheet, cell, save
from benchmarks.universal.programs import ours
from benchmarks.workers import environment
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import repeats_for_atoms
from tesseral.calculators.properties.surface import lowest_slab
from tesseral.calculators.simulations.properties import VACANCY_ATOMS

ROOT = Path(__file__).parents[2]
BAND_POINTS = 160


class Material(NamedTuple):
    """A material, and the properties computed of it."""

    name: str
    atoms: Atoms
    compute: tuple[str, ...] = ("eos", "elastic", "phonons")
    miller: tuple[int, int, int] = (1, 1, 1)


def materials() -> list[Material]:
    """Metals, a semiconductor, oxides, a molecular crystal, a layered crystal, and two slabs."""
    base = Material("", Atoms()).compute
    return [
        Material("Cu", bulk("Cu", "fcc", a=3.61), (*base, "vacancies")),
        Material("W", bulk("W", "bcc", a=3.16), (*base, "vacancies")),
        Material("Mg", bulk("Mg", "hcp", a=3.2, c=5.2)),
        Material("Pt", bulk("Pt", "fcc", a=3.92, cubic=True), (*base, "surface"), (1, 1, 1)),
        Material("Si", bulk("Si", "diamond", a=5.43)),
        Material("MgO", bulk("MgO", "rocksalt", a=4.21, cubic=True), (*base, "surface"), (1, 0, 0)),
        Material("TiO2", _rutile(), (*base, "surface"), (1, 1, 0)),
        Material("Al2O3", _corundum()),
        Material("CO2", _dry_ice()),
        Material("graphite", _graphite()),
    ]


def _rutile() -> Atoms:
    """Rutile, 6 atoms."""
    cell_parameters = [4.6, 4.6, 2.96, 90, 90, 90]
    return crystal(
        ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=cell_parameters
    )


def _corundum() -> Atoms:
    """Corundum, rhombohedral, 10 atoms."""
    return crystal(
        ["Al", "O"],
        [(0, 0, 0.352), (0.306, 0, 0.25)],
        spacegroup=167,
        cellpar=[4.76, 4.76, 12.99, 90, 90, 120],
        primitive_cell=True,
    )


def _dry_ice() -> Atoms:
    """Solid carbon dioxide, 12 atoms."""
    return crystal(
        ["C", "O"], [(0, 0, 0), (0.118, 0.118, 0.118)], spacegroup=205, cellpar=[5.7] * 3 + [90] * 3
    )


def _graphite() -> Atoms:
    """Graphite, AB, 4 atoms."""
    return crystal(
        ["C", "C"],
        [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)],
        spacegroup=194,
        cellpar=[2.46, 2.46, 6.7, 90, 90, 120],
    )


def properties_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Compute the properties with both programs in turn, and compare them.

    Raises:
        FileNotFoundError: the model or the environment of matcalc does not exist.
    """
    model = ours(options).arguments["path"]
    python = Peers(options.envs, options.data).program("matcalc", "python")
    if not Path(python).exists():
        raise FileNotFoundError(
            f"there is no {python}; run python -m benchmarks.peers install --only matcalc"
        )
    folder = options.output.resolve() / "properties"
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for material in materials():
        if options.only and material.name not in options.only:
            continue
        results[material.name] = _both(material, folder, model, python)
        times = ", ".join(
            f"{who} {one['wall']:.1f} s" for who, one in results[material.name].items()
        )
        terminal.print(f"{material.name}: {times}")
        save(folder / "results.json", results)
    return [_values(results), _differences(results), _times(results)]


def _both(material: Material, folder: Path, model: str, python: str) -> dict[str, dict[str, Any]]:
    """Results of both programs for a material."""
    source = folder / f"{material.name}.extxyz"
    write(source, material.atoms, format="extxyz", columns=["symbols", "positions"])
    own = folder / material.name
    shutil.rmtree(own, ignore_errors=True)  # it would be reused
    started = time.perf_counter()
    command = [sys.executable, "-m", "tesseral.commands.main", "properties", str(source)]
    command += ["--model", model, "-o", str(own), "--compute", ",".join(material.compute)]
    command += ["--miller", *map(str, material.miller)]
    _call(command, folder / f"{material.name}.log")
    wall = time.perf_counter() - started
    found: dict[str, Any] = {
        name: json.loads((own / "structures" / f"{material.name}-{name}.json").read_text())
        for name in material.compute
    }
    task = {
        "structure": str(source),
        "compute": material.compute,
        "supercells": {
            "phonons": found["phonons"]["supercell"],
            "vacancies": repeats_for_atoms(material.atoms, VACANCY_ATOMS),
        },
        "slab": _slab(own / "structures" / source.name, model, material, folder),
        "phonopy": str(folder / f"{material.name}-matcalc-phonopy.yaml"),
        "output": str(folder / f"{material.name}-matcalc.json"),
    }
    path = folder / f"{material.name}-task.json"
    path.write_text(json.dumps(task))
    started = time.perf_counter()
    program = [python, "-m", "benchmarks.universal.matcalc_program", str(path)]
    _call(program, folder / f"{material.name}-matcalc.log")
    theirs = {"wall": time.perf_counter() - started, **json.loads(Path(task["output"]).read_text())}
    file = own / "structures" / f"{material.name}-phonopy.yaml"
    found["phonons"] |= _phonons(file, material.atoms)
    theirs["phonons"] |= _phonons(Path(task["phonopy"]), material.atoms)
    return {"tesseral": {"wall": wall, **found}, "matcalc": theirs}


def _slab(relaxed: Path, model: str, material: Material, folder: Path) -> str:
    """File of the slab before its relaxation, or an empty text."""
    if "surface" not in material.compute:
        return ""
    crystal = read(relaxed)
    crystal.calc = TesseralCalculator(model, dtype="float64")
    path = folder / f"{material.name}-slab.extxyz"
    write(path, lowest_slab(crystal, material.miller), format="extxyz")
    return str(path)


def _call(command: Sequence[str], log: Path) -> None:
    """Run a program on one thread.

    Raises:
        RuntimeError: it failed.
    """
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=file, env=environment(1), cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{command[2]} failed; see {log}")


def _phonons(file: Path, atoms: Atoms) -> dict[str, Any]:
    """Frequencies (THz) on the path of the cell and on a grid, from a file of phonopy."""
    import phonopy

    model = phonopy.load(file, log_level=0, symmetrize_fc=False)
    model.symmetrize_force_constants()
    model.run_qpoints(atoms.cell.bandpath(npoints=BAND_POINTS).kpts)
    path = np.asarray(model.qpoints.frequencies)
    model.run_qpoints([[0, 0, 0]])
    gamma = np.asarray(model.qpoints.frequencies)[0]
    model.run_mesh([12] * 3)
    model.run_thermal_properties(temperatures=[300.0])
    heat = float(np.ravel(model.thermal_properties.heat_capacity)[0]) / len(model.primitive)
    return {
        "path_THz": path.tolist(),
        "gamma_THz": gamma.tolist(),
        "highest_THz": float(path.max()),
        "heat_capacity_J_K_mol": heat,
    }


NUMBERS = (
    ("eos", "V0_A3_atom", "V₀ Å³/atom", 3),
    ("eos", "B0_GPa", "B₀ GPa", 1),
    ("elastic", "bulk_modulus_GPa", "K GPa", 1),
    ("elastic", "shear_modulus_GPa", "G GPa", 1),
    ("phonons", "highest_THz", "highest THz", 2),
    ("phonons", "heat_capacity_J_K_mol", "C_V J/K/mol", 2),
    ("vacancies", "lowest_vacancy_eV", "vacancy eV", 3),
    ("surface", "surface_energy_J_m2", "γ J/m²", 3),
)

ARRAYS = (
    ("elastic", "stiffness_GPa", "stiffness_GPa"),
    ("phonons", "path_THz", "path_THz"),
    ("phonons", "gamma_THz", "path_THz"),
)


def _values(results: dict[str, dict[str, Any]]) -> Sheet:
    """The numbers of both programs."""
    sheet = Sheet(
        "Properties: tesseral / matcalc with SevenNet's calculator",
        ("material", *(title for *_, title, _ in NUMBERS)),
    )
    for name, both in results.items():
        words = [name]
        for part, key, _, digits in NUMBERS:
            pair = [one.get(part, {}).get(key) for one in both.values()]
            shown = " / ".join(f"{value:.{digits}f}" for value in pair if value is not None)
            words.append(shown or "–")
        sheet.rows.append(words)
    return sheet


def _differences(results: dict[str, dict[str, Any]]) -> Sheet:
    """Relative differences in per cent."""
    titles = (title.rpartition(" ")[0] for *_, title, _ in NUMBERS)
    sheet = Sheet(
        "Differences from matcalc, %",
        ("material", *titles, "C_ij", "ω on the path", "ω at Γ"),
        "C_ij and ω: the largest difference of any elastic constant or frequency, in per cent of "
        "the largest one.",
    )
    for name, both in results.items():
        mine, theirs = both["tesseral"], both["matcalc"]
        pairs = [
            (mine.get(part, {}).get(key), theirs.get(part, {}).get(key))
            for part, key, *_ in NUMBERS
        ]
        row = [cell(None) if b is None else f"{100 * abs(a / b - 1):.2g}" for a, b in pairs]
        for part, key, scale in ARRAYS:
            a, b = np.array(mine[part][key]), np.array(theirs[part][key])
            row.append(f"{100 * np.abs(a - b).max() / np.abs(theirs[part][scale]).max():.2g}")
        sheet.rows.append((name, *row))
    return sheet


def _times(results: dict[str, dict[str, Any]]) -> Sheet:
    """Wall times of the whole programs."""
    sheet = Sheet(
        "Wall time of the whole program, s, one thread",
        ("material", "tesseral", "matcalc", "ratio", "without start"),
        "The last column is the time of matcalc without imports and loading, relative to the whole "
        "time of tesseral.",
    )
    for name, mine, theirs, computing in _wall(results):
        row = (cell(mine), cell(theirs), cell(theirs / mine), cell(computing / mine))
        sheet.rows.append((name, *row))
    sums = [sum(column) for column in list(zip(*_wall(results), strict=True))[1:]]
    mine, theirs, computing = sums
    row = (cell(mine), cell(theirs), cell(theirs / mine), cell(computing / mine))
    sheet.rows.append(("all", *row))
    return sheet


def _wall(results: dict[str, dict[str, Any]]) -> Iterator[tuple[str, float, float, float]]:
    """Name, seconds of both programs, and of the computing of matcalc."""
    for name, both in results.items():
        theirs = both["matcalc"]
        yield name, both["tesseral"]["wall"], theirs["wall"], theirs["seconds"]
