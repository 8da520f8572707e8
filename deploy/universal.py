"""Location of the ``universal`` model, and resolution of its name to a path."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "universal"
FILE = "universal.safetensors"
VARIABLE = "TESSERAL_UNIVERSAL"


def universal_path() -> Path:
    """Default path of the universal model that ``train-potential convert`` writes.

    Returns:
        The file named by the environment variable ``TESSERAL_UNIVERSAL``; without it,
        ``tesseral/universal.safetensors`` in the user's data folder (``$XDG_DATA_HOME``, or
        ``~/.local/share``). Neither the file nor its folder needs to exist.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME", ""))  # used only if it is absolute
    folder = data if data.is_absolute() else Path.home() / ".local" / "share"
    return folder / "tesseral" / FILE


def model_path(name: str | Path) -> Path:
    """Path of the model that a user names.

    Args:
        name: a path, which is returned unchanged, or ``universal``: the file named by the
            environment variable ``TESSERAL_UNIVERSAL``, otherwise ``universal.safetensors`` in the
            working folder, otherwise that in the user's data folder. A file that is itself called
            ``universal`` takes precedence.

    Raises:
        FileNotFoundError: there is no universal model yet.
    """
    path = Path(name)
    if str(name) != NAME or path.is_file():
        return path
    kept = universal_path()
    places = [kept] if os.environ.get(VARIABLE) else [Path(FILE), kept]
    for place in places:
        if place.is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise FileNotFoundError(
        f"there is no universal model yet (looked for {looked}); make it with two commands: "
        "pip install sevenn and train-potential convert sevennet-0"
    )
