"""Elastic constants of a crystal from stresses at small strains.

Prints the stiffness matrix and C11, C12 and C44, which describe a cubic crystal.
"""

import numpy as np
from ase.build import bulk

from tesseral import TesseralCalculator
from tesseral.calculators.properties.elastic import cubic_constants, elastic_constants
from tesseral.calculators.properties.relaxation import relaxed

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
STRAINS = (0.0025, 0.005)  # each is applied with both signs

atoms = bulk("SiC", "zincblende", a=4.40, cubic=True)  # or ase.io.read("structure.cif")
atoms.calc = TesseralCalculator(MODEL)
crystal = relaxed(atoms, fmax=1e-4).atoms
result = elastic_constants(crystal, strains=STRAINS)

print("stiffness (GPa), Voigt order xx yy zz yz xz xy")
print(np.array2string(result.stiffness, formatter={"float_kind": "{:8.2f}".format}))
for name, value in cubic_constants(result.stiffness).items():
    print(f"{name}            {value:.1f} GPa")
print(f"bulk modulus   {result.bulk_modulus:.1f} GPa (Voigt average)")
print(f"shear modulus  {result.shear_modulus:.1f} GPa (Voigt average)")
print(f"C_ij - C_ji    {result.asymmetry:.2f} GPa at most, an estimate of the error")
stable = result.eigenvalues[0] > 0
print(f"mechanically {'stable' if stable else 'UNSTABLE: an eigenvalue is negative'}")
