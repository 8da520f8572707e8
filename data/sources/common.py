"""Common parts of the readers: formats, lines, tables of numbers, labelled atoms."""

from __future__ import annotations

import lzma
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.io.formats import open_with_compression
from numpy.typing import ArrayLike, NDArray

from tesseral.data.sources.settings import add_settings
from tesseral.data.units import stress_voigt

Reader = Callable[..., Iterator[Atoms]]
Array = NDArray[np.float64]
T = TypeVar("T")


class Format(NamedTuple):
    """File format with its reader; `formats.FORMATS` lists them.

    Attributes:
        name: name as in ``ase.io.read`` if ASE has the format.
        read: the reader; it gets the path, a counter of omissions, and the options in ``takes``.
        steps: whether the frames are steps of one calculation, and so belong to one group.
        recognise: function that recognises the format by the first bytes of a file. Default: never.
        suffixes: suffixes of file names that no other format has.
        file_names: regular expression of the file names searched for in folders. Text files (.out,
            .pwo, .txt, .log, …) whose first bytes are recognised are found there too.
        takes: options of the import that the reader takes as keyword arguments. Units among them
            are converted by the reader.
    """

    name: str
    read: Reader
    steps: bool = False
    recognise: Callable[[bytes], bool] = lambda head: False
    suffixes: tuple[str, ...] = ()
    file_names: str | None = None
    takes: tuple[str, ...] = ()

    @property
    def recognised_only(self) -> bool:
        """Whether the content of a file decides, and its name says nothing."""
        return self.recognise is not self._field_defaults["recognise"] and not (
            self.suffixes or self.file_names
        )


# Omissions that a reader may count, shown after the number of steps or files and before the files.
UNCONVERGED = "steps left out (electronic steps did not converge)"
NOT_SELF_CONSISTENT = "steps left out (not self-consistent: density or orbitals were kept fixed)"
UNREADABLE = "steps left out (numbers missing or overflowed to ***)"
LEARNED = "steps left out (from a learned force field, not from DFT)"
CUT_OFF = "files end before their calculation did (killed or still running); complete steps kept"
DAMAGED = "files are damaged in the middle; the steps before that are kept"
CUT_OFF_FRAME = "files end within a frame; the frames before it are kept"
NO_STRESS = "stresses left out (ISIF 0 computes none, ISIF 1 the pressure only)"
ASYMMETRIC = "stresses left out (not symmetric)"

LABEL = re.compile(r"([A-Z][a-z]?)[\d_+\-*'.:(].*")
ISOTOPES = {"D": 2.014, "T": 3.016}  # of hydrogen, amu

# Fortran may leave no space before a minus sign.
NUMBER = re.compile(r"[-+]?\d+\.\d*(?:[Ee][-+]?\d+)?")


def whole_lines(path: str, last: bool = False) -> Iterator[str]:
    """Lines of a text file, plain or compressed (.gz, .bz2, .xz).

    The lines end where a truncated compressed file ends.

    Args:
        path: the file.
        last: whether to keep a last line that does not end, as in files that scripts have written.
            In the output of a killed calculation, such a line is truncated.
    """
    with open_with_compression(path, "rb") as file:
        try:
            for line in file:
                if last or line.endswith(b"\n"):
                    yield line.decode("utf-8", "replace")
        except (EOFError, zlib.error, lzma.LZMAError):
            return


def take(lines: Iterator[str], count: int, skip: int = 0) -> list[str]:
    """Take the next lines.

    Raises:
        EOFError: there are too few lines.
    """
    found = list(islice(lines, skip, skip + count))
    if len(found) < count:
        raise EOFError("the file ends within a table")
    return found


def table(lines: Sequence[str], columns: int) -> Array:
    """The first decimal numbers of each line, (len(lines), columns); integers do not count.

    Raises:
        ValueError: a number is missing, or was too large for its field and printed as asterisks.
    """
    rows = [NUMBER.findall(line)[:columns] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        if len(row) < columns or "*" in line:
            raise ValueError(f"{columns} numbers were expected in {line.strip()!r}")
    return np.array([[float(number) for number in row] for row in rows])


def chemical_symbol(label: str) -> str:
    """Chemical symbol in a label such as ``Fe1`` or ``O_h``.

    Raises:
        ValueError: the label names no element.
    """
    letters = re.match(r"[A-Za-z]+", label)
    symbol = letters[0].capitalize() if letters else ""
    if symbol[:2] in atomic_numbers:
        return symbol[:2]
    if symbol[:1] in atomic_numbers:
        return symbol[:1]
    raise ValueError(f"the label {label!r} of an atom names no element")


def labelled_atoms(
    symbols: Sequence[str],
    positions: ArrayLike,
    cell: ArrayLike,
    *,
    pbc: ArrayLike = True,
    settings: str = "",
    stress: ArrayLike | None = None,
    **results: Any,
) -> Atoms:
    """Atoms with those results of a calculation that are not None.

    Args:
        symbols: n chemical symbols.
        positions: (n, 3) Å.
        cell: (3, 3) Å.
        pbc: periodic directions.
        settings: settings of the calculation, from `settings_text`.
        stress: (3, 3) eV/Å³, positive under tension.
        results: energy and free_energy in eV, forces in eV/Å.

    Raises:
        ValueError: a number is not finite, or there are more or fewer positions or forces than
            symbols.
    """
    atoms = Atoms(symbols=list(symbols), positions=positions, cell=cell, pbc=pbc)
    known = {name: value for name, value in results.items() if value is not None}
    if len(known.get("forces", atoms)) != len(atoms):
        raise ValueError(f"there are {len(known['forces'])} forces for {len(atoms)} atoms")
    for numbers in (positions, cell, stress, *known.values()):
        if numbers is not None and not np.isfinite(numbers).all():
            raise ValueError("a position, lattice vector or result is not a finite number")
    if stress is not None:
        known["stress"] = stress_voigt(stress)
    atoms.calc = SinglePointCalculator(atoms, **known)
    add_settings(atoms, settings)
    return atoms


def element_of_label(label: str) -> tuple[int, float | None]:
    """Atomic number of a symbol, an isotope, an atomic number, or a label such as ``Fe1``.

    Returns:
        The number, and the mass (amu) of an isotope.

    Raises:
        ValueError: the label is none of these.
    """
    if label in ISOTOPES:
        return 1, ISOTOPES[label]
    if label.capitalize() in atomic_numbers:
        return atomic_numbers[label.capitalize()], None
    if label.isdigit() and int(label) < 119:
        return int(label), None
    match = LABEL.fullmatch(label)
    if match and match.group(1) in atomic_numbers:
        return atomic_numbers[match.group(1)], None
    raise ValueError(
        f"{label!r} is neither a chemical symbol nor a label that begins with one, as Fe1"
    )


def choose(members: Iterator[T], index: str) -> Iterator[T]:
    """Select the members of an index in ASE notation: ``:``, ``::10``, ``5``, ``-1``.

    Raises:
        ValueError: the index is not in ASE notation.
    """
    try:
        parts = [int(part) if part else None for part in index.split(":")]
    except ValueError:
        raise ValueError(f"the index {index!r} is none like :, ::10, 5 or -1") from None
    if len(parts) == 1 and parts[0] is not None:
        first = parts[0]
        if first >= 0:
            return islice(members, first, first + 1)
        last = deque(members, maxlen=-first)
        return islice(last, 1)
    if any(part is not None and part < 0 for part in parts):
        return iter(list(members)[slice(*parts)])
    return islice(members, *parts)
