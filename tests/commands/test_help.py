"""Help of all commands: it needs no slow library, and fits the terminal."""

import subprocess
import sys

import pytest
from rich.cells import cell_len

from tesseral.commands.main import COMMANDS, main

SLOW = ("torch", "e3nn", "lightning", "matplotlib", "scipy", "phonopy", "spglib", "h5py")
INNER = ["data import", "data check", "data split", "data merge", "data append", "data verify"]
INNER += ["lammps build", "lammps verify"]
ASKED = [[name] for name in COMMANDS] + [words.split() for words in INNER]
CODE = """
import sys
from tesseral.commands.main import main
try:
    main([*sys.argv[1:], "--help"])
except SystemExit:
    print("imported:", *sys.modules)
"""


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_help_imports_nothing_slow(words):
    result = subprocess.run(
        [sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True
    )
    imported = result.stdout.split("imported:")[1].split()
    # The options of fit and learn are those of architectures, whose files hold their layers too.
    allowed = {"torch"} if words in (["fit"], ["learn"]) else set()
    assert set(SLOW) & set(imported) <= allowed


@pytest.mark.parametrize("words", [[], *ASKED], ids=" ".join)
@pytest.mark.parametrize("columns", [80, 200])
def test_help_fits_the_terminal(words, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if cell_len(line) > columns] == []
