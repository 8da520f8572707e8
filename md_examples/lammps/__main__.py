"""Copy the LAMMPS inputs to a working folder.

python -m tesseral.md_examples.lammps FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent


def copy_inputs(folder: Path) -> list[Path]:
    """Copy every ``in.*`` into a folder, which is created if needed.

    Raises:
        ValueError: one of the files exists already; nothing is copied then.
    """
    inputs = sorted(HERE.glob("in.*"))
    for path in inputs:
        if (folder / path.name).exists():
            raise ValueError(f"{folder / path.name} exists; remove it or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, folder / path.name)) for path in inputs]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tesseral.md_examples.lammps", description="Copy the LAMMPS inputs."
    )
    parser.add_argument("folder", type=Path, help="working folder; created if it does not exist")
    folder = parser.parse_args(argv).folder

    try:
        for path in copy_inputs(folder):
            print(f"wrote {path}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
