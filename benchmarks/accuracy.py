"""Test errors on the mlearn benchmark after a fixed time of training with the default settings.

    python -m benchmarks.accuracy [Si Mo Li] [--minutes 10] [--data FOLDER] [--output runs/accuracy]
                                  [-- OPTIONS OF train-potential fit]

Every step is a command that a user would type, printed before it runs. Validation structures
are taken from the training file; the test file is read once, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def run(console: Console, *words: str) -> None:
    """Print and run a train-potential command; stop where it fails."""
    command = ["train-potential", *words]
    console.print(f"[bold]$ {shlex.join(command)}")
    subprocess.run([str(Path(sys.executable).with_name(command[0])), *words], check=True)


def measure(
    console: Console, name: str, data: Path, folder: Path, minutes: float, extra: list[str]
) -> dict[str, dict[str, float]]:
    """Train and test on one of the sets; returns what ``evaluate --json`` wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    stores = {part: folder / f"{name}_{part}.h5" for part in ("train", "test")}
    for part, store in stores.items():
        if not store.exists():
            source = data / "mlearn" / f"{name}_{part}.extxyz"
            run(console, "data", "import", str(source), "-o", str(store))
    model, result = folder / f"{name}.safetensors", folder / f"{name}.json"
    seconds = f"{60 * minutes:.0f}s"
    fit = ["--output", str(model), "--trainer.max_time", seconds, *extra]
    run(console, "fit", "--data.train", str(stores["train"]), *fit)
    run(console, "evaluate", str(model), str(stores["test"]), "--json", str(result))
    errors: dict[str, dict[str, float]] = json.loads(result.read_text())
    return errors


def main() -> None:
    """Run the sets asked for and print their errors."""
    arguments = sys.argv[1:]
    extra = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["Si"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TESSERAL_DATA", "../shared/data"))
    )
    parser.add_argument("--output", type=Path, default=Path("runs/accuracy"))
    options = parser.parse_args(arguments[: len(arguments) - len(extra) - bool(extra)])
    console = Console()
    table = Table(
        title=f"mlearn, {options.minutes:g} min on {os.cpu_count()} cores", show_lines=True
    )
    for column in ("set", "energy MAE (meV/atom)", "forces MAE (meV/Å)", "stress MAE (GPa)"):
        table.add_column(column, justify="right")
    for name in options.sets:
        errors = measure(console, name, options.data, options.output, options.minutes, extra)
        table.add_row(
            name,
            f"{errors['energy_per_atom']['mae']:.2f}",
            f"{errors['forces']['mae']:.1f}",
            f"{errors['stress']['mae']:.3f}",
        )
    console.print(table)
    console.print(f"machine: {platform.processor() or platform.machine()}, {platform.platform()}")


if __name__ == "__main__":
    main()
