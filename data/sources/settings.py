"""Settings of calculations as text, and the level of theory.

Settings: ``code VASP 6.3.0; functional PBE; cutoff 520 eV; spin none; k-points 4 x 4 x 4; …``.
The level of theory, ``VASP PBE 520 eV``, contains the settings that structures of any size and
elements share. It becomes the theory of a structure, by which training can distinguish levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ase import Atoms

FIELDS = ("code", "functional", "cutoff", "spin", "smearing", "k-points", "potentials")
LEVEL = ("code", "functional", "cutoff")
FREE_TO_DIFFER = ("k-points",)  # they depend on the size of the cell
CODES = {"gpaw": "GPAW", "vasp": "VASP", "espresso": "pw.x"}


def settings_text(parts: Mapping[str, str], potentials: Mapping[str, str] | None = None) -> str:
    """Settings of a calculation as one text; unknown ones are left out.

    Args:
        parts: text of each of `FIELDS` except the potentials; that of the code ends in a version.
        potentials: name of the pseudopotential of each element.
    """
    known = {name: parts[name] for name in FIELDS if parts.get(name)}
    if potentials:
        known["potentials"] = ", ".join(f"{symbol} = {potentials[symbol]}" for symbol in potentials)
    return "; ".join(f"{name} {' '.join(value.split())}" for name, value in known.items())


def settings_of_calculator(name: str, parameters: Mapping[str, Any]) -> str:
    """Settings of a calculator stored by ASE in a trajectory or a database.

    Args:
        name: name of the calculator, and its version if known.
        parameters: parameters of the calculator; functional and cutoff are found for GPAW and VASP.
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
    return settings_text(parts)


def add_settings(atoms: Atoms, settings: str) -> None:
    """Add the settings, and the level of theory if the functional is known and none is set."""
    if settings:
        atoms.info["settings"] = settings
    found = dict(_parts(settings))
    if "functional" in found:
        level = " ".join(found[name] for name in LEVEL if name in found)
        atoms.info.setdefault("theory", level)


def settings_differences(texts: Iterable[str]) -> list[str]:
    """Differences between settings of structures that should be equal.

    K-points and versions of a code may differ, and so may the potentials of different elements.

    Returns:
        A description of each setting with several values, such as ``cutoff 400 eV or 520 eV``.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        for name, value in _parts(text):
            values = found.setdefault(name, [])
            if value not in values and name not in FREE_TO_DIFFER:
                values.append(value)
    return [f"{name} {' or '.join(values)}" for name, values in found.items() if len(values) > 1]


def _parts(settings: str) -> Iterator[tuple[str, str]]:
    """Names and values of settings: the code without its version, a potential per element."""
    for part in settings.split("; ") if settings else []:
        name, _, value = part.partition(" ")
        if name == "potentials":
            for potential in value.split(", "):
                symbol, _, title = potential.partition(" = ")
                yield f"potential of {symbol}", title
        else:
            yield name, value.split(" ")[0] if name == "code" else value
