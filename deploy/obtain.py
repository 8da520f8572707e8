"""Making of a model of the catalogue, from a package, a file, or a download with a checksum."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tesseral.deploy.catalogue import CATALOGUE, DEFAULTS, Published
from tesseral.deploy.convert import Deviation, write_converted
from tesseral.deploy.nequix.original import CACHE, file_hash
from tesseral.deploy.universal import NAME, data_folder, kept_path, model_path
from tesseral.files import make_folder

TIMEOUT = 30  # seconds without an answer


def local_weights(entry: Published) -> str | Path | None:
    """Weights of a potential on this machine: what `write_converted` takes; None without any."""
    if entry.package == "sevenn":
        return entry.name if importlib.util.find_spec("sevenn") is not None else None
    for path in (CACHE.expanduser() / f"{entry.name}.nqx", downloads() / f"{entry.name}.nqx"):
        if path.is_file():
            return path
    return None


def downloads() -> Path:
    """Folder for downloaded weights."""
    return data_folder() / "weights"


def state(entry: Published) -> str:
    """How a potential can be had here: made, or from where."""
    if kept_path(entry.name).is_file():
        return "made"
    if local_weights(entry) is not None:
        return "installed"
    if entry.sha256:
        return "download"
    return "pip install sevenn" if entry.package == "sevenn" else "by hand"


def get_model(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[Path, Deviation]:
    """Make a model of the catalogue in the user's data folder.

    Args:
        name: name in the catalogue. Default: the first of ``DEFAULTS`` that can be had.
        weights: file with its weights, if it is not to be looked for.
        progress: callback with the number of compared structures and the total.
        tell: called with what a user should know: downloads, and why the default is not taken.

    Returns:
        The model file, and its largest differences from the original.

    Raises:
        ValueError: the name is unknown, the weights are not the published ones or cannot be
            converted, or a package is missing; the message says what to do.
        OSError: the download failed, or a file cannot be read or written.
    """
    if name is None and weights is not None:
        raise ValueError("`weights` needs the name of the model that the file belongs to")
    if name is None:
        try:
            return get_model(DEFAULTS[0], progress=progress, tell=tell)
        except (OSError, ValueError) as error:
            if local_weights(CATALOGUE[DEFAULTS[1]]) is None:
                raise
            tell(f"{error}; {DEFAULTS[1]} is taken instead, whose weights are installed")
            return get_model(DEFAULTS[1], progress=progress, tell=tell)
    if name not in CATALOGUE:
        raise ValueError(f"there is no {name}; the models are {', '.join(CATALOGUE)}")
    entry = CATALOGUE[name]
    source = weights if weights is not None else local_weights(entry)
    if source is None:
        source = download(entry, tell)
    path = Path(source)
    if entry.sha256 and path.is_file() and file_hash(path) != entry.sha256:
        raise ValueError(
            f"{path} is not the published file of {name}: its checksum is another; remove it, or "
            "convert it under a name of your own with train-potential convert"
        )
    output = kept_path(name)
    return output, write_converted(str(source), output, progress=progress)


def download(entry: Published, tell: Callable[[str], None] = lambda text: None) -> Path:
    """Download the weights of a potential, and compare their checksum with the published one.

    Raises:
        ValueError: there is no checksum, a package is missing, or the checksum is another.
        OSError: the download failed.
    """
    if entry.package == "sevenn":
        raise ValueError(f"the weights of {entry.name} are in a package; run pip install sevenn")
    by_hand = (
        f"get {entry.url} in another way and run train-potential universal get {entry.name} with "
        f"`weights='{entry.name}.nqx'`"
    )
    if not entry.sha256:
        raise ValueError(
            f"{entry.name} is not downloaded, because its checksum is not known here; {by_hand}"
        )
    if importlib.util.find_spec("pooch") is None:
        raise ValueError(
            f"downloading {entry.name} needs pooch; run pip install pooch, or {by_hand}"
        )
    import pooch

    pooch.get_logger().setLevel("WARNING")
    tell(f"downloading {entry.url}")
    make_folder(downloads())
    name = f"{entry.name}.nqx"
    try:
        found = pooch.retrieve(
            entry.url,
            known_hash=f"sha256:{entry.sha256}",
            fname=name,
            path=downloads(),
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
        )
    except OSError as error:  # all errors of requests too
        reason = str(error) if type(error).__module__ == "builtins" else _reason(error, entry.url)
        raise OSError(f"{entry.name} could not be downloaded ({reason}); {by_hand}") from None
    except ValueError as error:
        if "hash" not in str(error).lower():
            raise
        raise ValueError(
            f"the file at {entry.url} is not the published one: its checksum is another; it was "
            f"removed; try again later, or {by_hand}"
        ) from None
    return Path(found)


def _reason(error: OSError, url: str) -> str:
    """Why a download failed, in a few words."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    host = urlsplit(url).hostname
    if status is not None:
        return f"{host} answered with the status {status}"
    return f"no connection to {host}, or one that broke off"


def ready_model(
    name: str | Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Path of a model; one of the catalogue is made first if its weights are on this machine.

    Args:
        name: as for `model_path`.
        progress: callback with the number of compared structures and the total.
        tell: called with a line if a model is made.

    Raises:
        FileNotFoundError: there is no such model, and its weights are not on this machine.
        ValueError: the weights cannot be converted.
    """
    try:
        return model_path(name)
    except FileNotFoundError:
        for each in DEFAULTS if str(name) == NAME else (str(name),):
            if local_weights(CATALOGUE[each]) is not None:
                better = f"; universal get makes {DEFAULTS[0]}, which is more accurate"
                hint = better if each == DEFAULTS[1] and str(name) == NAME else ""
                tell(f"no model {name} yet: making {each} from the installed weights{hint}")
                return get_model(each, progress=progress)[0]
        raise
