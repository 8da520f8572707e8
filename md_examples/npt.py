"""Thermal expansion from molecular dynamics at constant temperature and pressure.

Draws npt.png and writes npt.traj, which `ase gui npt.traj` shows. The cell keeps its shape.
"""

import matplotlib.pyplot as plt
from ase.build import bulk
from ase.io import Trajectory

from tesseral import TesseralCalculator
from tesseral.calculators.properties.dynamics import recorded
from tesseral.calculators.properties.ensembles import isobaric, start

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
TEMPERATURE = 600  # K
PRESSURE = 0.0  # GPa
TIME = 5.0  # ps
TIMESTEP = 1.0  # fs

atoms = bulk("SiC", "zincblende", a=4.39, cubic=True) * (2, 2, 2)
atoms.calc = TesseralCalculator(MODEL)
atoms, _ = start(atoms, TEMPERATURE, seed=0)  # random velocities

dynamics = isobaric(
    atoms, TIMESTEP, TEMPERATURE, pressure=PRESSURE, damping=100.0, pressure_damping=1000.0
)
with Trajectory("npt.traj", "w", atoms) as trajectory:
    dynamics.attach(trajectory, interval=10)
    record = recorded(atoms, dynamics, time=TIME, timestep=TIMESTEP, temperature=TEMPERATURE)

late = slice(len(record.time) // 2, None)  # the second half; the first is for equilibration
volume = record.volume[late].mean()
print(f"temperature  {record.temperature[late].mean():.1f} K")
print(f"pressure     {record.pressure[late].mean():.3f} GPa")
print(f"volume       {volume:.4f} Å³/atom")
print(f"lengths      {100 * ((volume / record.volume[0]) ** (1 / 3) - 1):+.3f}% from the start")

figure, (above, below) = plt.subplots(2, 1, sharex=True)
above.plot(record.time, record.temperature)
above.set(ylabel="temperature (K)")
below.plot(record.time, record.volume)
below.set(xlabel="time (ps)", ylabel="volume (Å³/atom)")
figure.savefig("npt.png")
