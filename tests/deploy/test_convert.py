"""Comparison of a converted model with the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from tesseral.calculators.ase import TesseralCalculator
from tesseral.deploy.convert import compare
from tesseral.deploy.modelfile import ModelCard, build_potential, save_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.short_range import ShortRange

CARD = ModelCard(
    config=FacetConfig(cutoff=4.0, layers=1, channels=4, grid_channels=4, l_max=1),
    elements=(6, 14),
    reference_energies=(-1.0, -2.0),
    energy_scale=1.0,
    mean_neighbors=10.0,
    dtype="float64",
)


def crystal(moved: float) -> Atoms:
    """Silicon carbide in which one atom has moved towards another."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.positions[1] += moved * (atoms.positions[0] - atoms.positions[1])
    return atoms


def test_structures_with_close_pairs_are_counted_and_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    potential = build_potential(CARD)
    save_model(tmp_path / "original.safetensors", potential, CARD)
    crystals = [crystal(moved) for moved in (0.0, 0.1, 0.5)]
    for atoms in crystals:
        given = TesseralCalculator(tmp_path / "original.safetensors")
        given.calculate(atoms, ["energy", "forces", "stress"])
        atoms.calc = SinglePointCalculator(atoms, **given.results)
    card = replace(CARD, inner_radii=(1.0, 1.3, 1.5))
    potential.short_range = ShortRange(card.elements, card.inner_radii)
    found = compare(potential, card, crystals)
    assert (found.compared, found.too_close) == (2, 1)
    assert found.energy < 1e-9 and found.forces < 1e-9 and found.stress < 1e-9
    with pytest.raises(ValueError, match="all 1 structures to compare with have atoms that are"):
        compare(potential, card, crystals[2:])
