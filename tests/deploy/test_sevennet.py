"""SevenNet checkpoints as models of ours; read through the installed sevenn."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.units import GPa

from tesseral.calculators.ase import TesseralCalculator
from tesseral.commands.main import main
from tesseral.deploy.export import load_exported
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.deploy.releases import SEVENNET_NAMES
from tesseral.deploy.sevennet.convert import convert
from tesseral.deploy.sevennet.original import check_settings, checkpoint_path
from tesseral.potentials.derivatives import predict
from tesseral.potentials.engine.packing import can_pack
from tesseral.potentials.ops import compiled

sevenn = pytest.importorskip("sevenn", reason="sevenn is not installed: pip install sevenn")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def universal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SevenNet-0, converted by the command."""
    path = tmp_path_factory.mktemp("sevennet") / "folder" / "universal.safetensors"
    assert main(["convert", "sevennet-0", "-o", str(path)]) == 0
    return path


def structures() -> list[Atoms]:
    made = [
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("Si", cubic=True),
        fcc111("Cu", (2, 2, 3), vacuum=5.0),
        bulk("Fe"),  # whose neighbours are its own images
        molecule("CH3CH2OH"),
    ]
    for atoms in made:
        atoms.rattle(0.1, seed=1)
    return made


def differences(ours: TesseralCalculator, theirs: object) -> tuple[float, float, float]:
    """Largest in energy (meV/atom), forces (meV/Å) and stress (GPa)."""
    rows = []
    for atoms in structures():
        results = []
        for calculator in (ours, theirs):
            atoms.calc = calculator
            periodic = atoms.pbc.all()
            stress = atoms.get_stress() if periodic else np.zeros(6)
            results.append((atoms.get_potential_energy(), atoms.get_forces(), stress))
        (e, f, s), (e0, f0, s0) = results
        rows.append(
            (1e3 * abs(e - e0) / len(atoms), 1e3 * abs(f - f0).max(), abs(s - s0).max() / GPa)
        )
    energy, force, stress = np.max(rows, axis=0)
    print(f"{energy:.4f} meV/atom, {force:.3f} meV/Å, {stress:.5f} GPa")
    return energy, force, stress


def original(release: str, **options: str) -> object:
    calculator = importlib.import_module("sevenn.calculator").SevenNetCalculator
    return calculator(str(checkpoint_path(release)), device="cpu", **options)


def test_it_computes_what_sevennet_does(universal: Path) -> None:
    energy, force, stress = differences(TesseralCalculator(universal), original("sevennet-0"))
    assert energy < 0.1 and force < 1 and stress < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("release", "modality"),
    [("sevennet-0-22may2024", None), ("sevennet-l3i5", None), ("sevennet-mf-0", "R2SCAN")],
)
def test_other_releases(release: str, modality: str | None) -> None:
    potential, card = convert(release, modality=modality)
    options = {} if modality is None else {"modal": modality}
    ours = TesseralCalculator.from_model(potential, card)
    energy, force, stress = differences(ours, original(release, **options))
    assert energy < 0.1 and force < 1 and stress < 0.01


def test_the_card_says_where_it_comes_from(universal: Path) -> None:
    training = read_card(universal).training
    assert training["converted_from"] == "sevennet-0" and "MIT" in training["licence"]
    assert len(training["file_sha256"]) == 64 and training["sevenn"] == sevenn.__version__
    assert training["largest difference from the original"]["forces (meV/Å)"] < 1


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels here")
def test_the_compiled_engine_takes_it(universal: Path) -> None:
    """And gives what plain PyTorch gives."""
    model, _ = load_model(universal)
    assert can_pack(model)
    atoms = structures()[2]
    results = []
    for ops in ("fused", "reference"):
        atoms.calc = TesseralCalculator(universal, ops=ops, dtype="float64")
        results.append(np.concatenate([atoms.get_forces().ravel(), atoms.get_stress()]))
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-11)


def test_it_exports(universal: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    assert main(["export", str(universal), "-o", str(path)]) == 0
    module, card = load_exported(path)
    model, _ = load_model(universal, ops="reference")
    assert card.elements == read_card(universal).elements
    atoms = structures()[1]
    from tesseral.data.neighbors import atomic_graph

    graph = atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, card.elements, 5.0
    )
    found = module.predict(
        *(graph.positions, graph.species, graph.cell, graph.senders),
        *(graph.receivers, graph.shifts, graph.structure),
    )
    expected = predict(model, graph)
    torch.testing.assert_close(found["forces"], expected.forces, rtol=0, atol=2e-5)


def test_a_level_of_theory_must_be_chosen_where_there_are_several() -> None:
    with pytest.raises(ValueError, match="levels of theory R2SCAN, PBE, and none was chosen"):
        convert("sevennet-mf-0")
    with pytest.raises(ValueError, match="HF is none of them; choose one with `modality`"):
        convert("sevennet-mf-0", modality="HF")
    with pytest.raises(ValueError, match="`modality` is PBE, but this checkpoint has one"):
        convert("sevennet-0", modality="PBE")


def test_intervals_without_a_border_at_the_kink_are_refused() -> None:
    with pytest.raises(ValueError, match="kinks at 4.5, 5 Å, but 64 intervals"):
        convert("sevennet-0", intervals=64)


def test_what_is_too_coarse_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "coarse.safetensors"
    assert main(["convert", "sevennet-0", "-o", str(path), "--intervals", "10"]) == 2
    assert "with 10 intervals the forces differ by" in capsys.readouterr().err
    assert not path.exists()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pth"
    wrong.write_text("nothing")
    with pytest.raises(ValueError, match="sevenn cannot read .*wrong.pth as a checkpoint"):
        convert(wrong)
    with pytest.raises(FileNotFoundError, match="is not a checkpoint file; give one, or one of"):
        convert(tmp_path / "missing.pth")


def test_without_sevenn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sevenn.util", None)
    with pytest.raises(ValueError, match=r"pip install sevenn"):
        convert("sevennet-0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_parity": True}, "features of both parities"),
        ({"readout_as_fcn": True}, "a network as readout"),
        ({"act_gate": {"e": "tanh"}}, r"applies tanh \(act_gate\)"),
        ({"lmax_edge": 3}, "lmax_edge 3 and lmax 2"),
    ],
)
def test_networks_that_ours_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    settings = {"act_scalar": {"e": "silu"}, "act_gate": {"e": "silu"}, "lmax": 2}
    check_settings(settings)
    with pytest.raises(ValueError, match=message):
        check_settings({**settings, **change})


def test_all_releases_are_in_the_package() -> None:
    for name in SEVENNET_NAMES:
        assert checkpoint_path(name).stat().st_size > 1e6
