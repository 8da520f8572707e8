"""The benchmark of large stores, with a small one."""

import sys

import pytest

from benchmarks import data_scale
from tesseral.data.store.read import open_store


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_tables_and_figure_are_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_scale, "COPIES", 2)
    path, table = tmp_path / "a.h5", tmp_path / "a.md"
    options = ["--structures", "600", "--read", "400", "--markdown", str(table), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["data_scale", str(path), *options])
    data_scale.main()
    assert len(open_store(path)) == 600
    assert path.with_suffix(".png").stat().st_size > 1000
    text = table.read_text()
    for row in ("import of extxyz, processes: 1", "merge", "opening", "raw", "neighbours"):
        assert row in text
    assert "a.h5" in text and "600" in capsys.readouterr().out
