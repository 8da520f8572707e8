"""Datasets with planted faults for the tests of tesseral.data.doctor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tesseral.data.doctor.checkup import check_values
from tesseral.data.doctor.findings import Finding
from tesseral.data.doctor.ridge import Design, composition_energies, make_design, read_labels
from tesseral.data.doctor.sample import Sample, read_sample
from tesseral.data.doctor.units import check_units
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import Structure

EXAMPLE = Path(__file__).resolve().parents[3] / "data" / "examples" / "sic_pbe.h5"


@pytest.fixture(scope="session")
def sic() -> list[Structure]:
    """160 structures of the shipped Si–C set."""
    store = open_store(EXAMPLE)
    return [store[row] for row in range(160)]


@pytest.fixture(scope="session")
def sic_subject(sic: list[Structure], tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = tmp_path_factory.mktemp("sic") / "sic.h5"
    write_store(path, sic)
    return read_sample(open_store(path), 10**9)


@pytest.fixture(scope="session")
def sic_design(sic_subject: Sample) -> Design:
    return make_design(sic_subject)


@pytest.fixture(scope="session")
def examine(
    sic_subject: Sample, sic_design: Design
) -> Callable[..., tuple[dict[str, Finding], dict[str, str]]]:
    """``examine(structures)``: what is wrong with labels of the Si–C structures, by check.

    A second argument gives stresses (S, 3, 3) of a better model.
    """

    def check(
        structures: Sequence[Structure], better: NDArray[np.float64] | None = None
    ) -> tuple[dict[str, Finding], dict[str, str]]:
        energies = np.array([s.energy for s in structures]) / sic_subject.n_atoms
        sample = sic_subject._replace(structures=list(structures), energies=energies)
        references = composition_energies(sample)
        labels = read_labels(sample, references)
        units = check_units(sample, sic_design, labels, references)
        findings, outliers = check_values(sample, sic_design, units, better)
        every = (*units.findings, *findings, *outliers.findings)
        found = [f for f in every if f.check != "large forces"]
        return {finding.check: finding for finding in found}, units.measured

    return check


@pytest.fixture(scope="session")
def turned() -> Callable[..., Structure]:
    """``turned(structure, seed)``: rotated or reflected, moved, its atoms in another order."""

    def turn(structure: Structure, seed: int = 0) -> Structure:
        rng = np.random.default_rng(seed)
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        order = rng.permutation(len(structure.numbers))
        return structure._replace(
            numbers=structure.numbers[order],
            positions=(structure.positions @ rotation + 1.3)[order],
            cell=structure.cell @ rotation,
            forces=(structure.forces @ rotation)[order],
            stress=rotation.T @ structure.stress @ rotation,
        )

    return turn
