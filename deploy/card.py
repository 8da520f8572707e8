"""The card of a model: what it is, what it was trained on, how good it is; as strict JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from ase.data import chemical_symbols

from tesseral.files import json_text
from tesseral.potentials.architectures.table import field_names, make_config
from tesseral.potentials.config import PotentialConfig

FORMAT_VERSION = 1  # raise it when an older tesseral would misread a newer file
DTYPES = {"float32": torch.float32, "float64": torch.float64}
UNITS = {"length": "Å", "energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
# Earlier cards and checkpoints hold the options of all architectures; those of others had these
# values. A record of the past: it does not grow with new options.
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
    """Versions of what computes a model's numbers: tesseral, torch, e3nn, python."""
    found = {"python": platform.python_version()}
    for name in ("tesseral", "torch", "e3nn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a vendored copy without metadata
            found[name] = "unknown"
    return found


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything about a model that is not its weights.

    Args:
        config: architecture and size.
        elements: atomic numbers in ascending order, in the order of the species index.
        reference_energies: E0 in eV of each element.
        binding_energies: eV that an atom of each element has on average over its E0, where these
            are energies of isolated atoms; empty where E0 is fitted to the training set.
        energy_scale: eV for one unit of network output.
        mean_neighbors: mean number of neighbours that normalises the sums.
        dtype: ``float32`` or ``float64``; ``save_model`` takes it from the weights.
        training: what it was trained on and how, e.g. ``PotentialDataModule.summary()``.
        errors: test errors as `tesseral.training.evaluate` returns them.
        versions: package versions that wrote it; today's if not given.
        format_version: of the file.
        created: time (UTC, ISO 8601); now if not given.
        parameters: number of weights; ``save_model`` counts them.

    Raises:
        ValueError: values that cannot be a model's.
    """

    config: PotentialConfig
    elements: tuple[int, ...]
    reference_energies: tuple[float, ...]
    energy_scale: float
    mean_neighbors: float
    binding_energies: tuple[float, ...] = ()
    dtype: str = "float32"
    training: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=library_versions)
    format_version: int = FORMAT_VERSION
    created: str = field(default_factory=_now)
    parameters: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot be a model's."""
        known = range(1, len(chemical_symbols))
        if not self.elements or any(z not in known for z in self.elements):
            raise ValueError(f"elements are {self.elements}; give atomic numbers from 1 to 118")
        if list(self.elements) != sorted(set(self.elements)):
            raise ValueError(f"elements are {self.elements}; give each once, in ascending order")
        if len(self.reference_energies) != len(self.elements):
            raise ValueError(
                f"{len(self.reference_energies)} reference energies stand against "
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
        for name in ("energy_scale", "mean_neighbors"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be a positive number")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Chemical symbols of the elements."""
        return tuple(chemical_symbols[z] for z in self.elements)


def config_to_values(config: PotentialConfig) -> dict[str, Any]:
    """Architecture and size as plain values; ``config_from_values`` reads them."""
    return {"architecture": config.architecture, **asdict(config)}


def config_from_values(values: Mapping[str, Any]) -> PotentialConfig:
    """The configuration of a card or of a checkpoint, of this version or an earlier one.

    Raises:
        ValueError: there is no such architecture or option, or a value cannot make a model.
    """
    architecture = values.get("architecture", "facet")
    known = field_names(architecture)
    own = {
        name: value
        for name, value in values.items()
        if name in known or name not in OF_OTHERS or value != OF_OTHERS[name]
    }
    if architecture == "facet" and "l_max" in own:  # the first models had no such limit
        own.setdefault("l_max_message", own["l_max"])
    _check_keys("config", own, ["architecture", *known])
    return make_config(**own)


def card_to_json(card: ModelCard) -> str:
    """The card as strict JSON; values that are not finite become null.

    Raises:
        ValueError: ``training`` or ``errors`` hold something that JSON cannot.
    """
    content = {**asdict(card), "config": config_to_values(card.config), "units": UNITS}
    try:
        return json_text(content, name="card")
    except TypeError as error:
        raise ValueError(str(error)) from None


def card_from_json(text: str) -> ModelCard:
    """The card that ``card_to_json`` wrote.

    Raises:
        ValueError: not such a card, or written by a newer tesseral; the message says which.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"the card is not JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("format_version"), int):
        raise ValueError("the card has no format_version")
    if content["format_version"] > FORMAT_VERSION:
        written_by = content.get("versions", {}).get("tesseral", "a newer version")
        raise ValueError(
            f"the file has format {content['format_version']}, written by tesseral {written_by}; "
            f"this tesseral ({library_versions()['tesseral']}) reads up to format "
            f"{FORMAT_VERSION}: update tesseral"
        )
    content.pop("units", None)
    try:
        _check_keys("card", content, [item.name for item in fields(ModelCard)])
        config = config_from_values(_mapping("config", content.pop("config")))
        content.setdefault("binding_energies", ())  # the first models had none
        for name in ("elements", "reference_energies", "binding_energies"):
            content[name] = tuple(content[name])
        return ModelCard(config=config, **content)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"the card holds values of the wrong kind ({error})") from None


def describe(card: ModelCard) -> list[tuple[str, str]]:
    """The card for people: rows of name and value, in reading order."""
    config = card.config
    sizes = ", ".join(
        f"{item.name} {getattr(config, item.name)}"
        for item in fields(config)
        if item.name != "cutoff" and getattr(config, item.name) is not None
    )

    def by_element(values: Sequence[float]) -> str:
        pairs = zip(card.symbols, values, strict=True)
        return ", ".join(f"{symbol} {value:.6g}" for symbol, value in pairs) + " (eV)"

    rows = [
        ("elements", " ".join(card.symbols)),
        ("architecture", config.architecture),
        ("cutoff", f"{config.cutoff:g} Å, range {config.cutoff * config.layers:g} Å"),
        ("size", sizes),
        ("parameters", f"{card.parameters:,} in {card.dtype}"),
        ("reference energies", by_element(card.reference_energies)),
        ("energy scale", f"{card.energy_scale:.6g} eV"),
        ("mean neighbours", f"{card.mean_neighbors:.4g}"),
        ("units", ", ".join(f"{name} {unit}" for name, unit in UNITS.items())),
    ]
    if card.binding_energies:
        rows.insert(6, ("mean binding energies", by_element(card.binding_energies)))
    rows += [(f"training: {name}", value) for name, value in _flat(card.training)]
    rows += [(f"errors: {name}", value) for name, value in _flat(card.errors)]
    rows += [
        ("versions", ", ".join(f"{name} {value}" for name, value in card.versions.items())),
        ("format", str(card.format_version)),
        ("created", card.created),
    ]
    return rows


def _mapping(name: str, content: Any) -> dict[str, Any]:
    """Refuse anything else."""
    if not isinstance(content, dict):
        raise ValueError(f"the {name} is not a mapping")
    return content


def _check_keys(name: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse keys that this version does not know, and say which was probably meant."""
    for key in content:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; the nearest known key is {near[0]!r}" if near else ""
            raise ValueError(f"the {name} has the unknown key {key!r}{hint}")


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
