"""The model that is called ``universal``: where it is kept, and how its name becomes a path."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "universal"
FILE = "universal.safetensors"
VARIABLE = "TESSERAL_UNIVERSAL"


def universal_path() -> Path:
    """Where ``train-potential convert`` writes the universal model if it is not told otherwise.

    Returns:
        The file that the environment variable ``TESSERAL_UNIVERSAL`` names; without it,
        ``tesseral/universal.safetensors`` in the user's data folder (``$XDG_DATA_HOME``, or
        ``~/.local/share``). Neither the file nor its folder need to be there.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME", ""))  # which counts only if it is absolute
    folder = data if data.is_absolute() else Path.home() / ".local" / "share"
    return folder / "tesseral" / FILE


def model_path(name: str | Path) -> Path:
    """The model file that is meant by what a user calls a model.

    Args:
        name: a path, which stays as it is, or ``universal``: the file that the environment variable
            ``TESSERAL_UNIVERSAL`` names, else ``universal.safetensors`` in the working folder, else
            that in the user's data folder. A file that is itself called ``universal`` comes first.

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
        "pip install 'tesseral[sevennet]' and train-potential convert sevennet-0"
    )
