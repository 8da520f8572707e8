"""The command: help, wrong options, evaluation, cards, imports."""

import json
import warnings
from pathlib import Path

import pytest
import torch
import yaml

import tesseral
from tesseral.commands import fit as fit_command
from tesseral.commands.main import main, make_parser, warning_format
from tesseral.commands.parser import Parser, with_flags
from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import atoms_from_structure, make_structure
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.schnet import SchNetConfig
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.derivatives import predict

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FIT = ["fit", "--data.train", "a.h5", "--output", "m.safetensors"]
REPORT = ["report", "m.safetensors", "--data", "a.h5", "--output", "report"]


@pytest.fixture
def silicon(tmp_path):
    """A dataset of two structures of an element that ``small_model`` knows, of two types."""
    cell = [[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]]
    structures = [
        make_structure(
            [14, 14],
            [[0, 0, 0], [1.3 + 0.1 * i, 1.35, 1.35]],
            cell=cell,
            energy=-5.0 - i,
            forces=[[0.1 * i, 0, 0], [-0.1 * i, 0, 0]],
        )._replace(config_type=f"type {i}")
        for i in range(2)
    ]
    write_store(tmp_path / "si.h5", structures)
    return tmp_path / "si.h5"


def sentence(result):
    """The one line of an error, after checking that it is one and that the status is 2."""
    status, _, text = result
    assert status == 2
    assert text.count("\n") == 1 and text.startswith("train-potential: ")
    return text


def test_without_arguments_it_shows_the_commands(run):
    status, text, _ = run()
    assert status == 0
    assert "train-potential fit --data.train set.h5" in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("fit",), ("--data.train", "--trainer.max_time", "averaged over all components")),
        (("evaluate",), ("--json", "parity plots")),
        (("report",), ("--quick", "exit status is 1 if a claim fails", "report.json")),
        (("info",), ("model file",)),
        (("export",), ("TorchScript",)),
        (("data",), ("import", "merge", "append", "verify")),
        (("data", "import"), ("--energy-key", "--stress-sign", "common names are recognised")),
    ],
)
def test_each_command_has_help_with_words(run, command, words):
    status, text, _ = run(*command, "--help")
    assert status == 0
    assert all(word in " ".join(text.split()) for word in words)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([*FIT, "--trainer.max_tim", "1h"], "did you mean --trainer.max_time?"),
        ([*FIT, "--data.validaton=b.h5"], "did you mean --data.validation?"),
        (["fti"], "did you mean fit?"),
        (["evaluate", "a", "b", "--jason", "x"], "did you mean --json?"),
        (["data", "import", "a", "-o", "b.h5", "--engery-key", "e"], "mean --energy-key?"),
        (["data", "imprt"], "did you mean import?"),
        (["data", "merge", "a.h5", "-o", "b.h5", "--overwite"], "did you mean --overwrite?"),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest_one(run, arguments, hint):
    assert hint in sentence(run(*arguments))


def test_a_wrong_key_in_a_file_is_refused_with_the_nearest_one(run, tmp_path):
    (tmp_path / "c.yaml").write_text("trainer:\n  max_tme: 1h\n")
    text = sentence(run(*FIT, "--config", tmp_path / "c.yaml"))
    assert "there is no trainer.max_tme; did you mean trainer.max_time?" in text


def test_an_empty_file_of_options_is_refused(run, tmp_path):
    (tmp_path / "c.yaml").touch()
    assert "the configuration file is empty" in sentence(run(*FIT, "--config", tmp_path / "c.yaml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*FIT, "--trainer.devices", "two"], "trainer.devices: expected int, found two"),
        ([*FIT, "--trainer.strategy", "dpp"], "trainer.strategy: use 'auto', 'ddp', not dpp"),
        ([*FIT, "--trainer.max_time", "soon"], "'soon' is not a duration"),
        (["fit", "--output", "m.safetensors"], "missing: --data.train"),
        (["data", "merge"], "missing: sources, --output"),
        (["data", "check"], "missing: files"),
        (["lammps"], "give one of the commands build, verify"),
        ([*REPORT, "--batch-edges", "0"], "--batch-edges is 0"),
        (["evaluate", "m", "a.h5", "--batch-edges", "-5"], "--batch-edges is -5"),
        ([*REPORT, "--temperatures", "300"], "temperatures: expected list[float], found 300"),
        (FIT, "there is no dataset a.h5"),
        (["info", "nowhere.safetensors"], "there is no model file nowhere.safetensors"),
        (["data", "import", "nowhere.xyz", "-o", "b.h5"], "there is no file nowhere.xyz"),
        (["data", "import", "a", "-o", "b.h5", "--processes", "0"], "--processes is 0"),
        (["data", "merge", "nowhere.h5", "-o", "b.h5"], "there is no dataset nowhere.h5"),
        (["data", "append", "nowhere.h5", "b.h5"], "there is no dataset nowhere.h5"),
        (["data", "verify", "nowhere.h5"], "there is no dataset nowhere.h5"),
    ],
)
def test_wrong_values_are_one_sentence(run, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in sentence(run(*arguments))


def test_the_configuration_is_printed_with_changes(run):
    status, text, _ = run(*FIT, "--trainer.max_time", "10m", "--print_config")
    assert status == 0
    values = yaml.safe_load(text)
    assert values["trainer"]["max_time"] == "10m"
    assert values["data"]["train"] == "a.h5"


def test_a_printed_configuration_can_be_read_back(run, tmp_path):
    _, text, _ = run(*FIT, "--loss.energy_weight", "3", "--print_config")
    (tmp_path / "c.yaml").write_text(text)
    _, again, _ = run("fit", "--config", tmp_path / "c.yaml", "--print_config")
    assert yaml.safe_load(again) == yaml.safe_load(text)


def test_a_whole_training_from_a_file(run, emt_files, tmp_path):
    settings = {
        "data": {"train": str(emt_files[0])},
        "model": {"cutoff": 3.6, "layers": 1, "channels": 4, "grid_channels": 4, "l_max": 1},
        "output": str(tmp_path / "m.safetensors"),
        "trainer": {"max_steps": 2, "accelerator": "cpu"},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    status, text, _ = run("fit", "--config", tmp_path / "c.yaml")
    assert status == 0, text
    assert load_model(tmp_path / "m.safetensors")[1].training["steps"] <= 2


def test_evaluation_writes_the_errors_of_the_predictions(run, small_model, silicon, tmp_path):
    status, text, _ = run("evaluate", small_model, silicon, "--json", tmp_path / "e.json")
    assert status == 0
    errors = json.loads((tmp_path / "e.json").read_text())
    potential, card = load_model(small_model)
    (batch,) = evaluation_loader(open_store(silicon), card.elements, card.config.cutoff)
    prediction = predict(potential, batch.graph)
    energy = (prediction.energy - batch.labels.energy) / 2
    forces = prediction.forces - batch.labels.forces
    for name, off in (("energy_per_atom", energy), ("forces", forces)):
        assert errors[name] == pytest.approx(
            {"mae": 1e3 * float(off.abs().mean()), "rmse": 1e3 * float(off.square().mean() ** 0.5)}
        )
    assert "stress" not in errors
    assert errors["n_structures"] == 2
    assert errors["by_config_type"]["type 1"]["n_structures"] == 1
    assert errors["by_element"]["Si"]["forces"] == pytest.approx(errors["forces"])
    assert "type 1" in text


def test_evaluation_in_small_batches_is_the_same(run, small_model, silicon, tmp_path):
    run("evaluate", small_model, silicon, "--json", tmp_path / "a.json")
    run("evaluate", small_model, silicon, "--json", tmp_path / "b.json", "--batch-edges", "1")
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in "ab")
    assert first["forces"]["rmse"] == pytest.approx(second["forces"]["rmse"], rel=1e-6)


def test_evaluation_draws_parity_plots_of_what_is_labelled(run, small_model, silicon, tmp_path):
    run("evaluate", small_model, silicon, "--plots", tmp_path / "plots")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"energy.png", "forces.png"}


def test_evaluation_of_an_unknown_element_is_refused(run, small_model, emt_files):
    assert "has Al, Cu" in sentence(run("evaluate", small_model, emt_files[0]))


def test_info_shows_the_card(run, small_model):
    status, text, _ = run("info", small_model)
    assert status == 0
    assert "C Si" in text and "reference energies" in text


def test_export_writes_torchscript(run, small_model, tmp_path):
    status, _, _ = run("export", small_model, "-o", tmp_path / "m.pt")
    assert status == 0
    assert (tmp_path / "m.pt").stat().st_size > 0


def test_import_makes_a_dataset(run, silicon, tmp_path):
    for structure in open_store(silicon):
        atoms_from_structure(structure).write(tmp_path / "a.extxyz", append=True)
    status, _, _ = run("data", "import", tmp_path / "a.extxyz", "-o", tmp_path / "b.h5")
    assert status == 0
    first, second = open_store(silicon)[1], open_store(tmp_path / "b.h5")[1]
    torch.testing.assert_close(torch.tensor(second.forces), torch.tensor(first.forces))


def test_datasets_are_merged_appended_and_verified(run, silicon, tmp_path):
    whole = tmp_path / "all.h5"
    assert run("data", "merge", silicon, silicon, "-o", whole)[0] == 0
    assert "all.h5 exists" in sentence(run("data", "merge", silicon, "-o", whole))
    status, text, _ = run("data", "append", whole, silicon)
    assert status == 0 and "6 structures" in text
    status, text, _ = run("data", "verify", silicon, whole)
    assert status == 0 and "6 structures match their hashes" in " ".join(text.split())
    data = bytearray(whole.read_bytes())
    data[data.index(b"type 1") + 5] = ord("2")
    whole.write_bytes(data)
    assert "structures 0 to 5 have been changed or damaged" in sentence(
        run("data", "verify", whole)
    )


FIT_CONFIGS = sorted(set(CONFIGS.glob("*.yaml")) - {CONFIGS / "learn.yaml"})


@pytest.mark.parametrize("path", FIT_CONFIGS, ids=lambda path: path.name)
def test_the_example_configurations_are_valid(run, path):
    status, text, _ = run(*FIT, "--config", path, "--print_config")
    assert status == 0
    given = yaml.safe_load(path.read_text())
    config = fit_command.fit_config(yaml.safe_load(text))
    for part, values in given.items():
        assert {name: getattr(getattr(config, part), name) for name in values} == values


def fit_options(*more):
    """Of a command line for fit."""
    words = [*FIT, *more]
    return make_parser(words, "fit", fit_command).parse_args(words).as_dict()["fit"]


def test_an_architecture_brings_its_own_defaults(tmp_path):
    facet, schnet = fit_options(), fit_options("--model.architecture", "schnet")
    assert facet["model"]["channels"] == FacetConfig().channels
    assert schnet["model"]["channels"] == SchNetConfig().channels
    chosen = fit_options("--model.architecture=schnet", "--model.channels", "5")
    assert chosen["model"]["channels"] == 5
    path = tmp_path / "schnet.yaml"
    path.write_text("model:\n  architecture: schnet\n  layers: 4\n")
    from_file = fit_options("--config", str(path))
    assert from_file["model"]["layers"] == 4
    assert from_file["model"]["channels"] == SchNetConfig().channels


def test_an_option_of_another_architecture_is_refused():
    with pytest.raises(ValueError, match="schnet has no l_max"):
        make_config("schnet", l_max=1)


def test_options_of_fit_may_have_dashes():
    assert fit_options("--init-from", "old-one.st")["init_from"] == "old-one.st"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give `stress_unit`", "give --stress-unit"),
        ("pass `forces_key='my_forces'`, or not", "pass --forces-key my_forces, or not"),
        ("pass `allow_missing=['forces', 'energy']`", "pass --allow-missing forces energy"),
        ("`overwrite=True`: `no_such_option` and `open_store()`", None),
        ("nothing to change", None),
    ],
)
def test_arguments_in_messages_become_options_of_the_command(message, shown):
    from tesseral.commands import data

    if shown is None:
        shown = message.replace("`overwrite=True`", "--overwrite")
    assert with_flags(message, data.parser()) == shown


def test_the_last_name_of_a_grouped_option_is_enough_if_it_is_the_only_one():
    parser = Parser()
    for name in ("--trainer.max_time", "--loss.forces", "--data.forces"):
        parser.add_argument(name)
    message = "`max_time` `trainer.max_time='2s'` `forces` `loss.forces`"
    assert with_flags(message, parser) == (
        "--trainer.max_time --trainer.max_time 2s `forces` --loss.forces"
    )


def test_errors_of_the_library_name_options_in_commands(capsys, tmp_path):
    """The library says `fmax`, the command --fmax."""
    assert main(["relax", "a.cif", "--fmax", "-1"]) == 2
    assert "--fmax is -1.0 eV/Å; it must be a positive number" in capsys.readouterr().err


def test_an_abbreviation_leads_to_the_option(run):
    assert "did you mean --temperature?" in sentence(run("md", "a.cif", "--temp", "500"))


def test_the_version(run):
    assert run("--version")[:2] == (0, f"tesseral {tesseral.__version__}\n")


def test_flags_of_the_named_architecture(run, tmp_path, monkeypatch):
    """A message about an argument of NequIP becomes one of its options, not of Facet's."""

    def refuse(config, *more):
        raise ValueError("choose other `gates`")

    monkeypatch.setattr("tesseral.training.fit.fit", refuse)
    words = (*FIT, "--model.architecture", "nequip")
    assert "choose other --model.gates" in sentence(run(*words))


def test_an_option_without_a_value_is_named(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("data: {train: a.h5}\noutput: m.safetensors\noptimization: {ema_decay: }\n")
    assert main(["fit", "--config", str(config)]) == 2
    text = capsys.readouterr().err
    print(text)
    assert "ema_decay" in text and "Traceback" not in text


@pytest.mark.parametrize("name", ["painn.yaml", "configs/painn.yaml"])
def test_a_configuration_of_the_package_is_found_by_its_name(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    status, text, _ = run(*FIT, "--config", name, "--print_config")
    assert status == 0 and "architecture: painn" in text
    (tmp_path / "painn.yaml").write_text("model: {channels: 7}")  # one's own comes first
    _, text, _ = run(*FIT, "--config", "painn.yaml", "--print_config")
    assert "channels: 7" in text and "architecture: facet" in text


def test_options_that_contradict_the_model_to_start_from_are_refused(run, small_model):
    words = [*FIT, "--init-from", small_model]
    own = read_card(small_model).config.channels
    text = sentence(run(*words, "--model.channels", own + 1))
    assert f"--model.channels is {own + 1}" in text and f"has {own}" in text
    status, _, text = run(*words, "--model.channels", own)
    assert "the model to start from, has" not in text


def test_a_file_that_contradicts_the_model_to_start_from_is_refused(run, small_model, tmp_path):
    """Also with a value that is the default, which the parsed options no longer show."""
    config = tmp_path / "config.yaml"
    usual, own = FacetConfig().channels, read_card(small_model).config.channels
    assert usual != own
    config.write_text(f"model: {{channels: {usual}}}\n")
    words = [*FIT, "--config", config, "--init-from", small_model]
    text = sentence(run(*words))
    assert f"model.channels in {config} is {usual}, but {small_model}" in text
    assert f"has {own}; leave out this option, or --init-from" in text
    status, _, text = run(*words, "--model.channels", own)  # the last one counts
    assert "the model to start from, has" not in text
    config.write_text(f"model: {{channels: {usual}}}\ninit_from: {small_model}\n")
    assert f"or init_from in {config}" in sentence(run(*FIT, "--config", config))


@pytest.mark.parametrize("command", ["relax", "md", "properties"])
def test_missing_structures_are_said_before_a_model_is_made(
    run, tmp_path, monkeypatch, command
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tesseral.deploy.obtain.ready_model", pytest.fail)
    status, _, error = run(command, "missing.cif")
    assert status == 2 and "there is no structure file missing.cif" in error


def test_a_warning_of_the_library_is_one_sentence_and_names_options():
    text = warning_format(warnings.formatwarning, lambda: fit_command.parser([]))
    where = str(Path(tesseral.__file__).parent / "data" / "loading" / "datamodule.py")
    shown = text("give them with `isolated_energies`", UserWarning, where, 3, None)
    assert shown == "train-potential: warning: give them with --data.isolated_energies\n"
    other = text("old", DeprecationWarning, "torch.py", 3, "x = 1")
    assert "torch.py:3: DeprecationWarning: old" in other
