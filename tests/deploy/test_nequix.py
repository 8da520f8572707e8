"""Nequix weights as models of ours.

The numbers of the original in ``ORIGINAL`` were computed once by nequix 0.4.5 in float64.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.units import GPa

from tesseral.calculators.ase import TesseralCalculator
from tesseral.commands.main import main
from tesseral.deploy import convert as converters
from tesseral.deploy.convert import compare
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.deploy.nequix import original
from tesseral.deploy.nequix.convert import bessel_basis, convert, polynomial_cutoff
from tesseral.deploy.nequix.original import originals, stored_predictions
from tesseral.deploy.nequix.weights import couplings, read_weights
from tesseral.potentials.engine.packing import can_pack
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops

SETTINGS = {
    "cutoff": 4.0,
    "atomic_numbers": [6, 1, 8],
    "scale": 0.7,
    "shift": -1.25,
    "avg_n_neighbors": 20.0,
    "hidden_irreps": "8x0e + 4x1o + 2x2e",
    "lmax": 2,
    "n_layers": 3,
    "radial_basis_size": 4,
    "radial_mlp_size": 6,
    "radial_mlp_layers": 2,
    "radial_polynomial_p": 6.0,
    "mlp_init_scale": 4.0,
    "index_weights": False,
    "layer_norm": True,
}


def write_nqx(path: Path, after: bytes = b"", **changes: object) -> Path:
    """A file of random weights, as Nequix writes them."""
    settings = {**SETTINGS, **changes}
    random = np.random.RandomState(3)  # its numbers are the same in every version of NumPy
    shapes: list[tuple[int, ...]] = [(3,)]
    for number, functions in enumerate((9, 48, 14)):
        first, last = number == 0, number == 2
        inner = [3] if first else [8, 4, 2]
        shapes += [(4, 6), (6, 6), (6, functions)]
        shapes += [(size, size) for size in inner]
        message = [3, 3, 3] if first else [14, 18, 16][: 1 if last else 3]
        field = [8] if last else [14, 4, 2]
        shapes += list(zip(message, field, strict=True))
        own = (3,) if settings["index_weights"] else ()
        shapes += [(*own, *pair) for pair in zip(inner, field, strict=False)]
        shapes += [(size,) for size in field] if settings["layer_norm"] else []
    shapes.append((8, 1))
    with path.open("wb") as file:
        file.write(json.dumps(settings).encode() + b"\n")
        for shape in shapes:
            np.lib.format.write_array(file, random.normal(size=shape).astype(np.float32))
        file.write(after)
    return path


def methanol() -> Atoms:
    """Six atoms in a skew periodic cell, some of them neighbours of their own images."""
    places = [(0.0, 0.1, 0.2), (1.4, 0.0, 0.1), (-0.4, 1.0, 0.3)]
    places += [(-0.3, -0.6, 0.9), (-0.4, -0.5, -0.8), (1.7, 0.8, -0.3)]
    cell = [[3.9, 0.0, 0.0], [0.3, 4.4, 0.0], [-0.2, 0.4, 4.1]]
    return Atoms([6, 8, 1, 1, 1, 1], places, cell=cell, pbc=True)


VARIANTS = {"norm": {}, "by element": {"index_weights": True, "layer_norm": False}}
ORIGINAL: dict[str, tuple[float, list[list[float]], list[float]]] = {}  # eV, eV/Å, eV/Å³


@pytest.mark.parametrize("name", list(VARIANTS))
def test_it_computes_what_nequix_does(tmp_path: Path, name: str) -> None:
    potential, card = convert(write_nqx(tmp_path / "small.nqx", **VARIANTS[name]), intervals=400)
    atoms = methanol()
    atoms.calc = TesseralCalculator.from_model(potential.double(), card)
    energy, forces, stress = ORIGINAL[name]
    scale = float(np.abs(forces).max())
    apart = np.abs(atoms.get_forces() - forces).max()
    print(f"{atoms.get_potential_energy() - energy:.1e} eV, {apart:.1e} of {scale:.2f} eV/Å")
    assert scale > 0.1
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-5 * max(1, scale))
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-6 * max(1, scale))
