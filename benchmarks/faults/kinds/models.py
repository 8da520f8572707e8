"""Model files: their bytes, cards, probes and weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from benchmarks.faults.kinds.common import MODELS
from benchmarks.faults.mutations import damaged_bytes, damaged_json, damaged_text, pick
from benchmarks.faults.running import Case, Kind, command
from tesseral import TesseralCalculator
from tesseral.deploy.modelfile import CARD, HASH, PROBE, _digest

FILES = sorted(path.stem for path in MODELS.glob("*.safetensors"))


def prepare(samples: Path) -> Mapping[str, Any]:
    """Numbers of the undamaged models."""
    return {name: use(MODELS / f"{name}.safetensors") for name in FILES}


def case(rng: np.random.Generator, samples: Path) -> Case:
    """A damaged model file, used as by a command and as by a script."""
    name = pick(rng, FILES)
    original = MODELS / f"{name}.safetensors"
    what, data = pick(rng, (_bytes, _header, _card, _card, _card, _probe, _weights))(rng, original)
    path = Path("model.safetensors")
    path.write_bytes(data)
    other = pick(rng, ("info", "relax", "export", "evaluate", "symmetry", "fit"))

    def act() -> Any:
        command("info", path)
        numbers = use(path)
        if rng.random() < 0.15:
            _other(other, path)
        return numbers

    return Case(f"{name}: {what}", act, name)


def use(path: Path) -> list[float]:
    """Energy and forces of a small cluster of the model's elements."""
    calculator = TesseralCalculator(path, device="cpu")
    elements = list(calculator.card.elements)
    numbers = (elements * 3)[:3]
    atoms = Atoms(numbers, [[0, 0, 0], [1.1, 0.3, 0], [-0.2, 1.3, 0.8]], calculator=calculator)
    return [float(atoms.get_potential_energy()), *atoms.get_forces().ravel().tolist()]


def _other(name: str, path: Path) -> None:
    """A command that loads the model."""
    ase.io.write("atoms.xyz", Atoms("H2", [[0, 0, 0], [0.8, 0, 0]]), format="extxyz")
    words: dict[str, tuple[object, ...]] = {
        "info": ("info", path),
        "relax": ("relax", "atoms.xyz", "--model", path, "--steps", 1, "-o", "out"),
        "export": ("export", path, "-o", "model.pt"),
        "evaluate": ("evaluate", path, MODELS.parent / "store.h5"),
        "symmetry": ("symmetry", path),
        "fit": (
            *("fit", "--data.train", MODELS.parent / "store.h5", "--output", "new.safetensors"),
            *("--init_from", path, "--trainer.max_steps", 1, "--data.workers", 0),
        ),
    }
    command(*words[name])


def _content(path: Path) -> tuple[str, str, dict[str, Tensor]]:
    with safe_open(path, framework="pt", device="cpu") as file:
        metadata = file.metadata()
        return metadata[CARD], metadata[PROBE], {key: file.get_tensor(key) for key in file.keys()}


def _joined(card: str, probe: str, tensors: dict[str, Tensor]) -> bytes:
    """A model file with the checksum of its content, as another program might write it."""
    digest = _digest(card, probe, tensors)
    metadata = {"format": "pt", CARD: card, PROBE: probe, HASH: digest}
    return bytes(save(tensors, metadata=metadata))


def _bytes(rng: np.random.Generator, path: Path) -> tuple[str, bytes]:
    return damaged_bytes(rng, path.read_bytes())


def _header(rng: np.random.Generator, path: Path) -> tuple[str, bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.5:
        what, text = damaged_json(rng, header.decode())
        changed = text.encode("utf-8", "replace")
    else:
        what, changed = damaged_text(rng, header)
    length = len(changed) if rng.random() < 0.9 else pick(rng, (0, 1, 2**62, 10**9, size + 1))
    return f"header: {what}", int(length).to_bytes(8, "little") + changed + rest


def _card(rng: np.random.Generator, path: Path) -> tuple[str, bytes]:
    card, probe, tensors = _content(path)
    content = json.loads(card)
    if rng.random() < 0.6:  # what the model is built from
        part = {"config": content.pop("config")}
        for key in ("elements", "reference_energies", "energy_scale", "mean_neighbors", "dtype"):
            part[key] = content.pop(key)
        what, text = damaged_json(rng, json.dumps(part))
        try:
            text = json.dumps({**json.loads(text), **content})
        except (ValueError, TypeError):
            pass
    else:
        what, text = damaged_json(rng, card)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return f"card: {what}", _joined(text, probe, tensors)


def _probe(rng: np.random.Generator, path: Path) -> tuple[str, bytes]:
    card, probe, tensors = _content(path)
    what, probe = damaged_json(rng, probe)
    probe = probe.encode("utf-8", "replace").decode("utf-8")
    return f"probe: {what}", _joined(card, probe, tensors)


def _weights(rng: np.random.Generator, path: Path) -> tuple[str, bytes]:
    card, probe, tensors = _content(path)
    key = pick(rng, sorted(tensors))
    value = tensors[key]
    changes: dict[str, Callable[[], Tensor]] = {
        "one row less": lambda: value[:-1].clone(),
        "flat": lambda: value.reshape(-1).clone(),
        "int64": lambda: value.to(torch.int64),
        "float16": lambda: value.half(),
        "complex": lambda: value.to(torch.complex64),
        "empty": lambda: value.new_empty(0),
        "nan": lambda: torch.full_like(value, float("nan")),
        "inf": lambda: torch.full_like(value, float("inf")),
        "huge": lambda: torch.full_like(value, 1e38),
        "zero": lambda: torch.zeros_like(value),
        "one changed": lambda: value + torch.eye(1).new_tensor(1e-2).to(value.dtype),
        "other axis": lambda: value.unsqueeze(-1).clone(),
    }
    what = pick(rng, [*changes, "deleted", "added"])
    if what == "deleted":
        del tensors[key]
    elif what == "added":
        tensors[f"{key}_"] = value.clone()
    else:
        tensors[key] = changes[what]()
    return f"weights {key}: {what}", _joined(card, probe, tensors)


KIND = Kind("models", prepare, case, 1.5)
