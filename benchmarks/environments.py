"""Versions of Python with the newest packages: install the package without pins, run its tests.

    python -m benchmarks.environments python3.10 python3.12 --tests tests/calculators

needs only uv (``pip install uv``) and git. One environment exists at a time; with PyTorch's CUDA
libraries it takes 6 GB. The table and the versions of all packages are in the folder of the output.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMED = ("torch", "numpy", "ase", "e3nn", "pymatgen", "lightning", "torch-sim-atomistic")
OLD = [  # the newest packages use each other in ways that are deprecated
    part
    for name in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
    for part in ("-W", f"default::{name}")
]
ENDS = ("passed", "failed", "skipped", "deprecated")  # the last: lines of this package that warn
ROOT = Path(__file__).resolve().parents[1]
VERSION = "import sys; print('.'.join(map(str, sys.version_info[:3])))"


def main() -> int:
    """Try every Python that was named; returns 1 if an installation or a test failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pythons", nargs="+", help="interpreters, or versions for uv to download")
    parser.add_argument("--wheel", type=Path, help="wheel of the package (default: build it)")
    parser.add_argument("--extras", default="all")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files or folders")
    parser.add_argument("--output", type=Path, default=Path("runs/environments"))
    parser.add_argument("--keep", action="store_true", help="do not delete the environments")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    given.output = given.output.resolve()
    wheel = given.wheel or build(given.output)
    rows = []
    for python in given.pythons:
        folder = given.output / re.sub(r"\W+", "-", python).strip("-")
        row = tried(python, wheel, given.extras, given.tests, folder)
        if not given.keep:
            shutil.rmtree(folder / "env", ignore_errors=True)
        (folder / "result.json").write_text(json.dumps(row, indent=1))
        rows.append(row)
        print(table(rows), flush=True)
    return int(any(row["failed"] for row in rows))


def build(folder: Path) -> Path:
    """The wheel of this clone, which serves every version of Python."""
    command = ["uv", "build", "--wheel", "--out-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def tried(python: str, wheel: Path, extras: str, tests: Sequence[str], folder: Path) -> Any:
    """Versions, and numbers of tests, of one interpreter."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = str(folder / "env" / "bin" / "python")
    asked = [f"{wheel.resolve()}[{extras}]" if extras else str(wheel.resolve())]
    start = time.monotonic()
    row: dict[str, Any] = {"python": python, "failed": "installation", "passed": ""}
    with (folder / "install.log").open("w") as log:
        for command in (
            ["uv", "venv", "--clear", "--python", python, str(folder / "env")],
            ["uv", "pip", "install", "--python", mine, *asked, "pytest", "pytest-xdist"],
        ):
            if subprocess.run(command, stdout=log, stderr=log).returncode:
                return row
    row["minutes to install"] = round((time.monotonic() - start) / 60, 1)
    row["python"] = output(mine, "-c", VERSION).strip()
    found = json.loads(output("uv", "pip", "list", "--python", mine, "--format", "json"))
    row["versions"] = {each["name"]: each["version"] for each in found}
    words = ["-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *OLD, *tests]
    # Through a pipe: tests of full disks limit the sizes of files.
    done = subprocess.run([mine, *words], cwd=ROOT, capture_output=True, text=True)
    text = done.stdout + done.stderr
    (folder / "tests.log").write_text(text)
    row["deprecated"] = len(set(re.findall(r"/tesseral/\S+: \w+Warning", text)))
    last = done.stdout.strip().splitlines()[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", last)}
    row["passed"], row["skipped"] = counts.get("passed", 0), counts.get("skipped", 0)
    row["failed"] = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    if not row["passed"]:
        row["failed"] = row["failed"] or "no test ran"
    return row


def output(*command: str) -> str:
    """What a program prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def table(rows: Sequence[Any]) -> str:
    """The results as a table of Markdown."""
    heads = ["python", *NAMED, *ENDS]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        versions = row.get("versions", {})
        named = [versions.get(name, "–") for name in NAMED]
        ends = [str(row.get(name, "")) for name in ENDS]
        lines.append([row["python"], *named, *ends])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
