"""Help of all commands: it needs no slow library, and fits the terminal."""

import subprocess
import sys

import pytest

from tesseral.commands.main import COMMANDS

SLOW = ("torch", "e3nn", "lightning", "matplotlib", "scipy", "phonopy", "spglib", "h5py")
ASKED = [[name] for name in COMMANDS] + [["data", "import"], ["data", "check"]]
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
    # The options of fit are those of the architectures, whose files hold their layers too.
    allowed = {"torch"} if words == ["fit"] else set()
    assert set(SLOW) & set(imported) <= allowed
