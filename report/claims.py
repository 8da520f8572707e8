"""Every claim that a report checks, with its thresholds and their reasons: the one place."""

from __future__ import annotations

import math
from typing import NamedTuple


class Claim(NamedTuple):
    """A claim about a number.

    A value that is not worse than ``passes`` passes, one that is not worse than ``warns`` warns,
    any other fails. Smaller is better unless ``at_least``.
    """

    section: str
    text: str
    unit: str
    passes: float
    warns: float
    reason: str
    at_least: bool = False


CLAIMS: dict[str, Claim] = {
    "force-error": Claim(
        "accuracy",
        "Forces on the test set are right to a small part of their size",
        "% of their RMS",
        10,
        20,
        "mean absolute error; MD of solids and molecules is usually sound below a tenth",
    ),
    "energy-error": Claim(
        "accuracy",
        "Energies on the test set are right",
        "meV/atom",
        5,
        20,
        "mean absolute error; 5 meV is a fifth of the thermal energy at room temperature",
    ),
    "stress-error": Claim(
        "accuracy",
        "Stresses on the test set are right to a small part of their size",
        "% of their RMS",
        10,
        25,
        "mean absolute error; decides whether volumes and elastic constants can be trusted",
    ),
    "worst-type": Claim(
        "accuracy",
        "No kind of structure stands out",
        "% of the RMS of its forces, or of all",
        15,
        30,
        "mean absolute force error of the worst config type; tells which data to add",
    ),
    "large-forces": Claim(
        "force-size",
        "Large forces are right too",
        "%",
        10,
        25,
        "median error of the tenth of the atoms with the largest forces, which decide collisions",
    ),
    "extrapolation": Claim(
        "distance",
        "The test structures lie where there are training data",
        "% of the atoms beyond",
        5,
        25,
        "1% is expected by construction; far outside, the test measures luck",
    ),
    "duplicates": Claim(
        "distance",
        "The test structures are not copies of training structures",
        "% of the structures",
        5,
        25,
        "the error on structures that were trained on says nothing about new ones",
    ),
    "crystal-kept": Claim(
        "crystals",
        "Relaxation keeps the crystal as it is",
        "% change of volume",
        10,
        20,
        "a crystal of the data that falls apart or loses its symmetry is not one of the model",
    ),
    "lattice": Claim(
        "eos",
        "The lattice constant agrees with the reference",
        "%",
        1,
        2,
        "1% of the length is 3% of the volume; DFT functionals differ by about that much",
    ),
    "bulk-modulus": Claim(
        "eos",
        "The bulk modulus agrees with the reference",
        "%",
        10,
        20,
        "a second derivative; functionals and fits of DFT differ by 5 to 10%",
    ),
    "eos-minimum": Claim(
        "eos",
        "The energy has a minimum at the relaxed volume",
        "% off in volume",
        1,
        3,
        "energy and stress come from one function and must agree on the equilibrium",
    ),
    "born": Claim(
        "elastic",
        "The crystal resists every strain (Born stability)",
        "GPa",
        1,
        0,
        "the smallest eigenvalue of the elastic matrix must be positive",
        at_least=True,
    ),
    "elastic-reference": Claim(
        "elastic",
        "C11, C12 and C44 agree with the reference",
        "% of C11",
        5,
        10,
        "the largest of the three deviations",
    ),
    "imaginary": Claim(
        "phonons",
        "No phonon is unstable",
        "THz",
        -0.2,
        -1.0,
        "the lowest frequency, negative where imaginary; tiny ones at Γ are rounding",
        at_least=True,
    ),
    "phonon-reference": Claim(
        "phonons",
        "Phonon frequencies agree with the reference",
        "% of the highest",
        3,
        6,
        "mean deviation; DFT functionals differ by 2 to 4%",
    ),
    "vacancy": Claim(
        "vacancy",
        "Taking an atom out costs energy",
        "eV",
        0.3,
        0.0,
        "the smallest relaxed formation energy; a negative one lets the crystal evaporate",
        at_least=True,
    ),
    "molecule-kept": Claim(
        "molecule",
        "Relaxation keeps the bonds of the molecule",
        "Å, largest change of a bond",
        0.1,
        0.2,
        "against the lowest-energy structure of the data",
    ),
    "modes": Claim(
        "molecule",
        "No vibration is unstable",
        "cm⁻¹",
        -20,
        -100,
        "the lowest frequency, negative where imaginary; soft rotors may have tiny ones",
        at_least=True,
    ),
    "hole": Claim(
        "dimers",
        "Atoms repel each other at short distance, for every pair of elements",
        "eV, barrier in front of the hole",
        math.inf,
        5,
        "below 0.8 of the sum of the covalent radii nothing attracts; a hole behind a barrier of "
        "5 eV is out of reach below several thousand K, any lower one will swallow atoms",
        at_least=True,
    ),
    "wall": Claim(
        "dimers",
        "The repulsion is a wall, for every pair of elements",
        "eV",
        5,
        0.3,
        "at 0.6 of the sum of the covalent radii, above the lowest; 0.3 eV is little for hot atoms",
        at_least=True,
    ),
    "drift": Claim(
        "dynamics",
        "Energy does not drift",
        "meV/atom/ns",
        10,
        50,
        "beyond two standard errors; 10 meV/atom in a nanosecond heat a solid by 40 K",
    ),
    "order": Claim(
        "dynamics",
        "The energy's fluctuation falls with the square of the time step",
        "off the exponent 2",
        0.4,
        0.8,
        "in the first 0.2 ps; so it does where forces are smooth and exact derivatives",
    ),
    "hot": Claim(
        "hot",
        "A hot run keeps its atoms apart",
        "of the covalent distance",
        0.6,
        0.5,
        "the smallest distance; atoms that come closer fall into a hole of the model",
        at_least=True,
    ),
    "energy-jump": Claim(
        "cutoff",
        "The energy does not jump where an atom crosses the cutoff",
        "eV",
        1e-6,
        1e-4,
        "the change of energy in a step of 0.001 Å that the forces do not explain",
    ),
    "force-jump": Claim(
        "cutoff",
        "Forces do not jump there either",
        "eV/Å",
        1e-3,
        1e-2,
        "second difference of the force over steps of 0.001 Å",
    ),
    "rotation": Claim(
        "consistency",
        "Forces turn with the structure",
        "meV/Å",
        1,
        10,
        "RMS change over random rotations; far below the error of any potential",
    ),
    "reflection": Claim(
        "consistency",
        "Mirror images have mirrored forces",
        "meV/Å",
        1,
        10,
        "RMS change over random rotations with inversion",
    ),
    "permutation": Claim(
        "consistency", "The order of the atoms does not matter", "meV/Å", 1, 10, "largest change"
    ),
    "translation": Claim(
        "consistency", "The place in space does not matter", "meV/Å", 1, 10, "largest change"
    ),
    "extensivity": Claim(
        "consistency",
        "Twice the structure has twice the energy",
        "meV/atom",
        0.01,
        0.1,
        "largest deviation; sums over atoms are exact to rounding",
    ),
    "force-derivative": Claim(
        "consistency",
        "Forces are the derivatives of the energy",
        "meV/Å",
        1,
        10,
        "largest difference from finite differences in float64; else MD heats or cools",
    ),
    "stress-derivative": Claim(
        "consistency",
        "Stress is the derivative of the energy",
        "GPa",
        0.01,
        0.1,
        "largest difference from finite differences in float64; else volumes are wrong",
    ),
    "precision": Claim(
        "consistency",
        "The model's precision suffices",
        "meV/Å",
        1,
        10,
        "largest difference of the forces between the precision used and float64",
    ),
    "scaling": Claim(
        "speed",
        "Time grows in proportion to the number of atoms",
        "times the best µs/atom at the largest size",
        2,
        4,
        "neighbour search and sums are linear; a shared machine adds noise",
    ),
}
