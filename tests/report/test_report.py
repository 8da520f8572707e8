"""Whole reports, and the command."""

from __future__ import annotations

import json
from functools import partial

import pytest
from ase.build import bulk

from tesseral.commands.main import main
from tesseral.report import report as run
from tesseral.report.config import ReportConfig
from tesseral.report.content import Section
from tesseral.report.report import PARTS, Part, write_report
from tesseral.report.verdicts import judge

from .conftest import TINY
from .test_page import check

SOUND = tuple(part for part in PARTS if part.key in ("accuracy", "consistency", "card"))


def strict(path):
    """JSON without NaN and infinity."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def whole(small_model, own_data, tmp_path_factory):
    """A report of everything about the random model."""
    folder = tmp_path_factory.mktemp("whole")
    sic = folder / "sic.cif"
    from ase.build import bulk

    bulk("SiC", "zincblende", a=4.4).write(sic)
    config = ReportConfig(
        model=str(small_model),
        data=str(own_data),
        output=str(folder / "new" / "report"),
        train=str(own_data),
        structures=[str(sic)],
        temperatures=[50.0],
        hot=300.0,
        device="cpu",
        threads=1,
    )
    return write_report(config, effort=TINY)


def test_a_whole_report_fails_an_untrained_model(whole):
    assert whole.failed
    failed = {verdict.key for verdict in whole.verdicts if verdict.level == "fail"}
    assert {"wall", "duplicates"} <= failed
    assert {verdict.key for verdict in whole.verdicts} >= {"rotation", "force-error", "scaling"}


def test_no_section_is_lost(whole):
    errors = {c.key: c.section.numbers.get("error") for c in whole.page.chapters}
    assert {key: error for key, error in errors.items() if error} == {}


def test_the_page_and_the_numbers_are_written(whole):
    text = whole.html.read_text(encoding="utf-8")
    checker = check(text)
    assert {chapter.key for chapter in whole.page.chapters} <= set(checker.ids)
    assert len(checker.images) >= 8
    content = strict(whole.json)
    assert content["counts"]["fail"] == sum(v.level == "fail" for v in whole.verdicts) > 0
    assert len(content["verdicts"]) == len(whole.verdicts)
    assert {"claim", "value", "unit", "threshold", "level"} <= content["verdicts"][0].keys()
    assert content["sections"].keys() == {chapter.key for chapter in whole.page.chapters}
    assert content["sections"]["speed"]["sizes"][0]["peak_mb"] > 0


def command(monkeypatch, model, data, folder, parts, *more):
    """Run `train-potential report` with some sections only; gives its status."""
    monkeypatch.setattr(run, "PARTS", parts)
    options = ["--data", str(data), "-o", str(folder), "--device", "cpu", "--quick", *more]
    return main(["report", str(model), *options])


def test_the_status_is_0_where_every_claim_holds(
    monkeypatch, small_model, own_data, tmp_path, capsys
):
    assert command(monkeypatch, small_model, own_data, tmp_path / "r", SOUND) == 0
    text = capsys.readouterr().out
    assert "Every claim holds" in text and "report.html" in text
    assert strict(tmp_path / "r" / "report.json")["counts"]["fail"] == 0


def test_the_status_is_1_where_a_claim_fails(monkeypatch, small_model, own_data, tmp_path, capsys):
    bad = Part("hot", "Hot run", lambda context: Section("", verdicts=(judge("hot", 0.1),)))
    assert command(monkeypatch, small_model, own_data, tmp_path, (bad,)) == 1
    assert "1 of 1 claims does not hold" in capsys.readouterr().out


def test_a_section_that_raises_warns_and_the_others_go_on(
    monkeypatch, small_model, own_data, tmp_path
):
    def broken(context):
        raise ZeroDivisionError("too much")

    parts = (Part("eos", "Equation of state", broken), SOUND[0])
    assert command(monkeypatch, small_model, own_data, tmp_path, parts) == 0
    content = strict(tmp_path / "report.json")
    assert content["verdicts"][0]["level"] == "warn"
    assert content["sections"]["eos"]["error"] == "ZeroDivisionError: too much"
    assert content["sections"]["accuracy"]["n_structures"] == 4
    assert "could not be computed: ZeroDivisionError" in (tmp_path / "report.html").read_text()


def test_ctrl_c_is_one_sentence(monkeypatch, small_model, own_data, tmp_path, capsys):
    def stopped(context):
        raise KeyboardInterrupt

    parts = (Part("hot", "Hot run", stopped),)
    assert command(monkeypatch, small_model, own_data, tmp_path / "r", parts) == 130
    assert "stopped at the section 'Hot run'" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_file_in_place_of_the_folder_is_refused_before_the_work(
    monkeypatch, small_model, own_data, tmp_path, capsys
):
    def never(context):
        raise AssertionError("a section was computed")

    (tmp_path / "r").write_text("mine")
    parts = (Part("hot", "Hot run", never),)
    assert command(monkeypatch, small_model, own_data, tmp_path / "r", parts) == 2
    assert "is a file; give a folder as --output" in capsys.readouterr().err
    assert (tmp_path / "r").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("nowhere.safetensors", None), "there is no model file"),
        ((None, "nowhere.h5"), "there is no dataset nowhere.h5"),
    ],
)
def test_missing_files_are_one_sentence(
    monkeypatch, small_model, own_data, tmp_path, capsys, changes, message
):
    call = partial(command, monkeypatch, folder=tmp_path, parts=SOUND)
    assert call(changes[0] or small_model, changes[1] or own_data) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_element_is_refused(monkeypatch, small_model, emt_files, tmp_path, capsys):
    assert command(monkeypatch, small_model, emt_files[0], tmp_path, SOUND) == 2
    assert "Al, Cu" in capsys.readouterr().err


def test_without_labels_the_sections_that_need_none_are_computed(small_model, tmp_path):
    atoms = bulk("SiC", "zincblende", a=4.4)
    atoms.write(tmp_path / "sic.cif")
    config = ReportConfig(
        model=str(small_model), output=str(tmp_path / "r"), structures=[str(tmp_path / "sic.cif")]
    )
    result = write_report(config, effort=TINY)
    content = strict(result.json)
    assert content["data"] is None
    assert {"crystals", "dimers", "dynamics", "consistency"} <= set(content["sections"])
    assert not {"accuracy", "force-size", "distance"} & set(content["sections"])
    assert not [v.shown for v in result.verdicts if v.key == "computed"]
    assert "without labelled data" in result.html.read_text()


def test_a_report_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to test; give a labelled test set as `data`"):
        ReportConfig(model="m", output="o")
