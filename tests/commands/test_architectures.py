"""Options of ``fit`` by architecture, and what it takes to add an architecture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import pytest
import yaml
from torch import Tensor, nn

from tesseral.commands.fit import named_architecture
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.architectures.table import ARCHITECTURES, Architecture, field_names
from tesseral.potentials.blocks.radial import SplineRadial
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig

FIT = ["fit", "--data.train", "a.h5", "--output", "m.safetensors"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_python_the_printed_configuration_and_the_training_agree(run, emt_files, tmp_path, name):
    values = {"architecture": name, **asdict(ARCHITECTURES[name].config())}
    _, text, _ = run(*FIT, "--model.architecture", name, "--print_config")
    assert yaml.safe_load(text)["model"] == values
    output = tmp_path / "m.safetensors"
    status, text, error = run(
        *("fit", "--data.train", emt_files[0], "--data.validation", emt_files[1]),
        *("--model.architecture", name, "--output", output, "--trainer.accelerator", "cpu"),
        *("--trainer.max_steps", "1", "--data.batch_structures", "2"),
    )
    assert status == 0, error
    assert load_model(output)[1].config == ARCHITECTURES[name].config()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_help_explains_the_options_of_one_architecture(run, name):
    status, text, _ = run("fit", "--model.architecture", name, "--help")
    assert status == 0
    shown = {word.rstrip("+") for word in text.split() if word.startswith("--model.")}
    assert shown == {f"--model.{own}" for own in ("architecture", *field_names(name))}
    sentences = " ".join(text.split())
    assert f"shows the options of {name}. For the options of another" in sentences
    assert "the range of the model is layers × cutoff" in sentences  # a common option has help
    other = {"facet": "mixings on the sphere", "nequip": "distances (Å) at which the slope"}
    for owner, words in other.items():
        assert (words in sentences) == (owner == name)


@pytest.mark.parametrize(
    ("arguments", "content"),
    [(["--model.l_max", "2"], None), (["--model.l-max=2"], None), ([], {"l_max": 2})],
)
def test_an_option_of_another_architecture_is_one_sentence(run, tmp_path, arguments, content):
    if content:
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump({"model": content}))
        arguments = ["--config", path]
    status, _, text = run(*FIT, "--model.architecture", "schnet", *arguments)
    assert status == 2
    assert text == (
        "train-potential: schnet has no l_max; it has cutoff, layers, channels, spline_intervals, "
        "zbl\n"
    )


def test_an_unknown_architecture_is_one_sentence(run):
    status, _, text = run(*FIT, "--model.architecture", "neqip", "--model.kinks", "[5]")
    assert status == 2
    assert text.count("\n") == 1
    assert "--model.architecture 'neqip' is not known; use facet, dimenet, egnn" in text


def test_the_last_word_or_file_names_the_architecture(tmp_path):
    (tmp_path / "model.yaml").write_text("architecture: egnn\n")
    contents = {
        "schnet": "model:\n  architecture: schnet\n",
        "painn": "model.architecture: painn\n",
        "egnn": f"model: {tmp_path / 'model.yaml'}\n",
        "none": "trainer:\n  max_time: 1h\n",
        "broken": "model: [",
    }
    files = {}
    for name, content in contents.items():
        files[name] = str(tmp_path / f"{name}.yaml")
        (tmp_path / f"{name}.yaml").write_text(content)
    assert named_architecture([]) == named_architecture(FIT) == "facet"
    assert named_architecture([*FIT, "--model.architecture", "segnn"]) == "segnn"
    assert named_architecture([*FIT, "--model.architecture=segnn"]) == "segnn"
    for name in ("schnet", "painn", "egnn"):
        assert named_architecture([*FIT, "--config", files[name]]) == name
        assert named_architecture([*FIT, f"--config={files[name]}"]) == name
    both = ["--config", files["schnet"], "--model.architecture", "egnn"]
    assert named_architecture([*FIT, *both]) == "egnn"
    assert named_architecture([*FIT, *both[2:], *both[:2]]) == "schnet"
    for quiet in ("none", "broken", "missing"):
        other = ["--config", files.get(quiet, "missing.yaml")]
        assert named_architecture([*FIT, *both[:2], *other]) == "schnet"
    assert named_architecture([*FIT, "--model", "{architecture: ponita}"]) == "ponita"
    assert named_architecture([*FIT, "--model", str(tmp_path / "model.yaml")]) == "egnn"


@dataclass(frozen=True, kw_only=True)
class ToyConfig(PotentialConfig):
    """Toy: a sum over distances.

    Args:
        sharpness: factor of the messages.
    """

    architecture: ClassVar[str] = "toy"
    layers: int = 1
    channels: int = 4
    sharpness: float = 1.0


class ToyLayer(nn.Module):
    """One sum over neighbours: (N, 1, C) to (N, 1, C)."""

    def __init__(self, config: ToyConfig) -> None:
        """Make the weights."""
        super().__init__()
        self.filter = SplineRadial(config.channels, config.spline_intervals, config.cutoff)
        self.sharpness = config.sharpness

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes."""
        x = features[:, 0]
        messages = self.sharpness * x[edges.senders] * self.filter(edges.radii)
        return (x[:n_local].index_add(0, edges.receivers, messages)).unsqueeze(1)

    def invariants(self, features: Tensor) -> Tensor:
        """What the energy is read from: (N, 1, C) to (N, C)."""
        return features[:, 0]


def toy_layers(config: ToyConfig, n_species: int, mean_neighbors: float) -> list[ToyLayer]:
    """The layers of ``architecture: toy``."""
    return [ToyLayer(config) for _ in range(config.layers)]


def test_an_architecture_is_its_file_and_a_line_in_the_table(run, emt_files, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "toy", Architecture(ToyConfig, toy_layers))
    _, text, _ = run("fit", "--model.architecture", "toy", "--help")
    assert "factor of the messages" in text
    output = tmp_path / "m.safetensors"
    status, _, error = run(
        *("fit", "--data.train", emt_files[0], "--data.validation", emt_files[1]),
        *("--model.architecture", "toy", "--model.cutoff", "3.6", "--model.sharpness", "0.5"),
        *("--output", output, "--trainer.max_steps", "3", "--trainer.accelerator", "cpu"),
    )
    assert status == 0, error
    potential, card = load_model(output)
    assert card.config == ToyConfig(cutoff=3.6, sharpness=0.5)
    assert [layer.sharpness for layer in potential.layers] == [0.5]
    status, text, _ = run("evaluate", output, emt_files[1])
    assert status == 0 and "forces" in text
    status, text, _ = run("info", output)
    assert status == 0 and "sharpness 0.5" in text
