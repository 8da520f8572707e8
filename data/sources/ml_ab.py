"""Configurations in VASP's ML_AB and ML_ABN, the DFT data of its learned force fields.

The file lists energies, forces and stresses of DFT calculations of one system or several. Its
energy is the free energy TOTEN; energy(sigma->0) is not in it. See https://www.vasp.at/wiki/ML_AB.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
from ase import Atoms

from tesseral.data.sources.common import (
    CUT_OFF,
    UNREADABLE,
    Array,
    Format,
    labelled_atoms,
    whole_lines,
)
from tesseral.data.sources.vasp_settings import element_of, vasp_stress

Blocks = Mapping[str, list[str]]  # lines of each block by its title

RULE = re.compile(r"\s*([*=])\1{9,}\s*")
RULE_BELOW_TITLE = re.compile(r"\s*-{10,}\s*")
STRESS = ("XX", "YY", "ZZ", "XY", "YZ", "ZX")  # VASP's order


def read_ml_ab(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Configurations of an ML_AB; ``config_type`` is the name of the system.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.

    Raises:
        ValueError: the file does not tell its number of configurations.
    """
    configurations = _configurations(whole_lines(path))
    header = next(configurations)
    announced = int(_content(header, "The number of configurations")[0])
    count, incomplete, with_stress = 0, False, False
    for blocks in configurations:
        left_out[UNREADABLE] += incomplete  # the file did not end in the previous one
        count, incomplete = count + 1, False
        try:
            atoms = _atoms(blocks, with_stress, left_out)
        except EOFError:
            incomplete = True
        except ValueError:
            left_out[UNREADABLE] += 1
        else:
            with_stress = with_stress or "stress" in atoms.calc.results
            yield atoms
    left_out[CUT_OFF] += incomplete or count < announced


def _configurations(lines: Iterator[str]) -> Iterator[dict[str, list[str]]]:
    """Blocks of the header, then those of each configuration."""
    blocks: dict[str, list[str]] = {}
    block: list[str] = []
    for line in chain(lines, ["*" * 50]):
        if RULE.fullmatch(line):
            if block and block[0].startswith("Configuration num"):
                yield blocks
                blocks = {}
            elif block:
                blocks[block[0]] = block[1:]
            block = []
        elif line.strip() and not RULE_BELOW_TITLE.fullmatch(line):
            block.append(line.strip())
    yield blocks


def _content(blocks: Blocks, title: str) -> list[str]:
    """Lines of the block whose title begins so.

    Raises:
        EOFError: there is none, or it is empty.
    """
    for name, lines in blocks.items():
        if name.startswith(title) and lines:
            return lines
    raise EOFError(f"there is no {title!r}")


def _vectors(blocks: Blocks, title: str, count: int) -> Array:
    """Numbers of a block with three in each of its lines, (count, 3).

    Raises:
        EOFError: there are too few lines.
        ValueError: there are too many, or a word is not a number.
    """
    lines = _content(blocks, title)
    if len(lines) < count:
        raise EOFError(f"{title!r} has {len(lines)} lines")
    rows = [[_number(word) for word in line.split()] for line in lines]
    return np.array(rows, dtype=np.float64).reshape(count, 3)


def _number(word: str) -> float:
    """Number in Fortran's form."""
    return float(word.replace("D", "E"))


def _atoms(blocks: Blocks, with_stress: bool, left_out: Counter[str]) -> Atoms:
    """Atoms of a configuration.

    Raises:
        EOFError: a block or a line is missing.
        ValueError: a word is not a number, or a name not an element.
    """
    symbols: list[str] = []
    for line in _content(blocks, "Atom types and atom numbers"):
        name, count = line.split()
        symbols += [element_of("", name)] * int(count)
    positions = _vectors(blocks, "Atomic positions", len(symbols))
    energy = _number(_content(blocks, "Total energy")[0])
    forces = _vectors(blocks, "Forces", len(symbols))
    components: dict[str, float] = {}
    if with_stress or any(title.startswith("Stress") for title in blocks):
        lines = _content(blocks, "Stress")
        for names, numbers in zip(lines[::2], lines[1::2], strict=False):
            words = map(_number, numbers.split())
            components |= dict(zip(names.split(), words, strict=True))
        if len(components) < len(STRESS):
            raise EOFError(f"the stress has {len(components)} components")
    kbar = [components[name] for name in STRESS] if components else None
    atoms = labelled_atoms(
        symbols,
        positions,
        _vectors(blocks, "Primitive lattice vectors", 3),
        settings="code VASP",
        stress=vasp_stress(kbar, {}, left_out),
        energy=energy,
        free_energy=energy,
        forces=forces,
    )
    atoms.info["config_type"] = " ".join(blocks.get("System name", []))
    return atoms


FORMAT = Format(
    "vasp-ml-ab",
    read_ml_ab,
    steps=True,
    recognise=lambda head: b"The number of configurations" in head and b"Version" in head[:40],
    file_names=r".*ML_ABN?([._-].*)?",
)
