"""Names of universal models, ``universal`` and those of the catalogue, as paths of model files."""

from __future__ import annotations

import os
from pathlib import Path

from tesseral.deploy.catalogue import CATALOGUE, DEFAULTS

NAME = "universal"
FILE = "universal.safetensors"
VARIABLE = "TESSERAL_UNIVERSAL"


def data_folder() -> Path:
    """Folder for universal models: ``tesseral`` in ``$XDG_DATA_HOME``, or ``~/.local/share``."""
    data = Path(os.environ.get("XDG_DATA_HOME", ""))  # used only if it is absolute
    folder = data if data.is_absolute() else Path.home() / ".local" / "share"
    return folder / "tesseral"


def kept_path(name: str | Path) -> Path:
    """Path of the model file that ``train-potential convert`` or ``universal get`` makes.

    Args:
        name: name in the catalogue, or a file with weights.

    Returns:
        ``NAME.safetensors`` in `data_folder` for a name in the catalogue. For a file, the model is
        called ``universal``: the file named by the environment variable ``TESSERAL_UNIVERSAL``, or
        ``universal.safetensors`` in `data_folder`. The file and its folder need not exist.
    """
    if str(name) in CATALOGUE:
        return data_folder() / f"{name}.safetensors"
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else data_folder() / FILE


def universal_places() -> list[Path]:
    """Files that ``universal`` may mean; the first that exists is taken."""
    if os.environ.get(VARIABLE):
        return [kept_path(NAME)]
    names = dict.fromkeys((*DEFAULTS, *CATALOGUE))
    return [Path(FILE), *(kept_path(name) for name in (NAME, *names))]


def model_path(name: str | Path) -> Path:
    """Path of the model that a user names.

    Args:
        name: a path, which is returned unchanged; a name in the catalogue, whose file is in the
            user's data folder; or ``universal``: the file named by the environment variable
            ``TESSERAL_UNIVERSAL``, otherwise ``universal.safetensors`` in the working folder,
            otherwise in the user's data folder, otherwise the first model of the catalogue that has
            been made, the defaults first. A file of that name takes precedence.

    Raises:
        FileNotFoundError: there is no such universal model yet.
    """
    path = Path(name)
    if (str(name) != NAME and str(name) not in CATALOGUE) or path.is_file():
        return path
    if str(name) != NAME:
        made = kept_path(name)
        if made.is_file():
            return made
        raise FileNotFoundError(
            f"{name} has not been made yet (looked for {made}); run train-potential universal get "
            f"{name}"
        )
    places = universal_places()
    for place in places:
        if place.is_file():
            return place
    if len(places) == 1:
        raise FileNotFoundError(
            f"the file that {VARIABLE} names, {places[0]}, does not exist; make it with "
            f"train-potential convert {DEFAULTS[1]} -o {places[0]}"
        )
    raise FileNotFoundError(
        f"there is no universal model yet (looked for {FILE} and in {data_folder()}); run "
        "train-potential universal get, which downloads one, or makes one without a network after "
        "pip install sevenn"
    )
