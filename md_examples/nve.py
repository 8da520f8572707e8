"""Energy conservation in molecular dynamics at constant energy.

Draws nve.png and writes nve.traj, which `ase gui nve.traj` shows.
"""

import matplotlib.pyplot as plt
from ase.build import bulk
from ase.io import Trajectory

from tesseral import TesseralCalculator
from tesseral.calculators.properties.dynamics import drift_of, equilibrated, recorded
from tesseral.calculators.properties.ensembles import microcanonical

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
TEMPERATURE = 600  # K
TIME = 2.0  # ps
TIMESTEP = 1.0  # fs

atoms = bulk("SiC", "zincblende", a=4.39, cubic=True) * (2, 2, 2)
atoms.calc = TesseralCalculator(MODEL)
atoms = equilibrated(atoms, temperature=TEMPERATURE, time=0.2, timestep=TIMESTEP)

dynamics = microcanonical(atoms, TIMESTEP)  # velocity Verlet
with Trajectory("nve.traj", "w", atoms) as trajectory:
    dynamics.attach(trajectory, interval=10)
    record = recorded(atoms, dynamics, time=TIME, timestep=TIMESTEP, temperature=TEMPERATURE)

drift = drift_of(record)
print(f"mean temperature  {drift.temperature:.1f} K")
print(f"drift             {drift.drift:+.4f} meV/atom in {TIME} ps")
print(f"drift rate        {drift.rate:+.2f} ± {drift.rate_error:.2f} meV/atom/ns")
print(f"fluctuation       {drift.fluctuation:.4f} meV/atom about the drift")

figure, axes = plt.subplots()
axes.plot(record.time, 1000 * (record.kinetic - record.kinetic[0]), label="kinetic")
axes.plot(record.time, 1000 * (record.potential - record.potential[0]), label="potential")
axes.plot(record.time, 1000 * (record.total - record.total[0]), label="total")
axes.set(xlabel="time (ps)", ylabel="energy - start (meV/atom)")
axes.legend()
figure.savefig("nve.png")
