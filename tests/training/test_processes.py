"""What happens when a process of a training is lost: a sentence, a checkpoint, an end."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from tesseral.deploy.modelfile import load_model
from tesseral.training.config import TrainerConfig
from tesseral.training.fit import fit
from tesseral.training.processes import (
    LOST,
    PARENT,
    Watch,
    cluster_environment,
    is_lost_contact,
    own_rank,
)

SECONDS = 240  # in which anything ends, on a busy machine too
TWO = ("--trainer.devices", "2", "--data.batch_structures", "2")


def ended(process):
    """The output of a training that has ended, with all its processes."""
    text, _ = process.communicate(timeout=SECONDS)
    print(text)
    return text


def last_step(config):
    """The step of the last checkpoint."""
    return torch.load(config.run_directory / "last.ckpt", weights_only=True)["global_step"]


def assert_same_weights(one, two):
    """Of two model files, to rounding."""
    other = load_model(two)[0].state_dict()
    for name, value in load_model(one)[0].state_dict().items():
        torch.testing.assert_close(value, other[name], rtol=1e-7, atol=1e-12)


@pytest.mark.slow
def test_a_killed_process_is_named_and_a_resume_gives_the_uninterrupted_result(
    fit_config, start_fit
):
    config, whole = fit_config("two"), fit_config("one", batch_structures=4, validate_every=2)
    options = (*TWO, "--trainer.max_steps", "6", "--trainer.validate_every", "2")
    process = start_fit(config, *options, accident="1 3 kill")
    text = ended(process)
    assert process.returncode == LOST
    assert text.count("process 1 was killed by SIGKILL at step 3") == 1
    assert "last.ckpt of step 2, run it again with --ckpt_path last" in text
    assert "Traceback" not in text
    assert last_step(config) == 2
    process = start_fit(config, *options, "--ckpt_path", "last")
    assert ended(process) and process.returncode == 0
    fit(whole)
    assert_same_weights(whole.output, config.output)


@pytest.mark.slow
def test_the_others_end_when_the_first_process_is_killed(fit_config, start_fit):
    config = fit_config()
    process = start_fit(
        config,
        *(*TWO, "--trainer.validate_every", "1"),
        accident="0 2 kill",
    )
    text = ended(process)
    assert process.returncode == -signal.SIGKILL
    assert text.count("process 1 of 2: process 0 is gone at step 2") == 1
    assert text.count("--ckpt_path last") == 1
    assert "Traceback" not in text
    assert last_step(config) == 2


@pytest.mark.slow
def test_an_error_of_one_process_ends_all(fit_config, start_fit):
    process = start_fit(
        fit_config(), "--trainer.devices", "2", "--data.batch_structures", "2", accident="1 1 read"
    )
    text = ended(process)
    assert process.returncode == LOST
    assert text.count("process 1: cannot read the next structure") == 1
    assert "process 1 ended with status 2 at step" in text
    assert "there is no checkpoint yet" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_an_error_of_one_process_before_they_meet_ends_all(fit_config, start_fit):
    process = start_fit(fit_config(), "--trainer.devices", "2", accident="1 0 start")
    text = ended(process)
    assert process.returncode == LOST
    assert text.count("process 1: cannot open the data") == 1
    assert "process 1 ended with status 2 at step 0; there is no checkpoint yet" in text


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_named_and_ended(fit_config, start_fit):
    process = start_fit(
        fit_config(),
        *("--trainer.devices", "2", "--trainer.timeout", "40s", "--data.batch_structures", "2"),
        accident="1 1 stop",
    )
    text = ended(process)
    assert process.returncode == LOST
    assert "process 1 did not respond for 40s (--trainer.timeout) at step 1" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_under_torchrun_a_survivor_tells_how_to_resume(fit_config, start_fit):
    config = fit_config()
    process = start_fit(
        config,
        *(*TWO, "--trainer.validate_every", "1"),
        accident="0 2 kill",
        torchrun=2,
    )
    text = ended(process)
    assert process.returncode != 0
    assert text.count("train-potential: process 1 of 2: another process has ended") == 1
    assert text.count("last.ckpt of step 2, run it again with --ckpt_path last") == 1
    assert last_step(config) == 2


@pytest.mark.slow
def test_torchrun_forwards_a_signal_and_the_training_ends_in_good_order(fit_config, start_fit):
    config = fit_config()
    process = start_fit(
        config,
        *(
            "--trainer.devices",
            "2",
            "--data.batch_structures",
            "2",
            "--trainer.validate_every",
            "5",
        ),
        torchrun=2,
    )
    until = time.monotonic() + SECONDS
    while not (config.run_directory / "last.ckpt").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    process.terminate()
    text = ended(process)
    assert "stopped before the end" in text
    assert last_step(config) > 0


@pytest.fixture
def environ(monkeypatch):
    """Sets variables of a launcher, without those of another one; forgets the rank in the end."""
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    for name in ("LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", PARENT):
        monkeypatch.delenv(name, raising=False)

    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return set_all


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "WORLD_SIZE": 4,
    "RANK": 3,
    "LOCAL_RANK": 1,
    "GROUP_RANK": 1,
}
SLURM = {"SLURM_NTASKS": 4, "SLURM_PROCID": 3, "SLURM_LOCALID": 1, "SLURM_NODEID": 1}
STEP = {**SLURM, "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS_PER_NODE": 2}


@pytest.mark.parametrize("variables", [TORCHRUN, STEP, {"NODE_RANK": 1, "LOCAL_RANK": 1}])
def test_a_process_knows_its_number_before_any_communication(environ, variables):
    environ(**variables)
    environment = cluster_environment(TrainerConfig(devices=2, num_nodes=2))
    assert environment.creates_processes_externally
    assert (own_rank(), environment.local_rank(), environment.node_rank()) == (3, 1, 1)


@pytest.mark.parametrize("variables", [TORCHRUN, STEP])
def test_another_number_of_processes_than_asked_for_is_refused(environ, variables):
    environ(**variables)
    with pytest.raises(ValueError, match=r"has started 4 processes, and `trainer.devices=1` .* 1;"):
        cluster_environment(TrainerConfig())


def test_a_slurm_job_without_srun_is_a_machine_like_any_other(environ):
    environ(**SLURM)
    assert not cluster_environment(TrainerConfig(devices=2)).creates_processes_externally


def test_tasks_that_slurm_may_spread_as_it_likes_are_refused(environ):
    environ(**SLURM, SLURM_STEP_NODELIST="n[1-2]")
    with pytest.raises(ValueError, match="give --ntasks-per-node and --nodes instead"):
        cluster_environment(TrainerConfig(devices=2, num_nodes=2))


def test_several_machines_need_a_launcher(environ):
    with pytest.raises(ValueError, match="started by srun or torchrun"):
        cluster_environment(TrainerConfig(num_nodes=2))


def child(code):
    """A process that does something."""
    return subprocess.Popen([sys.executable, "-c", code])


def watch(children):
    """Of the first of three processes."""
    return Watch(cluster_environment(TrainerConfig(devices=3)), children, str)


def test_the_child_that_failed_first_hand_is_named(environ):
    children = [child(f"exit({LOST})"), child("exit(7)")]
    for process in children:
        process.wait()
    assert watch(children).failed() == "process 2 ended with status 7"
    assert watch(children[:1]).failed() is None


def test_children_are_killed_where_an_error_ends_their_parent(environ):
    children = [child("import time; time.sleep(600)")]
    with pytest.raises(ZeroDivisionError), watch(children):
        raise ZeroDivisionError
    assert children[0].returncode == -signal.SIGKILL


def test_what_is_not_about_communication_is_no_lost_contact():
    assert not is_lost_contact(
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    )
    assert is_lost_contact(RuntimeError("[/x/gloo/transport/tcp/pair.cc:1] Connection closed"))
    assert is_lost_contact(torch.distributed.DistStoreError("Timed out after 3 seconds"))
