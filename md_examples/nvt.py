"""Molecular dynamics at constant temperature.

Draws nvt.png and writes nvt.traj, which `ase gui nvt.traj` shows.
"""

import matplotlib.pyplot as plt
from ase.build import bulk
from ase.io import Trajectory

from tesseral import TesseralCalculator
from tesseral.calculators.properties.dynamics import recorded
from tesseral.calculators.properties.ensembles import canonical, start

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
TEMPERATURE = 600  # K
TIME = 2.0  # ps
TIMESTEP = 1.0  # fs

atoms = bulk("SiC", "zincblende", a=4.39, cubic=True) * (2, 2, 2)
atoms.calc = TesseralCalculator(MODEL)
atoms, rng = start(atoms, TEMPERATURE, seed=0)  # random velocities

dynamics = canonical(atoms, TIMESTEP, TEMPERATURE, rng, thermostat="bussi", damping=100.0)
with Trajectory("nvt.traj", "w", atoms) as trajectory:
    dynamics.attach(trajectory, interval=10)
    record = recorded(atoms, dynamics, time=TIME, timestep=TIMESTEP, temperature=TEMPERATURE)

late = slice(len(record.time) // 2, None)  # the second half; the first is for equilibration
canonical_fluctuation = TEMPERATURE * (2 / (3 * len(atoms))) ** 0.5
print(f"temperature       {record.temperature[late].mean():.1f} K")
print(f"its fluctuation   {record.temperature[late].std():.1f} K")
print(f"canonical         {canonical_fluctuation:.1f} K")
print(f"potential energy  {record.potential[late].mean():.5f} eV/atom")

figure, (above, below) = plt.subplots(2, 1, sharex=True)
above.plot(record.time, record.temperature)
above.set(ylabel="temperature (K)")
below.plot(record.time, record.potential)
below.set(xlabel="time (ps)", ylabel="potential energy (eV/atom)")
figure.savefig("nvt.png")
