"""The page: well-formed, self-contained, safe against what stands in file names."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from tesseral.report.content import Note, Section, table
from tesseral.report.figures import finish, panels, picture
from tesseral.report.page.html import Chapter, Page, render, summary, verdicts_of
from tesseral.report.verdicts import judge

VOID = {"meta", "img", "br", "link", "input"}


class Checker(HTMLParser):
    """Collects links and images, and complains about tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.images.append(values["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(text: str) -> Checker:
    """Everything that is true of any report."""
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert not checker.open
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(link.startswith("#") and link[1:] in checker.ids for link in checker.links)
    assert all(source.startswith("data:image/png;base64,") for source in checker.images)
    assert not checker.tags & {"script", "link", "iframe"}
    assert "@import" not in text and "url(" not in text
    return checker


def example() -> tuple[Chapter, ...]:
    figure, axes = panels(1, 2)
    axes[0, 0].plot([0, 1], [0, 1], label="<line>")
    finish(axes[0, 0], "title", "x (Å)", "y (eV)", legend=True)
    section = Section(
        lead='a < b & "c"',
        blocks=(
            picture(figure, 'say "alt"', "caption <b>"),
            table(("", "x & y"), [("row", "<1>")], "a table"),
            table(("", "y"), [("row", "1")], "more")._replace(folded=True),
            Note("missing <because>"),
        ),
        verdicts=(
            judge("lattice", 0.3, subject="SiC <script>"),
            judge("lattice", 5.0, subject="Si"),
            judge("born", 0.5)._replace(section="eos"),
        ),
    )
    return (Chapter("eos", "Equation of state", section), Chapter("card", "Card", Section("")))


@pytest.fixture(scope="module")
def page() -> str:
    return render(Page("Report: <model>", ("a fact & more",), example(), "written <now>"))


def test_the_page_is_well_formed_and_needs_no_network(page):
    checker = check(page)
    assert {"verdicts", "eos", "card"} <= set(checker.ids)
    assert len(checker.images) == 1
    assert "details" in checker.tags


def test_what_is_not_html_is_escaped(page):
    for text in ("<model>", "<now>", "<script>", "<because>", "caption <b>", 'say "alt"'):
        assert text not in page


def test_failures_stand_on_top_with_a_link(page):
    top = page.split('id="verdicts"')[0]
    assert top.index(">fail<") < top.index(">warn<")
    assert '<a href="#eos">The lattice constant agrees' in top
    assert "0.300" not in top


def test_a_claim_about_several_crystals_stands_there_once(page):
    table_of_all = page.split('id="verdicts"')[1].split('id="eos"')[0]
    assert table_of_all.count("The lattice constant agrees") == 1
    assert table_of_all.count('class="pill') == len(verdicts_of(example())) == 3


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"pass": 3, "warn": 0, "fail": 0}, "Every claim holds."),
        (
            {"pass": 3, "warn": 0, "fail": 0, "open": 2},
            "Every other claim holds. The data cannot decide 2.",
        ),
        ({"pass": 3, "warn": 1, "fail": 0}, "No claim fails; 1 needs attention."),
        ({"pass": 3, "warn": 1, "fail": 2}, "2 of 6 claims do not hold"),
    ],
)
def test_the_summary_is_a_sentence(counts, words):
    assert summary(counts).startswith(words)
