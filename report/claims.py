"""The claims that a report checks, with their thresholds and the reasons for them."""

from __future__ import annotations

import math
from typing import NamedTuple


class Claim(NamedTuple):
    """A claim about a number.

    A value no worse than ``passes`` passes, a value no worse than ``warns`` gives a warning, and
    any other value fails. Smaller is better unless ``at_least`` is set.
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
        "Force errors on the test set are small compared with the forces",
        "% of their RMS",
        10,
        20,
        "mean absolute error; MD of solids and molecules is usually reliable below 10%",
    ),
    "energy-error": Claim(
        "accuracy",
        "Energy errors on the test set are small",
        "meV/atom",
        5,
        20,
        "mean absolute error; 5 meV is a fifth of the thermal energy at room temperature",
    ),
    "stress-error": Claim(
        "accuracy",
        "Stress errors on the test set are small compared with the stresses",
        "% of their RMS",
        10,
        25,
        "mean absolute error; volumes and elastic constants depend on it",
    ),
    "worst-type": Claim(
        "accuracy",
        "No config type has much larger errors than the others",
        "% of the RMS of its forces, or of all forces",
        15,
        30,
        "mean absolute force error of the worst config type; shows which data to add",
    ),
    "large-forces": Claim(
        "force-size",
        "Large forces are accurate too",
        "%",
        10,
        25,
        "median error of the 10% of atoms with the largest forces, as they occur in collisions",
    ),
    "extrapolation": Claim(
        "distance",
        "The test structures are similar to the training data",
        "% of the atoms beyond the limit",
        5,
        25,
        "1% is expected by construction; with many atoms beyond it, the test is an extrapolation",
    ),
    "duplicates": Claim(
        "distance",
        "The test structures are not copies of training structures",
        "% of the structures",
        5,
        25,
        "errors on structures used in training say nothing about new structures",
    ),
    "force-bound": Claim(
        "uncertainty",
        "Force errors are as large as the model expects",
        "% below the bound for 90%",
        85,
        70,
        "bound from the validation set; fewer are below it if the test set is unlike that one",
        at_least=True,
    ),
    "energy-bound": Claim(
        "uncertainty",
        "Energy errors are as large as the model expects",
        "% below the bound for 90%",
        85,
        70,
        "as for forces; checked with ten or more structures",
        at_least=True,
    ),
    "uncertain-structures": Claim(
        "uncertainty",
        "Structures with larger expected force errors have larger true ones",
        "(rank correlation)",
        0.5,
        0.2,
        "Spearman's coefficient of the means; small if all structures are equally difficult",
        at_least=True,
    ),
    "outside": Claim(
        "uncertainty",
        "The uncertainty tells structures of the other set from those of the test set",
        "(area under the ROC curve)",
        0.95,
        0.7,
        "probability that a structure of the other set has the larger expected force error",
        at_least=True,
    ),
    "crystal-kept": Claim(
        "crystals",
        "The crystal keeps its structure when it is relaxed",
        "% change of volume",
        10,
        20,
        "a crystal that falls apart or loses its symmetry is not stable in the model",
    ),
    "lattice": Claim(
        "eos",
        "The lattice constant agrees with the reference",
        "%",
        1,
        2,
        "1% in length is 3% in volume; DFT functionals differ by about this much",
    ),
    "bulk-modulus": Claim(
        "eos",
        "The bulk modulus agrees with the reference",
        "%",
        10,
        20,
        "a second derivative; DFT functionals and fits differ by 5 to 10%",
    ),
    "eos-minimum": Claim(
        "eos",
        "The energy has a minimum at the relaxed volume",
        "% off in volume",
        1,
        3,
        "stress is the derivative of the energy, so both must give the same equilibrium",
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
        "the lowest frequency, negative if imaginary; tiny values at Γ are rounding errors",
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
        "Removing an atom costs energy",
        "eV",
        0.3,
        0.0,
        "the smallest relaxed formation energy; if it is negative, vacancies form spontaneously",
        at_least=True,
    ),
    "molecule-kept": Claim(
        "molecule",
        "The molecule keeps its bonds when it is relaxed",
        "Å, largest change of a bond",
        0.1,
        0.2,
        "compared with the lowest-energy structure of the data",
    ),
    "modes": Claim(
        "molecule",
        "No vibration is unstable",
        "cm⁻¹",
        -20,
        -100,
        "the lowest frequency, negative if imaginary; soft rotors may give tiny negative values",
        at_least=True,
    ),
    "hole": Claim(
        "dimers",
        "Atoms repel each other at short distance, for every pair of elements",
        "eV, barrier in front of the hole",
        math.inf,
        5,
        "below 0.8 of the sum of the covalent radii atoms never attract each other; a hole behind "
        "a barrier of 5 eV is out of reach below several thousand K, a lower barrier is not safe",
        at_least=True,
    ),
    "wall": Claim(
        "dimers",
        "The repulsion is steep, for every pair of elements",
        "eV",
        5,
        0.3,
        "energy at 0.6 of the sum of the covalent radii, above the minimum; hot atoms can overcome "
        "0.3 eV",
        at_least=True,
    ),
    "drift": Claim(
        "dynamics",
        "The energy does not drift",
        "meV/atom/ns",
        10,
        50,
        "open if two standard errors reach over a limit; 10 meV/atom per nanosecond heats a solid "
        "by 40 K",
    ),
    "order": Claim(
        "dynamics",
        "The energy fluctuation falls with the square of the time step",
        "deviation from the exponent 2",
        0.4,
        0.8,
        "in the first 0.2 ps; expected of smooth forces that are exact derivatives of the energy",
    ),
    "hot": Claim(
        "hot",
        "A hot run keeps its atoms apart",
        "of the sum of covalent radii",
        0.6,
        0.5,
        "the smallest distance; atoms that come closer have fallen into a hole of the model",
        at_least=True,
    ),
    "energy-jump": Claim(
        "cutoff",
        "The energy does not jump when an atom crosses the cutoff",
        "eV",
        1e-6,
        1e-4,
        "change of energy in a step of 0.001 Å that the forces do not explain",
    ),
    "force-jump": Claim(
        "cutoff",
        "The forces do not jump when an atom crosses the cutoff",
        "eV/Å",
        1e-3,
        1e-2,
        "second difference of the force over steps of 0.001 Å",
    ),
    "rotation": Claim(
        "consistency",
        "Forces rotate with the structure",
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
        "consistency", "The position in space does not matter", "meV/Å", 1, 10, "largest change"
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
        "largest difference from finite differences in float64; otherwise MD heats or cools",
    ),
    "stress-derivative": Claim(
        "consistency",
        "Stress is the derivative of the energy",
        "GPa",
        0.01,
        0.1,
        "largest difference from finite differences in float64; otherwise volumes are wrong",
    ),
    "precision": Claim(
        "consistency",
        "The precision of the model is sufficient",
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
        "neighbour search and sums scale linearly; other programs on the machine add noise",
    ),
}
