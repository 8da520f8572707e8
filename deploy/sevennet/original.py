"""SevenNet checkpoint, opened by SevenNet's own package."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms

from tesseral.deploy.crystals import rocksalts
from tesseral.deploy.releases import SEVENNET_NAMES


def checkpoint_path(source: str | Path) -> Path:
    """File of a release in the installed ``sevenn``, or the given file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    path = Path(source)
    if str(source) in SEVENNET_NAMES:
        package = importlib.import_module("sevenn")
        path = (
            Path(str(package.__file__)).parent
            / "pretrained_potentials"
            / SEVENNET_NAMES[str(source)]
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a checkpoint file; give one, or one of {', '.join(SEVENNET_NAMES)}"
        )
    return path


class Original(NamedTuple):
    """SevenNet network and its origin."""

    modules: dict[str, Any]
    settings: dict[str, Any]
    elements: dict[int, int]  # atomic number → index
    path: Path


def load_original(source: str | Path) -> Original:
    """Build the network of a release in the installed ``sevenn``, or of a checkpoint file.

    Raises:
        FileNotFoundError: the source is neither a release nor a file.
        ValueError: ``sevenn`` is not installed, or the file is not a checkpoint that it can read.
    """
    try:
        util = importlib.import_module("sevenn.util")
    except ImportError as error:
        raise ValueError(
            f"converting reads the checkpoint through SevenNet's own package ({error}); "
            "run pip install sevenn"
        ) from None
    path = checkpoint_path(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network, settings = util.model_from_checkpoint(str(path))
    except Exception as error:  # a foreign pickle may raise anything
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(f"sevenn cannot read {path} as a checkpoint ({reason})") from None
    modules = {name: module.double() for name, module in network.named_children()}
    numbers = {int(z): int(index) for z, index in settings["_type_map"].items()}
    return Original(modules, settings, numbers, path)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Reject settings that ``architecture: nequip`` does not support."""
    wanted = {
        "is_parity": (False, "features of both parities"),
        "interaction_type": ("nequip", "this kind of interaction"),
        "readout_as_fcn": (False, "a network as readout"),
        "use_bias_in_linear": (False, "biases in all linear maps"),
    }
    for name, (value, what) in wanted.items():
        if settings.get(name, value) != value:
            raise ValueError(
                f"this checkpoint has {what} ({name}: {settings[name]}), which tesseral cannot "
                f"convert; it converts {', '.join(SEVENNET_NAMES)} and networks made like them"
            )
    for name in ("act_scalar", "act_gate"):
        if settings[name]["e"] != "silu":
            raise ValueError(
                f"this checkpoint applies {settings[name]['e']} ({name}); tesseral's has silu"
            )
    for name in ("lmax_edge", "lmax_node"):
        if settings.get(name, -1) not in (-1, settings["lmax"]):
            raise ValueError(
                f"this checkpoint has {name} {settings[name]} and lmax {settings['lmax']}; "
                "tesseral converts networks in which they are equal"
            )


def levels_of(source: str | Path) -> list[str]:
    """Levels of theory of a release or a checkpoint file; empty for one level.

    PBE is the first, since most of the data of the published networks are of this level.
    """
    settings = load_original(source).settings
    if not settings.get("use_modality"):
        return []
    return sorted(settings.get("_modal_map") or {}, key=lambda name: (name != "PBE", name))


def level_of(settings: Mapping[str, Any], modality: str | None) -> int | None:
    """Index of the modality to keep, None for a model that has none.

    Raises:
        ValueError: the modality is missing or unknown.
    """
    known: dict[str, int] = settings.get("_modal_map") or {}
    if not settings.get("use_modality") or not known:
        if modality is not None:
            raise ValueError(f"`modality` is {modality}, but this checkpoint has one level only")
        return None
    if modality not in known:
        given = "none was chosen" if modality is None else f"{modality} is none of them"
        raise ValueError(
            f"this checkpoint holds the levels of theory {', '.join(known)}, and {given}; "
            f"choose one with `modality`, for example `modality={next(iter(known))!r}`"
        )
    return int(known[modality])


def originals(source: str | Path, modality: str | None, elements: Sequence[int]) -> list[Atoms]:
    """Crystals with SevenNet's own ASE calculator of a release or checkpoint file, on the CPU."""
    module = importlib.import_module("sevenn.calculator")
    settings = {} if modality is None else {"modal": modality}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calculator = module.SevenNetCalculator(
            str(checkpoint_path(source)), device="cpu", **settings
        )
    return rocksalts(elements, calculator)
