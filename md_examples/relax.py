"""Relax the atoms and the cell of a crystal.

Writes the steps to relax.traj, which `ase gui relax.traj` shows, and the result to relaxed.cif.
"""

from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from tesseral import TesseralCalculator
from tesseral.calculators.properties.atoms import largest_force, pressure_gpa

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
FMAX = 0.005  # eV/Å
STEPS = 300  # maximum number of steps

atoms = bulk("SiC", "zincblende", a=4.5, cubic=True)  # or ase.io.read("structure.cif")
atoms.rattle(0.05, seed=0)
atoms.calc = TesseralCalculator(MODEL)
print(f"energy at the start  {atoms.get_potential_energy() / len(atoms):.4f} eV/atom")

moving = FrechetCellFilter(atoms)  # use atoms itself to keep the cell fixed
optimizer = BFGS(moving, trajectory="relax.traj")  # LBFGS for more than about 100 atoms
converged = optimizer.run(fmax=FMAX, steps=STEPS)

print("converged" if converged else "not converged: raise STEPS")
print(f"energy          {atoms.get_potential_energy() / len(atoms):.4f} eV/atom")
print(f"largest force   {largest_force(atoms):.4f} eV/Å")
print(f"pressure        {pressure_gpa(atoms):.3f} GPa")
print("cell lengths    {:.4f} {:.4f} {:.4f} Å".format(*atoms.cell.lengths()))
print("cell angles     {:.2f} {:.2f} {:.2f}°".format(*atoms.cell.angles()))
atoms.write("relaxed.cif")
