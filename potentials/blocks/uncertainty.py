"""Expected force errors, from the distance of an atom's features to those of the training set.

The energy is a linear function of the features of the readouts (`MessagePassing.with_features`).
Where they lie far from those of the training atoms of the same element, in units of how much these
differ among themselves, the energy and the forces are extrapolated. The distance is that to the
nearest landmark. Each stands for a cluster of training atoms of one element (k-means). The metric
is that of Mahalanobis, with one covariance for all elements (K. Lee et al., NeurIPS 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tesseral.potentials.blocks.exact import ExactBuffers

LARGEST_RANK = 256  # directions of the features that count, those of least variance
MOST_LANDMARKS = 1024  # of an element


class Calibration(NamedTuple):
    """Relation of distance and error, fitted to a validation set; see `Uncertainty`."""

    forces: float  # eV/Å, expected error of the force on an atom at the distance 1
    exponent: float  # of the distance
    reach: float  # distance up to which this was seen; beyond it the error grows in proportion
    energy: float  # Å, error of the energy by that of the forces; see `Uncertainty.energy`
    bound: float  # times the expected force error; 90% of the validation errors are smaller
    landmarks: int = 1  # of each element
    size: float = 0.0  # atoms of a structure of that set; errors of energies depend on the number


def calibration_of(values: Mapping[str, float]) -> Calibration:
    """Calibration from the numbers of a model card.

    Raises:
        ValueError: a number is missing or cannot be used.
    """
    numbers = {
        name: values.get(name, Calibration._field_defaults.get(name))
        for name in Calibration._fields
    }
    for name, value in numbers.items():
        if name == "size" and value == 0:  # of the first models with an uncertainty
            continue
        if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ValueError(
                f"{name} of the uncertainty is {value!r}; it must be a positive number"
            )
    landmarks = numbers["landmarks"]
    if type(landmarks) is not int or landmarks > MOST_LANDMARKS:
        raise ValueError(
            f"landmarks of the uncertainty is {landmarks!r}; it must be an integer from 1 to "
            f"{MOST_LANDMARKS}"
        )
    return Calibration(**numbers)  # type: ignore[arg-type]


class Uncertainty(ExactBuffers):
    """Expected length of the error of the force on each atom, eV/Å.

    With the distance ``d = |x @ factor - nearest center of the element|``, which is 1 on average
    (RMS) for atoms of the training set, it is ``forces · d ** exponent`` up to ``reach`` and
    proportional to ``d`` beyond. The compiled form is ``Distances`` in ``engine/csrc/potential.h``.
    """

    def __init__(self, n_species: int, n_features: int, calibration: Calibration) -> None:
        """Make the arrays, to be filled.

        Args:
            n_species: number of elements.
            n_features: D, the number of features of an atom.
            calibration: constants of the relation.
        """
        super().__init__()
        rank = min(n_features, LARGEST_RANK)
        self.calibration, self.landmarks = calibration, calibration.landmarks
        self.register_buffer("factor", torch.zeros(n_features, rank))
        self.register_buffer("center", torch.zeros(n_species * calibration.landmarks, rank))
        self.factor: Tensor  # (D, K)
        self.center: Tensor  # (S · landmarks, K), element by element

    def distances(self, features: Tensor, species: Tensor) -> Tensor:
        """Distances (N,) float64 of features (N, D) to the training set."""
        places, centers = features.double() @ self.factor.double(), self.center.double()
        exact = "donot_use_mm_for_euclid_dist"  # no differences of large numbers
        all_distances = torch.cdist(places, centers, compute_mode=exact)
        kinds = torch.arange(len(centers), device=species.device) // self.landmarks
        others = kinds != species.unsqueeze(1)
        return all_distances.masked_fill_(others, math.inf).amin(dim=1)

    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        """Expected lengths of the force errors, (N,) eV/Å float64."""
        distance = self.distances(features, species)
        forces, exponent, reach = self.calibration[:3]
        within = distance.clamp(max=reach) ** exponent
        return forces * within * (distance / reach).clamp(min=1.0)

    def energy(self, forces: Tensor, structure: Tensor, n_structures: int) -> Tensor:
        """Expected errors of the energies of structures from those of the forces.

        The error of an atomic energy is that of a force along a path from known surroundings, whose
        length is taken as proportional to the distance. Atoms nearer than 1 count as at 1: by
        symmetry, forces may vanish where energies are wrong. Half of the variance at the size of
        the validation structures is taken as common to all atoms of a structure, and half as
        independent for each atom.

        Args:
            forces: (N,) eV/Å, expected force errors.
            structure: (N,) index of the structure of each atom.
            n_structures: G.

        Returns:
            (G,) eV.
        """
        scale, exponent, reach = self.calibration[:3]
        forces = forces.clamp(min=scale)
        within = (forces / scale) ** (1 / exponent)
        beyond = forces / (scale * reach ** (exponent - 1))
        each = self.calibration.energy * forces * torch.where(within < reach, within, beyond)
        sums = each.new_zeros(n_structures).index_add(0, structure, each)
        size = self.calibration.size
        if not size:
            return sums
        atoms = torch.bincount(structure, minlength=n_structures).clamp(min=1)
        return sums * ((1 + size / atoms) / 2).sqrt()
