"""Check of the periodic directions."""

from __future__ import annotations

import numpy as np

from tesseral.data.boundaries import is_cut_out
from tesseral.data.doctor.findings import Finding, count, make_finding
from tesseral.data.doctor.sample import Sample


def check_boundaries(sample: Sample) -> list[Finding]:
    """Find dense matter without periodic directions in a cell that it fills."""
    lost = np.array([is_cut_out(*structure[:4]) for structure in sample.structures])
    if not lost.any():
        return []
    return [
        make_finding(
            "warning",
            "periodic directions",
            sample.rows[lost],
            f"{count(int(lost.sum()))} in a cell filled like a crystal, but without periodic "
            "directions",
            "their outer atoms have lost their neighbours: if the calculations were periodic, set "
            'pbc="T T T" in the files and import again',
        )
    ]
