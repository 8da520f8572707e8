"""Bitwise comparison of energies, forces and stress of model files between two versions.

    python -m benchmarks.same_numbers dump MODEL.safetensors … -o before.json
    python -m benchmarks.same_numbers dump MODEL.safetensors … -o after.json
    python -m benchmarks.same_numbers compare before.json after.json

``dump`` uses the installed version of tesseral, in float64 and on one thread, once with the
compiled kernels and once with plain PyTorch. The structures consist of the elements of each model:
a crystal, a strained and rattled cell, a slab, a cluster, a cell with one atom, a short dimer and
an isolated atom. Numbers are written as hexadecimal floats. ``compare`` lists all differences and
their size; its exit status is 1 if there are any. Both files must come from the same machine, since
other processors round differently.

Only public names of the package are used, so the program also runs with older versions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.progress import track

from tesseral import TesseralCalculator, load_model

OPS = ("fused", "reference")
SEED = 25
NEAREST = 2.5  # Å, distance between atoms of the crystals


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_numbers", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    dump = commands.add_parser("dump", help="compute and write the numbers of model files")
    dump.add_argument("models", nargs="+", type=Path)
    dump.add_argument("-o", "--output", type=Path, required=True)
    both = commands.add_parser("compare", help="compare two files, bit by bit")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    options = parser.parse_args(arguments)
    console = Console()
    if options.command == "dump":
        names = [path.stem for path in options.models]
        if len(set(names)) < len(names):
            parser.error("two models have the same name")
        found = {path.stem: model_numbers(path) for path in track(options.models, console=console)}
        content = {"tesseral": version("tesseral"), "models": found}
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        console.print(f"wrote {options.output}", highlight=False, soft_wrap=True)
        return 0
    before, after = (
        json.loads(path.read_text(encoding="utf-8"))["models"]
        for path in (options.before, options.after)
    )
    count, lines = differences(before, after)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    console.print(
        f"{len(before)} models, {count} numbers: "
        + ("all equal to the last bit" if not lines else f"{len(lines)} differences")
    )
    return int(bool(lines))


def model_numbers(path: Path) -> dict[str, Any]:
    """Hash of a model file, and its numbers by operators and structure."""
    torch.set_num_threads(1)
    _, card = load_model(path, dtype="float64", ops="reference")
    atoms = structures(card.elements)
    numbers: dict[str, Any] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "structures": {name: _hex(one.positions) for name, one in atoms.items()},
    }
    for ops in OPS:
        calculator = TesseralCalculator(path, device="cpu", dtype="float64", ops=ops)
        numbers[ops] = {name: results(one, calculator) for name, one in atoms.items()}
    return numbers


def results(atoms: Atoms, calculator: Any) -> dict[str, list[str]]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³, if there is one) as hexadecimal floats."""
    atoms = atoms.copy()
    atoms.calc = calculator
    found = {"energy": [atoms.get_potential_energy()], "forces": atoms.get_forces()}
    if atoms.pbc.any():
        found["stress"] = atoms.get_stress()
    return {name: _hex(values) for name, values in found.items()}


def structures(elements: Sequence[int]) -> dict[str, Atoms]:
    """Structures by name, with atoms of all elements; positions do not depend on any library."""
    generator = np.random.default_rng(SEED)
    edge = 2 * NEAREST / 3**0.5  # edge of the body-centred cubic cell

    def numbers(count: int) -> list[int]:
        kinds = [int(z) for z in generator.permutation(list(elements))]
        return [kinds[i % len(kinds)] for i in range(count)]

    def crystal(repeats: tuple[int, int, int], strain: float, noise: float) -> Atoms:
        corners = np.indices(repeats).reshape(3, -1).T
        places = edge * np.concatenate([corners, corners + 0.5])
        cell = np.diag(edge * np.array(repeats))
        change = np.eye(3) + strain * generator.uniform(-1, 1, size=(3, 3))
        atoms = Atoms(numbers(len(places)), places, cell=cell, pbc=True)
        atoms.set_cell(cell @ change, scale_atoms=True)
        atoms.positions += noise * generator.standard_normal(places.shape)
        return atoms

    large = (4, 4, 3) if len(elements) > 16 else (2, 2, 2)
    made = {
        "crystal": crystal((2, 1, 1), 0.0, 0.0),
        "rattled": crystal(large, 0.05, 0.1),
        "slab": crystal((2, 2, 1), 0.02, 0.1),
        "cluster": crystal((2, 1, 1), 0.0, 0.2),
        "one atom": crystal((1, 1, 1), 0.05, 0.0)[:1],
        "dimer": Atoms(numbers(2), [[0.0, 0.0, 0.0], [0.48, -0.64, 0.6]]),
        "atom": Atoms(numbers(1), [[0.0, 0.0, 0.0]]),
    }
    made["slab"].cell[2] = [0.3, 0.2, 15.0]
    made["slab"].pbc = [True, True, False]
    made["cluster"].cell[:], made["cluster"].pbc = 0.0, False
    return made


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Number of compared values, and a line for each array that differs."""
    lines = [f"{name} is in one file only" for name in sorted(before.keys() ^ after.keys())]
    count = 0
    for name in (name for name in before if name in after):
        if before[name]["sha256"] != after[name]["sha256"]:
            lines.append(f"{name}: not the same model file")
            continue
        if before[name]["structures"] != after[name]["structures"]:
            lines.append(f"{name}: not the same structures")
            continue
        for path, one in _arrays(before[name]):
            other: Any = after[name]
            for key in path:
                other = other.get(key, {})
            count += len(one)
            if one != other:
                lines.append(f"{name}: {', '.join(path)} {_apart(one, other)}")
    return count, lines


def _arrays(numbers: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Operators, structure and property of each array, with its numbers."""
    for ops in OPS:
        for structure, found in numbers[ops].items():
            for name, values in found.items():
                yield (ops, structure, name), values


def _apart(one: Sequence[str], other: Sequence[str]) -> str:
    """Description of the difference between two arrays."""
    if len(one) != len(other):
        return f"has {len(one)} numbers before and {len(other)} after"
    first, second = (np.array([float.fromhex(text) for text in part]) for part in (one, other))
    apart, size = np.abs(first - second).max(), np.abs(first).max()
    return f"differs by {apart:.2e} (largest value {size:.2e})"


def _hex(values: Any) -> list[str]:
    """Numbers of an array as a flat list of hexadecimal floats."""
    return [float(value).hex() for value in np.asarray(values, dtype=np.float64).ravel()]


if __name__ == "__main__":
    sys.exit(main())
