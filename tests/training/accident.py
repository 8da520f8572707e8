"""`train-potential` in which one process meets with an accident: ACCIDENT="rank step kind"."""

import os
import signal
import sys

from tesseral.commands.main import main
from tesseral.training.batches import BatchStream, FitData
from tesseral.training.module import PotentialModule
from tesseral.training.processes import own_rank

KINDS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def prepare(rank: int, step: int, kind: str) -> None:
    """Let it happen before a training step, while its batch is read, or at the very start."""
    training_step, batches = PotentialModule.training_step, BatchStream.__iter__
    setup = FitData.setup

    def accident(self, batch, batch_idx):
        if self.global_step == step and own_rank() == rank and kind in KINDS:
            os.kill(os.getpid(), KINDS[kind])
        return training_step(self, batch, batch_idx)

    def read(self):
        for number, batch in enumerate(batches(self), self.first_step):
            if number == step and own_rank() == rank and kind == "read":
                raise OSError("cannot read the next structure")
            yield batch

    def start(self, stage=None):
        if own_rank() == rank and kind == "start":
            raise OSError("cannot open the data")
        setup(self, stage)

    PotentialModule.training_step, BatchStream.__iter__ = accident, read
    FitData.setup = start


if __name__ == "__main__":
    rank, step, kind = os.environ["ACCIDENT"].split()
    prepare(int(rank), int(step), kind)
    sys.exit(main())
