"""Hidden folder of an import, with its parts and a report for each of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from array import array
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tesseral.data.imports.report import COUNTERS, ImportReport
from tesseral.files import make_folder, write_whole


class PartFolder:
    """Folder with the parts of an import, in a hidden folder next to the output.

    It is named after the import, so that workers which have not noticed the end of an earlier one
    write nothing into it.

    Args:
        output: dataset file.
        identity: properties that must be equal for the parts to be reused, in JSON's types.
    """

    def __init__(self, output: Path, identity: dict[str, Any]) -> None:
        """Open the folder, and remove the parts of other imports.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.hidden = output.with_name(f".{output.name}.import")
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        self.path = self.hidden.absolute() / digest[:16]  # workers may be in another folder
        if not self.path.is_dir():
            self.remove()
            try:
                make_folder(self.path)
            except OSError:
                self.remove()
                raise

    def remove(self) -> None:
        """Delete the folder with all parts."""
        gone = self.hidden.with_name(f"{self.hidden.name}.{os.getpid()}")
        with suppress(OSError):  # there is none
            self.hidden.rename(gone)  # first: workers may still be writing to it
        shutil.rmtree(gone, ignore_errors=True)

    def structures(self) -> int:
        """Number of structures in all complete parts."""
        return sum(int(path.stem.split("-")[2]) for path in self.path.glob("*.json"))

    def part(self, task: int, part: int) -> Path | None:
        """JSON file of a part; None if the part is not complete or its report is damaged."""
        for path in self.path.glob(f"{task:06d}-{part:06d}-*.json"):
            if path.is_file() and _intact(path.read_bytes()) is not None:
                return path
            _remove(path)
        return None

    def parts(self) -> list[Path]:
        """JSON files of the complete parts, in order."""
        return sorted(self.path.glob("*.json"))


def _remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _intact(data: bytes) -> bytes | None:
    """Report in the bytes of its file, after its checksum; None if they do not agree."""
    digest, _, text = data.partition(b"\n")
    return text if digest == hashlib.sha256(text).hexdigest().encode() else None


def save_report(path: Path, report: ImportReport, last: bool) -> None:
    """Write the report of a part atomically, with a flag for the last part of the task."""
    values = {**vars(report), "groups": sorted(report.groups), "seen": report.seen.tolist()}
    text = json.dumps({"report": values, "last": last}).encode()
    with write_whole(path, sync=False) as temporary:
        temporary.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def load_report(path: Path) -> tuple[ImportReport, bool]:
    """Read what `save_report` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    text = _intact(path.read_bytes())
    if text is None:
        raise ValueError(f"{path} is damaged; run the import again")
    saved = json.loads(text)
    values = saved["report"]
    report = ImportReport(**values)
    for name in COUNTERS:
        setattr(report, name, Counter(values[name]))
    report.elements = Counter({int(z): count for z, count in values["elements"].items()})
    report.states = {name: Counter(found) for name, found in values["states"].items()}
    report.left_out = {what: Counter(files) for what, files in values["left_out"].items()}
    report.energy_range = tuple(values["energy_range"])
    report.stress_range = tuple(values["stress_range"])
    report.groups, report.seen = set(values["groups"]), array("Q", values["seen"])
    return report, saved["last"]
