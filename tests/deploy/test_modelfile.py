"""The model file: exact round trip, independence of dtype and default dtype, clear refusals."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import integrate
from torch import Tensor

from tesseral.deploy import modelfile
from tesseral.deploy.modelfile import (
    ModelCard,
    build_potential,
    load_model,
    read_card,
    save_model,
)
from tesseral.deploy.probe import make_probe, probe_from_json
from tesseral.potentials.architectures.facet import FacetConfig

CPU = torch.device("cpu")
CARD = ModelCard(
    config=FacetConfig(cutoff=4.0, layers=2, channels=4, grid_channels=4, zbl=True),
    elements=(1, 6, 8),
    reference_energies=(-13.6, -1030.123456789012, -2041.987654321098),
    inner_radii=(0.4, 0.6, 0.6, 0.9, 0.9, 0.8),
    energy_scale=0.7,
    mean_neighbors=11.0,
)


def saved(path: Path, card: ModelCard = CARD) -> Path:
    """A saved model with seeded random weights."""
    torch.manual_seed(3)
    save_model(path, build_potential(card), card)
    return path


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


def rewrite(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    """The same file with other content and a checksum that fits it."""
    digest = modelfile._digest(metadata["tesseral"], metadata["tesseral_probe"], tensors)
    save_file(tensors, path, {**metadata, "tesseral_sha256": digest})
    return path


@pytest.fixture
def default_float64() -> Iterator[None]:
    """Torch's global default dtype as float64 for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_round_trip_is_bitwise_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    potential = build_potential(CARD)
    save_model(tmp_path / "m.safetensors", potential, CARD)
    loaded, card = load_model(tmp_path / "m.safetensors")
    for key, value in potential.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    first, second = make_probe(potential, CARD, CPU), make_probe(loaded, card, CPU)
    assert torch.equal(first.energies, second.energies)
    assert torch.equal(first.forces, second.forces)


def test_card_is_read_back_with_facts_filled_in(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    potential, card = load_model(path)
    count = sum(p.numel() for p in potential.parameters())
    assert card == replace(CARD, parameters=count)
    assert read_card(path) == card


@pytest.mark.parametrize("stored", ["float32", "float64"])
@pytest.mark.parametrize("asked", ["float32", "float64", torch.float32, torch.float64, None])
def test_any_dtype_loads_as_any(
    tmp_path: Path, stored: str, asked: str | torch.dtype | None
) -> None:
    card = replace(CARD, dtype=stored)
    potential, _ = load_model(saved(tmp_path / "m.safetensors", card), dtype=asked)
    wanted = modelfile.torch_dtype(stored if asked is None else asked)
    assert {p.dtype for p in potential.parameters()} == {wanted}
    # Reference energies of -2000 eV must never pass through float32.
    assert potential.scale.reference_energies.tolist() == list(CARD.reference_energies)


def test_default_dtype_plays_no_part(tmp_path: Path, default_float64: None) -> None:
    card = replace(CARD, config=replace(CARD.config, zbl=False))
    path = saved(tmp_path / "m.safetensors", card)
    inside, _ = load_model(path)
    assert {p.dtype for p in inside.parameters()} == {torch.float32}
    probe = make_probe(inside, card, CPU)
    torch.set_default_dtype(torch.float32)
    outside, _ = load_model(path)
    assert torch.equal(probe.forces, make_probe(outside, card, CPU).forces)


def test_loading_leaves_random_numbers_alone(small_model: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(small_model)
    assert torch.equal(torch.rand(3), expected)


def test_loaded_model_is_in_evaluation_mode(small_model: Path) -> None:
    assert not load_model(small_model)[0].training


def test_loading_computes_the_grids_of_its_layers_only(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To search all Lebedev rules, which takes a second, is not part of every load."""
    potential, _ = load_model(small_model)
    rules = []
    original = integrate.lebedev_rule
    monkeypatch.setattr(integrate, "lebedev_rule", lambda n: rules.append(n) or original(n))
    load_model(small_model)
    print(f"rules computed: {rules}")
    assert 0 < len(rules) <= 2 * len(potential.layers)  # built once for the probe, once to use


def test_file_holds_no_pickle(small_model: Path) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError)):  # by chance a protocol's number
        pickle.loads(small_model.read_bytes())
    header = small_model.read_bytes()[8:]
    assert header.startswith(b"{")


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match="there is no model file nowhere"):
        load_model("nowhere.safetensors")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        read_card(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04" + bytes(500), os.urandom(4000)])
def test_not_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load_model(path)


def test_pytorch_checkpoint_is_recognised(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match="zip archive.*give the .safetensors file"):
        load_model(tmp_path / "m.ckpt")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_truncated(tmp_path: Path, kept: float) -> None:
    path = saved(tmp_path / "m.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="truncated"):
        load_model(path)
    with pytest.raises(ValueError, match="truncated"):
        read_card(path)


def test_one_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    content = path.read_bytes()
    for place in torch.linspace(0, len(content) - 1, 60).long().tolist():
        damaged = bytearray(content)
        damaged[place] ^= 0x04
        path.write_bytes(bytes(damaged))
        with pytest.raises(ValueError):
            load_model(path)


def test_foreign_safetensors(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="without a tesseral card"):
        load_model(tmp_path / "other.safetensors")


def test_newer_format(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    tensors, metadata = contents(path)
    card = {**json.loads(metadata["tesseral"]), "format_version": 99, "novelty": 1}
    rewrite(path, tensors, {**metadata, "tesseral": json.dumps(card)})
    for read in (load_model, read_card):
        with pytest.raises(ValueError, match=r"m\.safetensors.*format 99.*update tesseral"):
            read(path)


def test_wrong_shape(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    tensors, metadata = contents(path)
    key = "layers.0.message.weight"
    wrong, right = tensors[key][1:].clone(), tuple(tensors[key].shape)
    tensors[key] = wrong
    message = re.escape(f"{key} have shape {tuple(wrong.shape)}") + ".*" + re.escape(str(right))
    with pytest.raises(ValueError, match=message):
        load_model(rewrite(path, tensors, metadata))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 99}, "has layers 99, they have"),
        ({"channels": 4000}, "has channels 4000, they have 4"),
        ({"spline_intervals": 9999}, "has spline_intervals 9999, and they are only"),
        ({"layers": 49.99}, "`layers` is 49.99; it must be of type int"),
        ({"layers": 10**9}, "`layers` is 1000000000; it can be 100 at most"),
    ],
)
def test_sizes_of_the_card_are_compared_before_the_model_is_built(
    tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.safetensors")
    tensors, metadata = contents(path)
    card = json.loads(metadata["tesseral"])
    card["config"].update(change)
    metadata["tesseral"] = json.dumps(card)
    monkeypatch.setattr(modelfile, "build_potential", None)
    with pytest.raises(ValueError, match=message):
        load_model(rewrite(path, tensors, metadata))


def test_missing_and_foreign_weights(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    tensors, metadata = contents(path)
    tensors["embeding"] = tensors.pop("embedding")
    with pytest.raises(ValueError, match=r"missing: \['embedding'\].*unknown: \['embeding'\]"):
        load_model(rewrite(path, tensors, metadata))


def test_a_build_that_computes_otherwise_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    tensors, metadata = contents(path)
    stored = json.loads(metadata["tesseral_probe"])
    stored["forces"][4] = [1.5 * value for value in stored["forces"][4]]
    metadata["tesseral_probe"] = json.dumps(stored)
    with pytest.raises(
        ValueError, match="gives different energies and forces than when it was saved"
    ):
        load_model(rewrite(path, tensors, metadata))


def test_probe_sees_every_element_and_the_cutoff(small_model: Path) -> None:
    _, metadata = contents(small_model)
    probe = probe_from_json(metadata["tesseral_probe"])
    assert set(probe.species.tolist()) == {0, 1}
    distances = torch.pdist(probe.positions)
    assert 0.8 < float(distances.min()) < 0.6 * 4.0 < 3.0 < float(distances.max())
    assert float(probe.forces.abs().max()) > 1e-3


def test_diverged_weights_are_not_saved_over_good_ones(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    before = path.read_bytes()
    potential, card = load_model(path)
    with torch.no_grad():
        potential.embedding[0] = float("nan")
    with pytest.raises(ValueError, match="weights embedding are not finite"):
        save_model(path, potential, card)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"energy_scale": 1.0},
        {"reference_energies": (0.0, 0.0, 0.0)},
        {"config": replace(CARD.config, cutoff=4.5)},
        {"config": replace(CARD.config, zbl=False)},
        {"config": replace(CARD.config, channels=8)},
    ],
)
def test_a_card_of_another_potential_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    torch.manual_seed(3)
    potential = build_potential(CARD)
    with pytest.raises(ValueError, match="card"):
        save_model(tmp_path / "m.safetensors", potential, replace(CARD, **change))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.safetensors")
    before = path.read_bytes()
    short: Callable[..., bytes] = lambda *_, **__: before[:1000]  # noqa: E731  a disk that fills
    monkeypatch.setattr(modelfile, "save", short)
    with pytest.raises(ValueError, match="truncated"):
        save_model(path, build_potential(CARD), CARD)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", ["float16", torch.bfloat16, "double"])
def test_unknown_dtype(small_model: Path, dtype: str | torch.dtype) -> None:
    with pytest.raises(ValueError, match="use float32 or float64"):
        load_model(small_model, dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta?"])
def test_unusable_device(small_model: Path, device: str) -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        load_model(small_model, device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_and_cpu_load_each_other(tmp_path: Path, small_model: Path) -> None:
    potential, card = load_model(small_model, device="cuda")
    save_model(tmp_path / "m.safetensors", potential, card)
    again, _ = load_model(tmp_path / "m.safetensors")
    original, _ = load_model(small_model)
    for key, value in original.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])


def test_weights_of_half_precision_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    tensors, metadata = contents(path)
    name = next(key for key, value in tensors.items() if value.dtype == torch.float32)
    tensors[name] = tensors[name].to(torch.float16)
    with pytest.raises(ValueError, match=f"the weights {re.escape(name)} are float16"):
        load_model(rewrite(path, tensors, metadata))
