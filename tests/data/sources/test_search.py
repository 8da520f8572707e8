"""Which files are meant, and which reader they get."""

import gzip
import shutil
from pathlib import Path

import pytest

from tesseral.data.sources.formats import find_format
from tesseral.data.sources.search import find_sources

FILES = Path(__file__).parent / "files"


@pytest.fixture
def runs(tmp_path, vasp):
    """A folder of calculations and much else."""
    steps = vasp.make_steps(1)
    for name in ("a", "b/deep", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/OUTCAR").write_text(vasp.outcar(steps))
    (tmp_path / "a/vasprun.xml").write_text(vasp.vasprun(steps))
    (tmp_path / "a/OUTCAR.relax1").write_text(vasp.outcar(steps))
    (tmp_path / "b/deep/OUTCAR.gz").write_bytes(gzip.compress(vasp.outcar(steps).encode()))
    (tmp_path / "b/deep/vasp.out").write_text(" running on 16 cores\n vasp.6.3.0\n")
    (tmp_path / "c/notes.txt").write_text("Program of the week")
    (tmp_path / "c/data.aselmdb").write_text("")
    shutil.copy(FILES / "pwx_md.out.gz", tmp_path / "c/scf.out.gz")
    return tmp_path


def names(found, folder):
    return [Path(source.path).relative_to(folder).as_posix() for source in found]


def test_a_folder_gives_the_outputs_in_it(runs):
    found = find_sources([str(runs)])
    expected = "a/OUTCAR.relax1 a/vasprun.xml b/deep/OUTCAR.gz c/data.aselmdb c/scf.out.gz"
    assert names(found, runs) == expected.split()
    assert all(source.found for source in found)


def test_other_files_of_a_calculation_follow(runs, vasp):
    (runs / "a/ML_ABN").write_text("")
    (runs / "a/vaspout.h5").write_text("")
    (runs / "a/OUTCAR.gz").write_text("")
    relax, first = find_sources([str(runs / "a")])
    assert (relax.name, relax.instead) == ("OUTCAR.relax1", ())
    assert first.name == "vasprun.xml"
    others = [other.name for other in first.instead]
    assert others == ["OUTCAR", "OUTCAR.gz", "vaspout.h5", "ML_ABN"]
    assert not find_sources([str(runs / "a/vasprun.xml")])[0].instead  # that file is meant
    named = find_sources([str(runs / "a"), str(runs / "a/OUTCAR")])
    assert [source.name for source in named][1:] == ["vasprun.xml", "OUTCAR"]
    assert "OUTCAR" not in [other.name for other in named[1].instead]


def test_names_are_short_and_unlike(runs):
    assert [source.name for source in find_sources([str(runs / "a"), str(runs / "b")])] == [
        "a/OUTCAR.relax1",
        "a/vasprun.xml",
        "b/deep/OUTCAR.gz",
    ]
    assert find_sources([str(runs / "a/OUTCAR")])[0].name == "OUTCAR"


def test_patterns_find_files_in_any_folder(runs):
    found = find_sources([str(runs / "**" / "OUTCAR*")])
    assert names(found, runs) == ["a/OUTCAR", "a/OUTCAR.relax1", "b/deep/OUTCAR.gz"]


def test_each_file_counts_once_and_a_named_one_is_named(runs):
    found = find_sources([str(runs / "a/OUTCAR"), str(runs / "a/OUT*"), str(runs / "a/OUTCAR")])
    assert [(source.name, source.found) for source in found] == [
        ("OUTCAR", False),
        ("OUTCAR.relax1", True),
    ]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / "[1].xyz").write_text("")
    assert find_sources([str(tmp_path / "[1].xyz")])[0].name == "[1].xyz"


@pytest.mark.parametrize("name", ["absent.xyz", "*.absent", "empty"])
def test_nothing_found_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=name.replace("*", ".")):
        find_sources([str(tmp_path / name)])


@pytest.mark.parametrize(
    "name, form",
    [
        ("pwx_md.out.gz", "espresso-out"),
        ("gpaw_si.txt.gz", "gpaw-out"),
        ("gpaw_legacy_si.txt.gz", "gpaw-out"),
        ("gpaw_si.traj", "traj"),
    ],
)
def test_formats(tmp_path, name, form):
    assert find_format(str(FILES / name)) == form


def test_the_content_tells_not_the_name(tmp_path, vasp):
    (tmp_path / "7.log").write_text(vasp.outcar(vasp.make_steps(1)))
    assert find_format(str(tmp_path / "7.log")) == "vasp-out"
    (tmp_path / "7.dat").write_text(vasp.vasprun(vasp.make_steps(1)))
    assert find_format(str(tmp_path / "7.dat")) == "vasp-xml"


def test_xml_of_espresso_is_refused(tmp_path):
    text = '<qes:espresso xmlns:qes="http://www.quantum-espresso.org/ns/qes/qes-1.0">'
    (tmp_path / "data-file-schema.xml").write_text('<?xml version="1.0"?>\n' + text)
    with pytest.raises(ValueError, match="import the text output of pw.x"):
        find_format(str(tmp_path / "data-file-schema.xml"))


def test_a_broken_outcar_is_left_to_the_import_to_tell(tmp_path):
    (tmp_path / "OUTCAR").write_text("")
    assert names(find_sources([str(tmp_path)]), tmp_path) == ["OUTCAR"]


def test_what_cannot_be_read_is_left_to_the_import_to_tell(tmp_path):
    (tmp_path / "a.out.gz").write_text("not compressed")
    assert names(find_sources([str(tmp_path)]), tmp_path) == ["a.out.gz"]
