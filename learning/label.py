"""Labels of structures: from an ASE calculator, a model, or somebody else.

Each label is computed in a folder of its own, by an executor. It is written by the process that
computes it, so that it is never computed again, whatever happens to the others.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, FileIOCalculator
from ase.calculators.genericfileio import GenericFileIOCalculator
from ase.calculators.vasp import Vasp
from numpy.typing import NDArray

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import is_crystal
from tesseral.calculators.simulations.frames import write_frames
from tesseral.data.imports.config import ImportConfig
from tesseral.data.imports.importer import import_structures
from tesseral.data.sources.opening import read_last_frame
from tesseral.data.store.read import open_store
from tesseral.data.structures import Structure, atoms_from_structure, structure_from_atoms
from tesseral.files import make_folder, one_line, write_json
from tesseral.learning.config import LabelConfig
from tesseral.process import finished

SAME = 1e-3  # Å, between the positions of a structure and those in the output of its calculation
FAILED = ".failed.json"
SUSPECT = ".suspect"  # empty file for a label that was being computed when a process ended abruptly
LAG = 60  # s, after which a network file system shows what another machine has written
FILES = (FileIOCalculator, GenericFileIOCalculator, Vasp)  # whose results are read from files


class Label(NamedTuple):
    """A label, or the reason why there is none."""

    name: str
    structure: Structure | None
    reason: str = ""


class Round(NamedTuple):
    """A round with its labels."""

    number: int
    folder: Path
    labels: list[Label]
    tested: dict[str, Any] | None  # errors before training; None if there was no model
    selected: tuple[str, ...]  # names of all structures to label, with those without one


def label_path(folder: Path, name: str) -> Path:
    """File of a label."""
    return folder / f"{name}.extxyz"


def known_label(folder: Path, name: str) -> Label | None:
    """The label of a structure, or that it failed; None if it has not been computed yet."""
    path = label_path(folder, name)
    if path.is_file():
        return Label(name, structure_from_atoms(read_last_frame(path)))
    failed = folder / f"{name}{FAILED}"
    if failed.is_file():
        return Label(name, None, json.loads(failed.read_text("utf-8"))["reason"])
    return None


def write_label(folder: Path, name: str, label: Structure) -> None:
    """Write a label to its file."""
    write_frames(label_path(folder, name), [atoms_from_structure(label)])


def forget_failures(folder: Path) -> None:
    """Let labels that could not be had be tried again."""
    for path in (*folder.glob(f"*{FAILED}"), *folder.glob(f"*{SUSPECT}")):
        path.unlink()


def write_failure(folder: Path, name: str, reason: str) -> None:
    """Note that a label cannot be had, so that it is not tried again."""
    write_json(folder / f"{name}{FAILED}", {"reason": reason}, indent=1)


def compute_labels(
    structures: Mapping[str, Structure],
    config: LabelConfig,
    folder: Path,
    executor: Executor,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Label]:
    """Compute labels that are not known yet, and yield each when it is there.

    Those that were being computed when a process ended abruptly come last, each alone, since one of
    them may have been the cause.

    Args:
        structures: structures by name.
        config: the source.
        folder: folder of the labels, which all processes see.
        executor: where they are computed.
        check: called every half second.

    Raises:
        BrokenExecutor: a process ended abruptly; the labels that are there are kept, and another
            call computes the others. A label whose process does so while it is alone has failed.
        OSError: a label was computed, but is not in the folder.
    """
    folder = folder.absolute()
    make_folder(folder)
    todo = [name for name in structures if known_label(folder, name) is None]
    suspects = [name for name in todo if (folder / f"{name}{SUSPECT}").is_file()]
    together = [name for name in todo if name not in suspects]
    for names in (together, *([name] for name in suspects)):
        futures: dict[Future[None], str] = {}
        try:
            for name in names:
                task = (name, structures[name], config, folder)
                futures[executor.submit(compute_label, *task)] = name
            for done in finished(futures):
                check()
                for future in done:
                    future.result()
                    yield _awaited(folder, futures[future])
        except BrokenExecutor:
            _note_break(names, folder, alone=names is not together)
            raise
        finally:
            for future in futures:
                future.cancel()


def _note_break(names: Sequence[str], folder: Path, *, alone: bool) -> None:
    """Note which labels were being computed when a process ended abruptly."""
    for name in names:
        if known_label(folder, name) is None and (folder / name).is_dir():
            if alone:
                place = folder / name
                reason = f"its process ended abruptly twice; the files are in {place}"
                write_failure(folder, name, reason)
                (folder / f"{name}{SUSPECT}").unlink()
            else:
                (folder / f"{name}{SUSPECT}").touch()


def _awaited(folder: Path, name: str) -> Label:
    """A label that has been computed, perhaps on another machine.

    Raises:
        OSError: it is not there.
    """
    for wait in (0.0, *[1.0] * LAG):
        time.sleep(wait)
        os.listdir(folder)  # asks the server again
        label = known_label(folder, name)
        if label is not None:
            (folder / f"{name}{SUSPECT}").unlink(missing_ok=True)
            return label
    raise OSError(
        f"label {name} was computed, but is not in {folder}; all processes must see this folder"
    )


def compute_label(name: str, structure: Structure, config: LabelConfig, folder: Path) -> None:
    """Compute a label in a folder of its own, and write it, or the reason why it failed.

    Args:
        name: name of the structure.
        structure: the structure.
        config: the source.
        folder: folder of the labels.
    """
    place = folder / name
    rmtree(place, ignore_errors=True)  # of an attempt that was interrupted
    make_folder(place)
    atoms = atoms_from_structure(structure)
    try:
        calculator = make_calculator(config, place)
        label = _computed(atoms, calculator, place)
    except Exception as error:  # calculators raise anything
        write_failure(folder, name, one_line(error) or type(error).__name__)
    else:
        theory = config.theory or label.theory or getattr(calculator, "theory", "")
        label = label._replace(theory=theory, source=f"{config.calculator} {name}")
        write_label(folder, name, of_same_origin(label, structure))
    if not any(place.iterdir()):
        place.rmdir()


def of_same_origin(label: Structure, structure: Structure) -> Structure:
    """A label with the texts about how its structure was made."""
    return label._replace(config_type=structure.config_type, group=structure.group)


def _computed(atoms: Atoms, calculator: Calculator, place: Path) -> Structure:
    """The structure with the results of a calculator."""
    atoms.calc = calculator
    if isinstance(calculator, FILES):
        found = _from_outputs(atoms, place)
        if found is not None:
            return found
    return label_of(atoms)


def label_of(atoms: Atoms) -> Structure:
    """A structure with the results of its calculator.

    Raises:
        ValueError: the energy or a force is not finite.
    """
    energy = float(atoms.get_potential_energy())
    forces = atoms.get_forces(apply_constraint=False)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ValueError("the energy or a force is not finite")
    label = structure_from_atoms(Atoms(atoms))._replace(energy=energy, forces=forces)
    if is_crystal(atoms):
        with suppress(NotImplementedError):  # also ASE's own error of this kind
            stress = atoms.get_stress(voigt=False, apply_constraint=False)
            label = label._replace(stress=stress)
    return label


def finite_label(atoms: Atoms) -> Structure | None:
    """A structure with the results of a model's calculator; None if it gives none there."""
    try:
        return label_of(atoms)
    except (ValueError, CalculationFailed):  # as of atoms that overlap
        return None


def _from_outputs(atoms: Atoms, place: Path) -> Structure | None:
    """Run a calculator that writes files, and read them, since ASE does not check convergence.

    Returns:
        The label; None if the outputs have no format that is known here.
    """
    failure: Exception | None = None
    try:
        atoms.get_potential_energy()
    except Exception as error:  # calculators raise anything
        failure = error
    bare = structure_from_atoms(Atoms(atoms))
    try:
        labels, _ = match_labels({"": bare}, read_outputs(place))
    except (OSError, ValueError) as error:
        if failure is None and isinstance(error, FileNotFoundError):
            return None
        reason = "" if failure is None else f"{type(failure).__name__}: {one_line(failure)}; "
        raise ValueError(f"{reason}{error}") from error
    if not labels:
        raise ValueError(f"the outputs in {place} are those of another structure")
    return labels[""]


def read_outputs(*sources: Path) -> list[Structure]:
    """Labelled structures of files and of all outputs in folders, without unconverged ones.

    Raises:
        FileNotFoundError: there is no output.
        ValueError: none of them has a structure; the message has the reasons.
    """
    with TemporaryDirectory() as scratch:
        path = str(Path(scratch) / "outputs.h5")
        given = [str(source) for source in sorted(sources)]
        import_structures(ImportConfig(sources=given, output=path, processes=1))
        store = open_store(path)
        found = [store[row] for row in range(len(store))]
        store.close()
    return found


def order_of(structure: Structure, other: Structure) -> NDArray[np.int64] | None:
    """For each atom of a structure, the same atom in another; None if they are not the same.

    Programs sort the atoms by element, and move them by lattice vectors.
    """
    if len(structure.numbers) != len(other.numbers):
        return None
    periodic = structure.pbc.any()
    if periodic and np.abs(structure.cell - other.cell).max() > SAME:
        return None
    away = structure.positions[:, None] - other.positions
    if periodic:
        fractions = away @ np.linalg.pinv(structure.cell)
        away = away - np.round(np.where(structure.pbc, fractions, 0.0)) @ structure.cell
    near = np.linalg.norm(away, axis=-1) < SAME
    near &= structure.numbers[:, None] == other.numbers
    order = near.argmax(axis=1)
    unique = near.any() and len(np.unique(order)) == len(order)
    return order.astype(np.int64) if near.any(axis=1).all() and unique else None


def match_labels(
    structures: Mapping[str, Structure], found: Sequence[Structure]
) -> tuple[dict[str, Structure], int]:
    """Labels by the names of the structures that they belong to, and the number of the others."""
    labels: dict[str, Structure] = {}
    others = 0
    for each in found:
        for name, structure in structures.items():
            order = None if name in labels else order_of(structure, each)
            if order is not None:
                labels[name] = structure._replace(
                    energy=each.energy,
                    forces=each.forces[order],
                    stress=each.stress,
                    theory=each.theory,
                )
                break
        else:
            others += 1
    return labels, others


def make_calculator(config: LabelConfig, place: Path) -> Calculator:
    """A calculator whose files are in a folder.

    Raises:
        ValueError: there is no such calculator, or it does not take the arguments.
    """
    kind = find_calculator(config)
    if isinstance(kind, TesseralCalculator):
        return kind
    arguments = {name: _built(value) for name, value in config.arguments.items()}
    if isinstance(kind, type) and issubclass(kind, FILES):
        arguments["directory"] = str(place)
    elif "txt" in inspect.signature(kind).parameters:
        arguments.setdefault("txt", str(place / "output.txt"))
    try:
        calculator: Calculator = kind(**arguments)
    except TypeError as error:
        raise ValueError(f"{config.calculator}: {one_line(error)}") from error
    return calculator


def find_calculator(config: LabelConfig) -> Any:
    """The class that an import path names, or the calculator of a model.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: there is no such calculator, or it is not installed.
    """
    name = config.calculator
    module, _, kind = name.rpartition(".")
    if name.endswith(".safetensors") or not module or "/" in name:
        return TesseralCalculator(name, **config.arguments)
    top = module.split(".")[0]
    if find_spec(top) is None:
        raise ValueError(
            f"`labels.calculator` is {name}, but the package {top} is not installed; install it, "
            f"for example with pip install {top}"
        )
    return _imported(name)


def _imported(name: str) -> Any:
    """An object that an import path names."""
    module, _, kind = name.rpartition(".")
    try:
        return getattr(import_module(module), kind)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{name} cannot be imported: {one_line(error)}") from error
    except AttributeError:
        raise ValueError(f"{name} does not exist; the module {module} has no {kind}") from None


def _built(value: Any) -> Any:
    """An argument; a mapping with an entry ``class`` becomes an object of it."""
    if isinstance(value, Mapping):
        made = {key: _built(item) for key, item in value.items()}
        return _imported(made.pop("class"))(**made) if "class" in made else made
    return [_built(item) for item in value] if isinstance(value, list) else value
