"""Importing DFT results into a dataset file: ``train-potential data import SRC… -o set.h5``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError

from tesseral.data.doctor.descriptors import has_zero_forces
from tesseral.data.imports.config import STORES, ImportConfig
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
    LABELS,
    LabelKeys,
    contents,
    describe_conversions,
    dropped_stress,
    find_text,
    free_energy_difference,
    per_atom_label,
    states,
    unread_labels,
)
from tesseral.data.sources.common import CUT_OFF_FRAME
from tesseral.data.sources.extxyz import FrameRange, IncompleteFrame, split_frames
from tesseral.data.sources.formats import FORMATS, UNKNOWN, find_format
from tesseral.data.sources.opening import open_source
from tesseral.data.sources.search import Source, find_sources, size_and_time
from tesseral.data.store.read import Store, open_store
from tesseral.data.structures import Structure, structure_from_atoms
from tesseral.files import check_writable, one_line

SOURCES_KEPT = 100  # names in the store's attributes; each structure also has its own
NO_LABEL = "structures left out (no {0}; if it has another name, pass `{0}_key`)"


def open_dataset(name: str, folder: Path) -> Store:
    """Open a dataset file; any other file is imported into a folder first.

    Args:
        name: dataset (.h5), or a file with standard label names and units. Labels may be missing.
        folder: folder for the imported dataset, needed as long as the store.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be read.
    """
    path = Path(name)
    if path.suffix not in STORES:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{path.stem}.h5"
        everything = ImportConfig(sources=[name], output=str(path), allow_missing=list(LABELS))
        import_structures(everything)
    return open_store(path)


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
        ChildProcessError: a process, or a worker of the executor, was killed.
        OSError: a file cannot be written; structures read so far are kept for the next call.
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
    check_writable(output)
    try:
        folder = PartFolder(output, _identity(config, sources))
    except OSError as error:
        raise type(error)(f"{output} was not written: {error}") from error
    one = replace(config, sources=config.sources[:1])  # there may be thousands, in every task
    reader = Reader(partial(_read, one), config.allow_missing)
    attributes = {"source": _short_list([source.name for source in sources])}
    try:
        tell("looking for frames", folder.structures(), 0.0)
        if config.executor is not None:
            sources = [_absolute(source) for source in sources]
        tasks = make_tasks(sources, partial(_split, config))
        telling = partial(tell, "reading")
        run_tasks(tasks, reader, folder, config.processes, config.executor, telling)
        report = merge_parts(folder, output, attributes, partial(tell, "writing"))
    except ValueError:
        folder.remove()
        raise
    except ChildProcessError:
        raise
    except OSError as error:  # the disk is full, perhaps
        if not folder.structures():
            folder.remove()
            raise type(error)(f"{output} was not written: {error}") from error
        raise type(error)(
            f"{output} was not written: {error}; run it again to resume, or delete "
            f"{folder.hidden}, which has the structures read so far"
        ) from error
    folder.remove()
    return report


def _identity(config: ImportConfig, sources: list[Source]) -> dict[str, Any]:
    """Properties that must not change for an interrupted import to resume."""
    options = asdict(config)
    del options["processes"], options["executor"], options["overwrite"]
    every = [each for source in sources for each in (source, *source.instead)]
    found = [[source.path, *size_and_time(source.path)] for source in every]
    return {**options, "found": found, "version": version("tesseral")}


def _absolute(source: Source) -> Source:
    """The same source for workers, which may have another working folder."""
    instead = tuple(_absolute(other) for other in source.instead)
    return source._replace(path=str(Path(source.path).absolute()), instead=instead)


def _split(config: ImportConfig, path: str, size: int) -> list[FrameRange] | None:
    """Pieces of a large file, if its format can be read from any frame."""
    if config.index == ":" and config.format in (None, "extxyz"):
        with suppress(Exception):  # reading will report what is wrong
            if (config.format or find_format(path)) == "extxyz":
                return split_frames(path, size)
    return None


def _read(config: ImportConfig, span: Span, skip: int, aside: ImportReport) -> Iterator[Found]:
    """Structures of one source or a piece of one, without the first ``skip``.

    If the source has none, the other files of the same calculation are read instead.
    """
    sources = [span.source, *span.source.instead]
    while sources:
        source = sources.pop(0)
        following = sources[0].name if sources else ""
        if (yield from _read_file(config, Span(source, span.frames), skip, aside, following)):
            return


def _read_file(
    config: ImportConfig, span: Span, skip: int, aside: ImportReport, following: str
) -> Generator[Found, None, int]:
    """Structures of one file or a piece of one, without the first ``skip``.

    Args:
        config: options of the import.
        span: the file.
        skip: number of structures that were read before.
        aside: report for everything but structures.
        following: name of the file that is read if this one has no structures.

    Returns:
        the number of structures, with the skipped ones.

    Raises:
        ValueError: the file was named by the user, and cannot be read.
    """
    source = span.source
    left_out: Counter[str] = Counter()
    kinds: set[str] = set()
    first = span.frames.first if span.frames else 0
    taken = 0
    try:
        for frame, (atoms, keys) in enumerate(_frames(config, span, left_out), first):
            place = f"{source.name} frame {frame}"
            try:
                structure = structure_from_atoms(atoms, keys)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
            structure = structure._replace(
                source=structure.source or source.name, theory=config.theory or structure.theory
            )
            if source.found and (label := _missing(structure, config.allow_missing)):
                left_out[NO_LABEL.format(label)] += 1
                continue
            taken += 1
            if taken <= skip:
                continue
            kind = f"{atoms.pbc.all()} {contents(atoms)}"  # frames alike are converted alike
            notes = Notes(
                dropped_stress=dropped_stress(atoms, keys),
                unread=unread_labels(atoms, keys),
                settings=find_text(atoms, ("settings",)),
                free_energy_difference=free_energy_difference(atoms, keys),
                contents=contents(atoms) if _lacks_labels(structure) else "",
                zero_forces=has_zero_forces(structure),
                conversions=describe_conversions(atoms, keys) if kind not in kinds else [],
                per_atom=per_atom_label(atoms, keys),
                states=states(atoms),
            )
            kinds.add(kind)
            yield Found(structure, place, notes)
        if not taken:
            raise ValueError(_no_structures(config, source, left_out))
    except ValueError as error:
        # Some of many calculations may have failed, which must not stop the others.
        if not source.found:
            raise
        kept = f" ({taken} structures before that are kept)" if taken else ""
        instead = f"; {following} is opened instead" if following and not taken else ""
        aside.skipped.append(f"{error}{kept}{instead}")
    finally:
        if taken or not following:  # otherwise the message tells it
            aside.add_left_out(left_out, source.name)
    return taken


def _missing(structure: Structure, allowed: list[str]) -> str:
    """The first label that a structure lacks and must have; empty if there is none."""
    alone = len(structure.numbers) == 1 and not structure.pbc.any()
    present = {
        "energy": bool(np.isfinite(structure.energy)),
        "forces": alone or bool(np.isfinite(structure.forces).all()),
    }
    return next((name for name, it_is in present.items() if not it_is and name not in allowed), "")


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
            given=config.given(),
            part=span.frames,
        )
        for atoms in frames:
            yield atoms, keys
            count += 1
    except IncompleteFrame:
        left_out[CUT_OFF_FRAME] += 1
    except UnknownFileTypeError as error:
        if config.format:
            raise ValueError(
                f"`format` is {config.format!r}, which is not known; leave it out, or use one of "
                f"{', '.join(FORMATS)}, pymatgen, or a name of ase.io.read"
            ) from error
        raise ValueError(f"{source.path} {UNKNOWN}") from error
    except Exception as error:  # readers raise anything
        raise ValueError(
            f"{source.path} cannot be read after {count} frames: "
            f"{one_line(error) or type(error).__name__}"
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
