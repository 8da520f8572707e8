"""Importing DFT results into a dataset file: ``train-potential data import SRC… -o set.h5``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError

from tesseral.data.doctor.descriptors import has_zero_forces
from tesseral.data.imports.folder import PartFolder
from tesseral.data.imports.parts import (
    Found,
    Reader,
    Span,
    make_tasks,
    merge_parts,
    run_tasks,
)
from tesseral.data.imports.report import ImportReport, Notes
from tesseral.data.labels import (
    LabelKeys,
    check_label_names,
    contents,
    describe_conversions,
    dropped_stress,
    find_text,
    free_energy_difference,
    unread_labels,
)
from tesseral.data.sources.extxyz import FrameRange, split_frames
from tesseral.data.sources.formats import find_format
from tesseral.data.sources.opening import open_source
from tesseral.data.sources.search import Source, find_sources
from tesseral.data.structures import Structure, structure_from_atoms

SOURCES_KEPT = 100  # names in the store's attributes; each structure also has its own


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Files to import, and the keys and units of their labels.

    By default units, sign and order are those of the file format: ASE's (eV, eV/Å, eV/Å³, positive
    under tension) for outputs of VASP, Quantum ESPRESSO and GPAW and for all formats ASE reads,
    VASP's stress (kbar, -1, vasp) for JSON in pymatgen's form.

    Args:
        sources: files, folders of calculations, or quoted patterns such as ``'runs/**/OUTCAR'``.
            Formats: OUTCAR, vasprun.xml, output of pw.x or GPAW, extxyz, traj, db, aselmdb, other
            ASE formats, and JSON as in mlearn or MPtrj.
        output: dataset file to write.
        format: ASE format name, ``aselmdb``, or ``pymatgen`` (JSON). Default: detected from the
            files.
        index: frames to read from each file, in ASE notation: ``:``, ``0:1000``, ``::10``, ``-1``.
        energy_key: name of the energy in the files. Default: common names are recognised.
        forces_key: name of the forces.
        stress_key: name of the stress.
        virial_key: name of a virial (-V · stress, in the unit of the energy), instead of a stress.
        energy_unit: unit of the energies: eV, meV, Ha, Ry, kcal/mol or kJ/mol.
        forces_unit: unit of the forces: eV/A, meV/A, Ha/Bohr, Ry/Bohr, kcal/mol/A or kJ/mol/A.
        stress_unit: unit of the stresses: eV/A^3, GPa, kbar, bar, Ry/Bohr^3 or Ha/Bohr^3.
        stress_sign: 1 if the stress is positive under tension, -1 for the opposite.
        stress_order: order of six stress components: ase (xx yy zz yz xz xy), lammps (xx yy zz xy
            xz yz) or vasp (xx yy zz xy yz zx).
        allow_missing: labels that may be missing: energy, forces, stress.
        config_type_key: key of the configuration type. Default: config_type or category.
        group_key: key of the group, which a split keeps together. Default: group; otherwise each
            calculation or trajectory is a group.
        theory: level of theory of the labels. Default: read from the files.
        overwrite: replace the output if it exists.
        processes: number of processes that read files. Default: the number of cores. Extended XYZ
            files are read in pieces, other files by one process each.
    """

    sources: list[str]
    output: str
    format: str | None = None
    index: str = ":"
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    energy_unit: str | None = None
    forces_unit: str | None = None
    stress_unit: str | None = None
    stress_sign: int | None = None
    stress_order: str | None = None
    allow_missing: list[str] = field(default_factory=list)
    config_type_key: str | None = None
    group_key: str | None = None
    theory: str = ""
    overwrite: bool = False
    processes: int | None = None

    def __post_init__(self) -> None:
        """Reject invalid options before anything is read."""
        if not self.sources:
            raise ValueError("there are no sources to import; give one file or more")
        if Path(self.output).suffix not in (".h5", ".hdf5"):
            raise ValueError(f"the output {self.output} must end in .h5")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"`processes` is {self.processes}; it must be 1 or more")
        check_label_names(self.allow_missing)
        self.keys(LabelKeys())

    def keys(self, convention: LabelKeys) -> LabelKeys:
        """Keys and units, with those of a file format where none are given."""
        given = {
            name: getattr(self, name)
            for name in LabelKeys.__dataclass_fields__
            if getattr(self, name, None) is not None
        }
        return replace(convention, **given, optional=tuple(self.allow_missing))


def import_structures(
    config: ImportConfig, progress: Callable[[str, int, float], None] | None = None
) -> ImportReport:
    """Read all sources into a dataset file.

    An import that was interrupted or killed resumes when it is called again with the same options
    and files; see `parts`. A script that calls this for more than a few megabytes needs
    ``if __name__ == "__main__":``, since other processes import it.

    Args:
        config: options of the import.
        progress: callback with a description of the current step, the number of structures so
            far, and the fraction of the work.

    Raises:
        FileNotFoundError: a source does not exist.
        FileExistsError: the output exists and ``overwrite`` is not set.
        ValueError: a source cannot be read, a label is ambiguous, or labels are missing that must
            not be. Nothing is written in this case.
        ChildProcessError: a process was killed.
    """
    output = Path(config.output)
    sources = find_sources(config.sources)
    for source in sources:
        if output.exists() and output.samefile(source.path):
            raise ValueError(f"{source.path} is both a source and the output")
    if output.exists() and not config.overwrite:
        raise FileExistsError(f"{output} exists; pass `overwrite` to replace it")
    if not output.parent.is_dir():
        raise ValueError(f"the folder {output.parent} of {output.name} does not exist")
    tell = progress or (lambda doing, structures, fraction: None)
    folder = PartFolder(output, _identity(config, sources))
    reader = Reader(partial(_read, config), config.allow_missing)
    attributes = {"source": _short_list([source.name for source in sources])}
    try:
        tell("looking for frames", folder.structures(), 0.0)
        tasks = make_tasks(sources, partial(_split, config))
        run_tasks(tasks, reader, folder, config.processes, partial(tell, "reading"))
        report = merge_parts(folder, output, attributes, partial(tell, "writing"))
    except ValueError:
        folder.remove()
        raise
    folder.remove()
    return report


def _identity(config: ImportConfig, sources: list[Source]) -> dict[str, Any]:
    """Properties that must not change for an interrupted import to resume."""
    options = asdict(config)
    del options["processes"], options["overwrite"]
    files = [Path(source.path).stat() for source in sources]
    found = [
        [source.path, file.st_size, file.st_mtime_ns]
        for source, file in zip(sources, files, strict=True)
    ]
    return {**options, "found": found, "version": version("tesseral")}


def _split(config: ImportConfig, path: str, size: int) -> list[FrameRange] | None:
    """Pieces of a large file, if its format can be read from any frame."""
    if config.index == ":" and config.format in (None, "extxyz"):
        with suppress(Exception):  # reading will report what is wrong
            if (config.format or find_format(path)) == "extxyz":
                return split_frames(path, size)
    return None


def _read(config: ImportConfig, span: Span, skip: int, aside: ImportReport) -> Iterator[Found]:
    """Structures of one source or a piece of one, without the first ``skip``."""
    source = span.source
    left_out: Counter[str] = Counter()
    kinds: set[str] = set()
    first = span.frames.first if span.frames else 0
    taken = skip
    try:
        for frame, (atoms, keys) in enumerate(_frames(config, span, left_out), first):
            if frame - first < skip:
                continue
            place = f"{source.name} frame {frame}"
            try:
                structure = structure_from_atoms(atoms, keys)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
            structure = structure._replace(
                source=structure.source or source.name, theory=config.theory or structure.theory
            )
            kind = f"{atoms.pbc.all()} {contents(atoms)}"  # frames alike are converted alike
            notes = Notes(
                dropped_stress=dropped_stress(atoms, keys),
                unread=unread_labels(atoms, keys),
                settings=find_text(atoms, ("settings",)),
                free_energy_difference=free_energy_difference(atoms, keys),
                contents=contents(atoms) if _lacks_labels(structure) else "",
                zero_forces=has_zero_forces(structure),
                conversions=describe_conversions(atoms, keys) if kind not in kinds else [],
            )
            kinds.add(kind)
            taken += 1
            yield Found(structure, place, notes)
        if not taken:
            raise ValueError(_no_structures(config, source, left_out))
    except ValueError as error:
        # Some of many calculations may have failed, which must not stop the others.
        if not source.found or taken:
            raise
        aside.skipped.append(str(error))
    finally:
        aside.add_left_out(left_out, source.name)


def _lacks_labels(structure: Structure) -> bool:
    return bool(np.isnan(structure.energy) or np.isnan(structure.forces).any())


def _frames(
    config: ImportConfig, span: Span, left_out: Counter[str]
) -> Iterator[tuple[Atoms, LabelKeys]]:
    """Atoms of one source and the keys of their labels; errors of readers are made readable."""
    source = span.source
    count = span.frames.first if span.frames else 0
    try:
        frames, keys = open_source(
            source,
            config.format,
            index=config.index,
            keys=config.keys,
            left_out=left_out,
            part=span.frames,
        )
        for atoms in frames:
            yield atoms, keys
            count += 1
    except UnknownFileTypeError as error:
        if config.format:
            raise ValueError(
                f"`format` is {config.format!r}, which is not known; leave it out, or use a name "
                "of ase.io.read"
            ) from error
        raise ValueError(
            f"the format of {source.path} is not recognised; name it with `format` (as in "
            "ase.io.read)"
        ) from error
    except Exception as error:  # readers raise anything
        raise ValueError(
            f"{source.path} cannot be read after {count} frames: {error or type(error).__name__}"
        ) from error


def _no_structures(config: ImportConfig, source: Source, left_out: Counter[str]) -> str:
    """Message about a source without structures, with what was left out of it."""
    reasons = [f"index {config.index}"] if config.index != ":" else []
    reasons += [f"{count} {what}" for what, count in left_out.items() if count]
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f"{source.path} contains no structures to import{why}"


def _short_list(names: list[str]) -> str:
    """The first names and the number of further ones, as text."""
    more = f", and {len(names) - SOURCES_KEPT} more" if len(names) > SOURCES_KEPT else ""
    return ", ".join(names[:SOURCES_KEPT]) + more
