"""Results folder of a run: its settings, finished structures, and checks for conflicts."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tesseral.files import make_folder, naming, write_text, write_whole

IDENTITY, SUMMARY, FILES = "run.json", "summary.csv", "structures"


class RunFolder:
    """Results of many structures, each saved as soon as it is complete.

    Attributes:
        rows: rows of the summary by name of the structure.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], columns: Sequence[str]) -> None:
        """Create the folder, or open an existing one with the same identity.

        Args:
            path: path of the folder.
            identity: everything that determines the results, in JSON types: ``command``,
                ``settings`` by option, ``model`` (a hash) and ``structures`` (hashes by name).
            columns: columns of the summary; the first is ``name``.

        Raises:
            ValueError: the folder has other contents, or another process writes to it.
        """
        self.path, self.columns = path, columns
        known = path / IDENTITY
        if known.is_file():
            self._compare(_read_identity(known), identity)
        elif path.exists():
            if not path.is_dir() or any(not p.name.startswith(".") for p in path.iterdir()):
                raise ValueError(
                    f"{path} exists and holds no results of such a run; give a new folder as "
                    "`output`"
                )
        make_folder(path / FILES)
        self._lock = lock_folder(path)
        if not known.is_file():
            write_text(known, json.dumps(identity, indent=1) + "\n")
        self.rows = self._read()

    def prefix(self, name: str) -> Path:
        """Common prefix of the files of a structure."""
        return self.path / FILES / name

    def add(self, row: Mapping[str, str]) -> None:
        """Save the row of a structure."""
        self.rows[row["name"]] = dict(row)
        path = self.path / SUMMARY
        with naming(path), path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def keep(self, names: Sequence[str]) -> None:
        """Rewrite the summary with the rows of these structures only, in this order."""
        self.rows = {name: self.rows[name] for name in names if name in self.rows}
        with (
            write_whole(self.path / SUMMARY) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows.values())

    def close(self) -> None:
        """Release the folder to other processes."""
        self._lock.close()

    def _read(self) -> dict[str, dict[str, str]]:
        """Rows of the summary; an incomplete line is ignored."""
        path = self.path / SUMMARY
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
        rows = csv.DictReader(lines)
        # An earlier version may have written fewer columns.
        return {
            row["name"]: {name: row.get(name, "") for name in self.columns}
            for row in rows
            if row.keys() >= {"name", "steps", "outcome"} and None not in row.values()
        }

    def _compare(self, known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Check that the folder was made for the same run."""
        instead = "; give another folder as `output`, or the same as before"
        if known["command"] != identity["command"]:
            raise ValueError(
                f"{self.path} holds results of train-potential {known['command']}{instead}"
            )
        settings = _as_now(known["settings"])
        for name, value in identity["settings"].items():
            before = settings.get(name)
            if before != value:
                raise ValueError(
                    f"{self.path} was made with `{name}` {before}, not {value}{instead}"
                )
        if known["model"] != identity["model"]:
            raise ValueError(f"{self.path} was made with another model{instead}")
        before, now = known["structures"], identity["structures"]
        if before != now:
            changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            raise ValueError(
                f"{self.path} was made from other structures (not the same: "
                f"{', '.join(changed[:5])}){instead}"
            )


def same_run(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a folder holds results of the same command, model and structures.

    The options may be others; they are compared when the folder is opened.
    """
    try:
        known = json.loads((path / IDENTITY).read_text(encoding="utf-8"))
        return all(known[name] == identity[name] for name in ("command", "model", "structures"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _as_now(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a folder that may come from an earlier version, under their present names."""
    settings = dict(settings)
    if "fixed_cell" in settings:
        settings["cell"] = "fixed" if settings.pop("fixed_cell") else "auto"
        if settings["optimizer"] == "bfgs":
            settings["optimizer"] = "auto"
    if "ensemble" in settings:
        settings = {"cell": "isotropic", "extxyz": False, **settings}
    return settings


def _read_identity(path: Path) -> dict[str, Any]:
    """Identity of an existing folder."""
    kinds = {"command": str, "settings": dict, "model": str, "structures": dict}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in kinds.items()
    ):
        raise ValueError(
            f"{path} is damaged; remove the folder {path.parent} to start again, or give another "
            "one as `output`"
        )
    return content


def lock_folder(path: Path) -> IO[str]:
    """A lock file that only one process can hold at a time."""
    with naming(path / ".lock"):
        file = (path / ".lock").open("w")
    with suppress(ImportError):  # Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ValueError(f"another process writes to {path}; wait until it is done") from None
        except OSError:  # a file system without locks
            pass
    return file
