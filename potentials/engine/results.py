"""Results of the compiled engines."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class AtomicResults(NamedTuple):
    """Results of the compiled function."""

    energies: Tensor  # (N,)       eV
    forces: Tensor  # (N, 3)     eV/Å
    virials: Tensor  # (N, 3, 3)  eV, from the edges received by each atom
    uncertainties: Tensor | None = None  # (N,) eV/Å, if the potential has them
