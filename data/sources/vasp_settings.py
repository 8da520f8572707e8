"""Settings of a VASP calculation from its tags, in the same form for OUTCAR and vasprun.xml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tesseral.data.sources.settings import settings_text

# Tags that define the settings; see the VASP wiki, https://www.vasp.at/wiki.
SETTINGS_TAGS = (
    "AEXX ENCUT ENMAX GGA HFSCREEN ISMEAR ISPIN IVDW LDAU LDAUU LHFCALC LNONCOLLINEAR LUSE_VDW "
    "METAGGA SIGMA"
).split()
GGA = {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "91": "PW91", "CA": "LDA"}
POTCAR_FUNCTIONAL = {"PAW_PBE": "PBE", "PAW_GGA": "PW91", "PAW": "LDA", "US": "LDA"}
DISPERSION = {"1": "D2", "10": "D2", "11": "D3(0)", "12": "D3(BJ)", "13": "D4", "20": "TS"}
SMEARING = {"-5": "tetrahedron", "-4": "tetrahedron", "-1": "Fermi", "0": "Gaussian"}
TRUE = ("T", ".T.", ".TRUE.", "TRUE")
NOTHING = ("", "F", ".F.", ".FALSE.", "--", "NONE")


def vasp_settings(
    version: str, tags: Mapping[str, str], titles: Sequence[str], k_points: str
) -> str:
    """Settings of a VASP calculation in the form of `settings_text`.

    Args:
        version: version of VASP.
        tags: values of `SETTINGS_TAGS` as VASP prints them.
        titles: title of the POTCAR of each species, ``PAW_PBE Si 05Jan2001``.
        k_points: the grid, as text.
    """
    cutoff = tags.get("ENCUT", tags.get("ENMAX", ""))
    noncollinear = _is_true(tags.get("LNONCOLLINEAR", ""))
    spin = "collinear" if tags.get("ISPIN") == "2" else "none"
    parts = {
        "code": f"VASP {version}",
        "functional": _functional(tags, titles),
        "cutoff": f"{_shortest(cutoff)} eV" if cutoff else "",
        "spin": "non-collinear" if noncollinear else spin,
        "smearing": _smearing(tags),
        "k-points": k_points,
    }
    return settings_text(parts, {element_of(title): title for title in titles})


def element_of(title: str) -> str:
    """Chemical symbol in the title of a POTCAR: ``PAW_PBE Fe_pv 02Aug2007``, ``PAW_PBE H.5 …``.

    Raises:
        ValueError: the title contains no symbol.
    """
    words = title.split()
    name = (words[1] if len(words) > 1 else words[0] if words else "").split("_")[0]
    symbol = "".join(letter for letter in name if letter.isalpha())
    if not symbol:
        raise ValueError(f"the title {title!r} of a POTCAR names no element")
    return symbol


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
