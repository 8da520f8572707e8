"""Registers, memory and occupancy of the kernels for GPUs, from the compiler; needs no GPU.

    python -m benchmarks.gpu_kernels NVRTC [--training] [--architecture sm_90]
        [--dtype float32] [--model default]

NVRTC is the file of the library, such as libnvrtc.so.12 of the package nvidia-cuda-nvrtc-cu12.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import MODELS
from benchmarks.ours import random_model
from tesseral.potentials.engine.gpu.cuda import compiled
from tesseral.potentials.engine.gpu.evaluate import form_of
from tesseral.potentials.engine.gpu.source import AnySizes

# Of one multiprocessor, compute capability 8.0 and 9.0.
REGISTERS, THREADS, BLOCKS, SHARED = 65536, 2048, 32, 227 * 1024


def occupancy(registers: int, shared: int, block: int) -> float:
    """Part of the threads of a multiprocessor that can be in use, with blocks of some threads."""
    warps = -(-block // 32)
    per_warp = -(-registers * 32 // 256) * 256
    fitting = min(
        BLOCKS,
        REGISTERS // (per_warp * warps),
        THREADS // (32 * warps),
        SHARED // (shared + 1024),  # 1 kB of each block belongs to the system
    )
    return fitting * warps * 32 / THREADS


def parsed(log: str, sizes: AnySizes) -> list[dict[str, Any]]:
    """One row for each kernel of the compiler's report."""
    rows = []
    pattern = (
        r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers([^\n]*)"
    )
    for name, stores, _, registers, rest in re.findall(pattern, log, re.DOTALL):
        found = re.search(r"(\d+) bytes smem", rest)
        shared = int(found[1]) if found else 0
        block = sizes.group * sizes.groups
        row = {"kernel": name, "registers": int(registers), "spilled": int(stores)}
        row |= {"shared": shared, "occupancy": occupancy(int(registers), shared, block)}
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nvrtc", type=Path)
    parser.add_argument("--architecture", default="sm_90")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--training", action="store_true", help="the kernels of training")
    parser.add_argument("--cubin", type=Path, help="file to write the machine code to")
    parser.add_argument("--model", choices=MODELS, default="default")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    potential = random_model(MODELS[options.model])[0].to(getattr(torch, options.dtype))
    form = form_of(potential)
    make = form and (form.training_source if options.training else form.source)
    if form is None or make is None:
        raise SystemExit(f"there are no such kernels for the model {options.model!r}")
    sizes = form.sizes_of(potential)
    start = time.perf_counter()
    image, log = compiled(
        ctypes.CDLL(str(options.nvrtc)),
        make(sizes),
        options.architecture,
        ["--ptxas-options=-v"],
    )
    seconds = time.perf_counter() - start
    print(
        f"{options.architecture}, {options.dtype}: compiled in {seconds:.1f} s, {len(image)} bytes"
    )
    print(
        "| kernel | registers | spilled bytes | shared bytes | occupancy |\n|---|---|---|---|---|"
    )
    for row in sorted(parsed(log, sizes), key=lambda row: str(row["kernel"])):
        print(
            f"| `{row['kernel']}` | {row['registers']} | {row['spilled']} | {row['shared']} "
            f"| {row['occupancy']:.0%} |"
        )
    if options.cubin:
        options.cubin.write_bytes(image)


if __name__ == "__main__":
    main()
