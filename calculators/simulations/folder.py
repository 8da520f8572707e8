"""The folder of a run: what was asked for, what is done, and refusal of what does not fit."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tesseral.files import write_text, write_whole

IDENTITY, SUMMARY, FILES = "run.json", "summary.csv", "structures"


class RunFolder:
    """The results of many structures, each of which is kept as soon as it is there.

    Attributes:
        rows: of the summary, by name of the structure.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], columns: Sequence[str]) -> None:
        """Make it, or open one that was made for the same.

        Args:
            path: the folder.
            identity: what the results depend on, in JSON's types: ``command``, ``settings`` by
                option, ``model`` (a hash) and ``structures`` (hashes by name).
            columns: of the summary, the first of which is ``name``.

        Raises:
            ValueError: the folder holds something else, or another process writes to it.
        """
        self.path, self.columns = path, columns
        known = path / IDENTITY
        if known.is_file():
            self._compare(json.loads(known.read_text(encoding="utf-8")), identity)
        elif path.exists():
            if not path.is_dir() or any(not p.name.startswith(".") for p in path.iterdir()):
                raise ValueError(
                    f"{path} exists and holds no results of relax or md; give a new folder as "
                    "`output`"
                )
        (path / FILES).mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path)
        if not known.is_file():
            write_text(known, json.dumps(identity, indent=1) + "\n")
        self.rows = self._read()

    def prefix(self, name: str) -> Path:
        """The start of the files of a structure."""
        return self.path / FILES / name

    def add(self, row: Mapping[str, str]) -> None:
        """Keep the row of a structure."""
        self.rows[row["name"]] = dict(row)
        with (self.path / SUMMARY).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def keep(self, names: Sequence[str]) -> None:
        """Write the summary anew, with the rows of these structures alone, in this order."""
        self.rows = {name: self.rows[name] for name in names if name in self.rows}
        with (
            write_whole(self.path / SUMMARY) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows.values())

    def close(self) -> None:
        """Let another process write to the folder."""
        self._lock.close()

    def _read(self) -> dict[str, dict[str, str]]:
        """Rows of the summary; a line that was cut off does not count."""
        path = self.path / SUMMARY
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
        rows = csv.DictReader(lines)
        return {
            row["name"]: row
            for row in rows
            if list(row) == list(self.columns) and None not in row.values()
        }

    def _compare(self, known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Refuse a folder that was made for something else."""
        instead = "; give another folder as `output`, or the same as before"
        if known["command"] != identity["command"]:
            raise ValueError(
                f"{self.path} holds results of train-potential {known['command']}{instead}"
            )
        for name, value in identity["settings"].items():
            before = known["settings"].get(name)
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


def _lock(path: Path) -> IO[str]:
    """A file that one process can hold at a time."""
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
