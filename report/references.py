"""Reference results of crystals at the level of theory of the data."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms

from tesseral.data.store.read import Store, open_store
from tesseral.report.crystal_search import reduced_formula

EXAMPLES = ("sic_references.json",)  # shipped, each next to its dataset
BELONGS = {"sic_references.json": "sic_pbe.h5"}


class References(NamedTuple):
    """Results by chemical formula; empty if there are none."""

    path: str
    crystals: dict[str, dict[str, Any]]
    phonons: dict[str, list[float]]  # THz, at the q points that fold to Γ of the cubic cell
    why: str  # reason for taking them, or for having none


NONE = References("", {}, {}, "no reference results were found; give some as `references`")


def find_references(given: str | None, data: Store, symbols: tuple[str, ...]) -> References:
    """References from the given file, from next to the data, or shipped with the package.

    Args:
        given: file to read; None searches for one.
        data: the test set.
        symbols: elements of the model.

    Raises:
        FileNotFoundError: the given file does not exist.
        ValueError: it is not a file of references.
    """
    if given is not None:
        return _read(Path(given), "given as `references`")
    beside = sorted(data.path.parent.glob("*references*.json"))
    examples = Path(str(files("tesseral.data.examples")))
    theory = data.attributes.get("theory", "")
    for path in (*beside, *(examples / name for name in EXAMPLES)):
        try:
            found = _read(path, "next to the data" if path in beside else "shipped with tesseral")
        except ValueError:
            continue  # a file of another kind
        elements = {symbol for name in found.crystals for symbol in Atoms(name).symbols}
        if not elements <= set(symbols):
            continue
        if path in beside and path.name not in BELONGS:
            return found
        owner = path.parent / BELONGS[path.name]
        if theory and owner.exists() and open_store(owner).attributes.get("theory") == theory:
            return found._replace(why=f"{found.why}, of the same theory as the data")
    return NONE


def _read(path: Path, why: str) -> References:
    """References from a file, and phonons from ``phonon_FORMULA.json`` files next to it."""
    content = _json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a file of references: it holds no crystals by name")
    named = {
        name: entry
        for name, entry in content.items()
        if isinstance(entry, dict) and "a0_A" in entry and _is_formula(name)
    }
    crystals = {reduced_formula(Atoms(name)): entry for name, entry in named.items()}
    if not crystals:
        raise ValueError(
            f"{path} has no crystal with an a0_A; see docs/howto/report.md for the format"
        )
    phonons: dict[str, list[float]] = {}
    for name in named:
        beside = path.parent / f"phonon_{name}.json"
        if beside.is_file():
            values = _json(beside)
            phonons[reduced_formula(Atoms(name))] = sorted(float(value) for value in values)
    return References(str(path), crystals, phonons, why)


def _is_formula(name: str) -> bool:
    try:
        return len(Atoms(name)) > 0
    except (KeyError, ValueError):
        return False


def _json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no reference file {path}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
