"""Files that earlier versions wrote load, resume, and give the numbers that they gave then.

The files were written by ``write_files.py``; see the README beside them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

from tesseral import TesseralCalculator, load_model, open_store
from tesseral.commands.main import main
from tesseral.data.graph import AtomicGraph
from tesseral.data.neighbors import atomic_graph
from tesseral.data.store.verify import verify_store
from tesseral.deploy.export import load_exported
from tesseral.potentials.architectures.table import ARCHITECTURES
from tesseral.potentials.ops.compiled import available

FILES = Path(__file__).parent / "files"
EXPECTED = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(FILES.glob("*/expected.json"))
}
VERSIONS = [version for version, content in EXPECTED.items() if "store" in content]
MODELS = [(version, name) for version in EXPECTED for name in EXPECTED[version]["models"]]
FITS = [(version, name) for version in VERSIONS for name in EXPECTED[version]["fits"]]
RUNS = [(version, name) for version in VERSIONS for name in EXPECTED[version]["runs"]]
OPS = ["reference", "fused"]
# Sums of some thousand terms per layer in float64, whose rounding errors (1e-16 each) the random
# weights of a few layers amplify.
ROUNDING = 1e-11
# Four steps at a learning rate of 1e-2 at most, which change weights by some 5e-3. With other
# instruction sets and with plain PyTorch the weights differed by 6e-17, positions after a few steps
# of a relaxation by 3e-14 Å.
TRAINED = 1e-10
MOVED = 1e-9

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `train-potential`; its status and what it wrote."""
    monkeypatch.setenv("COLUMNS", "2000")

    def call(*words: object) -> tuple[int, str]:
        status = main([str(word) for word in words])
        written = capsys.readouterr()
        return status, written.out + written.err

    return call


def atoms_from(content: dict[str, Any]) -> Atoms:
    """Atoms as ``write_files.plain`` has stored them."""
    return Atoms(
        content["numbers"],
        np.array(content["positions"]).reshape(-1, 3),
        cell=np.array(content["cell"]).reshape(3, 3),
        pbc=content["pbc"],
    )


def assert_near(found: Any, expected: Any, relative: float, what: str) -> None:
    """Equal within a part of the largest number."""
    values = np.asarray(found, dtype=np.float64).ravel()
    wanted = np.asarray(expected, dtype=np.float64).ravel()
    apart, size = np.abs(values - wanted).max(), np.abs(wanted).max()
    print(f"{what}: {apart:.1e} apart, largest value {size:.2g}")
    assert values.shape == wanted.shape and apart <= relative * max(1.0, size), what


def test_there_are_files() -> None:
    assert "0.1.0" in VERSIONS
    found = {EXPECTED[version]["models"][name]["info"]["architecture"] for version, name in MODELS}
    assert found == set(ARCHITECTURES)


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize(("version", "name"), MODELS)
def test_a_model_gives_the_same_numbers(version: str, name: str, ops: str) -> None:
    if ops == "fused" and not available():
        pytest.skip("the compiled kernels are missing")
    path = FILES / version / "models" / f"{name}.safetensors"
    calculator = TesseralCalculator(path, device="cpu", dtype="float64", ops=ops)
    for place, content in EXPECTED[version]["structures"].items():
        atoms = atoms_from(content)
        atoms.calc = calculator
        expected = EXPECTED[version]["models"][name]["numbers"][place]
        assert_near(atoms.get_potential_energy(), expected["energy"], ROUNDING, f"{place} energy")
        assert_near(atoms.get_forces(), expected["forces"], ROUNDING, f"{place} forces")
        assert ("stress" in expected) == bool(atoms.pbc.any())
        if "stress" in expected:
            assert_near(atoms.get_stress(), expected["stress"], ROUNDING, f"{place} stress")


@pytest.mark.parametrize(("version", "name"), MODELS)
def test_info_tells_the_same_of_a_model(version: str, name: str, command: Command) -> None:
    status, text = command("info", FILES / version / "models" / f"{name}.safetensors")
    assert status == 0
    words = set(text.replace(",", " ").split())
    rows = EXPECTED[version]["models"][name]["info"]
    for row, value in rows.items():
        assert words >= set(value.replace(",", " ").split()), row


@pytest.mark.parametrize("version", VERSIONS)
def test_an_export_gives_the_same_numbers(version: str) -> None:
    module, card = load_exported(FILES / version / "exported.pt")
    name = EXPECTED[version]["exported"]
    for place, content in EXPECTED[version]["structures"].items():
        atoms = atoms_from(content)
        graph: AtomicGraph = atomic_graph(
            atoms.numbers,
            atoms.positions,
            atoms.cell.array,
            atoms.pbc,
            card.elements,
            card.config.cutoff,
        )
        found = module.predict(
            graph.positions,
            graph.species,
            graph.cell,
            graph.senders,
            graph.receivers,
            graph.shifts,
            graph.structure,
        )
        expected = EXPECTED[version]["models"][name]["numbers"][place]
        for label in ("energy", "forces"):
            assert_near(found[label], expected[label], ROUNDING, f"{place} {label}")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_holds_the_same_data(version: str) -> None:
    expected = EXPECTED[version]["store"]
    store = open_store(FILES / version / "store.h5")
    verify_store(store)
    assert store.content_hash == expected["content_hash"]
    assert len(store) == expected["structures"]
    for row, content in expected["rows"].items():
        structure = store[int(row)]
        for name, value in content.items():
            found = np.asarray(getattr(structure, name))
            if value is None:
                assert np.isnan(found).all(), name
            else:
                assert found.ravel().tolist() == np.ravel(value).tolist(), name


@pytest.mark.parametrize(("version", "name"), FITS)
def test_a_training_resumes(
    version: str,
    name: str,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(FILES / version / "fits", tmp_path / "fits")
    shutil.copy(FILES / version / "store.h5", tmp_path)
    monkeypatch.chdir(tmp_path)
    expected = EXPECTED[version]["fits"][name]
    status, text = command(*expected["command"])
    assert status == 0, text
    run = tmp_path / "fits/runs" / name
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == expected["steps"]
    history = checkpoint["callbacks"]["FitRun"]["history"]
    losses = expected["losses"]
    assert [entry["step"] for entry in history] == [int(step) for step in losses]
    found = [entry["loss"] for entry in history]
    assert_near(found, list(losses.values()), TRAINED, "validation losses")
    for key, values in expected["weights"].items():
        assert_near(checkpoint["state_dict"][key], values, TRAINED, key)
    load_model(tmp_path / f"fits/{name}.safetensors")


@pytest.mark.parametrize(("version", "name"), FITS)
def test_a_training_starts_from_the_model_of_another(
    version: str,
    name: str,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = (FILES / version).resolve()
    monkeypatch.chdir(tmp_path)
    status, text = command(
        *("fit", "--data.train", folder / "store.h5", "--output", "tuned.safetensors"),
        *("--init_from", folder / f"fits/{name}.safetensors", "--trainer.accelerator", "cpu"),
        *("--trainer.max_steps", 1, "--trainer.enable_progress_bar", "false"),
    )
    assert status == 0, text
    old, new = (
        load_model(path)[1]
        for path in (folder / f"fits/{name}.safetensors", tmp_path / "tuned.safetensors")
    )
    assert new.config == old.config


@pytest.mark.parametrize(("version", "verb"), RUNS)
def test_a_run_that_was_killed_comes_to_the_same_end(
    version: str,
    verb: str,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for part in ("runs", "models"):
        shutil.copytree(FILES / version / part, tmp_path / part)
    monkeypatch.chdir(tmp_path / "runs")
    expected = EXPECTED[version]["runs"][verb]
    # Since then, an option has been renamed.
    words = " ".join(expected["command"]).replace("--fixed-cell", "--cell fixed").split()
    status, text = command(*words)
    assert status == expected["status"], text
    assert "1 of 2 structures are already done" in text
    for name, content in expected["last"].items():
        frames = ase.io.read(f"{verb}/structures/{name}.traj", index=":")
        assert len(frames) == expected["frames"][name]
        assert frames[-1].numbers.tolist() == content["numbers"]
        assert_near(frames[-1].positions, content["positions"], MOVED, f"{name} positions")
