"""Importing DFT results into a dataset file: ``train-potential data import SRC… -o set.h5``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ase import Atoms
from ase.io.formats import UnknownFileTypeError
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tesseral.data.import_report import ImportReport
from tesseral.data.label_keys import LabelKeys, check_label_names
from tesseral.data.labels import (
    contents,
    dropped_stress,
    find_text,
    free_energy_difference,
    unread_labels,
)
from tesseral.data.sources.opening import open_source
from tesseral.data.sources.search import Source, find_sources
from tesseral.data.store import open_store
from tesseral.data.store_writer import StoreWriter
from tesseral.data.structures import Structure, structure_from_atoms

PLACES_SHOWN = 5
SOURCES_KEPT = 100  # names in the store's attributes; each structure has its own besides


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Which files to import, and where their labels are.

    Units, sign and order are those of the file format if they are not given: ASE's (eV, eV/Å,
    eV/Å³, positive under tension) after reading outputs of VASP, Quantum ESPRESSO and GPAW and all
    that ASE reads, VASP's stress (kbar, -1, vasp) for JSON in pymatgen's form.

    Args:
        sources: files, folders of calculations, or quoted patterns such as ``'runs/**/OUTCAR'``:
            OUTCAR, vasprun.xml, output of pw.x or GPAW, extxyz, traj, db, aselmdb, whatever ASE
            reads, or JSON in the form of mlearn or MPtrj.
        output: dataset file to write.
        format: name of ASE's format, ``aselmdb``, or ``pymatgen`` for JSON; found in the files if
            not given.
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
        group_key: name of what a split must keep together; group if not given. A calculation or
            trajectory that names none is a group.
        theory: how the labels were computed, for the record; what the files say if not given.
        overwrite: replace the output if it exists.
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

    def __post_init__(self) -> None:
        """Refuse what cannot be imported, before anything is read."""
        if not self.sources:
            raise ValueError("there are no sources to import; give one file or more")
        if Path(self.output).suffix not in (".h5", ".hdf5"):
            raise ValueError(f"the output {self.output} should end in .h5")
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
    config: ImportConfig, progress: Callable[[int, str], None] | None = None
) -> ImportReport:
    """Read all sources into a dataset file.

    Args:
        config: what to read, and how.
        progress: called with the number of structures so far and the present source.

    Raises:
        FileNotFoundError: a source does not exist.
        FileExistsError: the output exists and is not to be overwritten.
        ValueError: a source cannot be read, a label is ambiguous, or labels are missing that are
            not allowed to be. Nothing is written then.
    """
    output = Path(config.output)
    sources = find_sources(config.sources)
    for source in sources:
        if output.exists() and output.samefile(source.path):
            raise ValueError(f"{source.path} is both a source and the output")
    if output.exists() and not config.overwrite:
        raise FileExistsError(f"{output} exists; pass --overwrite to replace it")
    report = ImportReport(output=config.output)
    attributes = {"source": _short_list([source.name for source in sources])}
    with StoreWriter(output, attributes=attributes) as writer:
        for source in sources:
            before = report.structures
            try:
                for structure in _read(config, source, report):
                    writer.append(structure)
                    if progress is not None:
                        progress(writer.count, source.path)
                if report.structures == before:
                    raise ValueError(_no_structures(config, source, report))
            except ValueError as error:
                # Among many calculations some have failed, which must not stop the others.
                if not source.found or report.structures > before:
                    raise
                report.skipped.append(str(error))
            _refuse_missing(config, report, source.path)
        if not report.structures:
            raise ValueError(f"no file could be imported: {'; '.join(report.skipped[:3])}")
        for name, text in report.attributes().items():
            writer.add_attribute(name, text)
    report.content_hash = open_store(output).content_hash
    report.finish()
    return report


def import_command(config: ImportConfig) -> ImportReport:
    """`import_structures` with a progress display and a printed report."""
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading")

        def show(count: int, source: str) -> None:
            if count % 100 == 1:
                bar.update(task, description=f"{Path(source).name}: {count} structures")

        report = import_structures(config, show)
    console.print(report.table())
    return report


def _read(config: ImportConfig, source: Source, report: ImportReport) -> Iterator[Structure]:
    """Structures of one source, counted in the report."""
    left_out: Counter[str] = Counter()
    try:
        for frame, (atoms, keys) in enumerate(_frames(config, source, left_out)):
            place = f"{source.name} frame {frame}"
            try:
                structure = structure_from_atoms(atoms, keys)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
            structure = structure._replace(
                source=structure.source or source.name, theory=config.theory or structure.theory
            )
            report.add(structure, place)
            report.note(
                dropped_stress=dropped_stress(atoms, keys),
                unread=unread_labels(atoms, keys),
                settings=find_text(atoms, ("settings",)),
                free_energy_difference=free_energy_difference(atoms, keys),
                contents=contents(atoms),
            )
            yield structure
    finally:
        report.add_left_out(left_out, source.name)


def _frames(
    config: ImportConfig, source: Source, left_out: Counter[str]
) -> Iterator[tuple[Atoms, LabelKeys]]:
    """Atoms of one source and where their labels are; errors of readers made readable."""
    count = 0
    try:
        frames, keys = open_source(
            source, config.format, index=config.index, keys=config.keys, left_out=left_out
        )
        for atoms in frames:
            yield atoms, keys
            count += 1
    except UnknownFileTypeError as error:
        raise ValueError(
            f"the format of {source.path} is not recognised; name it with --format (as in "
            "ase.io.read)"
        ) from error
    except Exception as error:  # readers raise anything
        raise ValueError(
            f"{source.path} cannot be read after {count} frames: {error or type(error).__name__}"
        ) from error


def _no_structures(config: ImportConfig, source: Source, report: ImportReport) -> str:
    """That a source holds nothing, and what was left out of it."""
    reasons = [f"index {config.index}"] if config.index != ":" else []
    for what, files in report.left_out.items():
        if source.name in files:
            reasons.append(f"{files[source.name]} {what}")
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f"{source.path} holds no structures to import{why}"


def _short_list(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f", and {len(names) - SOURCES_KEPT} more" if len(names) > SOURCES_KEPT else ""
    return ", ".join(names[:SOURCES_KEPT]) + more


def _refuse_missing(config: ImportConfig, report: ImportReport, source: str) -> None:
    """Refuse structures without the labels that they need.

    Raises:
        ValueError: it says which frames lack which label, and what the file has.
    """
    for label in ("energy", "forces"):
        places = report.missing.get(label, [])
        if not places or label in config.allow_missing:
            continue
        shown = ", ".join(places[:PLACES_SHOWN]) + (" …" if len(places) > PLACES_SHOWN else "")
        raise ValueError(
            f"{len(places)} of {report.structures} structures up to the end of {source} have no "
            f"{label}: {shown}. The file has {report.contents}. Name the key with --{label}-key, "
            f"or pass --allow-missing {label}"
        )
