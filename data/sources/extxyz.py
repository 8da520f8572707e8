"""Extended XYZ: one frame after the other, each parsed by ASE.

ASE's own loop over a file ends at the first blank line, which is left where files were joined, and
then drops the rest. Here blank lines between frames are skipped, and anything else that is not a
frame is an error that names the line. Also read are what other programs write: keys in any case,
six components of a stress, other names of ``pbc``, lengths in declared units, isotopes, atomic
numbers and labels in place of symbols.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from io import StringIO, TextIOWrapper
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict, parse_properties, read_xyz
from ase.io.formats import open_with_compression

from tesseral.data.sources.common import choose, element_of_label
from tesseral.data.units import LENGTH_UNITS, declared_units, stress_tensor, unit_factor

Parser = Callable[[str], dict[str, Any]]

SIX_COMPONENTS = re.compile(r"""(?<!\S)(stress|virial)=(["'{\[])([^"'}\]]*)(["'}\]])""")
QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'|\{[^}]*\}|\[[^\]]*\]')
EMPTY_QUOTES = re.compile(r"""(?<!\S)([^\s="'{}\[\]]+)=(?:""|''|\{\}|\[\])(?!\S)""")
NO_VALUE = re.compile(r"(?<!\S)([^\s=]+)\s*=\s+[^\s=]+=")
# Keys that are renamed, or read, whatever their case.
KEYS = re.compile(
    r"(lattice|properties)|(pbcs?|periodic(?:ity)?|(?:periodic_)?boundar(?:y|ies)"
    r"(?:_conditions?)?|bc)|((?:unit_?)?cell(?:_vectors?)?|lattice_vectors?)",
    re.IGNORECASE,
)
PERIODIC = {"t", "true", "1", "p", "pp", "yes", "y", "periodic"}
OPEN = re.compile(r"f|false|0|no?|none|[fsm]{1,2}|open|free|isolated|nonperiodic|non-periodic")
COLUMNS = {"symbol": "species", "symbols": "species", "element": "species", "elements": "species"}
COLUMNS |= {"position": "pos", "positions": "pos", "coords": "pos", "coordinates": "pos"}
DEFAULT_COLUMNS = "species:S:1:pos:R:3"
DIGITS = 12  # of a number of atoms


class IncompleteFrame(ValueError):
    """The file ends within a frame."""


class FrameRange(NamedTuple):
    """Range of frames of a file."""

    first: int  # number of the first frame
    start: int  # byte offset
    stop: int
    line: int = 1  # number of the first line


class Frame(NamedTuple):
    """Text of a frame."""

    number: int  # from 0
    line: int  # number of its first line, from 1
    atoms: int
    rows: list[str]  # comment line, atoms, cell vectors of ADF


def read_extxyz(
    path: str | os.PathLike[str],
    index: str = ":",
    *,
    stress_order: str = "ase",
    part: FrameRange | None = None,
    plain: bool = False,
) -> Iterator[Atoms]:
    """Frames of a file in (extended) XYZ, which may be compressed.

    Args:
        path: the file.
        index: frames to read, in ASE notation. The whole file is checked if the last ones are.
        stress_order: Voigt order of six components: ``ase``, ``lammps`` or ``vasp``.
        part: range of frames. Default: all.
        plain: whether comment lines are ignored, as in plain XYZ.

    Raises:
        IncompleteFrame: the file ends within a frame; all frames before it have been returned.
        ValueError: the file is not a sequence of frames, or a frame cannot be read; the message
            names the line.
    """
    parser = properties_parser(stress_order)
    if plain:
        parser = _ignore
    with open_frames(path, part) as lines:
        start = (part.line, part.first) if part else (1, 0)
        for frame in choose(iterate_frames(lines, *start), index):
            yield parse_frame(frame, parser)


def iterate_frames(lines: Iterable[str], line: int = 1, number: int = 0) -> Iterator[Frame]:
    """Texts of all frames; blank lines between them are skipped.

    Args:
        lines: lines of a file.
        line: number of the first line, from 1.
        number: number of the first frame, from 0.

    Raises:
        IncompleteFrame: the lines end within a frame.
        ValueError: something else is where a frame should begin.
    """
    lines = iter(lines)
    ahead = next(lines, None)
    while ahead is not None:
        count = ahead.strip().lstrip("\ufeff")
        if not count:
            ahead, line = next(lines, None), line + 1
            continue
        if not is_count(count):
            raise ValueError(
                f"line {line} should be the number of atoms of a frame; found {_short(count)}"
            )
        atoms = int(count)
        rows = list(islice(lines, atoms + 1))
        _refuse_incomplete(rows, atoms, line)
        ahead = next(lines, None)
        while ahead is not None and ahead.lstrip().startswith("VEC"):
            rows.append(ahead)
            ahead = next(lines, None)
        yield Frame(number, line, atoms, rows)
        number, line = number + 1, line + 1 + len(rows)


def is_count(text: str | bytes) -> bool:
    """Return whether a line without spaces around it is a number of atoms."""
    return text.isdigit() and text.isascii() and len(text) <= DIGITS


def _refuse_incomplete(rows: list[str], atoms: int, line: int) -> None:
    """Reject a last frame whose end is missing.

    Raises:
        IncompleteFrame: the lines of the frame end too early.
        ValueError: within the frame another one begins.
    """
    missing = atoms + 1 - len(rows)
    if missing > 0:
        for place, row in enumerate(rows[1:], line + 2):
            if is_count(row.strip()):
                raise ValueError(
                    f"the frame of line {line} should have {atoms} atoms, but line {place} is the "
                    "beginning of another frame"
                )
        raise IncompleteFrame(
            f"the file ends within the frame of line {line}: {max(0, len(rows) - 1)} of {atoms} "
            "atoms"
        )
    last = rows[-1] if rows else ""
    if atoms < 2 or last.endswith(("\n", "\r")):
        return
    # No end of the last line: it may have been cut.
    tokens, others = last.split(), [row.split() for row in rows[1:-1]]
    digits = {len(row[-1].partition(".")[2]) for row in others if row}
    cut = len(tokens) < min(map(len, others))
    if tokens and len(others) > 2 and len(digits) == 1:  # all have the same number of decimals
        (usual,) = digits
        cut |= len(tokens[-1].partition(".")[2]) < usual and usual > 3
    if cut:
        raise IncompleteFrame(f"the file ends within line {line + 1 + atoms}: {_short(last)}")


def parse_frame(frame: Frame, parser: Parser) -> Atoms:
    """Atoms of a frame.

    Raises:
        ValueError: the comment line or an atom cannot be read; the message names the line.
    """
    text = f"{frame.atoms}\n{''.join(frame.rows)}"
    try:
        try:
            (atoms,) = read_xyz(StringIO(text), 0, parser)
        except KeyError:  # of a symbol
            atoms = _with_other_symbols(text, parser)
        if not atoms.numbers.all():
            atom = int(np.flatnonzero(atoms.numbers == 0)[0])
            raise _BadAtom(atom, "it is a vacancy or a dummy atom; remove it from the file")
        return _in_angstrom(atoms)
    except Exception as error:  # ASE raises anything
        place, reason = f"frame {frame.number} at line {frame.line}", str(error)
        if not isinstance(error, _BadAtom):
            error = _find_fault(frame, parser) or error
        if isinstance(error, _BadAtom) and error.atom is None:
            place, reason = f"line {frame.line + 1} of frame {frame.number}", error.reason
        elif isinstance(error, _BadAtom) and error.atom is not None:
            place = f"line {frame.line + 2 + error.atom}, atom {error.atom} of frame {frame.number}"
            reason = f"{_short(frame.rows[error.atom + 1])}: {error.reason}"
        raise ValueError(f"{place}: {reason or type(error).__name__}") from error


class _BadAtom(ValueError):
    """An atom, or the comment line (None), that cannot be read."""

    def __init__(self, atom: int | None, reason: str) -> None:
        super().__init__(reason)
        self.atom, self.reason = atom, reason


def _find_fault(frame: Frame, parser: Parser) -> _BadAtom | None:
    """Find the part of a frame that cannot be read."""
    try:
        columns = parser(frame.rows[0]).get("Properties", DEFAULT_COLUMNS)
        converters = parse_properties(columns)[3]
    except Exception as problem:
        return _BadAtom(None, str(problem) or type(problem).__name__)
    for atom, row in enumerate(frame.rows[1 : frame.atoms + 1]):
        words = row.split()
        try:
            for converter, word in zip(converters, words, strict=False):
                converter(word)
        except (TypeError, ValueError) as problem:
            return _BadAtom(atom, str(problem))
        if len(words) < len(converters):
            return _BadAtom(
                atom, f"{len(words)} of the {len(converters)} columns of Properties={columns}"
            )
    return None


def _with_other_symbols(text: str, parser: Parser) -> Atoms:
    """Atoms of a frame whose first names of atoms are not chemical symbols."""

    def renamed(line: str) -> dict[str, Any]:
        fields = parser(line)
        columns = fields.get("Properties", DEFAULT_COLUMNS)
        return {**fields, "Properties": columns.replace("species:", "label:", 1)}

    (atoms,) = read_xyz(StringIO(text), 0, renamed)
    masses = atoms.get_masses()
    for row, label in enumerate(atoms.arrays.pop("label")):
        try:
            number, mass = element_of_label(label)
        except ValueError as error:
            raise _BadAtom(row, str(error)) from None
        atoms.numbers[row] = number
        masses[row] = mass or np.nan
    if np.isfinite(masses).any():
        usual = Atoms(numbers=atoms.numbers).get_masses()
        atoms.set_masses(np.where(np.isfinite(masses), masses, usual))
    return _refreshed(atoms)


def _in_angstrom(atoms: Atoms) -> Atoms:
    """Convert lengths with a declared unit."""
    unit = declared_units(atoms.info).get("length")
    if unit is None:
        return atoms
    try:
        factor = unit_factor(LENGTH_UNITS, unit)
    except ValueError as error:
        raise ValueError(f"the declared unit of lengths: {error}") from None
    if factor == 1.0:
        return atoms
    atoms.positions *= factor
    atoms.cell *= factor
    return _refreshed(atoms)


def _refreshed(atoms: Atoms) -> Atoms:
    """Attach the results to the atoms as they are now."""
    if atoms.calc is not None:
        atoms.calc.atoms = atoms.copy()
    return atoms


def split_frames(path: str | os.PathLike[str], size: int) -> list[FrameRange] | None:
    """Divide a file at the beginnings of frames.

    Only the numbers of atoms are read.

    Args:
        path: the file.
        size: approximate size of a piece in bytes.

    Returns:
        The pieces, or None if the file is not a plain sequence of frames; reading it as a whole
        then reports the error.
    """
    pieces = []
    total = os.path.getsize(path)
    with open(path, "rb") as file:
        frame = first = start = place = 0
        number = first_number = 1
        for line in file:
            place += len(line)
            number += 1
            count = line.strip()
            if not count:
                continue
            if not is_count(count) or int(count) > total:  # more atoms than bytes
                return None
            rows = list(map(len, islice(file, int(count) + 1)))
            if len(rows) <= int(count):
                return None
            place += sum(rows)
            number += len(rows)
            frame += 1
            if place - start >= size:
                pieces.append(FrameRange(first, start, place, first_number))
                first, start, first_number = frame, place, number
    if frame > first:
        pieces.append(FrameRange(first, start, place, first_number))
    return pieces


def open_frames(
    path: str | os.PathLike[str], part: FrameRange | None = None
) -> StringIO | TextIOWrapper:
    """Open a file, or a range of frames as a separate file."""
    if part is None:
        return TextIOWrapper(open_with_compression(os.fspath(path), "rb"), "utf-8", "replace")
    with open(path, "rb") as file:
        file.seek(part.start)
        return StringIO(file.read(part.stop - part.start).decode("utf-8", "replace"))


def _ignore(line: str) -> dict[str, Any]:
    return {}


def properties_parser(order: str) -> Parser:
    """Parser of comment lines that understands more than ASE's.

    Six components of ``stress`` or ``virial`` are expanded to nine; keys that ASE knows, and names
    of the periodic directions, may be in any case.

    Args:
        order: Voigt order of the six: ``ase``, ``lammps`` or ``vasp``.
    """

    def parse(line: str) -> dict[str, Any]:
        empty = []
        if "= " in line or "=\t" in line:
            if match := NO_VALUE.search(QUOTED.sub("…", line)):
                raise ValueError(
                    f'the key {match.group(1)!r} has no value; write {match.group(1)}="" or '
                    "remove it"
                )
        if '=""' in line or "=''" in line or "={}" in line or "=[]" in line:
            empty = [match.group(1) for match in EMPTY_QUOTES.finditer(line)]
            line = EMPTY_QUOTES.sub("", line)
        fields: dict[str, Any] = key_val_str_to_dict(SIX_COMPONENTS.sub(nine, line))
        fields.update(dict.fromkeys(empty, ""))
        return _known_keys(fields, line)

    def nine(match: re.Match[str]) -> str:
        values = match.group(3).replace(",", " ").split()
        if len(values) != 6:
            return match.group(0)
        tensor = stress_tensor([float(value) for value in values], order)
        return f'{match.group(1)}="{" ".join(repr(float(x)) for x in tensor.ravel())}"'

    return parse


def _known_keys(fields: dict[str, Any], line: str) -> dict[str, Any]:
    """Fields with the keys that ASE knows.

    Raises:
        ValueError: a cell, the columns or the periodic directions are written in a way that would
            be ignored.
    """
    periodic: dict[str, tuple[bool, ...]] = {}
    for key in list(fields):
        match = _special(key)
        if match is None:
            continue
        value = fields[key]
        # A word of a plain comment, such as "periodic slab", is no key.
        if value is True and f"{key}=" not in line.replace(" =", "="):
            if key == "pbc":
                del fields[key]
        elif match.group(1):
            name = match.group(1).capitalize()
            if key != name and name not in fields:
                fields[name] = _nine_numbers(key, fields.pop(key)) if name == "Lattice" else value
        elif match.group(2):
            if (directions := periodic_directions(value)) is not None:
                periodic[key] = directions
            elif "pbc" not in map(str.lower, fields) or key.lower() == "pbc":
                raise ValueError(f'{key}={value!r} is not understood; write pbc="T T F"')
        elif match.group(3) and np.size(value) in (3, 6, 9) and "lattice" not in line.lower():
            raise ValueError(f'the cell is under the key {key!r}; write it as Lattice="…"')
    if len(set(periodic.values())) > 1:
        raise ValueError(f"{' and '.join(periodic)} disagree about the periodic directions")
    if periodic:
        fields["pbc"] = list(next(iter(periodic.values())))
    columns = fields.get("Properties", DEFAULT_COLUMNS)
    if columns is not DEFAULT_COLUMNS:
        fields["Properties"] = _known_columns(str(columns))
    return fields


@lru_cache(1000)
def _special(key: str) -> re.Match[str] | None:
    """Match of a key that is not left as it is."""
    return None if key in ("Lattice", "Properties") else KEYS.fullmatch(key)


def _nine_numbers(key: str, value: Any) -> Any:
    """Cell as ASE's parser gives it."""
    if np.shape(value) != (9,):
        raise ValueError(f"{key}={value!r} should be nine numbers")
    return np.asarray(value).reshape((3, 3), order="F")


def _known_columns(columns: str) -> str:
    """Columns with ASE's names of the species and positions.

    Raises:
        ValueError: one of them is missing; ASE would put all atoms at the origin.
    """
    names = columns.split(":")
    names[1::3] = [kind.upper() for kind in names[1::3]]
    for place in range(0, len(names), 3):
        name = names[place].lower()
        name = COLUMNS.get(name, name)
        if name in ("species", "pos", "z"):
            names[place] = "Z" if name == "z" else name
    found = set(names[::3])
    if "pos" not in found or not found & {"species", "Z"}:
        missing = "species:S:1" if "pos" in found else "pos:R:3"
        raise ValueError(f"Properties={columns} has no {missing}")
    return ":".join(names)


def periodic_directions(value: Any) -> tuple[bool, ...] | None:
    """Periodic directions from texts such as ``T T F``, ``1 1 0``, ``p p f``, ``ppf`` or ``True``.

    Returns:
        Three values, or None if they are not understood.
    """
    if isinstance(value, list) and len(value) == 3:
        return bool(value[0]), bool(value[1]), bool(value[2])  # ASE's parser has understood it
    text = value if isinstance(value, str) else " ".join(map(str, np.ravel(value)))
    words = text.lower().replace(",", " ").split()
    if len(words) == 1 and re.fullmatch(r"[tfpsmn01]{3}", words[0]):
        words = list(words[0])
    if len(words) == 1:
        words *= 3
    if len(words) != 3 or not all(word in PERIODIC or OPEN.fullmatch(word) for word in words):
        return None
    return tuple(word in PERIODIC for word in words)


def _short(text: str) -> str:
    """Text in quotation marks for a message."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
