"""The page of a report: one HTML file with embedded images and no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from tesseral.report.content import (
    Block,
    Level,
    Note,
    Picture,
    Section,
    Table,
    Verdict,
)
from tesseral.report.page.style import CSS

LEVELS: tuple[Level, ...] = ("pass", "warn", "fail", "open")
WORDS = {"pass": "passed", "warn": "with a warning", "fail": "failed", "open": "undecided"}


class Chapter(NamedTuple):
    """A section with its title and the key used in links."""

    key: str
    title: str
    section: Section


class Page(NamedTuple):
    """Content of the page."""

    title: str
    facts: tuple[str, ...]  # lines below the title
    chapters: tuple[Chapter, ...]
    footer: str


def verdicts_of(chapters: Sequence[Chapter]) -> list[Verdict]:
    """All verdicts in the order of the page."""
    return [verdict for chapter in chapters for verdict in chapter.section.verdicts]


def count(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Number of verdicts of each level."""
    return {level: sum(v.level == level for v in verdicts) for level in LEVELS}


def summary(counts: dict[str, int]) -> str:
    """The whole report in a sentence."""
    if counts["fail"]:
        return (
            f"{counts['fail']} of {sum(counts.values())} claims {_do(counts['fail'])} not hold: "
            "read the reasons before you run MD with this model."
        )
    undecided = counts.get("open", 0)
    rest = f" The data cannot decide {undecided}." if undecided else ""
    if counts["warn"]:
        verb = "needs" if counts["warn"] == 1 else "need"
        return f"No claim fails; {counts['warn']} {verb} attention.{rest}"
    return f"Every {'other ' if undecided else ''}claim holds.{rest}"


def _do(number: int) -> str:
    return "does" if number == 1 else "do"


def render(page: Page) -> str:
    """The page as HTML."""
    verdicts = verdicts_of(page.chapters)
    facts = "".join(f"<p>{escape(fact)}</p>\n" for fact in page.facts)
    links = " ".join(f'<a href="#{c.key}">{escape(c.title)}</a>' for c in page.chapters)
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
{facts}{_counts(verdicts)}<nav>{links}</nav>
</header>
{_claims(page.chapters) if verdicts else ""}{chapters}
<footer><p>{escape(page.footer)}</p></footer>
</main>
</body>
</html>
"""


def _counts(verdicts: Sequence[Verdict]) -> str:
    """Numbers of verdicts and those that do not pass; empty if there are none."""
    if not verdicts:
        return ""
    counts = count(verdicts)
    tiles = "".join(
        f'<div class="tile {level if counts[level] else "none"}">'
        f"<b>{counts[level]}</b>{WORDS[level]}</div>"
        for level in LEVELS
    )
    return (
        f'<div class="tiles">{tiles}</div>\n'
        f'<p class="summary">{escape(summary(counts))}</p>\n{_look_at(verdicts)}'
    )


def _claims(chapters: Sequence[Chapter]) -> str:
    """Section with all claims."""
    return f"""<section class="card" id="verdicts">
<h2>Verdicts</h2>
<p class="lead">Each line shows a claim about the model, the result, and the limits that the result
is compared with.</p>
{_verdict_table(chapters)}
</section>
"""


def _look_at(verdicts: Sequence[Verdict]) -> str:
    """Verdicts that do not pass, failures first, with links to the sections."""
    rows = [
        f'<li><span class="pill {v.level}">{v.level}</span> <a href="#{v.section}">'
        f"{escape(v.claim)}</a>{_subject(v)}: {escape(v.shown)}</li>"
        for level in ("fail", "warn", "open")
        for v in verdicts
        if v.level == level
    ]
    return f'<ul class="look">{"".join(rows)}</ul>\n' if rows else ""


def _verdict_table(chapters: Sequence[Chapter]) -> str:
    """All claims, grouped by section; a claim about several things is listed once."""
    rows = []
    for chapter in chapters:
        if chapter.section.verdicts:
            link = f'<a href="#{chapter.key}">{escape(chapter.title)}</a>'
            rows.append(f'<tr class="group"><td colspan="4">{link}</td></tr>')
        by_claim: dict[str, list[Verdict]] = {}
        for verdict in chapter.section.verdicts:
            by_claim.setdefault(verdict.key, []).append(verdict)
        for verdicts in by_claim.values():
            rows += [_verdict_row(v, first=i == 0) for i, v in enumerate(verdicts)]
    return (
        '<table class="verdicts">\n<thead><tr><th></th><th>claim</th><th>found</th>'
        '<th class="limit">passes; warns</th></tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table>"
    )


def _verdict_row(verdict: Verdict, *, first: bool) -> str:
    why = f'<span class="why">{escape(verdict.reason)}</span>'
    claim = f"{escape(verdict.claim)}{_subject(verdict)}{why}" if first else _subject(verdict)
    kind = "" if first else ' class="more"'
    return (
        f'<tr{kind}><td><span class="pill {verdict.level}">{verdict.level}</span></td>'
        f'<td>{claim}</td><td class="value">{escape(verdict.shown)}</td>'
        f'<td class="limit">{escape(verdict.threshold) if first else ""}</td></tr>'
    )


def _subject(verdict: Verdict) -> str:
    return f" <b>{escape(verdict.subject)}</b>" if verdict.subject else ""


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
        kind = "lead" if block.quiet else "missing"
        return f'<p class="{kind}">{escape(block.text)}</p>'
    if isinstance(block, Picture):
        size, alt = f"width:{block.width}px", escape(block.alt, quote=True)
        image = f'<img style="{size}" src="{block.uri}" alt="{alt}">'
        return f"<figure>{image}<figcaption>{escape(block.caption)}</figcaption></figure>"
    return _table(block)


def _table(block: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in block.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in block.rows
    )
    kind = ' class="words"' if block.words else ""
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
