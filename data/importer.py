"""Importing DFT results into a dataset file: ``train-potential data import SRC… -o set.h5``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype
from rich.console import Console
from rich.progress import Progress

from tesseral.data.extxyz import FrameRange, open_frames, properties_parser, split_frames
from tesseral.data.import_parts import (
    Found,
    PartFolder,
    Reader,
    Span,
    make_tasks,
    merge_parts,
    run_tasks,
)
from tesseral.data.import_report import ImportReport, Notes
from tesseral.data.label_keys import LabelKeys, check_label_names
from tesseral.data.labels import (
    contents,
    dropped_stress,
    free_energy_difference,
    unread_labels,
)
from tesseral.data.structures import Structure, structure_from_atoms

SOURCES_SHOWN = 100


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Which files to import, and where their labels are.

    Units, sign and order are those of the file format if they are not given: ASE's (eV, eV/Å,
    eV/Å³, positive under tension) for all that ASE reads, VASP's stress (kbar, -1, vasp) for
    JSON and vasprun.xml read by pymatgen.

    Args:
        sources: files that ASE reads (extxyz, db, traj, OUTCAR, vasprun.xml …), or JSON in the form
            of mlearn or MPtrj.
        output: dataset file to write.
        format: name of ASE's format, or ``pymatgen`` for JSON and vasprun.xml; guessed if not
            given.
        index: which frames of each file, as in ASE: ``:``, ``0:1000``, ``::10``, ``-1``.
        energy_key: name of the energy; well-known names if not given.
        forces_key: name of the forces.
        stress_key: name of the stress.
        virial_key: name of a virial (-V · stress, in the unit of the energy), instead of a stress.
        energy_unit: eV, meV, Ha, Ry, kcal/mol or kJ/mol.
        forces_unit: eV/A, meV/A, Ha/Bohr, Ry/Bohr, kcal/mol/A or kJ/mol/A.
        stress_unit: eV/A^3, GPa, kbar, bar, Ry/Bohr^3 or Ha/Bohr^3.
        stress_sign: 1 if the stress is positive under tension, -1 for the opposite.
        stress_order: of six stress components: ase (xx yy zz yz xz xy), lammps (xx yy zz xy xz yz)
            or vasp (xx yy zz xy yz zx).
        allow_missing: labels that structures may lack: energy, forces, stress.
        config_type_key: name of the configuration type; config_type or category if not given.
        group_key: name of what a split must keep together; group if not given.
        theory: how the labels were computed, for the record.
        overwrite: replace the output if it exists.
        processes: how many read at once; as many as there are cores if not given. Extended XYZ is
            read in pieces, any other file by one process.
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
        """Refuse what cannot be imported, before anything is read."""
        if not self.sources:
            raise ValueError("there are no sources to import; give one file or more")
        if Path(self.output).suffix not in (".h5", ".hdf5"):
            raise ValueError(f"the output {self.output} should end in .h5")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes is {self.processes}; it must be 1 or more")
        check_label_names(self.allow_missing)
        self.keys(LabelKeys())

    def keys(self, convention: LabelKeys) -> LabelKeys:
        """The keys and units, with those of a file format where none are given."""
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

    An import that was interrupted or killed goes on where it stopped when it is called again with
    the same options and files; see `import_parts`. A script that calls this for more than a few
    megabytes needs ``if __name__ == "__main__":``, as other processes import it.

    Args:
        config: what to read, and how.
        progress: called with what is being done, the number of structures so far, and the
            fraction of the work.

    Raises:
        FileNotFoundError: a source does not exist.
        FileExistsError: the output exists and is not to be overwritten.
        ValueError: a source cannot be read, a label is ambiguous, or labels are missing that are
            not allowed to be. Nothing is written then.
        ChildProcessError: a process was killed.
    """
    output = Path(config.output)
    for source in config.sources:
        if not Path(source).is_file():
            raise FileNotFoundError(f"there is no file {source}")
        if output.exists() and output.samefile(source):
            raise ValueError(f"{source} is both a source and the output")
    if output.exists() and not config.overwrite:
        raise FileExistsError(f"{output} exists; pass --overwrite to replace it")
    if not output.parent.is_dir():
        raise ValueError(f"the folder {output.parent} of {output.name} does not exist")
    tell = progress or (lambda doing, structures, fraction: None)
    folder = PartFolder(output, _identity(config))
    reader = Reader(partial(_read, config), config.allow_missing)
    try:
        tell("looking for frames", folder.structures(), 0.0)
        tasks = make_tasks(config.sources, partial(_split, config))
        run_tasks(tasks, reader, folder, config.processes, partial(tell, "reading"))
        report = merge_parts(folder, output, _attributes(config), partial(tell, "writing"))
    except ValueError:
        folder.remove()
        raise
    folder.remove()
    return report


def import_command(config: ImportConfig) -> ImportReport:
    """`import_structures` with a progress display and a printed report."""
    console = Console()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def show(doing: str, structures: int, fraction: float) -> None:
            bar.update(task, completed=fraction, description=f"{doing}: {structures:,} structures")

        try:
            report = import_structures(config, show)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
    console.print(report.table())
    return report


def _identity(config: ImportConfig) -> dict[str, Any]:
    """What must not change for an interrupted import to go on."""
    options = asdict(config)
    del options["processes"], options["overwrite"]
    files = [Path(source).stat() for source in config.sources]
    sources = [[file.st_size, file.st_mtime_ns] for file in files]
    return {**options, "files": sources, "version": version("tesseral")}


def _split(config: ImportConfig, source: str, size: int) -> list[FrameRange] | None:
    """Pieces of a large file, if it is of a format that can be entered anywhere."""
    plain = config.index == ":" and config.format in (None, "extxyz")
    if plain and (config.format or filetype(source)) == "extxyz":
        return split_frames(source, size)
    return None


def _attributes(config: ImportConfig) -> dict[str, str]:
    """Texts about the whole dataset."""
    names = [Path(source).name for source in config.sources]
    more = f" and {len(names) - SOURCES_SHOWN} more" if len(names) > SOURCES_SHOWN else ""
    attributes = {"source": ", ".join(names[:SOURCES_SHOWN]) + more}
    return {**attributes, "theory": config.theory} if config.theory else attributes


def _read(config: ImportConfig, span: Span, skip: int) -> Iterator[Found]:
    """Structures of one source, or a piece of one, after the first few."""
    name = Path(span.source).name
    first = span.frames.first if span.frames else 0
    count = 0
    for count, (atoms, keys) in enumerate(_frames(config, span), 1):
        if count <= skip:
            continue
        place = f"{name} frame {first + count - 1}"
        try:
            structure = structure_from_atoms(atoms, keys)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        structure = structure._replace(
            source=structure.source or name, theory=config.theory or structure.theory
        )
        notes = Notes(
            dropped_stress=dropped_stress(atoms, keys),
            unread=unread_labels(atoms, keys),
            free_energy_difference=free_energy_difference(atoms, keys),
            contents=contents(atoms) if _lacks_labels(structure) else "",
        )
        yield Found(structure, place, notes)
    if count == 0:
        raise ValueError(f"{span.source} holds no structures (index {config.index})")


def _lacks_labels(structure: Structure) -> bool:
    return bool(np.isnan(structure.energy) or np.isnan(structure.forces).any())


def _frames(config: ImportConfig, span: Span) -> Iterator[tuple[Atoms, LabelKeys]]:
    """Atoms of one source and where their labels are; errors of readers made readable."""
    source = span.source
    count = span.frames.first if span.frames else 0
    try:
        frames, keys = _open_source(config, source, span.frames)
        for atoms in frames:
            yield atoms, keys
            count += 1
    except UnknownFileTypeError as error:
        raise ValueError(
            f"the format of {source} is not recognised; name it with --format (as in ase.io.read)"
        ) from error
    except Exception as error:  # readers raise anything
        raise ValueError(
            f"{source} cannot be read after {count} frames: {error or type(error).__name__}"
        ) from error


def _open_source(
    config: ImportConfig, source: str, part: FrameRange | None = None
) -> tuple[Iterator[Atoms], LabelKeys]:
    """The frames of a file, or of a part of an extxyz file, and its keys and units."""
    name = Path(source).name.lower()
    is_json = name.endswith((".json", ".json.gz"))
    if config.format == "pymatgen" or (config.format is None and is_json):
        # Imported here because it takes longer than most imports of data.
        from tesseral.data.pymatgen_io import VASP_KEYS, atoms_from_json, atoms_from_vasprun

        keys = config.keys(VASP_KEYS)
        frames = atoms_from_json(source, keys) if is_json else atoms_from_vasprun(source)
        if frames is not None:
            return _choose(frames, config.index), keys
        if config.format == "pymatgen":
            raise ValueError("it is not JSON in the form of mlearn or MPtrj")
    keys = config.keys(LabelKeys())
    options: dict[str, Any] = {}
    form = "extxyz" if part else config.format or filetype(source)
    if form in ("db", "json"):
        # ase.io.read leaves out key-value pairs and data, where texts and labels may be.
        rows = ase.db.connect(source).select()
        frames = (row.toatoms(add_additional_information=True) for row in rows)
        return _choose(frames, config.index), keys
    if form == "extxyz":
        options["properties_parser"] = properties_parser(keys.stress_order)
    frames = ase.io.iread(
        open_frames(source, part) if part else source,
        index=config.index,
        format=form if part else config.format,
        do_not_split_by_at_sign=True,
        **options,
    )
    return frames, keys


def _choose(frames: Iterator[Atoms], index: str) -> Iterator[Atoms]:
    """The frames of an index in ASE's notation."""
    parts = [int(part) if part else None for part in index.split(":")]
    if any(part is not None and part < 0 for part in parts):
        every = list(frames)
        return iter(every[slice(*parts)] if len(parts) > 1 else every[int(index) :][:1])
    if len(parts) == 1 and parts[0] is not None:
        return islice(frames, parts[0], parts[0] + 1)
    return islice(frames, *parts)
