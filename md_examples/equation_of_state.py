"""Equation of state of a crystal: equilibrium volume, lattice constant and bulk modulus.

Draws equation_of_state.png and writes the points to equation_of_state.txt.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

from tesseral import TesseralCalculator
from tesseral.calculators.properties.eos import equation_of_state
from tesseral.calculators.properties.relaxation import relaxed

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
POINTS = 9  # number of volumes
EXTENT = 0.06  # largest relative change of the volume

atoms = bulk("SiC", "zincblende", a=4.40)  # or ase.io.read("structure.cif")
atoms.calc = TesseralCalculator(MODEL)
crystal = relaxed(atoms).atoms
result = equation_of_state(crystal, points=POINTS, extent=EXTENT)

n, fit = len(crystal), result.fit
print(f"volume          {fit.volume / n:.4f} Å³/atom")
print(f"energy          {fit.energy / n:.4f} eV/atom")
for name, value in result.lattice.items():
    print(f"lattice {name:7s} {value:.4f} {'Å' if name in 'abc' else '°'}")
print(f"bulk modulus    {fit.bulk_modulus:.1f} GPa")
print(f"its derivative  {fit.pressure_derivative:.2f}")

volumes = np.linspace(result.volumes[0], result.volumes[-1], 200)
figure, axes = plt.subplots()
axes.plot(result.volumes / n, 1000 * (result.energies - fit.energy) / n, "o")
axes.plot(volumes / n, 1000 * (fit(volumes) - fit.energy) / n)
axes.set(xlabel="volume (Å³/atom)", ylabel="energy above the minimum (meV/atom)")
figure.savefig("equation_of_state.png")
points = np.column_stack([result.volumes, result.energies])
np.savetxt("equation_of_state.txt", points, header="volume (Å³) and energy (eV) of the cell")
