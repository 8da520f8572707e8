"""ASE's atoms and the arrays of other programs, given to calculators and to graphs."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell

from benchmarks.faults.kinds.common import labelled_frames, write_model
from benchmarks.faults.mutations import pick
from benchmarks.faults.running import Case, Kind
from tesseral import TesseralCalculator
from tesseral.data.neighbors import atomic_graph
from tesseral.data.structures import make_structure
from tesseral.potentials.derivatives import predict

LENGTHS = (np.nan, np.inf, 0.0, 1e-300, 1e-3, 0.02, 0.3, -1.0, 1e4, 1e8, 1e16, 1e300)


def prepare(samples: Path) -> Mapping[str, Any]:
    """A model, and the numbers of the undamaged atoms."""
    write_model(samples / "model.safetensors")
    return {name: act(_atoms(), samples) for name, act in ACTIONS.items()}


def case(rng: np.random.Generator, samples: Path) -> Case:
    """Damaged atoms, in a calculator, a graph or a structure."""
    name = pick(rng, ACTIONS)
    atoms = _atoms()
    what = pick(rng, (_array, _array, _lattice, _lattice, _lattice, _values, _values))(rng, atoms)
    if rng.random() < 0.2:
        what += f", {_lattice(rng, atoms)}"
    why = "other positions, cell or elements"
    return Case(f"{name}: {what}", lambda: ACTIONS[name](atoms, samples), name, why)


def _atoms() -> Atoms:
    atoms = labelled_frames(2)[1].copy()
    atoms.calc = None
    return atoms


def _results(atoms: Atoms) -> Any:
    try:
        energy = atoms.get_potential_energy()
    except (TypeError, IndexError) as error:
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if any(re.search(r"(?<!ase)/calculators/ase\.py$", name) for name in files):
            raise
        raise ValueError(f"ASE refuses it: {error}".splitlines()[0]) from error
    return [float(energy), *np.asarray(atoms.get_forces()).ravel().tolist()]


def calculator(atoms: Atoms, samples: Path, ops: str = "auto") -> Any:
    """Energy and forces from a new calculator."""
    atoms.calc = TesseralCalculator(samples / "model.safetensors", device="cpu", ops=ops)
    return _results(atoms)


def reference(atoms: Atoms, samples: Path) -> Any:
    """Energy and forces with plain PyTorch."""
    return calculator(atoms, samples, ops="reference")


def used(atoms: Atoms, samples: Path) -> Any:
    """Energy and forces from a calculator that has a neighbour list of the undamaged atoms."""
    first = _atoms()
    first.calc = TesseralCalculator(samples / "model.safetensors", device="cpu")
    _results(first)
    atoms.calc = first.calc
    return _results(atoms)


def graph(atoms: Atoms, samples: Path) -> Any:
    """Energies and forces of a graph."""
    maker = TesseralCalculator(samples / "model.safetensors", device="cpu")
    made = atomic_graph(
        atoms.arrays["numbers"],
        atoms.arrays["positions"],
        atoms.cell.array,
        atoms.pbc,
        maker.card.elements,
        maker.card.config.cutoff,
    )
    answer = predict(maker.potential, made)
    return [float(answer.energy[0]), *answer.forces.ravel().tolist()]


def structure(atoms: Atoms, samples: Path) -> Any:
    """Arrays of a checked structure."""
    made = make_structure(
        atoms.arrays["numbers"], atoms.arrays["positions"], cell=atoms.cell.array, pbc=atoms.pbc
    )
    return [np.asarray(part, dtype=float).ravel().tolist() for part in made[:4]]


def torchsim(atoms: Atoms, samples: Path) -> Any:
    """Energy and forces of a batch of two systems with torch-sim; nothing without it."""
    try:
        from tesseral.calculators.torchsim import TesseralModel
    except ModuleNotFoundError:
        return None
    import torch

    model = TesseralModel(samples / "model.safetensors", device="cpu")
    other = _atoms()
    both = [np.asarray(one.arrays["positions"], dtype=float) for one in (other, atoms)]
    state = {
        "positions": torch.from_numpy(np.concatenate(both)),
        "cell": torch.tensor(np.stack([other.cell.array.T, atoms.cell.array.T])),
        "atomic_numbers": torch.tensor(
            np.concatenate([other.numbers, np.asarray(atoms.arrays["numbers"], dtype=int)])
        ),
        "system_idx": torch.tensor([0] * len(both[0]) + [1] * len(both[1])),
        "pbc": bool(atoms.pbc.all()),
    }
    try:
        found = model(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        if "torch_sim" in repr(error.__traceback__) or "state" in str(error):
            raise ValueError(f"torch-sim refuses it: {error}".splitlines()[0]) from error
        raise
    return [found["energy"].tolist(), found["forces"].tolist()]


ACTIONS: dict[str, Callable[[Atoms, Path], Any]] = {
    "calculator": calculator,
    "reference": reference,
    "used": used,
    "graph": graph,
    "structure": structure,
    "torchsim": torchsim,
}


def _array(rng: np.random.Generator, atoms: Atoms) -> str:
    """Give an array another length, shape or dtype, as assignments to ``arrays`` can."""
    name = pick(rng, ("numbers", "positions", "numbers", "positions", "both"))
    names = ("numbers", "positions") if name == "both" else (name,)
    what = pick(
        rng,
        ("shorter", "empty", "longer", "one", "flat", "column", "axis", "float32", "complex")
        + ("object", "text", "bool", "int8", "order", "huge integers"),
    )
    for each in names:
        array = atoms.arrays[each]
        made: dict[str, Callable[[], Any]] = {
            "shorter": lambda a=array: a[:-1],
            "empty": lambda a=array: a[:0],
            "longer": lambda a=array: np.concatenate([a, a[-1:]]),
            "one": lambda a=array: a[:1],
            "flat": lambda a=array: a.reshape(-1),
            "column": lambda a=array: a[..., :1] if a.ndim > 1 else a[:, None],
            "axis": lambda a=array: a[None],
            "float32": lambda a=array: a.astype(np.float32),
            "complex": lambda a=array: a.astype(complex) + 1j,
            "object": lambda a=array: a.astype(object),
            "text": lambda a=array: a.astype(str),
            "bool": lambda a=array: a.astype(bool),
            "int8": lambda a=array: a.astype(np.int8),
            "order": lambda a=array: np.asfortranarray(a)[::-1],
            "huge integers": lambda a=array: np.full(a.shape, 2**62),
        }
        atoms.arrays[each] = made[what]()
    return f"{name} {what}"


def _lattice(rng: np.random.Generator, atoms: Atoms) -> str:
    """Change the cell or the periodic directions."""
    what = pick(rng, ("vector", "vector", "element", "scale", "zero", "flat", "skew", "pbc", "raw"))
    if atoms.cell.array.shape != (3, 3):
        return "again"
    cell = atoms.cell.array.copy()
    value = pick(rng, LENGTHS)
    row = int(rng.integers(3))
    with np.errstate(all="ignore"):
        if what == "vector":
            cell[row] = 0
            cell[row, row] = value
        elif what == "element":
            cell[row, int(rng.integers(3))] = value
        elif what == "scale":
            cell *= value
        elif what == "zero":
            cell[row] = 0
        elif what == "flat":
            cell[row] = cell[(row + 1) % 3] * 1.0000001
        elif what == "skew":
            cell[row] += 1e4 * cell[(row + 1) % 3]
    if what == "pbc":
        atoms.pbc = rng.random(3) < 0.5
    elif what == "raw":
        atoms._cellobj = Cell(cell)
        shape = pick(rng, ((3, 3), (3,), (2, 3), (9,)))
        atoms._cellobj.array = np.resize(cell, shape)
        value = shape
    else:
        atoms._cellobj = Cell(cell)
    return f"cell {what} {row} {value}"


def _values(rng: np.random.Generator, atoms: Atoms) -> str:
    """Change single positions and numbers."""
    atom = int(rng.integers(len(atoms.arrays["positions"])))
    if rng.random() < 0.4:
        number = pick(rng, (0, -1, 1, 118, 119, 200, 2**40, -(2**40)))
        atoms.arrays["numbers"][atom] = number
        return f"number of atom {atom} is {number}"
    if rng.random() < 0.2:
        atoms.arrays["positions"][:] = atoms.arrays["positions"][atom]
        return "all atoms in one place"
    value = pick(rng, LENGTHS)
    atoms.arrays["positions"][atom, int(rng.integers(3))] = value
    return f"position of atom {atom} is {value}"


KIND = Kind("structures", prepare, case, 2)
