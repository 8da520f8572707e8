"""Energy barrier for vacancy migration in silicon with a nudged elastic band.

Draws neb.png and writes all steps to neb.traj; `ase gui neb.traj@-7:` shows the last seven images.
"""

from ase.build import bulk
from ase.mep import NEB, NEBTools
from ase.optimize import FIRE

from tesseral import TesseralCalculator
from tesseral.calculators.properties.atoms import supercell
from tesseral.calculators.properties.relaxation import relaxed

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
REPEATS = (2, 2, 2)
IMAGES = 7  # number of images including both ends
FMAX = 0.05  # eV/Å

atoms = bulk("Si", "diamond", a=5.46, cubic=True)
atoms.calc = TesseralCalculator(MODEL)
crystal = supercell(relaxed(atoms).atoms, REPEATS)

neighbour = 1 + crystal.get_distances(0, range(1, len(crystal)), mic=True).argmin()
jump = crystal.get_distance(neighbour, 0, mic=True, vector=True)
initial, final = crystal.copy(), crystal.copy()
final.positions[neighbour] += jump  # moved to the site of the missing atom 0
del initial[0], final[0]
ends = []
for end in (initial, final):
    end.calc = TesseralCalculator(MODEL)
    ends.append(relaxed(end, fmax=FMAX, cell="fixed").atoms)

images = [ends[0], *(ends[0].copy() for _ in range(IMAGES - 2)), ends[1]]
for image in images[1:-1]:
    image.calc = TesseralCalculator(MODEL)
band = NEB(images, climb=True, method="improvedtangent")
band.interpolate("idpp")
converged = FIRE(band, trajectory="neb.traj").run(fmax=FMAX, steps=300)

barrier, difference = NEBTools(images).get_barrier()
print("converged" if converged else "not converged: raise steps")
print(f"barrier            {barrier:.3f} eV")
print(f"end above start    {difference:.4f} eV")
figure = NEBTools(images).plot_band()
figure.savefig("neb.png")
