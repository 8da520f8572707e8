"""Write files of the installed version for the tests of later versions.

    python tests/compatibility/write_files.py tests/compatibility/files/VERSION [MODEL …]

Models of all architectures with random weights, a dataset, two trainings that can be resumed, an
export, and folders of `relax` and `md` that were stopped half way; and ``expected.json`` with what
this version computes from them. Uses the commands, and few names of the package beside them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from tesseral import TesseralCalculator, open_store
from tesseral.deploy.card import card_from_json
from tesseral.deploy.modelfile import build_potential, save_model

ELEMENTS = (1, 6, 8, 14)
SIZE = {"cutoff": 4.0, "layers": 2, "channels": 4, "spline_intervals": 8}
FACET = {**SIZE, "l_max": 2, "grid_channels": 4}
NEQUIP = {**SIZE, "architecture": "nequip", "l_max": 2}

MODELS: dict[str, dict[str, Any]] = {  # the config, by name of the model file
    "facet": {**FACET, "l_max": 4, "channels": 6, "grid_channels": 6},
    "facet_relaxed": {**FACET, "relaxed": True},
    "facet_silu": {**FACET, "activation": "silu", "grid_points": 50},
    "facet_order_3": {**FACET, "order": 3},
    "facet_mixings": {**FACET, "mixings": 2, "l_max": 3, "l_max_edge": 2, "l_max_message": 1},
    "facet_grid": {**FACET, "grid_points": 86, "layers": 1},
    "facet_zbl": {**FACET, "zbl": True, "spline_intervals": 5, "cutoff": 4.5},
    "facet_binding": {**FACET, "channels": 6, "grid_channels": 5},
    "facet_three_layers": {**FACET, "layers": 3, "l_max": 1},
    "nequip": NEQUIP,
    "nequip_universal": {
        **NEQUIP,
        "channels_by_degree": [4, 3, 2],
        "spline_intervals": 20,
        "kinks": [3.4, 4.0],
        "gates": "silu",
        "odd_paths": True,
        "element_self_connection": False,
        "biases": True,
        "linear_readout": True,
    },
    "nequip_zbl": {**NEQUIP, "l_max": 1, "channels": 8, "zbl": True},
    "ponita": {**SIZE, "architecture": "ponita", "l_max": 2, "orientations": 14},
    "ponita_random": {
        **SIZE,
        "architecture": "ponita",
        "l_max": 1,
        "orientations": 6,
        "random_orientations": True,
    },
    "segnn": {**SIZE, "architecture": "segnn", "l_max": 2},
    "segnn_edges": {**SIZE, "architecture": "segnn", "l_max": 1, "l_max_edge": 2},
    "painn": {**SIZE, "architecture": "painn", "channels": 8},
    "egnn": {**SIZE, "architecture": "egnn", "channels": 8},
    "egnn_still": {**SIZE, "architecture": "egnn", "move_atoms": False},
    "schnet": {**SIZE, "architecture": "schnet", "channels": 8},
    "dimenet": {**SIZE, "architecture": "dimenet", "l_max": 2},
    "frames": {**SIZE, "architecture": "frames", "l_max": 2, "frame_cutoff": 2.5},
    "lieconv": {**SIZE, "architecture": "lieconv", "l_max": 1, "orientations": 24},
    "mace": {**SIZE, "architecture": "mace", "l_max": 2},
    "mace_cormorant": {
        **{**SIZE, "architecture": "mace", "l_max": 1, "l_max_message": 1},
        **{"trees": ["A", "(A x)", "(x x)"]},
    },
    "se3transformer": {**SIZE, "architecture": "se3transformer", "l_max": 2, "heads": 2},
}
BINDING = {"facet_binding": (0.5, 1.5, 1.0, 2.0)}
SINGLE = ("facet_grid", "schnet")  # these are written in float32, the others in float64
OLD = "tesseral.training.cli"  # the commands of version 0.1.0
PROGRAM = [sys.executable, "-m", OLD if find_spec(OLD) else "tesseral.commands.main"]
EXPORTED = "nequip_universal"
SIMULATED = "facet_zbl"
TINY = [
    *("--model.cutoff", "3.6", "--model.layers", "1", "--model.channels", "4"),
    *("--model.grid_channels", "4", "--model.l_max", "1", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--optimization.dtype", "float64"),
    *("--data.batch_structures", "4", "--trainer.validate_every", "2"),
]
FITS = {
    "plain": [],
    "levels": [
        *("--data.theory", "scaled", "--model.relaxed", "true"),
        *("--optimization.relaxed_weight_decay", "0"),  # else nothing is broken so soon
    ],
}
RELAX = ["relax", "structures.extxyz", "--fixed-cell", "--fmax", "1e-4", "--steps", "16"]
MD = ["md", "structures.extxyz", "--time", "0.02", "--timestep", "0.5", "--every", "2"]


def main(folder: Path, names: Sequence[str] = ()) -> None:
    """Write everything to a new folder, or only the models with these names."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    places = structures()
    expected: dict[str, Any] = {
        "written by": version("tesseral"),
        "structures": {name: plain(atoms) for name, atoms in places.items()},
        "models": {},
    }
    (folder / "models").mkdir()
    for number, name in enumerate(MODELS):
        if names and name not in names:
            continue
        path = folder / "models" / f"{name}.safetensors"
        write_model(path, name, number)
        plain_torch, kernels = (numbers(path, places, ops) for ops in ("reference", "fused"))
        assert_near(kernels, plain_torch)
        expected["models"][name] = {"info": info(path), "numbers": plain_torch}
    if not names:
        write_rest(folder, expected)
    text = json.dumps(expected, indent=1, allow_nan=False)
    text = re.sub(r"\[\s+([^\[\]{}]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


def write_rest(folder: Path, expected: dict[str, Any]) -> None:
    """An export, a dataset, trainings and runs; what they give is added to ``expected``."""
    command("export", f"models/{EXPORTED}.safetensors", "-o", "exported.pt", inside=folder)
    expected["exported"] = EXPORTED
    write_store(folder / "store.h5")
    expected["store"] = describe_store(folder / "store.h5")
    expected["fits"] = {name: write_fit(folder, name, options) for name, options in FITS.items()}
    expected["runs"] = {
        words[0]: write_run(folder, words, kill) for words, kill in ((RELAX, 6), (MD, 6))
    }


def command(*words: object, inside: Path, fine: tuple[int, ...] = (0,)) -> str:
    """What the installed `train-potential` prints; its status must be fine."""
    done = subprocess.run(
        [*PROGRAM, *map(str, words)],
        cwd=inside,
        env={**os.environ, "COLUMNS": "2000", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in fine, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


def structures() -> dict[str, Atoms]:
    """What the models are evaluated on."""
    generator = np.random.default_rng(0)
    crystal = bulk("SiC", "zincblende", a=4.4, cubic=True)
    crystal.symbols[1] = "O"
    rattled = bulk("SiC", "zincblende", a=4.3)
    rattled.symbols[0] = "C"
    rattled *= (2, 1, 1)
    rattled.symbols[1] = "H"
    rattled.set_cell(rattled.cell.array @ (np.eye(3) + 0.04 * generator.normal(size=(3, 3))), True)
    rattled.positions += 0.08 * generator.normal(size=(len(rattled), 3))
    return {"crystal": crystal, "rattled": rattled, "molecule": molecule("CH3CHO")}


def plain(atoms: Atoms) -> dict[str, Any]:
    """Atoms as JSON."""
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.ravel().tolist(),
        "cell": atoms.cell.array.ravel().tolist(),
        "pbc": atoms.pbc.tolist(),
    }


def write_model(path: Path, name: str, seed: int) -> None:
    """A model with random weights, none of them zero, and forces of some 0.5 eV/Å."""
    content = {
        "format_version": 1,
        "config": {"l_max_message": 2, **MODELS[name]},  # cards without it are older
        "elements": ELEMENTS,
        "reference_energies": (-0.5, -1.5, -2.0, -2.5),
        "binding_energies": BINDING.get(name, ()),
        "energy_scale": 1.0,
        "mean_neighbors": 18.0,
        "dtype": "float32" if name in SINGLE else "float64",
        "training": {"file": "none", "structures": 0},
    }

    def build() -> tuple[torch.nn.Module, Any]:
        card = card_from_json(json.dumps(content))
        torch.manual_seed(seed)
        potential = build_potential(card, "reference")
        with torch.no_grad():
            for weight in potential.parameters():
                if not bool(weight.any()):  # biases, and what breaks a symmetry
                    weight.add_(0.2 * torch.randn_like(weight))
        return potential, card

    save_model(path, *build())
    atoms = structures()["rattled"]
    atoms.calc = TesseralCalculator(path, dtype="float64", ops="reference")
    size = float(np.sqrt((atoms.get_forces() ** 2).mean()))
    content["energy_scale"] = float(f"{0.5 / size:.6g}")
    save_model(path, *build())


def info(path: Path) -> dict[str, str]:
    """The rows of `train-potential info`."""
    lines = command("info", path.resolve(), inside=path.parent).splitlines()
    return dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines if line.strip())


def numbers(path: Path, places: dict[str, Atoms], ops: str) -> dict[str, dict[str, Any]]:
    """Energy, forces and stress in float64 of each structure."""
    calculator = TesseralCalculator(path, device="cpu", dtype="float64", ops=ops)
    found = {}
    for name, atoms in places.items():
        atoms = atoms.copy()
        atoms.calc = calculator
        found[name] = {"energy": atoms.get_potential_energy(), "forces": flat(atoms.get_forces())}
        if atoms.pbc.any():
            found[name]["stress"] = flat(atoms.get_stress())
    return found


def assert_near(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Both kinds of operators must agree to rounding, so that one set of numbers serves both."""
    for place, found in first.items():
        for label, values in found.items():
            expected = np.asarray(second[place][label])
            apart = np.abs(np.asarray(values) - expected).max()
            assert apart < 1e-12 * max(1.0, np.abs(expected).max()), f"{place} {label}: {apart}"


def flat(values: Any) -> list[float]:
    """An array as JSON."""
    return [float(value) for value in np.asarray(values).ravel()]


def write_store(path: Path) -> None:
    """A dataset with two theories, groups, isolated atoms, clusters, and labels that are missing.

    The second theory is EMT with other scales and references.
    """
    generator = np.random.default_rng(1)
    frames = []
    for i in range(22):
        atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
        if i % 3 == 1:
            atoms.numbers[:2] = 13
        change = np.eye(3) + 0.02 * generator.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ change, True)
        atoms.rattle(0.12, rng=generator)
        frames.append(labelled(atoms, i % 2 == 1, stress=i != 4))
        frames[-1].info |= {"config_type": "alloy" if i % 3 == 1 else "copper", "group": f"g{i}"}
    for number in (13, 29):
        for scaled in (False, True):
            frames.append(labelled(Atoms([number], [[0.0, 0.0, 0.0]]), scaled))
            frames[-1].info |= {"config_type": "atom", "group": f"atom {number} {scaled}"}
    cluster = Atoms("Cu2Al", [[0, 0, 0], [2.5, 0, 0.2], [1.0, 2.2, 0]])
    frames.append(labelled(cluster, True))
    frames[-1].info |= {"config_type": "cluster", "group": "cluster"}
    frames[2].calc.results.pop("forces")
    ase.io.write(path.with_name("frames.extxyz"), frames)
    command(
        *("data", "import", "frames.extxyz", "-o", path.name, "--processes", 1),
        *("--allow-missing", "forces", "--allow-missing", "stress"),
        inside=path.parent,
    )
    path.with_name("frames.extxyz").unlink()


def labelled(atoms: Atoms, scaled: bool, stress: bool = True) -> Atoms:
    """With the labels of EMT, or of the other theory."""
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    found = {"energy": energy, "forces": forces}
    if atoms.pbc.any() and stress:
        found["stress"] = atoms.get_stress()
    if scaled:
        found = {name: 1.15 * value for name, value in found.items()}
        found["energy"] += 2.0 * len(atoms)
    atoms.calc = SinglePointCalculator(atoms, **found)
    atoms.info["theory"] = "scaled" if scaled else "EMT"
    return atoms


def describe_store(path: Path) -> dict[str, Any]:
    """What the tests compare."""
    store = open_store(path)
    return {
        "content_hash": store.content_hash,
        "structures": len(store),
        "rows": {
            str(row): {
                name: value if isinstance(value, str) else _values(value)
                for name, value in store[row]._asdict().items()
            }
            for row in (0, 1, 2, 4, 22, 23, len(store) - 1)
        },
    }


def _values(array: Any) -> Any:
    """A label or a property as JSON; None where it is missing."""
    flat_array = np.asarray(array).ravel()
    if np.isnan(flat_array).all():
        return None
    return flat_array.tolist()


def write_fit(folder: Path, name: str, options: list[str]) -> dict[str, Any]:
    """A training of 6 steps; what 4 more make of it is computed in a copy."""
    words = ["fit", "--data.train", "store.h5", *TINY, *options]
    output = ["--output", f"fits/{name}.safetensors"]
    command(*words, *output, "--trainer.max_steps", 6, inside=folder)
    run = folder / "fits/runs" / name
    for path in run.iterdir():
        if path.name != "last.ckpt":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    more = ["--trainer.max_steps", 10, "--ckpt_path", "last"]
    copy = folder.with_name(f"{folder.name}.copy")
    shutil.copytree(folder, copy)
    command(*words, *output, *more, inside=copy)
    checkpoint = torch.load(copy / "fits/runs" / name / "last.ckpt", weights_only=True)
    shutil.rmtree(copy)
    history = checkpoint["callbacks"]["FitRun"]["history"]
    return {
        "command": [str(word) for word in (*words, *output, *more)],
        "steps": checkpoint["global_step"],
        "losses": {str(entry["step"]): entry["loss"] for entry in history},  # of the average
        "weights": {
            key: flat(value)
            for key, value in checkpoint["state_dict"].items()
            if key.startswith("potential.") and value.is_floating_point() and value.numel() < 500
        },
    }


def write_run(folder: Path, words: list[str], frames: int) -> dict[str, Any]:
    """A run of two structures, killed in the second one, and how it ends in a copy."""
    verb = words[0]
    inside = folder / "runs"
    inside.mkdir(exist_ok=True)
    first = structures()["molecule"]
    second = structures()["rattled"]
    ase.io.write(inside / "structures.extxyz", [first, second])
    words = [*words, "--dtype", "float64", "-o", verb]
    words += ["--model", f"../models/{SIMULATED}.safetensors"]
    process = subprocess.Popen(
        [*PROGRAM, *words],
        cwd=inside,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    trajectory = inside / verb / "structures/structures-1.traj"
    while count_frames(trajectory) < frames:
        assert process.poll() is None, f"{verb} came to its end"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (inside / verb / ".lock").unlink()
    print(f"{verb}: {count_frames(trajectory)} frames of the second structure")
    copy = folder.with_name(f"{folder.name}.copy")
    shutil.copytree(folder, copy)
    command(*words, inside=copy / "runs", fine=(0, 1))  # 1: not converged
    last, frames = {}, {}
    for name in ("structures-0", "structures-1"):
        path = copy / f"runs/{verb}/structures/{name}.traj"
        last[name], frames[name] = plain(ase.io.read(path)), count_frames(path)
    shutil.rmtree(copy)
    status = int(verb == "relax")
    return {"command": words, "status": status, "last": last, "frames": frames}


def count_frames(path: Path) -> int:
    """Frames that can be read of a trajectory that is being written."""
    try:
        with ase.io.Trajectory(path) as frames:
            return len(frames)
    except Exception:  # there is none yet, or it is being written
        return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
