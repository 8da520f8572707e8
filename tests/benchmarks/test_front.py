"""Times against errors of potentials."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

import pytest

from benchmarks.front import front, named_file, plot, sheet, trained_rows, training_sheet

POINTS = [(3.0, 5.0), (1.0, 9.0), (2.0, 9.5), (4.0, 6.0), (5.0, 1.0)]


def test_the_front_has_the_points_that_no_other_beats() -> None:
    """A slower one with a larger error is left out."""
    assert front(POINTS) == [(1.0, 9.0), (3.0, 5.0), (5.0, 1.0)]


def test_a_potential_without_a_result_is_in_the_table_with_the_reason(tmp_path: Path) -> None:
    """The others are drawn."""
    errors = {"forces": 50.0, "energy": 2.0, "stress": 0.1}
    rows = [
        {"name": "broken", "kind": "tesseral", "weights": None, "errors": {}, "error": "no file"},
        {"name": "good", "kind": "tesseral", "weights": 10, "errors": errors, "seconds": 1e-3},
    ]
    assert [row[:2] for row in sheet(rows, 100).rows] == [["good", "10.0"], ["broken", "no file"]]
    plot(rows[1:], [10.0], "µs", tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 0


def test_the_times_of_training_are_given_by_name() -> None:
    """Others have only an error of forces."""
    rows = [
        {"name": name, "kind": "tesseral", "errors": {"forces": 50.0, "energy": 2.0, "stress": 0.1}}
        for name in ("tesseral: long", "tesseral: short", "SNAP")
    ]
    options = Namespace(
        trained=[("long", [240.0]), ("short", [30.0])], others=[("X", [90.0, 70.0])]
    )
    table = training_sheet(trained_rows(rows, options)).rows
    assert [row[:2] for row in table] == [
        ["tesseral: short", "30.0"],
        ["X", "90.0"],
        ["tesseral: long", "240"],
    ]
    assert table[1][2:] == ["70.0", "–", "–"]


def test_a_file_needs_a_name(tmp_path: Path) -> None:
    """The message has what was given."""
    path = tmp_path / "model"
    path.touch()
    assert named_file(f"fast={path}") == ("fast", path)
    for text in (str(path), f"fast={path}x", f"={path}"):
        with pytest.raises(ArgumentTypeError, match="NAME=PATH"):
            named_file(text)
