"""Importing in parts, with several processes and with resumption after an interruption.

The sources are divided into tasks of a few megabytes. Each task writes its structures to parts,
small dataset files with a report in a JSON file, in a hidden folder next to the output. A part is
complete when its JSON file exists. The parts are merged in order at the end, so that the result
does not depend on the number of processes or on interruptions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from tesseral.data.imports.folder import PartFolder, load_report, save_report
from tesseral.data.imports.report import ImportReport, Notes
from tesseral.data.sources.extxyz import FrameRange
from tesseral.data.sources.search import Source, size_and_time
from tesseral.data.store.merge import merge_stores
from tesseral.data.store.write import StoreWriter
from tesseral.data.structures import Structure
from tesseral.executors import side_by_side
from tesseral.process import cores

TASK_BYTES = 8_000_000  # size of the sources
PART_STRUCTURES = 2_000


class Span(NamedTuple):
    """Source, or the frames of it that a task reads."""

    source: Source
    frames: FrameRange | None = None


class Task(NamedTuple):
    """Unit of work: small sources, or a piece of a large one."""

    number: int
    spans: list[Span]
    size: int  # bytes of the sources


class Found(NamedTuple):
    """Structure, its place in the source, and further notes."""

    structure: Structure
    place: str
    notes: Notes


class Reader(NamedTuple):
    """Pickled settings of a task.

    Args:
        read: function that yields the structures of a span after a number of skipped ones; what is
            left out is counted in a report.
        allow_missing: labels that may be missing.
    """

    read: Callable[[Span, int, ImportReport], Iterator[Found]]
    allow_missing: list[str]


def make_tasks(
    sources: Iterable[Source], split: Callable[[str, int], list[FrameRange] | None]
) -> list[Task]:
    """Tasks of about TASK_BYTES each, in the order of the sources.

    Args:
        sources: files.
        split: function that divides a path into pieces of about a given number of bytes, or
            returns None if the file must be read from its beginning.
    """
    tasks: list[Task] = []
    waiting: list[Span] = []
    total = 0

    def close() -> None:
        nonlocal waiting, total
        if waiting:
            tasks.append(Task(len(tasks), waiting, total))
        waiting, total = [], 0

    for source in sources:
        size, _ = size_and_time(source.path)
        pieces = split(source.path, TASK_BYTES) if size > TASK_BYTES else None
        if total + size > TASK_BYTES:
            close()
        for piece in pieces or ():
            waiting, total = [Span(source, piece)], piece.stop - piece.start
            close()
        if not pieces:
            waiting.append(Span(source))
            total += size
    close()
    return tasks


def run_tasks(
    tasks: Sequence[Task],
    reader: Reader,
    folder: PartFolder,
    processes: int | None,
    executor: str | None,
    progress: Callable[[int, float], None],
) -> None:
    """Create all parts that do not exist yet.

    Args:
        tasks: tasks from `make_tasks`.
        reader: settings of the reading.
        folder: folder for the parts.
        processes: number of processes; None for the number of cores. With one, no other process is
            started.
        executor: function that returns an executor, instead of processes of this machine; see
            `tesseral.executors.open_executor`.
        progress: callback with the number of structures so far and the fraction of the bytes in
            finished tasks.

    Raises:
        ValueError: a source cannot be read.
        ChildProcessError: a process, or a worker of the executor, was killed.
    """
    size = max(1, sum(task.size for task in tasks))
    read = 0

    def tell() -> None:
        progress(folder.structures(), read / size)

    tell()
    processes = min(processes or cores(), len(tasks))
    if executor is None and processes == 1:
        for task in tasks:
            run_task(task, reader, folder, tell)
            read += task.size
            tell()
        return
    calls = ((task, reader, folder) for task in tasks)
    with closing(side_by_side(run_task, calls, executor, processes)) as found:
        for results in found:
            read += sum(tasks[number].size for number, _ in results)
            tell()


def run_task(
    task: Task, reader: Reader, folder: PartFolder, tell: Callable[[], None] | None = None
) -> None:
    """Create the parts of one task that do not exist yet."""
    number = done = 0
    while (known := folder.part(task.number, number)) is not None:
        report, last = load_report(known)
        if last:
            return
        done, number = done + report.structures, number + 1
    # Only a source that is read alone has several parts, some of which may be complete.
    limit = PART_STRUCTURES if len(task.spans) == 1 else None
    aside = ImportReport()
    found = chain.from_iterable(reader.read(span, done, aside) for span in task.spans)
    ahead = next(found, None)
    last = False
    while not last:
        report = ImportReport()
        path = folder.path / f"{task.number:06d}-{number:06d}.h5"
        if ahead is not None:
            with StoreWriter(path, temporary=True) as writer:
                for one in chain([ahead], islice(found, limit and limit - 1)):
                    writer.append(one.structure)
                    report.add(*one)
            ahead = next(found, None)
        last = ahead is None
        if last:
            report.merge(aside)
        report.refuse_missing(reader.allow_missing)
        save_report(path.with_name(f"{path.stem}-{report.structures}.json"), report, last)
        number += 1
        if tell is not None:
            tell()


def merge_parts(
    folder: PartFolder,
    output: Path,
    attributes: Mapping[str, str],
    progress: Callable[[int, float], None],
) -> ImportReport:
    """Merge all parts into one dataset, and their reports into one.

    Args:
        folder: folder with all parts.
        output: dataset file; replaced if it exists.
        attributes: attributes of the dataset, in addition to those from its report.
        progress: callback with the number of structures and the fraction written.

    Raises:
        ValueError: there is no structure, or a part is damaged.
    """
    report = ImportReport(output=str(output))
    stores = []
    for path in folder.parts():
        part = load_report(path)[0]
        report.merge(part)
        if part.structures:
            stores.append(path.with_name(path.stem.rsplit("-", 1)[0] + ".h5"))
    if not stores:
        raise ValueError(f"no file could be imported: {'; '.join(report.skipped[:3])}")
    whole = folder.path / "whole.h5"
    report.content_hash = merge_stores(
        stores,
        whole,
        attributes={**attributes, **report.attributes()},
        overwrite=True,
        progress=lambda count, total: progress(count, count / total),
    )
    os.replace(whole, output)
    report.finish()
    return report
