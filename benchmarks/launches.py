"""Launches of a training step on a GPU, counted on the CPU.

    python -m benchmarks.launches [--structures 4] [--models default,universal] [--details]

The kernels run on the CPU and pass for those of a GPU. Counted are the operations of PyTorch that
compute or copy something, and our kernels: all of them in a step that is not recorded, and those
beside the recorded graphs in a step that is. They do not depend on the number of atoms. SOAP
updates its eigenvectors in every tenth step, which is not recorded.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from benchmarks.gpu import MODELS, cpu_as_gpu
from benchmarks.ours_training import Training
from tesseral.potentials.engine.gpu import capture, host
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.training.config import OptimizationConfig

FREE = set(  # operations that only make views or reserve memory
    (
        "view _unsafe_view _reshape_alias as_strided expand transpose t permute slice select "
        "unbind split split_with_sizes unsqueeze squeeze detach alias empty empty_like new_empty "
        "empty_strided new_empty_strided lift_fresh _record_function_enter_new "
        "_record_function_exit set_ diagonal _local_scalar_dense"
    ).split()
)


class Launches(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        """Start from zero."""
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count, and run."""
        name = func.overloadpacket.__name__
        if name not in FREE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Launches]:
    """The CPU passes for a GPU; launches within the block, a recorded graph as one."""
    launches = Launches()

    def one(replay: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            launches.counts["graph"] += 1
            kept = launches.counts.copy()
            with _disable_current_modes():
                replay()
            launches.counts = kept

        return run

    def record(function: Callable[[], Any]) -> Any:
        results, again = host.record(function)
        return results, one(again)

    with TemporaryDirectory() as folder, cpu_as_gpu(Path(folder)):
        make = gpu.make_kernels

        @lru_cache
        def count(text: str, *about: Any) -> Any:
            kernels = make(text, *about)

            def run(name: str, *arguments: Any) -> None:
                launches.counts["our kernels"] += 1
                kernels(name, *arguments)

            return run

        with (
            patch.object(gpu, "make_kernels", count),
            patch.object(capture, "record", record),
            patch.object(capture, "record_update", one),
        ):
            yield launches


def steps(model: str, optimizer: str, structures: int, calls: int) -> list[Counter[str]]:
    """Launches of step 10 (from 0), after which SOAP updates its eigenvectors, and of step 13.

    Args:
        model: name of a model of ``benchmarks.gpu``.
        optimizer: soap or adam.
        structures: number of structures of 8 atoms.
        calls: number of steps before they are recorded.
    """
    found = []
    with counted() as launches, patch.object(capture, "CALLS", calls):
        options = OptimizationConfig(optimizer=optimizer)  # type: ignore[arg-type]
        training = Training(MODELS[model], "auto", structures, 8, optimization=options)
        for number in range(14):
            launches.counts.clear()
            with launches:
                training.step()[1]()
            if number in (10, 13):
                found.append(launches.counts.copy())
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=4, help="of 8 atoms")
    parser.add_argument("--models", default="default,universal")
    parser.add_argument("--details", action="store_true", help="operations by name")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)
    print(
        "| model | optimiser | not recorded: operations | our kernels | recorded: launches "
        "| with eigenvectors |\n|---|---|--:|--:|--:|--:|"
    )
    for model in options.models.split(","):
        for optimizer in ("soap", "adam"):
            _, plain = steps(model, optimizer, options.structures, 100)
            tenth, recorded = steps(model, optimizer, options.structures, 2)
            own = plain.pop("our kernels")
            print(
                f"| {model} | {optimizer} | {plain.total()} | {own} | {recorded.total()} "
                f"| {tenth.total()} |",
                flush=True,
            )
            if options.details:
                print(f"not recorded: {plain.most_common()}\nrecorded: {recorded.most_common()}")


if __name__ == "__main__":
    main()
