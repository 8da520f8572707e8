"""The configurations of the architectures: defaults, refusals, what other parts ask of them."""

from dataclasses import fields

import pytest

from tesseral.potentials.architectures.table import ARCHITECTURES, config_class, make_config
from tesseral.potentials.config import PotentialConfig

# layers, channels, l_max: those that `fit` has always trained.
SIZES = {
    "facet": (2, 16, 4),
    "dimenet": (3, 32, 3),
    "egnn": (3, 64, None),
    "frames": (2, 16, 2),
    "lieconv": (2, 8, 2),
    "mace": (2, 32, 2),
    "nequip": (3, 32, 2),
    "painn": (3, 64, None),
    "ponita": (2, 32, 2),
    "schnet": (3, 64, None),
    "se3transformer": (3, 32, 2),
    "segnn": (2, 16, 2),
}
EDGE_DEGREES = {
    "facet": 4,
    "dimenet": 3,
    "frames": 2,
    "lieconv": 2,
    "mace": 2,
    "nequip": 2,
    "ponita": 2,
    "se3transformer": 2,
    "segnn": 2,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_has_its_own_defaults(name):
    config = make_config(name)
    assert config == config_class(name)()
    assert config.architecture == name
    layers, channels, l_max = SIZES[name]
    assert (config.layers, config.channels) == (layers, channels)
    own = [item.name for item in fields(config)]
    assert ("l_max" in own) == (l_max is not None)
    if l_max is not None:
        assert config == make_config(name, l_max=l_max)
    assert config.edge_degree == EDGE_DEGREES.get(name, 1)


def test_fields_are_those_of_the_architecture_alone():
    common = {item.name for item in fields(PotentialConfig)}
    own = {name: {i.name for i in fields(a.config)} - common for name, a in ARCHITECTURES.items()}
    assert own["schnet"] == own["painn"] == set()
    assert own["egnn"] == {"move_atoms"}
    assert own["segnn"] == {"l_max", "l_max_edge"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"architecture": "neqip"},
            r"`architecture` 'neqip' is not known; use facet, dimenet, egnn",
        ),
        ({"architecture": "nequip", "chanels": 8}, "nequip has no chanels; did you mean channels?"),
        ({"architecture": "nequip", "chanels": 8}, "It has cutoff, .* channels_by_degree, kinks"),
        ({"architecture": "painn", "l_max": 2}, "painn has no l_max; it has cutoff, layers"),
        ({"architecture": "painn", "layers": 0}, "`layers` is 0; it must be 1 or more"),
        ({"architecture": "segnn", "l_max": -1}, "`l_max` is -1; it must be 0 or more"),
        ({"architecture": "ponita", "l_max": -1}, "`l_max` is -1; it must be 0 or more"),
        ({"architecture": "nequip", "l_max": -1}, "`l_max` is -1; it must be 0 or more"),
        (
            {"architecture": "lieconv", "orientations": 50},
            "`orientations` is 50; use one of 24, 120",
        ),
        (
            {"architecture": "nequip", "gates": "relu"},
            "`gates` are 'relu'; use one of sigmoid",
        ),
        ({"mixings": 0}, "`mixings` is 0; it must be 1 or more"),
        ({"spline_intervals": 3}, "`spline_intervals` is 3; it must be 4 or more"),
        ({"cutoff": 0.0}, "`cutoff` is 0.0 Å; it must be positive"),
    ],
)
def test_what_makes_no_model_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        make_config(**values)


def test_edges_may_have_a_degree_of_their_own():
    assert make_config("facet", l_max=3, l_max_edge=2).edge_degree == 2
    assert make_config("segnn", l_max=3, l_max_edge=2).edge_degree == 2


def test_what_the_machinery_asks():
    def answers(**values):
        config = make_config(**values)
        names = ("random_orientations", "linear_readout", "relaxed", "has_grid_error")
        return {name for name in names if getattr(config, name)}

    assert answers() == answers(architecture="schnet") == answers(architecture="nequip") == set()
    assert answers(relaxed=True) == {"relaxed"}
    assert answers(activation="silu") == {"has_grid_error"}
    assert answers(architecture="lieconv") == {"random_orientations", "has_grid_error"}
    assert answers(architecture="ponita") == {"random_orientations", "has_grid_error"}
    assert answers(architecture="nequip", linear_readout=True) == {"linear_readout"}
