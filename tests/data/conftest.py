"""Small random datasets for the tests of tesseral.data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tesseral.data.store.read import write_store
from tesseral.data.structures import Structure, make_structure


def random_structure(rng: np.random.Generator, numbers: list[int], energy: float) -> Structure:
    n = len(numbers)
    stress = rng.normal(size=(3, 3))
    return make_structure(
        numbers,
        4 * rng.random((n, 3)),
        cell=4 * np.eye(3) + 0.2 * rng.normal(size=(3, 3)),
        energy=energy,
        forces=rng.normal(size=(n, 3)),
        stress=stress + stress.T,
    )


@pytest.fixture(scope="session")
def make_structures() -> Callable[..., list[Structure]]:
    """``make_structures(count, n_atoms=…)``: periodic cells of C and Si, always the same."""

    def make(count: int, n_atoms: int = 4, seed: int = 0) -> list[Structure]:
        rng = np.random.default_rng(seed)
        made = []
        for i in range(count):
            numbers = rng.permutation([6, 14] * n_atoms)[:n_atoms].tolist()
            structure = random_structure(rng, numbers, float(rng.normal()))
            made.append(structure._replace(config_type=f"type {i % 3}", group=f"group {i // 5}"))
        return made

    return make


@pytest.fixture(scope="session")
def small_store(tmp_path_factory, make_structures) -> Path:
    """A store of 40 structures of 4 atoms in 8 groups."""
    path = tmp_path_factory.mktemp("store") / "small.h5"
    write_store(path, make_structures(40), attributes={"theory": "none"})
    return path
