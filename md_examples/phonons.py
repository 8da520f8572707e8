"""Phonon bands of a crystal by finite displacements, with phonopy.

Draws phonons.png and writes phonopy_params.yaml, which `phonopy-load` reads for a density of
states or thermal properties.
"""

import matplotlib.pyplot as plt
from ase.build import bulk

from tesseral import TesseralCalculator
from tesseral.calculators.properties.phonons import (
    bands,
    force_constants,
    frequencies,
    lowest_frequency,
)
from tesseral.calculators.properties.relaxation import relaxed

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
LENGTH = 10.0  # Å, minimum thickness of the supercell
DISPLACEMENT = 0.01  # Å

atoms = bulk("Si", "diamond", a=5.46)  # the primitive cell
atoms.calc = TesseralCalculator(MODEL, dtype="float64")  # for small differences of forces
crystal = relaxed(atoms, fmax=1e-4).atoms
constants = force_constants(crystal, length=LENGTH, displacement=DISPLACEMENT)

print(f"supercell of {constants.n_atoms} atoms, {constants.n_displacements} displacements")
gamma = frequencies(constants, [[0, 0, 0]])[0]
print("at Γ    " + " ".join(f"{frequency:.3f}" for frequency in gamma) + " THz")
print(f"lowest  {lowest_frequency(constants):.3f} THz; clearly negative if the crystal is unstable")

path = bands(constants)
figure, axes = plt.subplots()
axes.plot(path.distances, path.frequencies, color="C0")
axes.set_xticks(path.ticks, path.labels)
axes.set(ylabel="frequency (THz)", xlim=(path.distances[0], path.distances[-1]))
axes.grid(axis="x")
figure.savefig("phonons.png")
constants.model.save("phonopy_params.yaml", settings={"force_constants": True})
