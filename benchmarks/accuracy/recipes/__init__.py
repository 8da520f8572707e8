"""Recipes for training and testing, one YAML file for each set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
UNITS = {
    "energy": "meV/atom",
    "molecule_energy": "meV/molecule",
    "forces": "meV/Å",
    "stress": "GPa",
}
ERRORS = tuple(f"{quantity}_{kind}" for quantity in UNITS for kind in ("mae", "rmse"))
OURS = "tesseral"
PEERS = ("MACE", "NequIP", "SevenNet")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A path of structures whose energies are plotted.

    Args:
        file: file in the data folder.
        coordinate: key in the file with the position of a structure on the path. Default: the
            index in the file.
        label: label of the coordinate in the plot.
    """

    file: str
    coordinate: str | None = None
    label: str = "image"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published errors of another method on the same test sets.

    Args:
        method: name of the method.
        source: source of the values.
        errors: errors by test set, then by name of the error (see ``ERRORS``).
    """

    method: str
    source: str
    errors: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training data, training time and test data.

    Args:
        name: name in tables and on the command line.
        train: file in the data folder from which training and validation structures are taken.
        validation: number of validation structures, chosen at random.
        structures: number of training structures, chosen at random. Default: all others.
        groups: instead of ``validation``: beginnings of the key ``group`` of the structures to
            take from a file, under train, validation and the names of test sets.
        tests: files in the data folder by name of the test set; read once, at the end.
        minutes: training time.
        seed: random seed for the choice of the validation structures.
        isolated: file with isolated atoms for the reference energies; without it, each program
            determines them in its own way.
        stress: whether stress is trained and tested too.
        profiles: energies along paths, by name.
        config: config file of the package from which our training starts. Default: its defaults.
        fit: options of train-potential, nested as in its ``--config``.
        peers: options of the peers that replace those of ``programs``, by name of the peer.
        published: published values to show next to ours.
    """

    name: str
    train: str
    validation: int = 0
    tests: Mapping[str, str]
    minutes: float
    structures: int | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0
    isolated: str | None = None
    stress: bool = False
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    config: str | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)
    peers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        """Check numbers and names."""
        if self.groups:
            refuse_unknown("set of `groups`", self.groups, ("train", "validation", *self.tests))
            if not {"train", "validation"} <= {*self.groups}:
                raise ValueError("groups has no train or no validation; add it")
            if self.validation or self.structures:
                raise ValueError("the recipe has groups and numbers of structures; remove one")
        elif self.validation < 1:
            raise ValueError(f"validation is {self.validation}; it must be 1 or more")
        if not self.minutes > 0:
            raise ValueError(f"minutes is {self.minutes}; it must be positive")
        refuse_unknown("peer", self.peers, PEERS)
        for entry in self.published:
            refuse_unknown(f"test set of {entry.method}", entry.errors, tuple(self.tests))
            for errors in entry.errors.values():
                refuse_unknown(f"error of {entry.method}", errors, ERRORS)

    @property
    def files(self) -> tuple[str, ...]:
        """All files needed by the recipe."""
        isolated = (self.isolated,) if self.isolated else ()
        paths = tuple(profile.file for profile in self.profiles.values())
        return (self.train, *isolated, *self.tests.values(), *paths)


def refuse_unknown(what: str, names: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Check that a name is known.

    Raises:
        ValueError: the name is unknown; the message has the nearest known one.
    """
    lower = {one.lower(): one for one in known}
    for name in names:
        if name not in known:
            near = get_close_matches(str(name).lower(), list(lower), n=1)
            hint = f"did you mean {lower[near[0]]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"there is no {what} {name!r}; {hint}")


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from the contents of its file.

    Raises:
        ValueError: an entry is unknown, missing or invalid.
    """
    given = dict(checked(Recipe, "entry", values))
    given["profiles"] = {
        name: Profile(**checked(Profile, "entry of a profile", profile))
        for name, profile in given.get("profiles", {}).items()
    }
    published = []
    for entry in given.get("published", ()):
        for name in ("method", "source"):
            if name not in entry:
                raise ValueError(f"{name!r} is missing in {entry}; add it")
        rest = {str(key): value for key, value in entry.items() if key not in ("method", "source")}
        published.append(Published(method=entry["method"], source=entry["source"], errors=rest))
    given["published"] = tuple(published)
    given["groups"] = {name: tuple(some) for name, some in given.get("groups", {}).items()}
    return Recipe(**given)


def checked(kind: type[Any], what: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values, after a check that a dataclass can be made of them.

    Raises:
        ValueError: a name is unknown, or one is missing.
    """
    refuse_unknown(what, values, tuple(item.name for item in fields(kind)))
    for item in fields(kind):
        required = item.default is MISSING and item.default_factory is MISSING
        if required and item.name not in values:
            raise ValueError(f"the {what} {item.name!r} is missing; add it")
    return values


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file.

    Raises:
        ValueError: the file is invalid; the message has its name and the error.
    """
    try:
        return parse_recipe(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def all_recipes() -> dict[str, Recipe]:
    """The recipes of this folder by name, in the order of the documentation."""
    order = ("si", "mo", "li", "cu", "ni", "acac", "aspirin", "water")
    recipes = [read_recipe(FOLDER / f"{name}.yaml") for name in order]
    return {recipe.name: recipe for recipe in recipes}
