"""How labels were computed, as a text: ``code VASP 6.3.0; functional PBE; cutoff 520 eV; …``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FIELDS = ("code", "functional", "cutoff", "spin", "smearing", "k-points", "potentials")
CODES = {"gpaw": "GPAW", "vasp": "VASP", "espresso": "pw.x"}
FREE_TO_DIFFER = ("k-points",)  # they follow the size of the cell


def theory_text(parts: Mapping[str, str], potentials: Mapping[str, str] | None = None) -> str:
    """The settings of a calculation as one text; unknown ones are left out.

    Args:
        parts: a text for each of `FIELDS` but the potentials.
        potentials: name of the pseudopotential of each element.
    """
    known = {name: parts[name] for name in FIELDS if parts.get(name)}
    if potentials:
        known["potentials"] = ", ".join(f"{symbol} = {potentials[symbol]}" for symbol in potentials)
    return "; ".join(f"{name} {' '.join(value.split())}" for name, value in known.items())


def theory_of_calculator(name: str, parameters: Mapping[str, Any]) -> str:
    """The settings that ASE keeps of a calculator, in a trajectory or a database.

    Args:
        name: of the calculator, and its version if known.
        parameters: of the calculator; functional and cutoff are found for GPAW and VASP.
    """
    code, _, version = name.partition(" ")
    values = {key.lower(): value for key, value in parameters.items()}
    xc, mode = values.get("xc"), values.get("mode")
    cutoff = mode.get("ecut") if isinstance(mode, Mapping) else values.get("encut")
    parts = {
        "code": f"{CODES.get(code.lower(), code)} {version}".strip(),
        "functional": str(xc.get("name", "")) if isinstance(xc, Mapping) else str(xc or ""),
        "cutoff": f"{float(cutoff):g} eV" if isinstance(cutoff, int | float) else "",
    }
    return theory_text(parts)


def theory_differences(texts: Iterable[str]) -> list[str]:
    """In what the theories of structures differ that should be computed alike.

    Texts of another form than `theory_text`'s count as one setting. Numbers of k-points and
    versions of a code may differ, and so may the potentials of different elements.

    Returns:
        A description of each setting with several values, such as ``cutoff 400 eV or 520 eV``.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        for name, value in _settings(text):
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return [f"{name} {' or '.join(values)}" for name, values in found.items() if len(values) > 1]


def _settings(text: str) -> Iterable[tuple[str, str]]:
    """Names and values that must be the same everywhere."""
    parts = [part.partition(" ") for part in text.split("; ")]
    if not all(name in FIELDS for name, _, _ in parts):
        yield "theory", text or "not given"
        return
    for name, _, value in parts:
        if name == "code":
            yield name, value.rsplit(" ", 1)[0]
        elif name == "potentials":
            for potential in value.split(", "):
                symbol, _, title = potential.partition(" = ")
                yield f"potential of {symbol}", title
        elif name not in FREE_TO_DIFFER:
            yield name, value
