"""`configs/slurm.sh` with stand-ins for srun and scontrol; what SLURM itself does is not here."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tesseral.deploy.modelfile import read_card

SCRIPT = Path(__file__).resolve().parents[2] / "configs" / "slurm.sh"
SECONDS = 240

# Starts the tasks of one node with the variables that SLURM would set, tells the number of the
# first one, ends with the largest status.
SRUN = """
import os, subprocess, sys
number = int(os.environ["SLURM_NTASKS_PER_NODE"])
program = sys.argv[sys.argv.index("train-potential") + 1:]
tasks = [
    subprocess.Popen(
        [sys.executable, "-m", "tesseral.commands.main", *program],
        env={**os.environ, "SLURM_NTASKS": str(number), "SLURM_PROCID": str(task),
             "SLURM_LOCALID": str(task), "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1",
             "SLURM_STEP_NODELIST": "127.0.0.1"})
    for task in range(number)
]
with open("tasks", "w") as file:
    file.write(" ".join(str(task.pid) for task in tasks))
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""


@pytest.fixture
def start_job(tmp_path, emt_files):
    """Starts the script in the folder of the test; what is left of it is killed in the end."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {
        "srun": f"#!{sys.executable}\n{SRUN}",
        "scontrol": '#!/bin/bash\necho "scontrol $@"\n',
    }.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    started = []

    def start(restarts, *more):
        process = subprocess.Popen(
            [
                *("bash", str(SCRIPT), "model"),
                *("--data.train", str(emt_files[0]), "--data.validation", str(emt_files[1])),
                *("--model.cutoff", "3.6", "--model.layers", "1", "--model.channels", "4"),
                *("--model.l_max", "1", "--model.grid_channels", "4"),
                *("--trainer.accelerator", "cpu", *more),
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "PATH": f"{commands}:{os.environ['PATH']}",
                "SLURM_JOB_ID": f"{os.getpid()}",  # which makes the port
                "SLURM_JOB_NAME": "train-potential",
                "SLURM_NNODES": "1",
                "SLURM_NTASKS": "2",
                "SLURM_NTASKS_PER_NODE": "2",
                "SLURM_CPUS_PER_TASK": "1",
                "SLURM_RESTART_COUNT": str(restarts),
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


@pytest.mark.slow
def test_a_job_out_of_time_is_queued_again_and_goes_on(start_job, tmp_path):
    checkpoint = tmp_path / "runs" / "model" / "last.ckpt"
    job = start_job(0, "--trainer.max_steps", "100000", "--trainer.validate_every", "10")
    until = time.monotonic() + SECONDS
    while not checkpoint.exists():
        assert time.monotonic() < until and job.poll() is None
        time.sleep(0.1)
    for task in (tmp_path / "tasks").read_text().split():
        os.kill(int(task), signal.SIGUSR1)
    text, _ = job.communicate(timeout=SECONDS)
    print(text)
    assert job.returncode == 128 + signal.SIGUSR1
    assert f"scontrol requeue {os.getpid()}" in text
    steps = torch.load(checkpoint, weights_only=True)["global_step"]
    job = start_job(1, "--trainer.max_steps", str(steps + 2))
    text, _ = job.communicate(timeout=SECONDS)
    print(text)
    assert job.returncode == 0
    assert "scontrol" not in text
    assert torch.load(checkpoint, weights_only=True)["global_step"] == steps + 2
    assert read_card(tmp_path / "model.safetensors").training["processes"] == 2
