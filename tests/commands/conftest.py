"""The command, run in this process."""

import pytest

from tesseral.commands.main import main


@pytest.fixture
def run(capsys):
    """Runs the command; gives its status and what it wrote to either stream."""

    def call(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        written = capsys.readouterr()
        return status, written.out, written.err

    return call
