"""Model card: architecture, training data, errors and versions of a model, as strict JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations_with_replacement
from typing import Any

import torch
from ase.data import chemical_symbols

from tesseral.deploy.releases import THEORIES
from tesseral.files import json_text
from tesseral.potentials.architectures.table import field_names, make_config
from tesseral.potentials.blocks.uncertainty import calibration_of
from tesseral.potentials.config import PotentialConfig

FORMAT_VERSION = 1  # increase it when an older tesseral would misread a newer file
DTYPES = {"float32": torch.float32, "float64": torch.float64}
OF_LEVELS = ("reference_energies", "energy_scale")  # of the card; weights differ too
MANY = 8  # elements that are named in a short description
LARGEST_NUMBER = 2**53  # whole numbers beyond it are damage, and may not fit a float
CLOSEST = "closest"  # in the uncertainty: smallest distance in the training set, Å, of each pair of
# elements, as ``inner_radii``; 0 if none is within the cutoff
NO_UNCERTAINTY = "none; train-potential calibrate adds it, from the training set"
UNITS = {"length": "Å", "energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
# Earlier cards and checkpoints contain the options of all architectures; those of the other
# architectures had these values. New options are not added here.
OF_OTHERS: dict[str, Any] = {
    "l_max": 4,
    "mixings": 1,
    "l_max_edge": None,
    "l_max_message": 2,
    "grid_channels": 32,
    "grid_points": None,
    "orientations": 26,
    "random_orientations": False,
    "activation": "product",
    "order": 2,
    "relaxed": False,
    "channels_by_degree": None,
    "kinks": None,
    "gates": "sigmoid",
    "odd_paths": False,
    "element_self_connection": True,
    "biases": False,
    "linear_readout": False,
    "move_atoms": True,
}


def library_versions() -> dict[str, str]:
    """Versions of the packages that compute a model's results: tesseral, torch, e3nn, python."""
    found = {"python": platform.python_version()}
    for name in ("tesseral", "torch", "e3nn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a vendored copy without metadata
            found[name] = "unknown"
    return found


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelCard:
    """Description of a model, everything but its weights.

    Args:
        config: architecture and size.
        elements: atomic numbers in ascending order, in the order of the species index.
        reference_energies: E0 in eV of each element.
        binding_energies: mean energy (eV) of an atom of each element relative to E0, if E0 is the
            energy of isolated atoms; empty if E0 is fitted to the training set.
        inner_radii: distance (Å) of each pair of elements below which the model is joined to the
            repulsion of the nuclei, the upper triangle of a matrix by rows; empty if it is not.
        energy_scale: energy (eV) of one unit of network output.
        mean_neighbors: mean number of neighbours, which normalises the sums.
        dtype: ``float32`` or ``float64``; ``save_model`` takes it from the weights.
        training: training data and options, e.g. ``PotentialDataModule.summary()``.
        errors: test errors as `tesseral.training.evaluate` returns them.
        uncertainty: calibration of the uncertainty (`Calibration`), its coverage, and the expected
            force error at which a simulation stops; empty if the model does not have one.
        versions: versions of the packages that wrote the file. Default: the current ones.
        format_version: version of the file format.
        created: time (UTC, ISO 8601). Default: now.
        parameters: number of weights; ``save_model`` counts them.
        level: name of the level of theory, if the file holds several.
        other_levels: by the name of each further level of the file, its ``reference_energies`` and
            ``energy_scale``; see `at_level`.

    Raises:
        ValueError: a value is not possible for a model.
    """

    config: PotentialConfig
    elements: tuple[int, ...]
    reference_energies: tuple[float, ...]
    energy_scale: float
    mean_neighbors: float
    binding_energies: tuple[float, ...] = ()
    inner_radii: tuple[float, ...] = ()
    dtype: str = "float32"
    training: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)
    uncertainty: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=library_versions)
    format_version: int = FORMAT_VERSION
    created: str = field(default_factory=_now)
    parameters: int = 0
    level: str = ""
    other_levels: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject values that are not possible for a model."""
        self._check_types()
        known = range(1, len(chemical_symbols))
        if not self.elements or any(z not in known for z in self.elements):
            raise ValueError(f"elements are {self.elements}; give atomic numbers from 1 to 118")
        if list(self.elements) != sorted(set(self.elements)):
            raise ValueError(f"elements are {self.elements}; give each once, in ascending order")
        if len(self.reference_energies) != len(self.elements):
            raise ValueError(
                f"{len(self.reference_energies)} reference energies were given for "
                f"{len(self.elements)} elements; give one for each"
            )
        if not all(math.isfinite(value) for value in self.reference_energies):
            raise ValueError(f"reference energies are {self.reference_energies}; one is not finite")
        if len(self.binding_energies) not in (0, len(self.elements)) or not all(
            math.isfinite(value) for value in self.binding_energies
        ):
            raise ValueError(
                f"binding energies are {self.binding_energies}; give a finite one for each of "
                f"{len(self.elements)} elements, or none"
            )
        pairs = len(self.elements) * (len(self.elements) + 1) // 2
        if len(self.inner_radii) not in (0, pairs) or not all(
            0 <= value < self.config.cutoff for value in self.inner_radii
        ):
            raise ValueError(
                f"inner radii are {self.inner_radii!r:.60}; give one from 0 to below the cutoff "
                f"for each of {pairs} pairs of elements, or none"
            )
        for name in ("energy_scale", "mean_neighbors"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be a positive number")
        if self.uncertainty:
            calibration_of(self.uncertainty)
            closest = self.uncertainty.get(CLOSEST, [0] * pairs)
            if not isinstance(closest, (list, tuple)) or not (
                len(closest) == pairs and all(_is(value, (int, float)) for value in closest)
            ):
                raise ValueError(
                    f"{CLOSEST} of the uncertainty is {closest!r:.60}; give a distance for each of "
                    f"{pairs} pairs of elements"
                )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.other_levels and (not self.level or self.level in self.other_levels):
            raise ValueError(f"the card has other levels, but level is {self.level!r}")
        for name in self.other_levels:
            self.at_level(name)

    def _check_types(self) -> None:
        """Check the types of the values, which a damaged file may have changed."""
        kinds: dict[str, type | tuple[type, ...]] = {
            **dict.fromkeys(
                ("training", "errors", "uncertainty", "versions", "other_levels"), dict
            ),
            **dict.fromkeys(("dtype", "created", "level"), str),
            **dict.fromkeys(("format_version", "parameters"), int),
            **dict.fromkeys(("energy_scale", "mean_neighbors"), (int, float)),
        }
        lists: dict[str, type | tuple[type, ...]] = {
            "elements": int,
            "reference_energies": (int, float),
            "binding_energies": (int, float),
            "inner_radii": (int, float),
        }
        wrong = [name for name, kind in kinds.items() if not _is(getattr(self, name), kind)]
        wrong += [
            name
            for name, kind in lists.items()
            if not all(_is(value, kind) for value in getattr(self, name))
        ]
        if wrong:
            raise ValueError(
                f"{wrong[0]} is {getattr(self, wrong[0])!r:.60}, which has the wrong type"
            )

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels of theory in the file, the default first; empty without names."""
        return (self.level, *self.other_levels) if self.level else ()

    def at_level(self, level: str | None) -> ModelCard:
        """Card of one level of theory only.

        Args:
            level: one of ``levels``. Default: the first.

        Raises:
            ValueError: there is no such level, or the card has wrong values for it.
        """
        if level is None or (level == self.level and level):
            return replace(self, other_levels={})
        if level not in self.other_levels:
            known = f"has the levels {', '.join(self.levels)}" if self.levels else "names no levels"
            raise ValueError(f"`level` is {level}, but the model {known}")
        own = self.other_levels[level]
        if not isinstance(own, dict) or set(own) != set(OF_LEVELS):
            raise ValueError(f"the card must have {' and '.join(OF_LEVELS)} of level {level}")
        energies = own["reference_energies"]
        if not isinstance(energies, (list, tuple)):
            raise ValueError(f"reference_energies of level {level} are {energies!r:.60}")
        training = (
            {**self.training, "theory": level} if "theory" in self.training else self.training
        )
        return replace(
            self,
            level=level,
            uncertainty={},  # its features are those of the first level
            other_levels={},
            training=training,
            reference_energies=tuple(energies),
            energy_scale=own["energy_scale"],
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """Chemical symbols of the elements."""
        return tuple(chemical_symbols[z] for z in self.elements)

    @property
    def theory(self) -> str:
        """Level of theory, such as ``VASP PBE 520 eV``; empty if it is not known."""
        if self.level:
            return self.level
        training = self.training
        data = training["data"] if isinstance(training.get("data"), dict) else {}
        train = data["train"] if isinstance(data.get("train"), dict) else {}
        several = data["theories"] if isinstance(data.get("theories"), list) else []
        found = training.get("theory") or (several[0] if several else train.get("theory"))
        found = found or THEORIES.get(str(training.get("converted_from")))  # converted before
        return found if isinstance(found, str) else ""

    @property
    def short(self) -> str:
        """Architecture, elements and cutoff in a few words."""
        many = len(self.elements) > MANY
        elements = f"{len(self.elements)} elements" if many else " ".join(self.symbols)
        return f"{self.config.architecture}, {elements}, cutoff {self.config.cutoff:g} Å"

    def __repr__(self) -> str:
        """The same, with the number of weights; `describe` has everything."""
        return f"ModelCard({self.short}, {self.parameters:,} weights in {self.dtype})"


def config_to_values(config: PotentialConfig) -> dict[str, Any]:
    """Architecture and size as plain values, to be read by ``config_from_values``."""
    return {"architecture": config.architecture, **asdict(config)}


def config_from_values(values: Mapping[str, Any]) -> PotentialConfig:
    """Configuration from a card or a checkpoint of this version or an earlier one.

    Raises:
        ValueError: the architecture or an option is unknown, or a value is not valid.
    """
    architecture = str(values.get("architecture", "facet"))
    known = field_names(architecture)
    own = {
        name: value
        for name, value in values.items()
        if name in known or name not in OF_OTHERS or value != OF_OTHERS[name]
    }
    if architecture == "facet" and "l_max" in own:  # the first models did not have this limit
        own.setdefault("l_max_message", own["l_max"])
    _check_keys("config", own, ["architecture", *known])
    return make_config(**own)


def card_to_json(card: ModelCard) -> str:
    """Card as strict JSON; values that are not finite become null.

    Raises:
        ValueError: ``training`` or ``errors`` contain a value that JSON cannot represent.
    """
    content = {**asdict(card), "config": config_to_values(card.config), "units": UNITS}
    for name in ("level", "other_levels"):  # which an earlier tesseral does not know
        if not content[name]:
            del content[name]
    try:
        return json_text(content, name="card")
    except TypeError as error:
        raise ValueError(str(error)) from None


def card_from_json(text: str) -> ModelCard:
    """Read a card that ``card_to_json`` wrote.

    Raises:
        ValueError: the text is not a card, or was written by a newer tesseral; the message says
            which.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the card is not JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("format_version"), int):
        raise ValueError("the card has no format_version")
    if content["format_version"] > FORMAT_VERSION:
        versions = content.get("versions")
        versions = versions if isinstance(versions, dict) else {}
        written_by = versions.get("tesseral", "a newer version")
        raise ValueError(
            f"the file has format {content['format_version']}, written by tesseral {written_by}; "
            f"this tesseral ({library_versions()['tesseral']}) reads up to format "
            f"{FORMAT_VERSION}: update tesseral"
        )
    content.pop("units", None)
    try:
        _check_keys("card", content, [item.name for item in fields(ModelCard)])
        config = config_from_values(_mapping("config", content.pop("config")))
        for name in ("binding_energies", "inner_radii"):  # the first models had none
            content.setdefault(name, ())
        for name in ("elements", "reference_energies", "binding_energies", "inner_radii"):
            content[name] = tuple(content[name])
        return ModelCard(config=config, **content)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"the card holds values of the wrong kind ({error})") from None


def describe(card: ModelCard) -> list[tuple[str, str]]:
    """Human-readable card: rows of name and value, in reading order."""
    config = card.config
    sizes = ", ".join(
        f"{item.name} {getattr(config, item.name)}"
        for item in fields(config)
        if item.name != "cutoff" and getattr(config, item.name) is not None
    )

    def by_element(values: Sequence[float]) -> str:
        pairs = zip(card.symbols, values, strict=True)  # no line is broken between the two
        return (
            ", ".join(f"{symbol}\N{NO-BREAK SPACE}{value:.6g}" for symbol, value in pairs) + " (eV)"
        )

    rows = [
        ("elements", " ".join(card.symbols)),
        ("architecture", config.architecture),
        *([("level of theory", card.theory)] if card.theory and not card.levels else []),
        ("cutoff", f"{config.cutoff:g} Å, range {config.cutoff * config.layers:g} Å"),
        ("size", sizes),
        ("parameters", f"{card.parameters:,} in {card.dtype}"),
        ("reference energies", by_element(card.reference_energies)),
        ("energy scale", f"{card.energy_scale:.6g} eV"),
        ("mean neighbours", f"{card.mean_neighbors:.4g}"),
        ("units", ", ".join(f"{name} {unit}" for name, unit in UNITS.items())),
    ]
    if card.levels:
        others = "".join(f", {name}" for name in card.other_levels)
        rows.insert(5, ("levels of theory", f"{card.level} (default){others}"))
    if card.binding_energies:
        place = [name for name, _ in rows].index("reference energies") + 1
        rows.insert(place, ("mean binding energies", by_element(card.binding_energies)))
    if card.inner_radii:
        low, high = min(card.inner_radii), max(card.inner_radii)
        rows.insert(-1, ("short range", f"nuclear repulsion below {low:.3g} to {high:.3g} Å"))
    rows += [(f"training: {name}", value) for name, value in _flat(card.training)]
    rows += [(f"errors: {name}", value) for name, value in _flat(card.errors)]
    known = {name: value for name, value in card.uncertainty.items() if name != CLOSEST}
    rows += [(f"uncertainty: {name}", value) for name, value in _flat(known)]
    if card.uncertainty.get(CLOSEST):
        rows.append(("uncertainty: closest pairs", _closest_pairs(card)))
    if not card.uncertainty:
        rows.append(("uncertainty", NO_UNCERTAINTY))
    rows += [
        ("versions", ", ".join(f"{name} {value}" for name, value in card.versions.items())),
        ("format", str(card.format_version)),
        ("created", card.created),
    ]
    return rows


def _closest_pairs(card: ModelCard) -> str:
    """Smallest distances of the pairs of elements in the training set, in words."""
    pairs = combinations_with_replacement(card.symbols, 2)
    distances = dict(zip(map("–".join, pairs), card.uncertainty[CLOSEST], strict=True))
    never = [pair for pair, distance in distances.items() if not distance]
    if len(card.elements) > MANY:
        return f"{len(never)} of {len(distances)} pairs of elements never within the cutoff"
    space = "\N{NO-BREAK SPACE}"
    seen = ", ".join(f"{pair}{space}{x:.2f}" for pair, x in distances.items() if x) + " Å"
    return seen + (f"; never within the cutoff: {', '.join(never)}" if never else "")


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether a value has a type; true and false are not numbers, and numbers can be floats."""
    if isinstance(value, bool):
        return False
    return isinstance(value, kind) and not (isinstance(value, int) and abs(value) > LARGEST_NUMBER)


def _mapping(name: str, content: Any) -> dict[str, Any]:
    """Reject anything that is not a mapping."""
    if not isinstance(content, dict):
        raise ValueError(f"the {name} is not a mapping")
    return content


def _check_keys(name: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    """Reject unknown keys and suggest the nearest known one."""
    for key in content:
        if key not in known:
            near = get_close_matches(key[:100], known, n=1)
            hint = f"; the nearest known key is {near[0]!r}" if near else ""
            raise ValueError(f"the {name} has the unknown key {key[:100]!r}{hint}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the card holds {name}, which strict JSON does not allow")


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as rows ``a.b`` and text."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows
