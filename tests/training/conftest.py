"""Small copper-aluminium cells with the energies, forces and stresses of ASE's EMT."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tesseral.data.loading.datamodule import DataConfig
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.training.config import FitConfig, OptimizationConfig, TrainerConfig

MODEL = FacetConfig(cutoff=3.6, layers=1, channels=4, grid_channels=4, l_max=1)


@pytest.fixture
def fit_config(emt_files, tmp_path):
    """Makes configurations of short trainings in float64; arguments are those of the trainer."""

    def make(
        name="model",
        *,
        model=None,
        optimization=None,
        batch_structures=4,
        ckpt_path=None,
        **trainer,
    ):
        return FitConfig(
            data=DataConfig(
                train=str(emt_files[0]),
                validation=str(emt_files[1]),
                batch_structures=batch_structures,
            ),
            model=model or MODEL,
            optimization=OptimizationConfig(**{"dtype": "float64", **(optimization or {})}),
            trainer=TrainerConfig(
                **{"accelerator": "cpu", "enable_progress_bar": False, "max_steps": 6, **trainer}
            ),
            output=str(tmp_path / f"{name}.safetensors"),
            ckpt_path=ckpt_path,
        )

    return make


@pytest.fixture
def start_fit():
    """Starts `train-potential fit` in a process of its own, on one thread.

    What is left of it when the test ends is killed. Children hold its output open: it has come to
    its end only when none of them is left.
    """
    started = []

    def start(config, *more, accident=None, torchrun=None):
        program = ["-m", "tesseral.commands.main"]
        if accident is not None:
            program = [str(Path(__file__).with_name("accident.py"))]
        if torchrun is not None:
            program = ["-m", "torch.distributed.run", "--nproc-per-node", str(torchrun), *program]
        command = [
            *(sys.executable, *program, "fit"),
            *("--data.train", config.data.train, "--data.validation", config.data.validation),
            *("--model.cutoff", "3.6", "--model.layers", "1", "--model.channels", "4"),
            *("--model.grid_channels", "4", "--model.l_max", "1", "--trainer.accelerator", "cpu"),
            *("--output", config.output, "--optimization.dtype", "float64", *more),
        ]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCIDENT": accident or ""},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()  # torchrun ends its processes, which are in sessions of their own
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
