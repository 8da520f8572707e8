"""Adsorption energy of a molecule at the sites of a metal surface.

Writes the relaxed structures to adsorption.traj, which `ase gui adsorption.traj` shows.
"""

from ase.build import add_adsorbate, fcc111, molecule
from ase.constraints import FixAtoms
from ase.io import write

from tesseral import TesseralCalculator
from tesseral.calculators.properties.relaxation import relaxed

MODEL = "universal"  # or your model file, if it knows the elements
SITES = ("ontop", "bridge", "fcc", "hcp")
HEIGHT = 1.9  # Å above the surface, at the start
FMAX = 0.03  # eV/Å

slab = fcc111("Pd", size=(2, 2, 4), a=3.94, vacuum=8.0)
slab.set_constraint(FixAtoms(mask=[atom.tag > 2 for atom in slab]))  # the two lowest layers
gas = molecule("CO")
lowest = int(gas.positions[:, 2].argmin())  # the atom that binds

calculator = TesseralCalculator(MODEL)
slab.calc = gas.calc = calculator
slab = relaxed(slab, fmax=FMAX, cell="fixed").atoms
gas = relaxed(gas, fmax=FMAX).atoms
separate = slab.get_potential_energy() + gas.get_potential_energy()

images = []
for site in SITES:
    together = slab.copy()
    add_adsorbate(together, gas, HEIGHT, site, mol_index=lowest)
    together.calc = calculator
    result = relaxed(together, fmax=FMAX, cell="fixed")
    energy = result.atoms.get_potential_energy() - separate
    note = "" if result.converged else "  (not converged)"
    print(f"{site:8s} {energy:.3f} eV{note}")
    images.append(result.atoms.copy())
write("adsorption.traj", images)
