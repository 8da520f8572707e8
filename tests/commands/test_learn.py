"""``train-potential learn``: options from a file, and what it says."""

from __future__ import annotations

from ase.build import bulk
from ase.io import write

from tesseral.commands import learn
from tesseral.commands.main import main

CONFIG = """
structures: [{folder}/cu.cif]
output: {folder}/out
labels: {{calculator: {calculator}}}
first_labels: 4
fit: {{model: {{cutoff: 3.5}}, trainer: {{max_steps: 5}}}}
"""


def run(folder, capsys, calculator="manual", *more):
    write(folder / "cu.cif", bulk("Cu", cubic=True))
    path = folder / "learn.yaml"
    path.write_text(CONFIG.format(folder=folder, calculator=calculator))
    status = main(["learn", "--config", str(path), *more])
    found = capsys.readouterr()
    return status, found.out, found.err


def test_labels_by_hand_are_awaited(tmp_path, capsys):
    status, out, _ = run(tmp_path, capsys)
    assert status == 0
    assert "4 structures wait for labels" in out and "round-00/to_label" in out
    assert len(list((tmp_path / "out" / "round-00" / "to_label").iterdir())) == 4


def test_the_command_line_replaces_options_of_the_file(tmp_path, capsys):
    assert "2 structures wait" in run(tmp_path, capsys, "manual", "--first_labels", "2")[1]


def test_a_calculator_that_is_not_installed(tmp_path, capsys):
    status, _, err = run(tmp_path, capsys, "no_such_code.Code")
    assert status == 2
    assert "--labels.calculator is no_such_code.Code, but the package no_such_code is not" in err


def test_options_of_another_architecture():
    parser = learn.parser(["--fit.model.architecture", "painn"])
    assert "--fit.model.channels" in parser._option_string_actions
    assert parser.get_defaults().fit.trainer.max_time == "5m"
