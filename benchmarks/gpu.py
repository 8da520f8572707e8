"""Facet and a universal potential on a GPU: proof that their numbers are right, time and memory.

    python -m benchmarks.gpu [--sizes 8,64,…,1000000] [--minutes 4.5] [--peers FOLDER] [--dry]
        [--output runs/gpu]

The proof: energies, forces and virials of warm silicon from the GPU in float64 and float32 beside
those of plain PyTorch on the CPU, gradients by the weights beside those of autograd, and repeated
calls to the bit. The times by number of atoms, in float32, for Facet and for a NequIP potential of
the size of SevenNet-0 with random weights, which take the same time as its own: the model alone
with its list given, for small systems also without a recorded CUDA graph; a whole ASE step (energy,
forces, stress) whose atoms have moved so far that the neighbour list is made anew; and, for Facet,
a training step with the kernels and in plain PyTorch, a step of many small crystals in one call
(joined relaxations; torch-sim, if it is installed), and a step of MD in LAMMPS, if it is. With
--peers, the same ASE step of MACE and SevenNet-0, also with cuEquivariance, in as much time again;
their environments are FOLDER/mace and FOLDER/sevenn. With --dry, tiny systems run on the CPU by the
same kernels, compiled with g++; the times then say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks import gpu_runs
from benchmarks.machine import machine
from benchmarks.ours import random_model, warm_graph
from benchmarks.ours_training import Training
from benchmarks.plots import plot_scaling
from benchmarks.sheets import save
from benchmarks.silicon import noise, supercell
from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.graph import AtomicGraph
from tesseral.deploy.modelfile import save_model
from tesseral.potentials.derivatives import Prediction, predict
from tesseral.potentials.engine import evaluate as engine
from tesseral.potentials.engine.gpu import capture, training
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.engine.gpu.cuda import CudaError, machine_code
from tesseral.potentials.engine.gpu.host import HostKernels, record, record_update
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops
from tesseral.training.config import OptimizationConfig

SIZES = [8, 64, 216, 512, 1000, 4096, 8000, 32768, 110592, 262144, 1000000]
TRAINING_SIZES = [256, 8192]
CRYSTALS = [64, 1024]
LAMMPS_SIZES = [4096, 32768]
MODELS: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {"l_max": 2, "channels": 8, "grid_channels": 8},
    "wide": {"l_max": 3, "channels": 64, "grid_channels": 64, "layers": 3},
    "with nuclei": {"zbl": True, "mixings": 2},
    "universal": {
        **{"architecture": "nequip", "cutoff": 5.0, "layers": 5, "l_max": 2, "channels": 128},
        **{"channels_by_degree": [128, 64, 32], "odd_paths": True, "gates": "silu"},
        **{"element_self_connection": False, "linear_readout": True},
        **{"spline_intervals": 400, "kinks": [4.5, 5.0]},
    },
    "small NequIP": {"architecture": "nequip", "l_max": 1, "channels": 8, "field_norm": True},
}
TIMED = ("default", "universal")
PEERS = [
    (name, place, cueq)
    for cueq in (True, False)
    for name, place in (("mace", "mace"), ("sevennet-0", "sevenn"))
]
ROOT = Path(__file__).parent.parent
NAMES = ("atomic_energies", "forces", "virial")


def on(graph: AtomicGraph, device: str) -> AtomicGraph:
    """The graph on a device."""
    return AtomicGraph(*(part.to(device) for part in graph))


def prepared(config: dict[str, Any], dtype: torch.dtype, device: str) -> MessagePassing:
    """A potential of silicon with random weights that is computed by the kernels.

    Raises:
        RuntimeError: the kernels cannot be used.
    """
    potential = random_model(config)[0].to(dtype).to(device).eval().requires_grad_(False)
    select_ops(potential)
    if not gpu.applies(potential):
        raise RuntimeError("the kernels are not used; the warning says why")
    return potential


def proof(device: str, models: Sequence[str]) -> list[dict[str, Any]]:
    """Deviations from the CPU in units of the largest value, and whether repeated calls agree."""
    rows = []
    for name in models:
        plain, card = random_model(MODELS[name])
        graph = warm_graph(card, 64, seed=1)
        exact = predict(select_ops(plain.double().requires_grad_(False), "reference"), graph)
        for dtype in (torch.float64, torch.float32):
            start = time.perf_counter()
            potential = prepared(MODELS[name], dtype, device)
            seconds = time.perf_counter() - start
            moved = on(graph, device)
            one, other = predict(potential, moved), predict(potential, moved)
            row: dict[str, Any] = {"model": name, "dtype": str(dtype).removeprefix("torch.")}
            row |= {part: deviation(one, exact, part) for part in NAMES}
            same = [torch.equal(getattr(one, part), getattr(other, part)) for part in NAMES]
            row |= {"same to the bit": all(same), "seconds to compile": round(seconds, 2)}
            row |= gradients(potential)
            print(row, flush=True)
            rows.append(row)
    return rows


def gradients(potential: MessagePassing) -> dict[str, Any]:
    """Deviation of gradients by the weights from autograd, and whether repeated ones agree."""
    start = time.perf_counter()
    if not gpu.trains(potential):
        return {"by weights": None}
    seconds = time.perf_counter() - start
    form, kernels = gpu.form_of(potential), gpu.training_kernels(potential)
    assert form is not None and kernels is not None
    found = training.deviation(potential, kernels, form.train)
    return {"by weights": found, "seconds to compile training": round(seconds, 2)}


def deviation(found: Prediction, exact: Prediction, part: str) -> float:
    """Largest difference in units of the largest value."""
    one, other = getattr(found, part).cpu(), getattr(exact, part)
    return float((one - other).abs().max() / other.abs().max())


def median_seconds(task: Callable[[], object], device: str, seconds: float) -> float:
    """Median duration of a task after three warm-up calls."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 6 or (time.perf_counter() - start < seconds and len(times) < 200):
        wait(device)
        before = time.perf_counter()
        task()
        wait(device)
        times.append(time.perf_counter() - before)
    return float(np.median(times[3:]))


def wait(device: str) -> None:
    """Until the GPU has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def inference(
    device: str, model: str, sizes: Sequence[int], seconds: float, until: float
) -> list[dict[str, Any]]:
    """Time and memory of a step of a model by number of atoms."""
    config = MODELS[model]
    potential, card = prepared(config, torch.float32, device), random_model(config)[1]
    form = gpu.form_of(potential)
    assert form is not None
    calculator = TesseralCalculator.from_model(potential, card)
    rows: list[dict[str, Any]] = []
    for n in sizes:
        if time.perf_counter() > until:
            print(f"no time left for {n} atoms", flush=True)
            break
        atoms = supercell(n)
        atoms.calc, lattice = calculator, atoms.positions.copy()
        random = np.random.default_rng(n)

        def step(atoms: Any = atoms, lattice: Any = lattice, random: Any = random) -> None:
            atoms.positions = lattice + noise(len(atoms), random)
            calculator.neighbors.forget()
            atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()

        graph = on(warm_graph(card, n, seed=1), device)
        row: dict[str, Any] = {"model": model, "atoms": n, "edges": len(graph.senders)}
        try:
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            task = lambda graph=graph: predict(potential, graph)  # noqa: E731
            row["model_us_atom"] = 1e6 * median_seconds(task, device, seconds) / n
            if n <= capture.LARGEST:
                with patch.object(capture, "LARGEST", 0):
                    row["not_recorded_us_atom"] = 1e6 * median_seconds(task, device, seconds) / n
            if device == "cuda":
                row["bytes_atom"] = (torch.cuda.max_memory_allocated() - before) / n
            row["ase_us_atom"] = 1e6 * median_seconds(step, device, seconds) / n
        except RuntimeError as error:
            row["error"] = str(error)
        row["bytes_atom_expected"] = (
            gpu.bytes_needed(n, len(graph.senders), form.sizes_of(potential)) / n
        )
        print(row, flush=True)
        rows.append(row)
        if "error" in row:
            break
    return rows


def steps(
    device: str, model: str, sizes: Sequence[int], seconds: float, until: float
) -> list[dict[str, Any]]:
    """Time of a training step of a model by number of atoms, in float32.

    Radial functions of NequIP potentials are frozen, as in fine-tuning.
    """
    frozen = {"layers.*.convolution": 0.0} if "NequIP" in model or model == "universal" else {}
    rows: list[dict[str, Any]] = []
    for n in sizes:
        for kind in ("kernels", "not recorded", "PyTorch"):
            if time.perf_counter() > until:
                print(f"no time left for training on {n} atoms", flush=True)
                return rows
            calls = sys.maxsize if kind == "not recorded" else capture.CALLS
            ops = "reference" if kind == "PyTorch" else "auto"
            row: dict[str, Any] = {"model": model, "atoms": n, "kind": kind}
            try:
                with patch.object(capture, "CALLS", calls):
                    about = MODELS[model], ops, max(1, n // 64), min(n, 64), device
                    own = Training(*about, OptimizationConfig(part_rates=frozen))
                    spent = median_seconds(own.step()[1], device, seconds)
                row |= {"step_ms": 1e3 * spent, "atoms_per_second": n / spent}
            except RuntimeError as error:
                row["error"] = str(error)
            print(row, flush=True)
            rows.append(row)
    return rows


def runs(device: str, tiny: bool, seconds: float, until: float) -> dict[str, Any]:
    """Batches of small crystals and LAMMPS, for the default model, or the small one if tiny."""
    name = "small" if tiny else "default"
    calculator = TesseralCalculator.from_model(
        prepared(MODELS[name], torch.float32, device), random_model(MODELS[name])[1]
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(path, *random_model(MODELS[name]))
        median = partial(median_seconds, device=device, seconds=seconds)
        sizes = [2] if tiny else CRYSTALS
        found = {"batches": gpu_runs.batches(calculator, path, sizes, median, until)}
    if device == "cuda":  # there is no driver for it on a CPU
        found["lammps"] = gpu_runs.lammps(MODELS[name], LAMMPS_SIZES, until)
    return found


def peers(folder: Path, device: str, sizes: Sequence[int], minutes: float) -> list[dict[str, Any]]:
    """Times of an ASE step of other potentials by number of atoms."""
    rows: list[dict[str, Any]] = []
    for name, environment, cueq in PEERS:
        python = folder / environment / "bin" / "python"
        command = [str(python.absolute()), "-m", "benchmarks.gpu_peers", name, "--device", device]
        command += ["--sizes", ",".join(map(str, sizes)), "--minutes", str(minutes / len(PEERS))]
        command += ["--cueq"] if cueq else []
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        except FileNotFoundError:
            print(f"there is no {python}", flush=True)
            continue
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if not found:
            reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            found = [{"model": name, "cuEquivariance": cueq, "error": reason}]
        for row in found:
            print(row, flush=True)
        rows += found
    return rows


@contextmanager
def cpu_as_gpu(folder: Path) -> Iterator[None]:
    """Within the block the kernels compiled for the CPU, in a folder, pass for those of a GPU."""
    make = lru_cache(lambda text, *about: HostKernels(text, folder))
    with (
        patch.object(gpu, "on_gpu", lambda potential: True),
        patch.object(gpu, "make_kernels", make),
        patch.object(gpu, "record", record),
        patch.object(capture, "record", record),
        patch.object(capture, "record_update", record_update),
        patch.object(engine, "can_pack", lambda potential: False),
    ):
        yield


def why_not() -> str | None:
    """Reason why there is nothing to measure, or None."""
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU here; use --dry to try this script on the CPU"
    try:
        machine_code("", torch.cuda.get_device_capability())
    except CudaError as error:
        return str(error)
    return None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--minutes", type=float, default=4.5)
    parser.add_argument("--peers", type=Path, help="folder of the environments of the peers")
    parser.add_argument("--dry", action="store_true", help="try everything on the CPU")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, device: str, name: str) -> None:
    """Prove, measure, save and plot."""
    until = time.perf_counter() + 60 * options.minutes
    tiny = options.dry
    sizes = options.sizes or ([8, 64] if tiny else SIZES)
    results: dict[str, Any] = {"machine": machine() | {"GPU": name}}
    small = [name for name in MODELS if name.startswith("small")]
    results["proof"] = proof(device, small if tiny else list(MODELS))
    seconds = 0.2 if tiny else 2.0
    results["training"] = []
    for model in small if tiny else TIMED:
        atoms = [8] if tiny else TRAINING_SIZES
        results["training"] += steps(device, model, atoms, seconds, until)
    results |= runs(device, tiny, seconds / 2, until)
    results["inference"] = []
    for number, model in enumerate(models := small if tiny else TIMED):
        now = time.perf_counter()
        share = now + (until - now) / (len(models) - number)
        results["inference"] += inference(device, model, sizes, seconds, share)
    if options.peers is not None:
        results["peers"] = peers(options.peers, device, sizes, options.minutes)
    save(options.output / "gpu.json", results)
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in [*results["inference"], *results.get("peers", [])]:
        for label, key in (("list given", "model_us_atom"), ("ASE step", "ase_us_atom")):
            if key in row:
                point = row["atoms"], 1e-6 * row[key] * row["atoms"]
                curves.setdefault(f"{row['model']}, {label}", []).append(point)
    plot_scaling(curves, f"Energy, forces and stress; {name}", options.output / "gpu.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.dry:
        with TemporaryDirectory() as folder, cpu_as_gpu(Path(folder)):
            measure(options, "cpu", "no GPU: the kernels on the CPU")
        return
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    torch.backends.cuda.matmul.allow_tf32 = False
    measure(options, "cuda", torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
