"""Properties of one material with matcalc and SevenNet's own calculator, in their environment.

    python -m benchmarks.universal.matcalc_program TASK.json

Needs matcalc, SevenNet and ASE. The task names the files and the properties; see `compute`.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read

warnings.filterwarnings("ignore")

Numbers = dict[str, Any]

# The settings of `train-potential properties`, in matcalc's terms.
EXTENT = 0.02  # strain of the lengths in the equation of state: 6% of the volume
NORMAL = (-0.005, -0.0025, 0.0025, 0.005)
SHEAR = (-0.0025, -0.00125, 0.00125, 0.0025)  # components of the strain tensor: half of γ
DISPLACEMENT = 0.01  # Å


def main() -> int:
    """Run the task of a file, and write its results beside it."""
    task = json.loads(Path(sys.argv[1]).read_text())
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator("7net-0", device="cpu")
    started = time.perf_counter()
    results = compute(task, calculator)
    results["seconds"] = time.perf_counter() - started
    Path(task["output"]).write_text(json.dumps(results, default=lambda array: array.tolist()))
    return 0


def compute(task: Numbers, calculator: Any) -> Numbers:
    """Relax the material, then compute its properties with the settings of the task.

    Args:
        task: ``structure`` (file), ``compute`` (names of properties), ``supercells`` (repetitions
            for phonons and vacancies), ``slab`` (file of the slab), and the names of the files
            with results.
        calculator: an ASE calculator.
    """
    from matcalc import RelaxCalc

    atoms = read(task["structure"])
    relaxer = RelaxCalc(calculator, optimizer="BFGS", fmax=0.001, max_steps=500)
    crystal = relaxer.calc(atoms)["final_structure"].to_ase_atoms()
    found: Numbers = {"lattice": crystal.cell.cellpar()}
    for name in task["compute"]:
        started = time.perf_counter()
        found[name] = PROPERTIES[name](crystal, calculator, task)
        found[name]["seconds"] = time.perf_counter() - started
    return found


def eos(crystal: Atoms, calculator: Any, task: Numbers) -> Numbers:
    """Birch–Murnaghan fit to nine volumes, the shape of the cell relaxed."""
    from matcalc import EOSCalc
    from pymatgen.analysis.eos import BirchMurnaghan

    made = EOSCalc(
        calculator,
        optimizer="BFGS",
        max_abs_strain=EXTENT,
        n_points=9,
        fmax=0.005,
        max_steps=200,
        relax_structure=False,
    ).calc(crystal)
    fit = BirchMurnaghan(made["eos"]["volumes"], made["eos"]["energies"])
    fit.fit()
    return {"V0_A3_atom": float(fit.v0) / len(crystal), "B0_GPa": made["bulk_modulus_bm"]}


def elastic(crystal: Atoms, calculator: Any, task: Numbers) -> Numbers:
    """Elastic constants from stresses, the atoms relaxed in each strained cell."""
    from matcalc import ElasticityCalc

    made = ElasticityCalc(
        calculator,
        norm_strains=NORMAL,
        shear_strains=SHEAR,
        fmax=1e-4,
        relax_structure=False,
        relax_deformed_structures=True,
        units_GPa=True,
        relax_calc_kwargs={"optimizer": "BFGS", "max_steps": 100},
    ).calc(crystal)
    tensor = np.array(made["elastic_tensor"].voigt)
    return {
        "stiffness_GPa": 0.5 * (tensor + tensor.T),
        "bulk_modulus_GPa": made["bulk_modulus_vrh"],
        "shear_modulus_GPa": made["shear_modulus_vrh"],
    }


def phonons(crystal: Atoms, calculator: Any, task: Numbers) -> Numbers:
    """Force constants, saved as a file of phonopy."""
    from matcalc import PhononCalc

    PhononCalc(
        calculator,
        atom_disp=DISPLACEMENT,
        supercell_matrix=np.diag(task["supercells"]["phonons"]),
        relax_structure=False,
        write_force_constants=False,
        write_phonon=False,
    ).calc(crystal)["phonon"].save(task["phonopy"], settings={"force_constants": True})
    return {}


def vacancies(crystal: Atoms, calculator: Any, task: Numbers) -> Numbers:
    """Formation energy of a vacancy of an element."""
    from matcalc import DefectCalc

    defect = crystal.repeat(task["supercells"]["vacancies"])
    symbol = defect.symbols[0]
    del defect[0]
    crystal.calc = calculator
    made = DefectCalc(calculator, fmax=0.01, max_steps=200).calc(
        {
            "defect": defect,
            "element_changes": {symbol: -1},
            "bulk_energy_per_atom": float(crystal.get_potential_energy()) / len(crystal),
            "final_bulk": crystal,
        }
    )
    return {"lowest_vacancy_eV": made["formation_energy"]}


def slab(crystal: Atoms, calculator: Any, task: Numbers) -> Numbers:
    """Surface energy of the same slab as ours."""
    from matcalc import SurfaceCalc
    from pymatgen.io.ase import AseAtomsAdaptor

    crystal.calc = calculator
    bulk = float(crystal.get_potential_energy()) / len(crystal)
    cut = read(task["slab"])
    structure = AseAtomsAdaptor.get_structure(cut)
    structure.surface_area = float(np.linalg.norm(np.cross(*cut.cell.array[:2])))
    made = SurfaceCalc(calculator, fmax=0.01, max_steps=200).calc(
        {"slab": structure, "bulk_energy_per_atom": bulk}
    )
    return {"surface_energy_J_m2": made["surface_energy"] * units.m**2 / units.J}


PROPERTIES: dict[str, Callable[[Atoms, Any, Numbers], Numbers]] = {
    "eos": eos,
    "elastic": elastic,
    "phonons": phonons,
    "vacancies": vacancies,
    "surface": slab,
}

if __name__ == "__main__":
    sys.exit(main())
