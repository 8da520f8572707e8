"""Model files with several levels of theory: each is a model of its own when it is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write

from tesseral.calculators.ase import TesseralCalculator
from tesseral.commands.main import main
from tesseral.deploy.card import ModelCard, card_from_json, card_to_json
from tesseral.deploy.export import load_exported
from tesseral.deploy.modelfile import build_potential, load_model, read_card, save_model
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.message_passing import MessagePassing, one_level

ENERGIES = [(-1.0, -5.0), (-2.0, -7.0)]  # eV, of C and Si at both levels


@pytest.fixture(scope="module")
def joint() -> MessagePassing:
    """A potential of two levels with random weights, in float64."""
    torch.manual_seed(0)
    config = NequIPConfig(channels=4, layers=2, l_max=1, channels_by_degree=[4, 2], cutoff=4.0)
    card = ModelCard(
        config=config,
        elements=(6, 14),
        reference_energies=ENERGIES[0],
        energy_scale=2.0,
        mean_neighbors=10.0,
        dtype="float64",
    )
    potential = build_potential(card, "reference", ENERGIES[1:])
    with torch.no_grad():
        potential.level_embedding.copy_(torch.randn(2, 1, 4))
    return potential


@pytest.fixture(scope="module")
def parts(joint: MessagePassing) -> list[tuple[MessagePassing, ModelCard]]:
    made = []
    for number, name in enumerate(("PBE", "R2.SCAN")):
        card = ModelCard(
            config=NequIPConfig(
                channels=4, layers=2, l_max=1, channels_by_degree=[4, 2], cutoff=4.0
            ),
            elements=(6, 14),
            reference_energies=ENERGIES[number],
            energy_scale=2.0,
            mean_neighbors=10.0,
            dtype="float64",
            training={"theory": name},
            level=name,
        )
        potential = build_potential(card, "reference")
        potential.load_state_dict(one_level(joint.state_dict(), 2, number))
        made.append((potential, card))
    return made


@pytest.fixture(scope="module")
def path(
    parts: list[tuple[MessagePassing, ModelCard]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    made = tmp_path_factory.mktemp("levels") / "model.safetensors"
    save_model(made, *parts[0], parts[1:])
    return made


def atoms() -> Atoms:
    return Atoms("SiC", [(0, 0, 0), (1.1, 1.0, 1.2)], cell=[3.1, 3.2, 3.3], pbc=True)


def energy(calculator: TesseralCalculator) -> float:
    made = atoms()
    made.calc = calculator
    return float(made.get_potential_energy())


def test_each_level_is_the_joint_potential_at_this_level(joint: MessagePassing, path: Path) -> None:
    for number, name in enumerate(("PBE", "R2.SCAN")):
        calculator = TesseralCalculator(path, level=name)
        assert calculator.card.level == name and calculator.card.levels == (name,)
        assert calculator.card.reference_energies == ENERGIES[number]
        graph = calculator._graph(atoms())
        edges = calculator._near_edges(graph).edges
        exact = joint(graph.species + 2 * number, edges).sum().detach()
        assert energy(calculator) == pytest.approx(float(exact), abs=1e-10)


def test_the_default_is_the_first_level(path: Path) -> None:
    default = energy(TesseralCalculator(path))
    assert default == energy(TesseralCalculator(path, level="PBE"))
    assert abs(default - energy(TesseralCalculator(path, level="R2.SCAN"))) > 0.1


def test_the_card_lists_the_levels(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = read_card(path)
    assert card.levels == ("PBE", "R2.SCAN")
    assert card_from_json(card_to_json(card)) == card
    assert main(["info", str(path)]) == 0
    assert "PBE (default), R2.SCAN" in " ".join(capsys.readouterr().out.split())
    assert load_model(path, level="R2.SCAN")[1].training["theory"] == "R2.SCAN"


def test_weights_that_do_not_differ_are_stored_once(
    path: Path, parts: list[tuple[MessagePassing, ModelCard]], tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    save_model(alone, *parts[0])
    assert path.stat().st_size < alone.stat().st_size + 1500


def test_unknown_levels_are_named(path: Path, small_model: Path) -> None:
    with pytest.raises(ValueError, match=r"`level` is HF, but the model has the levels PBE, R2"):
        load_model(path, level="HF")
    with pytest.raises(ValueError, match="`level` is PBE, but the model names no levels"):
        load_model(small_model, level="PBE")
    with pytest.raises(ValueError, match="`level` is , but the model"):
        load_model(small_model, level="")


def test_models_of_one_level_are_files_as_before(small_model: Path) -> None:
    text = card_to_json(read_card(small_model))
    assert "level" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": ""}, "the card has other levels, but level is ''"),
        ({"other_levels": {"HF": {}}}, "must have reference_energies and energy_scale of level HF"),
        (
            {"other_levels": {"HF": {"reference_energies": [0.0], "energy_scale": 1.0}}},
            "1 reference energies were given for 2 elements",
        ),
        (
            {"other_levels": {"HF": {"reference_energies": 3, "energy_scale": 1.0}}},
            "reference_energies of level HF are 3",
        ),
    ],
)
def test_damaged_levels_are_refused(path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(read_card(path), **change)


def test_a_level_of_another_network_is_not_saved(
    parts: list[tuple[MessagePassing, ModelCard]], tmp_path: Path
) -> None:
    wrong = replace(parts[1][1], reference_energies=ENERGIES[0])
    with pytest.raises(ValueError, match="the card does not describe this potential"):
        save_model(tmp_path / "m.safetensors", *parts[0], [(parts[1][0], wrong)])


def test_exports_are_of_one_level(path: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.pt"
    assert main(["export", str(path), "-o", str(output), "--level", "R2.SCAN"]) == 0
    _, card = load_exported(output)
    assert card.levels == ("R2.SCAN",) and card.reference_energies == ENERGIES[1]


def test_commands_take_a_level(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "a.extxyz", tmp_path / "relaxed"
    write(file, atoms())
    words = ["relax", str(file), "--model", str(path), "-o", str(folder), "--steps", "1"]
    main([*words, "--level", "R2.SCAN", "--cell", "fixed"])
    before = read(folder / "structures" / "a.traj", 0).get_potential_energy()
    assert before == pytest.approx(energy(TesseralCalculator(path, level="R2.SCAN")), abs=1e-9)
    assert main([*words, "--level", "HF"]) == 2
    assert "--level is HF, but the model has" in capsys.readouterr().err
    assert main([*words, "--cell", "fixed"]) == 2
    assert "was made with --level R2.SCAN, not None" in capsys.readouterr().err


def test_torchsim_takes_a_level(path: Path) -> None:
    torchsim = pytest.importorskip("torch_sim")
    from tesseral.calculators.torchsim import TesseralModel

    state = torchsim.io.atoms_to_state([atoms()], torch.device("cpu"), torch.float64)
    found = TesseralModel(path, device="cpu", level="R2.SCAN")(state)
    expected = energy(TesseralCalculator(path, level="R2.SCAN"))
    np.testing.assert_allclose(found["energy"].numpy(), expected, rtol=0, atol=1e-9)
