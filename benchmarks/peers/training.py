"""Training throughput of each program with its own trainer; runs in our environment."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console

from benchmarks.peers.environments import CONFIGS, Peers, call, nequip_command, write_structures
from benchmarks.sheets import Sheet, cell
from benchmarks.workers import environment

Files = tuple[Path, Path]
Command = Callable[[Path, int], list[str]]  # from a folder and a number of epochs

OURS = 10  # factor on the number of epochs, so that the difference is longer than the start-up


class Trained(NamedTuple):
    """One training."""

    wall: float  # s
    cpu: float  # s
    peak_mb: float


def mace_command(peers: Peers, files: Files, batch: int, folder: Path, epochs: int) -> list[str]:
    """MACE 32x0e."""
    return mace_words(peers, mace_options(files, batch, folder, epochs))


def mace_options(files: Files, batch: int, folder: Path, epochs: int) -> dict[str, Any]:
    """MACE 32x0e with the settings its documentation recommends."""
    return {
        "name": "mace",
        "seed": 1,
        "device": "cpu",
        "default_dtype": "float32",
        "train_file": files[0],
        "valid_file": files[1],
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "model": "MACE",
        "num_channels": 32,
        "max_L": 0,
        "max_ell": 3,
        "correlation": 3,
        "num_interactions": 2,
        "r_max": 5.0,
        "E0s": "average",
        "batch_size": batch,
        "valid_batch_size": 1,
        "max_num_epochs": epochs,
        "ema_decay": 0.99,
        "lr": 0.01,
        "weight_decay": 5e-7,
        "plot": False,
        "work_dir": folder,
    }


def mace_words(peers: Peers, options: Mapping[str, Any]) -> list[str]:
    """The command with these options."""
    words = [f"--{name}={value}" for name, value in options.items()]
    return [peers.program("mace", "mace_run_train"), *words, "--ema", "--amsgrad"]


def sevennet_command(
    peers: Peers, files: Files, batch: int, folder: Path, epochs: int
) -> list[str]:
    """SevenNet with 32 channels."""
    settings = yaml.safe_load((CONFIGS / "sevennet.yaml").read_text())
    settings["train"]["epoch"] = epochs
    settings["data"]["batch_size"] = batch
    settings["data"]["load_trainset_path"] = [str(files[0])]
    settings["data"]["load_validset_path"] = [str(files[1])]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return [peers.program("sevenn", "sevenn"), "train", str(path), "-s"]


def our_command(stores: Files, batch: int, folder: Path, epochs: int) -> list[str]:
    """Our default settings with batches of the same size."""
    options = {
        "data.train": stores[0],
        "data.validation": stores[1],
        "data.batch_structures": batch,
        "data.batch_edges": 100_000,
        "trainer.max_epochs": epochs,
        "trainer.validate_every": 1_000_000,
        "output": folder / "model.safetensors",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [our_program(), "fit", *words]


def our_program() -> str:
    """Path of a command next to the interpreter."""
    return str(Path(sys.executable).with_name("train-potential"))


def commands(
    peers: Peers, files: Files, folder: Path, batch: int, terminal: Console
) -> dict[str, Command]:
    """Start commands of the installed programs, ours first."""
    stores = folder / "fit.h5", folder / "val.h5"
    for source, store in zip(files, stores, strict=True):
        store.unlink(missing_ok=True)
        words = [our_program(), "data", "import", str(source), "-o", str(store)]
        call(terminal, folder / "import.log", words)
    found: dict[str, Command] = {"tesseral": partial(our_command, stores, batch)}
    if peers.installed("mace"):
        found["MACE 32x0e"] = partial(mace_command, peers, files, batch)
    if peers.installed("nequip"):
        for name, title in (("nequip", "NequIP l1"), ("allegro", "Allegro l1")):
            found[title] = partial(nequip_command, peers, name, files, batch)
    if peers.installed("sevenn"):
        found["SevenNet 32 l2"] = partial(sevennet_command, peers, files, batch)
    return found


def train(command: Sequence[str], folder: Path, threads: int) -> Trained:
    """Run a training to its end.

    Raises:
        SystemExit: the training failed; the message has its last lines.
    """
    log = folder / "log.txt"
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=folder, env=environment(threads)
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise SystemExit(f"{command[0]} failed; the end of {log}:\n{end}")
    wall = time.perf_counter() - start
    return Trained(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure_training(
    options: argparse.Namespace, peers: Peers, terminal: Console
) -> list[dict[str, Any]]:
    """Train with each program twice in each round; one row for each program."""
    folder = peers.folder.resolve() / "training"
    files = write_structures(peers, folder, options.structures)
    listed = commands(peers, files, folder, options.batch, terminal)
    if options.only:
        listed = {k: v for k, v in listed.items() if any(word in k for word in options.only)}
    if not listed:
        raise SystemExit(f"--only {','.join(options.only)} fits none of the programs installed")
    few, more = options.epochs[0], options.epochs[1] - options.epochs[0]
    runs: dict[str, list[tuple[Trained, Trained]]] = {name: [] for name in listed}
    epochs = {n: (few, few + more * (OURS if n == "tesseral" else 1)) for n in listed}
    for number in range(options.rounds):
        for name, make in listed.items():
            pair = []
            for length in epochs[name]:
                at = folder / f"{name.replace(' ', '_')}_{length}"
                shutil.rmtree(at, ignore_errors=True)
                at.mkdir(parents=True)
                pair.append(train(make(at, length), at, options.threads))
                terminal.print(
                    f"round {number + 1}: {name}, {length} epochs: {pair[-1].wall:.1f} s",
                    highlight=False,
                )
            runs[name].append((pair[0], pair[1]))
    atoms = {name: 64 * options.structures * (b - a) for name, (a, b) in epochs.items()}
    return [row_of(name, pairs, atoms[name]) for name, pairs in runs.items()]


def row_of(name: str, pairs: Sequence[tuple[Trained, Trained]], atoms: int) -> dict[str, Any]:
    """Medians over the rounds; None if the difference is smaller than that of the start-up."""
    row: dict[str, Any] = {"name": name, "peak_mb": max(b.peak_mb for _, b in pairs)}
    for key, field in (("atoms_per_s", "wall"), ("atoms_per_cpu_s", "cpu")):
        seconds = statistics.median(getattr(b, field) - getattr(a, field) for a, b in pairs)
        row[key] = atoms / seconds if seconds > 0 else None
    return {**row, "runs": [[a._asdict(), b._asdict()] for a, b in pairs]}


def training_sheet(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> Sheet:
    """Table of the throughput."""
    sheet = Sheet(
        f"Training with energy and forces, {options.structures} structures of 64 Si atoms, "
        f"batches of {options.batch}, {options.threads} thread{'s' * (options.threads > 1)}",
        ["potential", "atoms/s", "atoms/CPU s", "ratio", "MB"],
        "ratio: atoms/CPU s of the first relative to this; MB: peak of the whole program",
    )
    for row in rows:
        texts = [cell(row[key]) for key in ("atoms_per_s", "atoms_per_cpu_s")]
        both = rows[0]["atoms_per_cpu_s"], row["atoms_per_cpu_s"]
        ratio = both[0] / both[1] if all(both) else None
        sheet.rows.append([row["name"], *texts, cell(ratio), cell(row["peak_mb"], 4)])
    return sheet
