import gzip
import json

import pytest

from tesseral.data.sources import json_stream
from tesseral.data.sources.json_stream import iterate_json

LIST = [{"a": 1, "b": [1.5, "x, ]}"]}, {}, [1, 2], {"c": {"d": None, "e": "\\"}}]
OBJECT = {"one": {"a": 1}, "two, {": {"b": [2]}, "three": {}}


def written(folder, text):
    (folder / "a.json").write_text(text)
    return folder / "a.json"


@pytest.mark.parametrize("chunk", [1, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_members_are_those_of_the_json_module(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = written(tmp_path, json.dumps(LIST, indent=indent))
    assert list(iterate_json(path)) == [(None, value) for value in LIST]
    path = written(tmp_path, json.dumps(OBJECT, indent=indent))
    assert list(iterate_json(path)) == list(OBJECT.items())


def test_gzip(tmp_path):
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        json.dump(LIST, file)
    assert [value for _, value in iterate_json(tmp_path / "a.json.gz")] == LIST


@pytest.mark.parametrize("text", ["[]", "{}", "  [ ]  "])
def test_nothing_inside(tmp_path, text):
    assert list(iterate_json(written(tmp_path, text))) == []


def test_much_white_space(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 16)
    path = written(tmp_path, "[" + " " * 500 + "{}" + "\n" * 500 + "]")
    assert list(iterate_json(path)) == [(None, {})]


def test_only_a_piece_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 1000)
    path = written(tmp_path, json.dumps([{"x": i} for i in range(5000)]))
    with open(path) as file:
        members = json_stream._Members(file, "a.json")
        assert all(len(members.text) <= 2100 for _ in members)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "ends too early"),
        ("3", "neither a JSON list nor"),
        ("[{}", "after member 1: the file ends too early"),
        ("[{} {}]", "comma is missing"),
        ('{"a" {}}', "colon is missing"),
        ('[{}, {"a": }]', "after member 1"),
        ('[{"a": 1', "after member 0"),
    ],
)
def test_broken_files_say_where(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        list(iterate_json(written(tmp_path, text)))
