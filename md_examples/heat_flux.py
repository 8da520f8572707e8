"""Thermal conductivity of a crystal from the fluctuations of the heat flux (Green and Kubo).

Draws heat_flux.png. The two runs differ in their velocities only; how far they are apart says how
long they should be. A result needs a larger cell than here, too.
"""

import matplotlib.pyplot as plt
from ase.build import bulk

from tesseral import TesseralCalculator
from tesseral.calculators.properties.conductivity import conductivity, recorded_flux
from tesseral.calculators.properties.dynamics import equilibrated
from tesseral.calculators.properties.ensembles import microcanonical

MODEL = "quickstart/model.safetensors"  # your model file, or "universal"
TEMPERATURE = 1000  # K
TIME = 10.0  # ps of each run
TIMESTEP = 1.0  # fs
EVERY = 5  # steps between heat fluxes
LONGEST = 2000  # fs, of the correlations

atoms = bulk("SiC", "zincblende", a=4.39, cubic=True) * (2, 2, 2)
atoms.calc = TesseralCalculator(MODEL)
figure, axes = plt.subplots()
for seed in (0, 1):
    hot = equilibrated(atoms, temperature=TEMPERATURE, time=1.0, timestep=TIMESTEP, seed=seed)
    dynamics = microcanonical(hot, TIMESTEP)
    record = recorded_flux(hot, dynamics, time=TIME, timestep=TIMESTEP, every=EVERY)
    kelvin = record.temperature.mean()
    result = conductivity(
        record.flux,
        interval=EVERY * TIMESTEP,
        volume=hot.get_volume(),
        temperature=kelvin,
        longest=LONGEST,
    )
    print(f"seed {seed}: {result.values[-1]:.2f} W/m/K at {kelvin:.0f} K")
    axes.plot(result.time, result.values, label=f"seed {seed}")
axes.set(xlabel="longest time of the correlations (fs)", ylabel="conductivity (W/m/K)")
axes.legend()
figure.savefig("heat_flux.png")
