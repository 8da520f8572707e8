"""The TorchScript export: the same numbers as eager, without this package."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from torch import Tensor

from tesseral.data.graph import AtomicGraph, edge_vectors, join_graphs
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.contract import CONTRACT_FILE
from tesseral.deploy.export import WEIGHTS_FILE, export_model, load_exported
from tesseral.deploy.modelfile import build_potential, load_model, read_card, save_model
from tesseral.potentials.derivatives import predict, stress_from_virial

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def graph(atoms: Atoms, seed: int = 0) -> AtomicGraph:
    """Rattled atoms as a graph of the small model."""
    atoms = atoms.copy()
    atoms.rattle(0.05, seed=seed)
    return atomic_graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (6, 14), 4.0)


SIC = bulk("SiC", "zincblende", a=4.36, cubic=True)
GRAPHS = {
    "crystal": graph(SIC),
    "primitive": graph(bulk("Si")),
    "slab": graph(fcc111("Si", (2, 2, 2), a=4.5, vacuum=5.0)),
    "molecule": graph(Atoms("SiC", positions=[[0, 0, 0], [0, 0, 1.9]])),
    "atom": graph(Atoms("Si")),
    "three at once": join_graphs([graph(SIC), graph(Atoms("C")), graph(bulk("Si", cubic=True))]),
}


def inputs(graph: AtomicGraph) -> tuple[Tensor, ...]:
    """A graph as the flat tensors of an exported model."""
    return (
        graph.positions,
        graph.species,
        graph.cell,
        graph.senders,
        graph.receivers,
        graph.shifts,
        graph.structure,
    )


def assert_same(out: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """All quantities agree relative to the largest of their kind, where they do not cancel."""
    assert out.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(float(value.nan_to_num().abs().max()), 0.1)
        np.testing.assert_allclose(
            out[name].numpy(), value.numpy(), rtol=0, atol=tolerance * scale, err_msg=name
        )


def eager(model: Path, graph: AtomicGraph, dtype: str) -> dict[str, Tensor]:
    """What the model itself says, in plain PyTorch, of which the export is made."""
    potential, _ = load_model(model, dtype=dtype, ops="reference")
    prediction = predict(potential, graph)
    values = {k: v for k, v in prediction._asdict().items() if v is not None}
    return {**values, "stress": stress_from_virial(prediction.virial, graph.cell)}


@pytest.fixture(scope="module", params=["float32", "float64"])
def exported(
    request: pytest.FixtureRequest, small_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """An exported model and its dtype."""
    path = tmp_path_factory.mktemp("export") / "model.pt"
    export_model(small_model, path, dtype=request.param)
    return path, request.param


@pytest.mark.parametrize("kind", GRAPHS)
def test_export_equals_eager(exported: tuple[Path, str], small_model: Path, kind: str) -> None:
    path, dtype = exported
    module, _ = load_exported(path)
    expected = eager(small_model, GRAPHS[kind], dtype)
    assert_same(module.predict(*inputs(GRAPHS[kind])), expected, TOLERANCE[dtype])


def test_sizes_may_change_from_call_to_call(exported: tuple[Path, str], small_model: Path) -> None:
    # TorchScript specialises on the shapes of its first calls; later ones must still be right.
    path, dtype = exported
    module, _ = load_exported(path)
    sizes = [graph(SIC, 1), graph(Atoms("C")), graph(SIC * (2, 1, 1), 2), GRAPHS["three at once"]]
    expected = [eager(small_model, one, dtype) for one in sizes]
    for _ in range(4):
        for one, values in zip(sizes, expected, strict=True):
            assert_same(module.predict(*inputs(one)), values, TOLERANCE[dtype])


def test_one_cell_may_be_flat(exported: tuple[Path, str]) -> None:
    path, dtype = exported
    module, _ = load_exported(path)
    one = GRAPHS["crystal"]
    flat = module.predict(*inputs(one._replace(cell=one.cell[0])))
    assert_same(flat, module.predict(*inputs(one)), TOLERANCE[dtype])


@pytest.mark.parametrize("outside", [True, False])
def test_forces_need_no_grad_mode(exported: tuple[Path, str], outside: bool) -> None:
    module, _ = load_exported(exported[0])
    positions = GRAPHS["crystal"].positions.clone()
    with torch.set_grad_enabled(outside):
        out = module.predict(*inputs(GRAPHS["crystal"]))
        assert torch.is_grad_enabled() == outside
    assert float(out["forces"].abs().max()) > 0.01
    assert not any(value.requires_grad for value in out.values())
    assert torch.equal(positions, GRAPHS["crystal"].positions)


def test_energy_core_is_differentiable(exported: tuple[Path, str], small_model: Path) -> None:
    path, dtype = exported
    module, _ = load_exported(path)
    one = GRAPHS["crystal"]
    expected = eager(small_model, one, dtype)
    for _ in range(4):
        vectors = edge_vectors(one).requires_grad_(True)
        energies = module(one.species, vectors, one.senders, one.receivers, len(one.species))
        (slope,) = torch.autograd.grad(energies.sum(), vectors)
        forces = torch.zeros_like(one.positions).index_add(0, one.senders, slope)
        forces = forces.index_add(0, one.receivers, -slope)
        ours = {"forces": forces, "atomic_energies": energies.detach()}
        assert_same(ours, {name: expected[name] for name in ours}, TOLERANCE[dtype])


def test_products_of_three_have_no_compiled_weights(small_model: Path, tmp_path: Path) -> None:
    """Their export runs in PyTorch, and gives the same numbers."""
    card = read_card(small_model)
    card = replace(card, config=replace(card.config, order=3, l_max=2))
    torch.manual_seed(0)
    save_model(tmp_path / "model.safetensors", build_potential(card), card)
    export_model(tmp_path / "model.safetensors", tmp_path / "model.pt", dtype="float64")
    module, exported_card = load_exported(tmp_path / "model.pt")
    assert exported_card.config.order == 3
    expected = eager(tmp_path / "model.safetensors", GRAPHS["crystal"], "float64")
    assert_same(module.predict(*inputs(GRAPHS["crystal"])), expected, TOLERANCE["float64"])
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert not any(name.endswith(WEIGHTS_FILE) for name in archive.namelist())


def test_card_travels_along(exported: tuple[Path, str], small_model: Path) -> None:
    path, dtype = exported
    _, card = load_exported(path)
    assert card.dtype == dtype
    assert card.elements == read_card(small_model).elements
    assert card.created == read_card(small_model).created


WITHOUT_PACKAGE = """
import sys, json, warnings
warnings.simplefilter("ignore")
for name in ("tesseral", "e3nn", "ase"):
    sys.modules[name] = None
import torch
extra = {"tesseral_card.json": ""}
module = torch.jit.load(sys.argv[1], _extra_files=extra)
out = module.predict(*torch.load(sys.argv[2], weights_only=True))
torch.save(out, sys.argv[3])
print(json.loads(extra["tesseral_card.json"])["elements"])
"""


def test_plain_pytorch_is_enough(
    exported: tuple[Path, str], small_model: Path, tmp_path: Path
) -> None:
    path, dtype = exported
    torch.save(inputs(GRAPHS["crystal"]), tmp_path / "in")
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE, path, tmp_path / "in", tmp_path / "out"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(answer.stdout) == [6, 14]
    out = torch.load(tmp_path / "out", weights_only=True)
    assert_same(out, eager(small_model, GRAPHS["crystal"], dtype), TOLERANCE[dtype])


def test_model_file_is_not_overwritten(small_model: Path) -> None:
    before = small_model.read_bytes()
    with pytest.raises(ValueError, match=r"name it ….pt"):
        export_model(small_model, small_model)
    assert small_model.read_bytes() == before


def test_missing_folder(small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        export_model(small_model, tmp_path / "no" / "model.pt")


def test_missing_and_foreign_exports(tmp_path: Path, small_model: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no exported model"):
        load_exported(tmp_path / "no.pt")
    with pytest.raises(ValueError, match="cannot be read as TorchScript"):
        load_exported(small_model)
    torch.save({"a": 1}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match="cannot be read as TorchScript"):
        load_exported(tmp_path / "foreign.pt")


def with_contract(source: Path, target: Path, change: Callable[[str], str]) -> None:
    """A copy of an export whose contract is another."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(CONTRACT_FILE):
                content = change(content.decode()).encode()
            new.writestr(name, content)


def test_other_numbers_than_at_export_are_refused(
    exported: tuple[Path, str], tmp_path: Path
) -> None:
    def wrong(text: str) -> str:
        *lines, last = text.splitlines()
        words = last.split()
        return "\n".join([*lines, " ".join([*words[:4], "0.5", *words[5:]])]) + "\n"

    same, other = tmp_path / "same.pt", tmp_path / "other.pt"
    with_contract(exported[0], same, lambda text: text)
    load_exported(same)
    with_contract(exported[0], other, wrong)
    with pytest.raises(
        ValueError, match="gives different energies and forces here than when it was"
    ):
        load_exported(other)
    for change, message in (
        (lambda text: "", "without a tesseral contract: export the model again"),
        (lambda text: text.replace("tesseral 1", "tesseral 2"), "contract is not of version 1"),
        (lambda text: text[:-300], "its contract cannot be read"),
    ):
        with_contract(exported[0], other, change)
        with pytest.raises(ValueError, match=message):
            load_exported(other)


def test_ghosts_of_a_deep_model_need_an_exchange(exported: tuple[Path, str]) -> None:
    module, _ = load_exported(exported[0])
    one = GRAPHS["molecule"]
    near = one.receivers < 1
    edges = edge_vectors(one)[near], one.senders[near], one.receivers[near]
    with pytest.raises(torch.jit.Error, match="call potential.begin and potential.layer"):
        module(one.species, *edges, 1)
