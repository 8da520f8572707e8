"""Computation of a report, section by section, to report.html and report.json."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tesseral.deploy.card import library_versions
from tesseral.deploy.universal import model_path
from tesseral.files import check_writable, make_folder, write_json, write_text
from tesseral.process import machine
from tesseral.report.config import Effort, ReportConfig
from tesseral.report.content import Note, Section, Verdict
from tesseral.report.context import Context
from tesseral.report.page.html import Chapter, Page, count, render, verdicts_of
from tesseral.report.sections import (
    accuracy,
    card,
    consistency,
    crystals,
    data_map,
    dimer,
    distance,
    dynamics,
    force,
    learning,
    molecule,
    phonon,
    speed,
    uncertainty,
    vacancy,
)
from tesseral.report.verdicts import not_computed

FORMAT_VERSION = 1


class Part(NamedTuple):
    """A section to compute."""

    key: str
    title: str
    compute: Callable[[Context], Section | None]  # None if it does not apply to the data
    labels: bool = False  # whether it compares with the labels of the data


PARTS = (
    Part("learning", "Learning curves", learning.learning),
    Part("accuracy", "Test errors", accuracy.accuracy, labels=True),
    Part("force-size", "Errors by size of the force", force.force_size, labels=True),
    Part("distance", "Distance to the training set", distance.distance, labels=True),
    Part("map", "Map of the data", data_map.data_map, labels=True),
    Part("uncertainty", "Expected errors", uncertainty.uncertainty, labels=True),
    Part("crystals", "Crystals", crystals.crystals),
    Part("eos", "Equation of state", crystals.equations_of_state),
    Part("elastic", "Elastic constants", crystals.elastic_section),
    Part("phonons", "Phonons", phonon.phonon_bands),
    Part("vacancy", "Vacancies", vacancy.vacancies),
    Part("molecule", "Molecule", molecule.molecule),
    Part("dimers", "Pairs of atoms", dimer.dimers),
    Part("dynamics", "Energy conservation", dynamics.dynamics),
    Part("hot", "Hot run", dynamics.hot),
    Part("cutoff", "Smoothness at the cutoff", consistency.cutoff_section),
    Part("consistency", "Symmetries and derivatives", consistency.consistency),
    Part("speed", "Speed and memory", speed.speed),
    Part("card", "Model card", card.card),
)


class Report(NamedTuple):
    """Content of a report and the files it was written to."""

    page: Page
    verdicts: list[Verdict]
    html: Path
    json: Path
    seconds: float  # wall time

    @property
    def failed(self) -> bool:
        """Whether a claim fails."""
        return any(verdict.level == "fail" for verdict in self.verdicts)


def write_report(
    config: ReportConfig,
    show: Callable[[int, int, str], object] | None = None,
    parts: tuple[Part, ...] | None = None,
    effort: Effort | None = None,
) -> Report:
    """Compute all sections and write the page and the numbers.

    Args:
        config: options of the report.
        show: called before each section with the number of finished sections, the total number,
            and a description.
        parts: sections to compute. Default: all.
        effort: sizes of the computations. Default: those of the configuration.

    Returns:
        The content. A section that could not be computed has a verdict that says so.

    Raises:
        FileNotFoundError: no such model or data.
        ValueError: files that cannot be read, or elements that the model does not know.
        KeyboardInterrupt: names the section that was interrupted; nothing is written.
    """
    started = time.monotonic()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    parts = PARTS if parts is None else parts
    if config.data is None:
        parts = tuple(part for part in parts if not part.labels)
    config = replace(config, model=str(model_path(config.model)))
    context = Context(config, effort)
    folder = Path(config.output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder as `output`")
    check_writable(folder / "report.html")
    chapters, times = [], {}
    for number, part in enumerate(parts):
        if show is not None:
            show(number, len(parts), f"{number + 1}/{len(parts)} {part.title}")
        before = time.monotonic()
        try:
            section = compute(part, context)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped at the section {part.title!r}; no report was written"
            ) from None
        if section is not None:
            chapters.append(Chapter(part.key, part.title, section))
        times[part.key] = round(time.monotonic() - before, 3)
    seconds = time.monotonic() - started
    page = make_page(context, tuple(chapters), seconds)
    make_folder(folder)
    result = Report(
        page, verdicts_of(chapters), folder / "report.html", folder / "report.json", seconds
    )
    write_json(result.json, _content(context, result, times), indent=1)
    write_text(result.html, render(page))
    return result


def compute(part: Part, context: Context) -> Section | None:
    """One section; an error becomes its content with a warning and does not stop the others."""
    try:
        section = part.compute(context)
    except Exception as error:  # no error may lose the other sections
        reason = str(error) or type(error).__name__
        if not isinstance(error, (ValueError, OSError, RuntimeError)):
            reason = f"{type(error).__name__}: {reason}"
        note = Note(f"This section could not be computed: {reason}")
        verdict = not_computed(part.key, part.title, reason)
        return Section("", (note,), (verdict,), {"error": reason})
    if section is None:
        return None
    verdicts = tuple(verdict._replace(section=part.key) for verdict in section.verdicts)
    return section._replace(verdicts=verdicts)


def make_page(context: Context, chapters: tuple[Chapter, ...], seconds: float) -> Page:
    """The page with all sections."""
    card, config = context.card, context.config
    facts = (
        f"{' '.join(card.symbols)}, {card.config.architecture}, cutoff "
        f"{context.cutoff:g} Å, {card.parameters:,} parameters, used in {context.dtype}",
        f"tested on {config.data}: {len(context.test)} structures"
        if config.data is not None
        else f"tested on {', '.join(config.structures)}, without labelled data: errors are unknown",
        f"references: {context.references.path or 'none'} ({context.references.why})",
    )
    versions = ", ".join(f"{name} {value}" for name, value in library_versions().items())
    footer = (
        f"Written {_now()} by tesseral{' (quick)' if config.quick else ''} in "
        f"{seconds:.0f} s on {machine(torch.device(context.device))}; {versions}."
    )
    return Page(f"Acceptance report: {Path(config.model).name}", facts, chapters, footer)


def _content(context: Context, result: Report, times: dict[str, float]) -> dict[str, Any]:
    """Content of report.json."""
    config = context.config
    return {
        "format_version": FORMAT_VERSION,
        "model": str(config.model),
        "data": config.data,
        "created": _now(),
        "quick": config.quick,
        "versions": library_versions(),
        "machine": machine(torch.device(context.device)),
        "seconds": round(result.seconds, 3),
        "seconds_by_section": times,
        "references": {"file": context.references.path, "why": context.references.why},
        "counts": count(result.verdicts),
        "verdicts": result.verdicts,
        "sections": {chapter.key: chapter.section.numbers for chapter in result.page.chapters},
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
