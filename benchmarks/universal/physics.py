"""Properties of 50 crystals with universal potentials, against PBE and experiment.

PBE: volumes and bulk moduli of elements with WIEN2k (Lejaeghere et al., Crit. Rev. Solid State
Mater. Sci. 2014, 39, 1), from `ase.collections.dcdft`; lattice constants and bulk moduli of C, Si,
Ge and compounds from Harl, Schimka and Kresse, Phys. Rev. B 2010, 81, 115126.

Experiment, at room temperature: elastic constants from the CRC Handbook of Chemistry and Physics
(Elastic Constants of Single Crystals; Cu: Epstein and Carlson 1965); transverse optical phonons at
Γ from Madelung, Semiconductors: Data Handbook (Springer 2004), LiF and MgO: Jasperse et al., Phys.
Rev. 1966, 146, 526, NaCl: Lowndes and Martin, Proc. R. Soc. A 1969, 308, 473; vacancy formation
enthalpies from Ehrhart, Landolt-Börnstein III/25 (1991), V, Nb, Mo and Ta: Maier et al., Phil. Mag.
A 1979, 40, 701.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.collections import dcdft
from rich.console import Console

from benchmarks.sheets import Sheet, save
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import repeated
from tesseral.calculators.properties.elastic import cubic_constants, elastic_constants
from tesseral.calculators.properties.eos import equation_of_state
from tesseral.calculators.properties.phonons import force_constants, frequencies
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.calculators.properties.vacancy import vacancy_energies
from tesseral.deploy.universal import model_path

ELEMENTS = "Li Na K Ca Sr Al Cu Ag Au Ni Pd Pt Rh Ir Pb V Nb Ta Mo W Fe Be Mg Sc Ti Co Zn Zr Ru Hf"
ELEMENTS += " Re Os"
COMPOUNDS: dict[str, tuple[str, float, float]] = {  # structure; PBE: a in Å, bulk modulus in GPa
    "C": ("diamond", 3.569, 434),
    "Si": ("diamond", 5.466, 89),
    "Ge": ("diamond", 5.765, 58),
    "SiC": ("zincblende", 4.378, 212),
    "AlN": ("zincblende", 4.397, 194),
    "AlP": ("zincblende", 5.501, 83),
    "AlAs": ("zincblende", 5.727, 67),
    "GaN": ("zincblende", 4.551, 171),
    "GaP": ("zincblende", 5.507, 76),
    "GaAs": ("zincblende", 5.749, 60),
    "InP": ("zincblende", 5.955, 59),
    "InAs": ("zincblende", 6.184, 49),
    "InSb": ("zincblende", 6.633, 37),
    "MgO": ("rocksalt", 4.259, 149),
    "LiF": ("rocksalt", 4.069, 68),
    "NaF": ("rocksalt", 4.707, 45),
    "LiCl": ("rocksalt", 5.149, 32),
    "NaCl": ("rocksalt", 5.697, 24),
}
ELASTIC: dict[str, tuple[float, float, float]] = {  # C11, C12, C44 in GPa, experiment
    "Ag": (123.99, 93.67, 46.12),
    "Al": (106.75, 60.41, 28.34),
    "Au": (192.44, 162.98, 42.0),
    "Cu": (168.3, 121.2, 75.7),
    "Ni": (248.1, 154.9, 124.2),
    "Fe": (226.0, 140.0, 116.0),
    "Mo": (463.7, 157.8, 109.2),
    "Nb": (246.5, 134.5, 28.73),
    "Ta": (260.2, 154.4, 82.55),
    "W": (522.39, 204.37, 160.58),
    "C": (1040.0, 170.0, 550.0),
    "Si": (165.7, 63.9, 79.56),
    "Ge": (128.35, 48.23, 66.66),
    "AlAs": (116.3, 57.6, 54.1),
    "GaAs": (118.77, 53.72, 59.44),
    "GaP": (141.2, 62.53, 70.47),
    "MgO": (297.08, 95.36, 156.13),
    "LiF": (113.97, 47.67, 63.64),
    "NaCl": (49.47, 12.88, 12.87),
}
OPTICAL: dict[str, float] = {  # cm⁻¹, transverse optical phonon at Γ, experiment
    **{"C": 1332, "Si": 520, "Ge": 301, "SiC": 796, "AlAs": 361, "GaP": 367, "GaAs": 268},
    **{"InP": 304, "InAs": 217, "InSb": 179, "MgO": 401, "LiF": 306, "NaCl": 164},
}
VACANCY: dict[str, float] = {  # eV, formation enthalpy, experiment
    **{"Ag": 1.11, "Al": 0.67, "Au": 0.93, "Cu": 1.28, "Ni": 1.79, "Pd": 1.85, "Pt": 1.35},
    **{"Pb": 0.58, "V": 2.1, "Nb": 2.6, "Mo": 3.0, "Ta": 2.8},
}
VACANCY_ATOMS = 100  # least size of the supercell
THZ_IN_CM = 33.35641  # cm⁻¹


class Crystal(NamedTuple):
    """Crystal, and its volume (Å³/atom) and bulk modulus (GPa) with PBE."""

    name: str
    atoms: Atoms
    volume: float
    modulus: float


def crystals() -> list[Crystal]:
    """The 50 crystals at the volume of PBE; Li and Na in the 9R structure of the lowest energy."""
    made = []
    for symbol in ELEMENTS.split():
        given = dcdft.data[symbol]
        atoms = dcdft[symbol]
        cell = atoms.cell.array * (given["wien2k_volume"] * len(atoms) / atoms.get_volume()) ** (
            1 / 3
        )
        plain = Atoms(
            atoms.numbers, scaled_positions=atoms.get_scaled_positions(), cell=cell, pbc=True
        )
        made.append(Crystal(symbol, plain, given["wien2k_volume"], given["wien2k_B"]))
    for name, (structure, a, modulus) in COMPOUNDS.items():
        atoms = bulk(name, structure, a=a)
        made.append(Crystal(name, atoms, atoms.get_volume() / len(atoms), modulus))
    return made


def properties(crystal: Crystal, calculator: Any) -> dict[str, Any]:
    """Properties of a crystal with a calculator, as far as there are references.

    Returns:
        ``volume`` in Å³/atom, ``modulus`` in GPa, ``elastic`` (C11, C12, C44) in GPa, ``optical``
        in cm⁻¹, ``vacancy`` in eV.
    """
    atoms = crystal.atoms.copy()
    atoms.calc = calculator
    atoms = relaxed(atoms, fmax=1e-3, steps=200, cell="free").atoms
    curve = equation_of_state(atoms)
    found: dict[str, Any] = {
        "volume": curve.fit.volume / len(atoms),
        "modulus": curve.fit.bulk_modulus,
    }
    if crystal.name in ELASTIC:
        constants = cubic_constants(elastic_constants(atoms).stiffness)
        found["elastic"] = [constants[name] for name in ("C11", "C12", "C44")]
    if crystal.name in OPTICAL:
        modes = frequencies(force_constants(atoms, length=1.0), [0, 0, 0])[0]
        found["optical"] = float(modes.max()) * THZ_IN_CM
    if crystal.name in VACANCY:
        own = float(atoms.get_potential_energy()) / len(atoms)
        large = repeated(atoms, VACANCY_ATOMS)
        found["vacancy"] = vacancy_energies(large, {crystal.name: own})[0].relaxed
    return found


def physics_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Compute and compare the properties with all models."""
    chosen = crystals()
    chosen = [
        chosen[i] for i in np.linspace(0, len(chosen) - 1, options.number).round().astype(int)
    ]
    numbers: dict[str, dict[str, Any]] = {}
    summary = Sheet(
        f"{len(chosen)} crystals",
        (
            "potential",
            "a %",
            "mean",
            "worst",
            "B %",
            "worst",
            "C %",
            "TO %",
            "vacancy eV",
            "failed",
        ),
        "Mean absolute errors. a: lattice constants (cube roots of volumes) and their mean signed "
        "error, and B: bulk moduli, against PBE. C: C11, C12 and C44; TO: optical phonon at Γ; "
        "vacancy: formation energy; against experiment.",
    )
    for model in options.models:
        path = model_path(model)
        calculator = TesseralCalculator(path, device="cpu", dtype="float64")
        found: dict[str, Any] = {}
        for crystal in chosen:
            terminal.print(f"{path.stem}: {crystal.name}")
            try:
                found[crystal.name] = properties(crystal, calculator)
            except ValueError as error:
                found[crystal.name] = {"error": str(error)}
        numbers[path.stem] = found
        summary.rows.append((path.stem, *summary_texts(chosen, found)))
        save(options.output / "physics.json", numbers)
    return [summary]


def summary_texts(chosen: list[Crystal], found: dict[str, Any]) -> list[str]:
    """Cells of a row of the summary."""
    good = {name: values for name, values in found.items() if "error" not in values}
    own = {crystal.name: crystal for crystal in chosen}
    lengths = {n: 100 * ((v["volume"] / own[n].volume) ** (1 / 3) - 1) for n, v in good.items()}
    moduli = {n: 100 * (v["modulus"] / own[n].modulus - 1) for n, v in good.items()}
    constants = [
        100 * abs(value / reference - 1)
        for name, values in good.items()
        if "elastic" in values
        for value, reference in zip(values["elastic"], ELASTIC[name], strict=True)
    ]
    modes = [100 * abs(v["optical"] / OPTICAL[n] - 1) for n, v in good.items() if "optical" in v]
    gaps = [abs(v["vacancy"] - VACANCY[n]) for n, v in good.items() if "vacancy" in v]
    signed = list(lengths.values())
    failed = [name for name in found if name not in good]
    return [
        *(f"{_mean(signed):.2f}", f"{np.mean(signed):+.2f}", _worst(lengths)),
        *(f"{_mean(list(moduli.values())):.1f}", _worst(moduli)),
        *(f"{_mean(constants):.1f}", f"{_mean(modes):.1f}", f"{_mean(gaps):.2f}"),
        ", ".join(failed) or "–",
    ]


def _mean(values: list[float]) -> float:
    return float(np.abs(values).mean()) if values else float("nan")


def _worst(values: dict[str, float]) -> str:
    name = max(values, key=lambda each: abs(values[each]))
    return f"{name} {values[name]:+.1f}"
