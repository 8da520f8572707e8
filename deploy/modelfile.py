"""Model file: safetensors weights and a JSON card, without pickles; checked when it is loaded.

Metadata of the file: ``tesseral`` (the card), ``tesseral_probe`` (a small cluster with the energies
and forces that the model gave when it was saved) and ``tesseral_sha256`` (checksum of card, probe
and weights). A file with several levels of theory has the weights of the default level, and of
each other level those that differ, under ``levels.NUMBER.NAME``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tesseral.deploy.card import (
    DTYPES,
    FORMAT_VERSION,
    OF_LEVELS,
    ModelCard,
    card_from_json,
    card_to_json,
    describe,
    library_versions,
)
from tesseral.deploy.probe import (
    TOLERANCE,
    Probe,
    make_probe,
    probe_deviation,
    probe_from_json,
    probe_to_json,
)
from tesseral.deploy.universal import model_path
from tesseral.files import write_whole
from tesseral.potentials.blocks.uncertainty import calibration_of
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops

__all__ = [
    "FORMAT_VERSION",
    "ModelCard",
    "build_potential",
    "describe",
    "load_model",
    "read_card",
    "save_model",
    "torch_dtype",
]

SHOWN = 4  # names in an error message
FREE_SIZE = {"grid_points": 6000, "orientations": 6000}  # options that need no weights
LEVEL = "levels."  # begins the names of weights of other levels of theory
CARD, PROBE, HASH = "tesseral", "tesseral_probe", "tesseral_sha256"


def torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """``float32`` or ``float64`` as a torch dtype.

    Raises:
        ValueError: any other dtype.
    """
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    raise ValueError(f"dtype is {dtype!r}; use float32 or float64")


def build_potential(
    card: ModelCard, ops: str = "auto", other_levels: Sequence[Sequence[float]] = ()
) -> MessagePassing:
    """Build the potential of a card, with random weights in the card's dtype, on the CPU.

    The weights come from torch's global generator (``torch.manual_seed``). Their dtype is
    independent of torch's global default. ``other_levels`` is as in `MessagePassing`.
    """
    potential = MessagePassing(
        card.config,
        card.elements,
        reference_energies=card.reference_energies,
        binding_energies=card.binding_energies or None,
        energy_scale=card.energy_scale,
        mean_neighbors=card.mean_neighbors,
        inner_radii=card.inner_radii,
        other_levels=other_levels,
        uncertainty=calibration_of(card.uncertainty) if card.uncertainty else None,
    )
    potential = potential.to(torch_dtype(card.dtype))
    select_ops(potential, ops)
    return potential


def save_model(
    path: str | Path,
    potential: MessagePassing,
    card: ModelCard,
    others: Sequence[tuple[MessagePassing, ModelCard]] = (),
) -> None:
    """Write a model; an existing file is replaced only after the new one was read back and checked.

    ``dtype`` and ``parameters`` of the card are taken from the potential.

    Args:
        path: file to write, usually ``….safetensors``.
        potential: potential on any device.
        card: card from which the potential was built, with its training.
        others: the same at further levels of theory: potentials of the same architecture, size and
            dtype, whose cards name their ``level``.

    Raises:
        ValueError: the weights are not finite, or the card does not describe this potential or
            cannot be written as JSON.
        OSError: the file cannot be written.
    """
    parameters = list(potential.parameters())
    name = {value: key for key, value in DTYPES.items()}[torch_dtype(parameters[0].dtype)]
    card = replace(card, dtype=name, parameters=sum(p.numel() for p in parameters))
    tensors = _tensors(potential)
    several = {}
    for number, (other, own) in enumerate(others):
        several[own.level] = {key: getattr(own, key) for key in OF_LEVELS}
        own = replace(own, dtype=card.dtype)
        weights = _tensors(other)
        _checked_probe(other, next(other.parameters()).device, own, weights)
        for key, value in weights.items():
            if not torch.equal(value, tensors[key]):
                tensors[f"{LEVEL}{number}.{key}"] = value
    card = replace(card, other_levels=several)
    for key, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"the weights {key} are not finite (training diverged?); not saved")
    text = card_to_json(card)
    probe = _checked_probe(potential, parameters[0].device, card, _of_level(card, tensors))
    probe_text = probe_to_json(probe)
    digest = _digest(text, probe_text, tensors)
    metadata = {"format": "pt", CARD: text, PROBE: probe_text, HASH: digest}
    with write_whole(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))
        load_model(temporary)


def load_model(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    ops: str = "auto",
    level: str | None = None,
) -> tuple[MessagePassing, ModelCard]:
    """Load a model onto any device and dtype, wherever it was trained.

    Args:
        path: file that ``save_model`` wrote, or ``universal`` (see `universal.model_path`).
        device: ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: ``float32`` or ``float64``. Default: that of the file.
        ops: ``fused`` (compiled kernels), ``reference`` (plain PyTorch) or ``auto`` (compiled
            kernels if they can be used).
        level: level of theory, if the file has several. Default: the first on the card.

    Returns:
        The potential in evaluation mode, and its card (with the dtype of the file), both of one
        level of theory.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a model of this version, is damaged, gives different numbers
            here than where it was saved, or does not have the level.
    """
    place = _checked_device(device)
    path = model_path(path)
    text, probe_text, digest, tensors = _read(path, weights=True)
    card = _card(path, text)
    if digest != _digest(text, probe_text, tensors):
        raise ValueError(
            f"{path} is damaged: its content does not match the checksum stored in it; "
            "copy it again or train again"
        )
    target = torch_dtype(card.dtype if dtype is None else dtype)
    name = {value: key for key, value in DTYPES.items()}[target]
    try:
        chosen = card.at_level(level)
        potential = _filled(replace(card, dtype=name), _of_level(card, tensors), card.dtype)
        probe = probe_from_json(probe_text)
        if int(probe.species.min()) < 0 or int(probe.species.max()) >= len(card.elements):
            raise ValueError("the stored probe has elements that the card does not have")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    potential = potential.to(place)
    select_ops(potential, ops)
    deviation = probe_deviation(potential, card, probe, place)
    exact = name == "float64" and card.dtype == "float64"
    tolerance = TOLERANCE["float64" if exact else "float32"]
    if not deviation <= tolerance and gpu.applies(potential):
        gpu.refuse(potential, f"its kernels deviate from the stored results by {deviation:.1e}")
        deviation = probe_deviation(potential, card, probe, place)
    if not deviation <= tolerance:
        raise ValueError(
            f"{path} was loaded, but gives different energies and forces than when it was saved "
            f"(relative deviation {deviation:.1e}); it was written with {card.versions}, "
            f"this is {library_versions()} on {place}: use the versions it was written with"
        )
    if chosen.level != card.level:
        own = _of_level(card, tensors, chosen.level)
        try:
            potential = _filled(replace(chosen, dtype=name), own, card.dtype).to(place)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        select_ops(potential, ops)
    return potential, chosen


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a model file (or of ``universal``), without its weights.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a model of this version.
    """
    path = model_path(path)
    return _card(path, _read(path, weights=False)[0])


def _tensors(potential: MessagePassing) -> dict[str, Tensor]:
    """Weights and constants of a potential, copied to the CPU."""
    return {
        key: value.detach().cpu().contiguous().clone()
        for key, value in potential.state_dict().items()
    }


def _of_level(
    card: ModelCard, tensors: Mapping[str, Tensor], level: str | None = None
) -> dict[str, Tensor]:
    """Weights of one level of theory out of those of a file; the default without a name."""
    kept = {key: value for key, value in tensors.items() if not key.startswith(LEVEL)}
    if level is not None:
        start = f"{LEVEL}{list(card.other_levels).index(level)}."
        own = {key.removeprefix(start): tensors[key] for key in tensors if key.startswith(start)}
        kept = {key: value for key, value in kept.items() if not key.startswith("uncertainty.")}
        kept |= own
    return kept


def _read(path: Path, weights: bool) -> tuple[str, str, str, dict[str, Tensor]]:
    """Read card, probe, checksum and tensors from the file."""
    if not path.exists():
        raise FileNotFoundError(f"there is no model file {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the model file in it")
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        raise ValueError(
            f"{path} is a zip archive, as PyTorch checkpoints and TorchScript exports are; give "
            "the .safetensors file that train-potential fit wrote"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()} if weights else {}
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}); it may be truncated or of "
            "another kind: copy it again"
        ) from None
    missing = [key for key in (CARD, PROBE, HASH) if key not in metadata]
    if not missing and metadata.get("format") != "pt":  # the one entry without a checksum
        raise ValueError(f"the header of {path} is damaged; copy it again or train again")
    if missing:
        raise ValueError(
            f"{path} is a safetensors file without a tesseral card ({', '.join(missing)} missing): "
            "another program wrote it; give a file that train-potential fit wrote"
        )
    return metadata[CARD], metadata[PROBE], metadata[HASH], tensors


def _card(path: Path, text: str) -> ModelCard:
    """Parse the card; errors name the file."""
    try:
        return card_from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _filled(card: ModelCard, tensors: Mapping[str, Tensor], stored: str) -> MessagePassing:
    """Potential with the given weights, in the card's dtype, for evaluation, on the CPU.

    Args:
        card: card with the dtype to use.
        tensors: weights.
        stored: dtype that the file states.
    """
    _check_size(card, tensors)
    with torch.random.fork_rng(devices=[]):  # loading must not disturb the caller's random numbers
        potential = build_potential(card, "reference")
    own = potential.state_dict()
    trained = {name for name, _ in potential.named_parameters()}
    missing, foreign = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or foreign:
        raise ValueError(
            "the weights are not those of the architecture in the card; missing: "
            f"{_some(missing)}, unknown: {_some(foreign)}"
        )
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise ValueError(
                f"the weights {key} have shape {tuple(value.shape)}; the architecture in the card "
                f"needs {tuple(own[key].shape)}"
            )
        if key in trained and value.dtype != DTYPES[stored]:
            raise ValueError(
                f"the weights {key} are {str(value.dtype).removeprefix('torch.')}; the card says "
                f"{stored}"
            )
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"the weights {key} are not finite")
    potential.load_state_dict(dict(tensors))
    return potential.eval()


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{list(names[:SHOWN])}{more}" if names else "-"


def _check_size(card: ModelCard, tensors: Mapping[str, Tensor]) -> None:
    """Check that the weights can be those of the card's architecture before memory is used for it.

    Every whole number of a configuration is the size of something that has weights.
    """
    found: dict[str, int] = {
        "layers": len({key.split(".")[1] for key in tensors if key.startswith("layers.")}),
    }
    embedding = tensors.get("embedding")
    if embedding is not None and embedding.ndim == 3:
        found["elements"], found["channels"] = embedding.shape[0], embedding.shape[2]
    config = card.config
    for name, number in found.items():
        wanted = len(card.elements) if name == "elements" else getattr(config, name)
        if name == "channels":
            wanted = config.embedding_channels or wanted
        if wanted != number:
            raise ValueError(
                f"the card does not describe these weights: it has {name} {wanted}, they have "
                f"{number}"
            )
    count = sum(value.numel() for value in tensors.values())
    for item in fields(card.config):
        size = getattr(card.config, item.name)
        if isinstance(size, int) and size > max(count, FREE_SIZE.get(item.name, 0)):
            raise ValueError(
                f"the card does not describe these weights: it has {item.name} {size}, and they "
                f"are only {count} numbers"
            )


def _checked_probe(
    potential: MessagePassing, device: torch.device, card: ModelCard, tensors: Mapping[str, Tensor]
) -> Probe:
    """Probe of the potential rebuilt from card and weights, checked against the given one.

    Some constants (for example the cutoff) are not among the weights; a card with other values
    would silently describe a different model.
    """
    constants = potential.scale.reference_energies, potential.scale.scale
    for name, constant in zip(("reference_energies", "energy_scale"), constants, strict=True):
        value = torch.tensor(getattr(card, name), dtype=torch.float64).expand(constant.shape)
        if not torch.allclose(constant.cpu().double(), value, rtol=1e-6, atol=0):
            raise ValueError(
                f"the card does not describe this potential: {name} is {getattr(card, name)} there "
                f"and {constant.tolist()} here"
            )
    mine = _filled(card, tensors, card.dtype)
    probe = make_probe(mine, card, torch.device("cpu"))
    if not bool(torch.isfinite(probe.forces).all()):
        raise ValueError("the potential's forces are not finite; not saved")
    mode = potential.training
    deviation = probe_deviation(potential.eval(), card, probe, device)
    potential.train(mode)
    if not deviation <= TOLERANCE[card.dtype]:
        raise ValueError(
            "the card does not describe this potential: rebuilt from it, the same weights give "
            f"different energies (relative deviation {deviation:.1e}); check its config"
        )
    return probe


def _digest(card: str, probe: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of everything in the file that affects the results."""
    digest = hashlib.sha256()
    for text in (card, probe):
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _checked_device(device: str | torch.device) -> torch.device:
    """Return the device if it is available and supports float64."""
    try:
        place = torch.device(device)
        torch.zeros(1, dtype=torch.float64, device=place).item()  # meta has no values
    except (RuntimeError, TypeError, AssertionError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"device {str(device)!r} cannot be used ({reason}); use cpu, or cuda if available"
        ) from None
    return place
