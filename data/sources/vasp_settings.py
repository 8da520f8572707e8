"""Settings, elements, convergence and stresses of VASP, the same for all of its output files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from numpy.typing import ArrayLike

from tesseral.data.sources.common import (
    ASYMMETRIC,
    NO_STRESS,
    NOT_SELF_CONSISTENT,
    UNCONVERGED,
    Array,
)
from tesseral.data.sources.settings import settings_text
from tesseral.data.units import STRESS_UNITS, stress_tensor

# Tags that define the settings; see the VASP wiki, https://www.vasp.at/wiki.
SETTINGS_TAGS = (
    "AEXX ENCUT ENMAX GGA HFSCREEN ISMEAR ISPIN IVDW LDAU LDAUU LHFCALC LNONCOLLINEAR LUSE_VDW "
    "METAGGA SIGMA"
).split()
GGA = {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "91": "PW91", "CA": "LDA"}
POTCAR_FUNCTIONAL = {"PAW_PBE": "PBE", "PAW_GGA": "PW91", "PAW": "LDA", "US": "LDA"}
DISPERSION = {"1": "D2", "10": "D2", "11": "D3(0)", "12": "D3(BJ)", "13": "D4", "20": "TS"}
SMEARING = {"-5": "tetrahedron", "-4": "tetrahedron", "-1": "Fermi", "0": "Gaussian"}
# Tags that tell whether a step is usable, and which of its results are.
STEP_TAGS = "ALGO IALGO ICHARG ISIF NELM SCALEE".split()
NELM = 60  # VASP's default
# The orbitals stay as they are read, or rotate among themselves; -1 is a test of speed.
FIXED_ORBITALS = (-1, 2, 3, 4)
FIXED_ORBITALS_NAMES = ("none", "nothing", "e", "s")  # ALGO; exact is checked before
STRESS_PRECISION = 1e-3  # kB; numerical noise makes stresses of VASP asymmetric by up to 2e-4 kB
TRUE = ("T", ".T.", ".TRUE.", "TRUE")
NOTHING = ("", "F", ".F.", ".FALSE.", "--", "NONE")


def vasp_settings(
    version: str, tags: Mapping[str, str], potentials: Mapping[str, str], k_points: str
) -> str:
    """Settings of a VASP calculation in the form of `settings_text`.

    Args:
        version: version of VASP.
        tags: values of `SETTINGS_TAGS` as VASP prints them.
        potentials: title of the POTCAR of each element, ``PAW_PBE Si 05Jan2001``.
        k_points: the grid, as text.
    """
    cutoff = tags.get("ENCUT", tags.get("ENMAX", ""))
    noncollinear = _is_true(tags.get("LNONCOLLINEAR", ""))
    spin = "collinear" if tags.get("ISPIN") == "2" else "none"
    parts = {
        "code": f"VASP {version}".strip(),
        "functional": _functional(tags, list(potentials.values())),
        "cutoff": f"{_shortest(cutoff)} eV" if cutoff else "",
        "spin": "non-collinear" if noncollinear else spin,
        "smearing": _smearing(tags),
        "k-points": k_points,
    }
    return settings_text(parts, potentials)


def refusal(tags: Mapping[str, str], iterations: int | None, reported: bool | None = None) -> str:
    """Omission as which a step counts; empty if its electrons are converged.

    A step that took NELM electronic steps is not converged, whatever VASP reports: VASP 5 says that
    EDIFF is reached there, too.

    Args:
        tags: values of `STEP_TAGS` as VASP prints them.
        iterations: number of electronic steps; None if unknown.
        reported: convergence as VASP reports it; None if it does not.
    """
    algorithm = _integer(tags, "IALGO", 0) in FIXED_ORBITALS
    if "IALGO" not in tags:
        name = tags.get("ALGO", "").lower()
        algorithm = name.startswith(FIXED_ORBITALS_NAMES) and not name.startswith("exact")
    if _integer(tags, "ICHARG", 0) >= 10 or algorithm or _float(tags, "SCALEE", 1.0) != 1.0:
        return NOT_SELF_CONSISTENT
    if reported is False or (iterations or 0) >= _integer(tags, "NELM", NELM):
        return UNCONVERGED
    return ""


def vasp_stress(
    kbar: ArrayLike | None, tags: Mapping[str, str], left_out: Counter[str]
) -> Array | None:
    """Stress in eV/Å³, positive under tension, from VASP's; None and counted if it is no stress.

    Args:
        kbar: six components in VASP's order or (3, 3), positive under compression.
        tags: values of `STEP_TAGS`.
        left_out: counter of the omissions.

    Raises:
        ValueError: a number is not finite, or the shape is unknown.
    """
    if kbar is None:
        return None
    values = np.asarray(kbar, dtype=np.float64)
    if values.shape not in ((6,), (3, 3)) or not np.isfinite(values).all():
        raise ValueError("a stress without its six or nine finite numbers")
    if tags.get("ISIF") in ("0", "1"):
        left_out[NO_STRESS] += 1
        return None
    try:
        return -STRESS_UNITS["kbar"] * stress_tensor(values, "vasp", STRESS_PRECISION)
    except ValueError:
        left_out[ASYMMETRIC] += 1
        return None


def element_of(title: str, name: str = "", mass: float | None = None) -> str:
    """Chemical symbol of a kind of ions.

    Args:
        title: title of its POTCAR: ``PAW_PBE Fe_pv 02Aug2007``, ``PAW_PBE H.5 …``.
        name: its name elsewhere, which VASP may truncate (``r`` instead of ``Zr``); used if the
            title contains no symbol.
        mass: its mass in u; used if there is no symbol at all.

    Raises:
        ValueError: there is no symbol.
    """
    words = title.split()
    for word in (*words[1:2], *words[:1], *words[2:], name):
        found = re.match(r"[A-Za-z]+", word.strip())
        if found and found[0] in chemical_symbols[1:]:
            return found[0]
    if mass:
        number = int(np.nanargmin(np.abs(atomic_masses[1:] - mass))) + 1
        if abs(float(atomic_masses[number]) - mass) < 0.05:
            return str(chemical_symbols[number])
    if name.strip() in ("D", "T"):
        return "H"
    if name and not title:
        raise ValueError(f"{name!r} is not an element")
    raise ValueError(f"the title {title!r} of a POTCAR names no element")


def _integer(tags: Mapping[str, str], name: str, default: int) -> int:
    """Integer at the beginning of a tag."""
    found = re.match(r"\s*[-+]?\d+", tags.get(name, ""))
    return int(found[0]) if found else default


def _float(tags: Mapping[str, str], name: str, default: float) -> float:
    """Number of a tag, or the default if it is none."""
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return default


def _is_true(value: str) -> bool:
    return value.upper() in TRUE


def _shortest(number: str) -> str:
    """Number without trailing zeros; other text (``2*0.0``) unchanged."""
    try:
        return f"{float(number):g}"
    except ValueError:
        return number


def _functional(tags: Mapping[str, str], titles: Sequence[str]) -> str:
    """Exchange and correlation, exact exchange, dispersion and Hubbard's U."""
    words = titles[0].split() if titles else []
    name = POTCAR_FUNCTIONAL.get(words[0], "") if words else ""
    gga, meta = tags.get("GGA", "").upper(), tags.get("METAGGA", "").upper()
    if gga not in NOTHING:
        name = GGA.get(gga, f"GGA {gga}")
    if meta not in NOTHING:
        name = meta
    if _is_true(tags.get("LHFCALC", "")):
        fraction, screening = tags.get("AEXX", "0.25"), tags.get("HFSCREEN", "0")
        name += f" hybrid (AEXX {_shortest(fraction)}, HFSCREEN {_shortest(screening)})"
    dispersion = tags.get("IVDW", "0")
    if dispersion != "0":
        name += f" + {DISPERSION.get(dispersion, f'IVDW {dispersion}')}"
    if _is_true(tags.get("LUSE_VDW", "")):
        name += " + vdW-DF"
    if _is_true(tags.get("LDAU", "")):
        name += f" + U ({' '.join(map(_shortest, tags.get('LDAUU', '').split()))} eV)"
    return name


def _smearing(tags: Mapping[str, str]) -> str:
    """Kind and width of the smearing."""
    kind = tags.get("ISMEAR", "")
    if not kind:
        return ""
    name = SMEARING.get(kind, f"Methfessel-Paxton {kind}")
    if name == "tetrahedron" or not tags.get("SIGMA"):
        return name
    return f"{name} {_shortest(tags['SIGMA'])} eV"
