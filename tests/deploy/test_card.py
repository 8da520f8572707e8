"""The card: strict JSON there and back, and clear refusals."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from tesseral.deploy.card import FORMAT_VERSION, ModelCard, card_from_json, card_to_json, describe
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.architectures.ponita import PONITAConfig
from tesseral.potentials.architectures.schnet import SchNetConfig
from tesseral.potentials.config import PotentialConfig

CARD = ModelCard(
    config=FacetConfig(layers=1, channels=4),
    elements=(6, 14),
    reference_energies=(-1.25, 0.1 + 0.2),
    binding_energies=(-3.5, 0.25),
    energy_scale=2.0,
    mean_neighbors=17.3,
    training={"files": ["a.h5"], "hash": "abc", "structures": 3},
    errors={"forces": {"mae": 21.5}},
)


def test_card_survives_json() -> None:
    assert card_from_json(card_to_json(CARD)) == CARD


def test_lists_in_the_configuration_survive_json() -> None:
    config = NequIPConfig(channels=8, l_max=2, channels_by_degree=[8, 4, 2])
    card = replace(CARD, config=config)
    assert card_from_json(card_to_json(card)) == card
    assert "channels_by_degree [8, 4, 2]" in dict(describe(card))["size"]


# As tesseral wrote configurations before each architecture had its own: all options in one.
FLAT = {
    **{"architecture": "facet", "cutoff": 5.0, "layers": 2, "channels": 16, "l_max": 4},
    **{"mixings": 1, "l_max_edge": None, "l_max_message": 2, "grid_channels": 32},
    **{"grid_points": None, "spline_intervals": 8, "orientations": 26},
    **{"random_orientations": False, "activation": "product", "order": 2, "relaxed": False},
    **{"channels_by_degree": None, "kinks": None, "gates": "sigmoid", "odd_paths": False},
    **{"element_self_connection": True, "biases": False, "linear_readout": False},
    **{"move_atoms": True, "zbl": False},
}


@pytest.mark.parametrize(
    ("given", "config"),
    [
        ({}, FacetConfig()),
        ({"l_max": 3, "mixings": 2, "zbl": True}, FacetConfig(l_max=3, mixings=2, zbl=True)),
        (
            {"architecture": "schnet", "cutoff": 4.0},
            SchNetConfig(cutoff=4.0, layers=2, channels=16),
        ),
        (
            {"architecture": "nequip", "channels_by_degree": [16, 8], "l_max": 1},
            NequIPConfig(layers=2, channels=16, l_max=1, channels_by_degree=[16, 8]),
        ),
        (
            {"architecture": "ponita", "layers": 3},  # its random orientations were off
            PONITAConfig(layers=3, channels=16, l_max=4, random_orientations=False),
        ),
    ],
)
def test_earlier_cards_hold_the_options_of_all_architectures(
    given: dict[str, object], config: PotentialConfig
) -> None:
    assert len(FLAT) == 25
    assert card_from_json(changed(config={**FLAT, **given})).config == config


def test_the_first_cards_had_no_limit_of_messages_and_no_architecture() -> None:
    first = {"cutoff": 4.0, "layers": 2, "channels": 8, "l_max": 3}
    config = FacetConfig(cutoff=4.0, channels=8, l_max=3, l_max_message=3)
    assert card_from_json(changed(config=first)).config == config


def test_an_option_of_another_architecture_that_was_used_is_refused() -> None:
    with pytest.raises(ValueError, match="the config has the unknown key 'l_max'"):
        card_from_json(changed(config={**FLAT, "architecture": "schnet", "l_max": 3}))


def test_a_card_holds_the_options_of_its_architecture_alone() -> None:
    card = replace(CARD, config=SchNetConfig(channels=8))
    assert json.loads(card_to_json(card))["config"] == {
        **{"architecture": "schnet", "cutoff": 5.0, "layers": 3, "channels": 8},
        **{"spline_intervals": 8, "zbl": False},
    }
    assert card_from_json(card_to_json(card)) == card


def test_card_json_is_strict_and_holds_units() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    card = replace(CARD, errors={"stress": {"mae": float("nan"), "rmse": float("inf")}})
    content = json.loads(card_to_json(card), parse_constant=refuse)
    assert content["errors"] == {"stress": {"mae": None, "rmse": None}}
    assert content["units"]["stress"] == "eV/Å³"


def test_numpy_numbers_become_plain() -> None:
    card = replace(CARD, training={"atoms": np.int64(7), "rms": np.float32(0.5), "pair": (1, 2)})
    assert card_from_json(card_to_json(card)).training == {"atoms": 7, "rms": 0.5, "pair": [1, 2]}


def test_what_json_cannot_hold_is_named() -> None:
    with pytest.raises(ValueError, match=r"card\.training\.model is a object"):
        card_to_json(replace(CARD, training={"model": object()}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elements": ()}, "atomic numbers"),
        ({"elements": (14, 6)}, "ascending"),
        ({"elements": (6, 119)}, "atomic numbers"),
        ({"reference_energies": (1.0,)}, "1 reference energies were given for 2 elements"),
        ({"reference_energies": (1.0, float("nan"))}, "not finite"),
        ({"binding_energies": (1.0,)}, "a finite one for each of 2 elements"),
        ({"binding_energies": (1.0, float("inf"))}, "a finite one for each of 2 elements"),
        ({"inner_radii": (1.0, 1.5)}, "each of 3 pairs of elements"),
        ({"inner_radii": (1.0, 1.5, 5.0)}, "below the cutoff"),
        ({"inner_radii": (1.0, 1.5, float("nan"))}, "below the cutoff"),
        ({"energy_scale": 0.0}, "positive number"),
        ({"mean_neighbors": -1.0}, "positive number"),
        ({"dtype": "float16"}, "float32, float64"),
    ],
)
def test_impossible_values_are_refused(change: dict[str, object], message: str) -> None:
    content = {item: getattr(CARD, item) for item in asdict(CARD)}
    with pytest.raises(ValueError, match=message):
        ModelCard(**{**content, **change})  # type: ignore[arg-type]


def changed(**change: object) -> str:
    """The card's JSON with changed values."""
    return json.dumps({**json.loads(card_to_json(CARD)), **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not JSON"),
        ("[]", "no format_version"),
        ("{}", "no format_version"),
        (changed(format_version=FORMAT_VERSION + 1), "update tesseral"),
        (changed(config={"chanels": 8}), "unknown key 'chanels'; the nearest known key is 'chann"),
        (changed(config={"channels": "8"}), "`channels` is '8'; it must be of type int"),
        (changed(parameters="8"), "parameters is '8', which has the wrong type"),
        (changed(elements=[6, 14.5]), "elements is .*, which has the wrong type"),
        (changed(config={"channels": 0}), "must be 1 or more"),
        (changed(config=5), "not a mapping"),
        (changed(surprise=1), "unknown key 'surprise'"),
        (changed(elements=None), "wrong kind"),
        (changed(energy_scale=float("nan")), "strict JSON"),
        ('{"format_version": 1}', "wrong kind"),
    ],
)
def test_wrong_cards_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        card_from_json(text)


def test_inner_radii_are_kept_and_described() -> None:
    card = replace(CARD, inner_radii=(0.91, 1.1, 1.335))
    assert card_from_json(card_to_json(card)) == card
    assert dict(describe(card))["short range"] == "nuclear repulsion below 0.91 to 1.33 Å"
    assert "short range" not in dict(describe(CARD))


def test_description_tells_what_users_ask() -> None:
    rows = dict(describe(CARD))
    assert rows["elements"] == "C Si"
    assert rows["cutoff"] == "5 Å, range 5 Å"
    assert "channels 4" in rows["size"]
    assert rows["training: hash"] == "abc"
    assert rows["errors: forces.mae"] == "21.5"
    assert "torch" in rows["versions"]
