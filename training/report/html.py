"""The page: one HTML file with its pictures in it, without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from tesseral.training.report.content import (
    Block,
    Level,
    Note,
    Picture,
    Section,
    Table,
    Verdict,
)
from tesseral.training.report.style import CSS

LEVELS: tuple[Level, ...] = ("pass", "warn", "fail")
WORDS = {"pass": "passed", "warn": "with a warning", "fail": "failed"}


class Chapter(NamedTuple):
    """A section with its name in links and its title."""

    key: str
    title: str
    section: Section


class Page(NamedTuple):
    """All that stands on the page."""

    title: str
    facts: tuple[str, ...]  # lines below the title
    chapters: tuple[Chapter, ...]
    footer: str


def verdicts_of(chapters: Sequence[Chapter]) -> list[Verdict]:
    """All verdicts in the order of the page."""
    return [verdict for chapter in chapters for verdict in chapter.section.verdicts]


def count(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many verdicts there are of each level."""
    return {level: sum(v.level == level for v in verdicts) for level in LEVELS}


def summary(counts: dict[str, int]) -> str:
    """The whole report in a sentence."""
    if counts["fail"]:
        return (
            f"{counts['fail']} of {sum(counts.values())} claims do not hold: read these lines "
            "before you run MD with this model."
        )
    if counts["warn"]:
        return f"No claim fails; {counts['warn']} deserve a look."
    return "Every claim holds."


def render(page: Page) -> str:
    """The page as HTML."""
    verdicts = verdicts_of(page.chapters)
    facts = "".join(f"<p>{escape(fact)}</p>\n" for fact in page.facts)
    links = " ".join(f'<a href="#{c.key}">{escape(c.title)}</a>' for c in page.chapters)
    counts = count(verdicts)
    tiles = "".join(
        f'<div class="tile {level}"><b>{counts[level]}</b>{WORDS[level]}</div>' for level in LEVELS
    )
    chapters = "\n".join(_chapter(chapter) for chapter in page.chapters)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(page.title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(page.title)}</h1>
{facts}<div class="tiles">{tiles}</div>
<p class="summary">{escape(summary(counts))}</p>
<nav>{links}</nav>
</header>
<section class="card" id="verdicts">
<h2>Verdicts</h2>
<p class="lead">Each line is a claim about the model, what was found, and the limits it was held
against.</p>
{_verdict_table(page.chapters)}
</section>
{chapters}
<footer><p>{escape(page.footer)}</p></footer>
</main>
</body>
</html>
"""


def _verdict_table(chapters: Sequence[Chapter]) -> str:
    """All claims, grouped by section."""
    rows = []
    for chapter in chapters:
        if chapter.section.verdicts:
            link = f'<a href="#{chapter.key}">{escape(chapter.title)}</a>'
            rows.append(f'<tr class="group"><td colspan="4">{link}</td></tr>')
        rows += [_verdict_row(verdict) for verdict in chapter.section.verdicts]
    return (
        '<table class="verdicts">\n<thead><tr><th></th><th>claim</th><th>found</th>'
        '<th class="limit">passes; warns</th></tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table>"
    )


def _verdict_row(verdict: Verdict) -> str:
    subject = f" <b>{escape(verdict.subject)}</b>" if verdict.subject else ""
    return (
        f'<tr><td><span class="pill {verdict.level}">{verdict.level}</span></td>'
        f"<td>{escape(verdict.claim)}{subject}"
        f'<span class="why">{escape(verdict.reason)}</span></td>'
        f'<td class="value">{escape(verdict.shown)}</td>'
        f'<td class="limit">{escape(verdict.threshold)}</td></tr>'
    )


def _chapter(chapter: Chapter) -> str:
    section = chapter.section
    pills = "".join(
        f' <span class="pill {level}">{number} {level}</span>'
        for level, number in count(section.verdicts).items()
        if number
    )
    blocks = "\n".join(_block(block) for block in section.blocks)
    return (
        f'<section class="card" id="{chapter.key}">\n'
        f"<h2>{escape(chapter.title)}{pills}</h2>\n"
        f'<p class="lead">{escape(section.lead)}</p>\n{blocks}\n</section>'
    )


def _block(block: Block) -> str:
    if isinstance(block, Note):
        return f'<p class="missing">{escape(block.text)}</p>'
    if isinstance(block, Picture):
        return (
            f'<figure><img src="{block.uri}" alt="{escape(block.alt, quote=True)}">'
            f"<figcaption>{escape(block.caption)}</figcaption></figure>"
        )
    return _table(block)


def _table(block: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in block.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in block.rows
    )
    kind = ' class="card-rows"' if len(block.columns) == 2 and block.folded else ""
    caption = (
        "" if block.folded or not block.caption else (f"<caption>{escape(block.caption)}</caption>")
    )
    text = (
        f'<div class="scroll"><table{kind}>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )
    if not block.folded:
        return text
    return f"<details><summary>{escape(block.caption)}</summary>\n{text}</details>"
