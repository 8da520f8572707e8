"""Models compiled by AOTInductor: the same numbers, on the machine they were compiled for."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from ase.build import bulk

from tesseral.data.graph import edge_vectors
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy import aoti
from tesseral.deploy.aoti import load_compiled
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model, save_model
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.derivatives import predict
from tesseral.potentials.ops.convolution import SplineConvolution
from tesseral.training.cli import main


@pytest.fixture(scope="module")
def silu_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that the compiled kernels cannot run."""
    config = PotentialConfig(
        cutoff=3.5,
        layers=2,
        channels=4,
        l_max=1,
        grid_channels=4,
        activation="silu",
        grid_points=26,
        zbl=True,
    )
    card = ModelCard(
        config=config,
        elements=(6, 14),
        reference_energies=(-1.0, -2.0),
        energy_scale=0.1,
        mean_neighbors=10.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        potential = build_potential(card)
    path = tmp_path_factory.mktemp("silu") / "silu.safetensors"
    save_model(path, potential, card)
    return path


@pytest.mark.slow
def test_compiled_model(
    silu_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt2"
    arguments = ["export", str(silu_model), "-o", str(path), "--format", "aoti"]
    assert main([*arguments, "--dtype", "float64"]) == 0
    compiled, card = load_compiled(path)
    assert card.dtype == "float64" and card.elements == (6, 14)
    potential, _ = load_model(silu_model, dtype="float64", ops="reference")
    for times in (1, 2, 3):  # other sizes than that of the probe
        atoms = bulk("SiC", "zincblende", a=4.36, cubic=True) * (times, 1, 1)
        atoms.rattle(0.1, seed=times)
        cell = atoms.cell.array
        graph = atomic_graph(atoms.numbers, atoms.positions, cell, atoms.pbc, (6, 14), 3.5)
        expected = predict(potential, graph)
        edges = edge_vectors(graph), graph.senders, graph.receivers
        found = compiled.predict(graph.species, *edges, graph.structure, 1)
        for name in ("energy", "forces", "virial"):
            one, other = getattr(expected, name), getattr(found, name)
            print(times, name, float((one - other).abs().max()))
            torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="needs two atoms and edges at least; there are 1 and 0"):
        compiled(graph.species[:1], edges[0][:0], edges[1][:0], edges[2][:0])
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content[aoti.MACHINE] = json.dumps({**aoti.this_machine(), "torch": "1.0"}).encode()
    other = tmp_path / "other.pt2"
    with zipfile.ZipFile(other, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="another machine .torch 1.0, here .*export the model"):
        load_compiled(other)


def test_wrong_files_are_refused(silu_model: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no compiled model"):
        load_compiled(tmp_path / "none.pt2")
    (tmp_path / "text.pt2").write_text("no model")
    with pytest.raises(ValueError, match="not a whole file"):
        load_compiled(tmp_path / "text.pt2")
    with pytest.raises(ValueError, match="name it ….pt2"):
        aoti.export_compiled(silu_model, tmp_path / "model.pt")


@pytest.mark.parametrize("degrees", [(0, 2, 1), (1, 2, 2)])
def test_scattered_convolution_is_the_reference(degrees: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    module = SplineConvolution(*degrees, 3, 6, 4.0).double()
    atoms, edges = 5, 30
    features = torch.randn(atoms, (degrees[0] + 1) ** 2, 3, dtype=torch.float64)
    harmonics = torch.randn(edges, (degrees[1] + 1) ** 2, dtype=torch.float64)
    radii = 4.0 * torch.rand(edges, dtype=torch.float64)
    senders = torch.randint(atoms, (edges,))
    receivers = torch.randint(atoms - 1, (edges,)).sort().values  # one atom receives nothing
    inputs = features, harmonics, radii, senders, receivers
    torch.testing.assert_close(module.scattered(*inputs), module.reference(*inputs))
