"""Processes of a training: starting them, and handling the loss of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import distributed

from tesseral.training.config import TrainerConfig

PARENT = "TESSERAL_PARENT"  # names the process that started this one
LOST = 3  # exit status of a process that ends because another one did
LOOK = 0.5  # seconds between checks of the other processes
PATIENCE = 8.0  # seconds within which the children of a process should end when one has failed
MOMENT = 2.0  # seconds within which a killed process disappears
GRACE = 15.0  # seconds after which a process that still waits for a lost one is ended


class LostProcessError(RuntimeError):
    """Another process of the training has ended or does not respond.

    Attributes:
        told: another process reports it, so that this one need not.
    """

    def __init__(self, message: str, told: bool) -> None:
        """Create the error with a message that says what is known and how to resume."""
        super().__init__(message)
        self.told = told


def cluster_environment(settings: TrainerConfig) -> ClusterEnvironment:
    """Source of the process ranks: torchrun, srun of SLURM, or this program.

    Unlike Lightning's own choice, it never leaves the end of a job to Lightning, which would write
    checkpoints of another kind, and it treats a SLURM job without srun like any other machine.

    Raises:
        ValueError: the number of started processes differs from that in the settings.
    """
    environment: ClusterEnvironment
    asked = f"`trainer.devices={settings.devices}` `trainer.num_nodes={settings.num_nodes}`"
    if TorchElasticEnvironment.detect():
        environment, starter = TorchElasticEnvironment(), "torchrun"
    elif "SLURM_STEP_NODELIST" in os.environ and SLURMEnvironment.detect():
        try:
            environment, starter = SLURMEnvironment(auto_requeue=False), "srun"
        except RuntimeError:  # Lightning cannot find the distribution of the processes
            raise ValueError(
                "the SLURM job was given --ntasks; give --ntasks-per-node and --nodes instead"
            ) from None
    else:
        environment, starter = LightningEnvironment(), ""
        if settings.num_nodes > 1 and "NODE_RANK" not in os.environ:
            raise ValueError(
                f"{asked}: processes on several machines are started by srun or torchrun "
                "(docs/howto/clusters.md)"
            )
        environment.set_global_rank(
            environment.node_rank() * settings.devices + environment.local_rank()
        )
    if starter and environment.world_size() != settings.ranks:
        raise ValueError(
            f"{starter} has started {environment.world_size()} processes, and {asked} asks for "
            f"{settings.ranks}; give the number on each machine and the number of machines"
        )
    rank_zero_only.rank = environment.global_rank()  # type: ignore[attr-defined]
    return environment


def own_rank() -> int:
    """Rank of this process in the training, once ``cluster_environment`` was called."""
    rank: int | None = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank or 0


def start_children(
    environment: ClusterEnvironment, settings: TrainerConfig
) -> list[subprocess.Popen[bytes]]:
    """Start this program again for each further device, unless a launcher has started it.

    Lightning's launcher is not used, since it kills the first process shortly after any other has
    ended, before it can report the reason.
    """
    if settings.ranks == 1 or environment.creates_processes_externally:
        return []
    spec = sys.modules["__main__"].__spec__
    program = ["-m", spec.name] if spec else [os.path.abspath(sys.argv[0])]
    os.environ.update(
        MASTER_ADDR=environment.main_address,
        MASTER_PORT=str(environment.main_port),
        NODE_RANK=str(environment.node_rank()),
        LOCAL_RANK="0",  # Lightning then takes the processes as started
    )
    return [
        subprocess.Popen(
            [sys.executable, *program, *sys.argv[1:]],
            env={**os.environ, "LOCAL_RANK": str(number), PARENT: str(os.getpid())},
        )
        for number in range(1, settings.devices)
    ]


def is_lost_contact(error: BaseException) -> bool:
    """Return whether a PyTorch error reports another process as ended or not responding."""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in ("/gloo/", "[gloo]", "nccl")
    )


class Watch(threading.Thread):
    """Context manager that monitors the other processes of this node.

    Communication detects the end of a process late, or only after a time limit, unless it waits for
    that very process. Therefore this process is ended ``GRACE`` seconds after the loss.

    Args:
        environment: cluster environment of this process.
        children: processes started by this one; killed if an error ends it.
        say: function that turns a description of the lost process into a message for the user.
        tell: function called with that message before this process ends itself. Default: write it
            to stderr.
    """

    def __init__(
        self,
        environment: ClusterEnvironment,
        children: list[subprocess.Popen[bytes]],
        say: Callable[[str], str],
        tell: Callable[[str], object] | None = None,
    ) -> None:
        """Create the thread; monitoring starts with the block."""
        super().__init__(daemon=True, name="watch")
        self.children, self.say = children, say
        self.tell = tell or (lambda text: sys.stderr.write(f"{text}\n"))
        self.local_rank = environment.local_rank()
        self.first = environment.global_rank() - self.local_rank
        self.parent = int(os.environ.get(PARENT, 0))
        self._closed = threading.Event()

    def __enter__(self) -> Watch:
        """Start monitoring."""
        if self.children or self.parent:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop monitoring; leave no children behind that would wait for this process."""
        self._closed.set()
        if kind is not None:
            self._kill()

    @property
    def told(self) -> bool:
        """True if another process of this node will report the lost process.

        If a launcher has started the processes, the first two report, since one may be lost.
        """
        return self.local_rank > 1 or (self.local_rank == 1 and self._parent_lives())

    def run(self) -> None:
        """Monitor the processes, and end this one if it cannot end itself."""
        while not self._closed.wait(LOOK):
            lost = self.failed()
            if lost is None:
                continue
            if self._closed.wait(GRACE):
                return
            if not self.told:
                self.tell(self.say(lost))
                sys.stderr.flush()
            self._kill()
            os._exit(LOST)

    def failed(self) -> str | None:
        """Description of the process that failed; None if all are running or ended normally."""
        if self.parent and not self._parent_lives():
            return f"process {self.first} is gone"
        for number, child in enumerate(self.children, self.first + 1):
            status = child.poll()
            if status is not None and status < 0:
                return f"process {number} was killed by {signal.Signals(-status).name}"
            if status not in (None, 0, LOST):
                return f"process {number} ended with status {status}"
        return None

    def explain(self, error: BaseException, timeout: str) -> str:
        """Description of the lost process, as far as it is known here.

        Args:
            error: error of the communication.
            timeout: time limit of the communication.
        """
        until = time.monotonic() + (PATIENCE if self.children else MOMENT)
        while time.monotonic() < until and (self.children or self.parent):
            lost = self.failed()
            if lost is not None:
                return lost
            time.sleep(LOOK / 5)
        reason = str(error).split("] ", 1)[-1].split(". ")[0].split("\n")[0]
        if "timed out" not in str(error).lower():
            return f"another process has ended ({reason})"
        silent = [
            str(number)
            for number, child in enumerate(self.children, self.first + 1)
            if child.poll() is None
        ]
        whom = f"process {' or '.join(silent)}" if silent else "another process"
        return f"{whom} did not respond for {timeout} (`trainer.timeout`)"

    def _parent_lives(self) -> bool:
        return self.parent > 0 and os.getppid() == self.parent

    def _kill(self) -> None:
        """Kill the children, including those that are stopped or wait for others."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
