"""Pairs of elements that are closer than in the training set, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ase import Atoms

from tesseral.deploy.card import CLOSEST, ModelCard, describe
from tesseral.deploy.closest import KnownPairs, known_pairs
from tesseral.potentials.architectures.facet import FacetConfig

CARD = ModelCard(
    config=FacetConfig(),
    elements=(3, 8),
    reference_energies=(0.0, 0.0),
    energy_scale=1.0,
    mean_neighbors=10.0,
)
PAIRS = KnownPairs((3, 8), 5.0, (0.0, 1.7, 2.0))  # Li–Li was never seen


def pair(symbols: str, distance: float, box: float = 0.0) -> Atoms:
    return Atoms(symbols, [[0, 0, 0], [0, 0, distance]], cell=[box] * 3, pbc=box > 0)


def test_a_pair_that_is_closer_is_named_with_both_distances():
    found = PAIRS.closer_in(pair("LiO", 1.2), 3)
    words = PAIRS.words(found, "in frame")
    assert words == "no Li–O pair closer than 1.70 Å in the training set; found 1.20 Å in frame 3"


def test_a_pair_that_was_never_seen_is_named_at_any_distance():
    words = PAIRS.words(PAIRS.closer_in(pair("Li2", 4.0)))
    assert words == "no Li–Li pair within the cutoff of 5 Å in the training set; found 4.00 Å"


@pytest.mark.parametrize("symbols, distance", [("LiO", 1.65), ("O2", 1.95), ("Li2", 5.1)])
def test_known_pairs_and_slightly_closer_ones_are_not_named(symbols, distance):
    assert PAIRS.words(PAIRS.closer_in(pair(symbols, distance))) == ""


def test_images_are_pairs_too():
    assert "found 1.30 Å" in PAIRS.words(PAIRS.closer_in(pair("O2", 2.0, box=3.3)))


def test_the_smallest_distance_of_several_structures_is_said():
    found = [one for n in (3, 1, 2) for one in PAIRS.closer_in(pair("OLi", 1.0 + 0.1 * n), n)]
    assert "found 1.10 Å at step 1" in PAIRS.words(found, "at step")


def test_a_model_without_distances_says_nothing():
    assert known_pairs({}, (3, 8), 5.0) is None


def known(values: object) -> dict[str, object]:
    numbers = dict.fromkeys(("forces", "exponent", "reach", "energy", "bound"), 1.0)
    return {**numbers, CLOSEST: values}


def test_the_description_of_a_model_has_the_distances():
    text = dict(describe(replace(CARD, uncertainty=known([0.0, 1.7, 2.0]))))
    found = text["uncertainty: closest pairs"].replace("\N{NO-BREAK SPACE}", " ")
    assert found == "Li–O 1.70, O–O 2.00 Å; never within the cutoff: Li–Li"


@pytest.mark.parametrize("values", [[1.0], "abc", [None, 1.0, 1.0], [True, 1.0, 1.0]])
def test_distances_that_cannot_be_used_are_named(values):
    with pytest.raises(ValueError, match="closest of the uncertainty"):
        replace(CARD, uncertainty=known(values))
