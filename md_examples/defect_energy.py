"""Formation energies of neutral vacancies in silicon carbide.

Conditions rich in an element: the removed atom goes to the crystal of that element. Conditions
poor in it: the atom goes to silicon carbide in equilibrium with the crystal of the other element.
"""

from ase.build import bulk

from tesseral import TesseralCalculator
from tesseral.calculators.properties.atoms import supercell
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.calculators.properties.vacancy import vacancy_energies

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
REPEATS = (2, 2, 2)  # of the cubic cell with 8 atoms
FMAX = 0.01  # eV/Å

calculator = TesseralCalculator(MODEL)
compound = bulk("SiC", "zincblende", a=4.39, cubic=True)
silicon = bulk("Si", "diamond", a=5.46)
carbon = bulk("C", "diamond", a=3.57)
for atoms in (compound, silicon, carbon):
    atoms.calc = calculator
compound, silicon, carbon = (relaxed(atoms).atoms for atoms in (compound, silicon, carbon))

potentials = {  # eV, energy of an atom in its elemental crystal
    "Si": silicon.get_potential_energy() / len(silicon),
    "C": carbon.get_potential_energy() / len(carbon),
}
n_pairs = len(compound) / 2
formation = compound.get_potential_energy() / n_pairs - potentials["Si"] - potentials["C"]
print(f"formation energy of SiC  {formation:.3f} eV")

crystal = supercell(compound, REPEATS)
for vacancy in vacancy_energies(crystal, potentials, fmax=FMAX):
    symbol, energy = vacancy.symbol, vacancy.relaxed
    print(f"vacancy of {symbol}, rich in {symbol}  {energy:.3f} eV")
    print(f"vacancy of {symbol}, poor in {symbol}  {energy + formation:.3f} eV")
    print(f"energy of its relaxation  {energy - vacancy.unrelaxed:.3f} eV")
    if not vacancy.converged:
        print("not converged: give vacancy_energies more steps")
