"""Timed steps of our training; made in a worker by benchmarks/serve.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.ours import FORCE_RMS, is_fused, random_model, sgemm, warm_graph
from benchmarks.serve import Task
from tesseral.data.graph import Batch, Labels, join_batches
from tesseral.deploy.modelfile import ModelCard
from tesseral.potentials import derivatives
from tesseral.potentials.ops.select import select_ops
from tesseral.training.config import LossConfig, OptimizationConfig
from tesseral.training.module import PotentialModule
from tesseral.training.schedule import Budget


class LoopModule(PotentialModule):
    """Minimal replacement of Lightning's trainer, for the training module in a plain loop."""

    optimizer: torch.optim.Optimizer
    steps = 0

    @property  # type: ignore[misc]
    def trainer(self) -> Any:
        """Number of processes, 1."""
        return SimpleNamespace(world_size=1)

    @property
    def global_rank(self) -> int:
        """Whether this is the first process, always true."""
        return 0

    @property
    def global_step(self) -> int:
        """Steps so far."""
        return self.steps

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """The optimiser."""
        return self.optimizer


class Training:
    """Complete optimiser steps with a loss of energy, forces and stress on one batch."""

    def __init__(
        self,
        config: dict[str, Any],
        ops: str,
        structures: int,
        n_atoms: int,
        device: str = "cpu",
        optimization: OptimizationConfig | None = None,
    ) -> None:
        """Make a potential, a batch with random labels, and the optimiser.

        Args:
            config: options of the potential.
            ops: as for ``select_ops``, or ``autograd``: the operators of ``fused`` one by one.
            structures: number of structures.
            n_atoms: atoms in each of them.
            device: where to compute.
            optimization: options of the optimiser. Default: the usual ones.
        """
        potential, card = random_model(config)
        potential.to(device)
        self.autograd = ops == "autograd"
        select_ops(potential, "fused" if self.autograd else ops)
        self.module = LoopModule(
            potential,
            loss=LossConfig(),
            optimization=optimization or OptimizationConfig(),
            budget=Budget(steps=1e6),
            force_rms=FORCE_RMS,
        ).to(device)
        self.module.optimizer = self.module.configure_optimizers()
        self.module.on_train_start()
        batch = join_batches([random_batch(card, n_atoms, i) for i in range(structures)])
        graph, labels = (type(part)(*(each.to(device) for each in part)) for part in batch[:2])
        self.batch = Batch(graph, labels, batch.index.to(device))
        self.info = {
            "parameters": sum(p.numel() for p in potential.parameters()),
            "atoms": structures * n_atoms,
            "neighbors": len(self.batch.graph.senders) / (structures * n_atoms),
            "fused": is_fused(potential),
        }

    def step(self) -> Task:
        """Loss, gradient, clipping, optimiser, moving average."""
        return (lambda: None), self._step

    def sgemm(self) -> Task:
        """Product of two float32 matrices."""
        return sgemm()

    def _step(self) -> None:
        module, optimizer = self.module, self.module.optimizer
        if self.autograd:
            with patch.object(derivatives.training, "applies", return_value=False):
                loss = module.training_step(self.batch, module.steps)
        else:
            loss = module.training_step(self.batch, module.steps)
        optimizer.zero_grad()
        module.backward(loss)
        module.update()
        module.steps += 1


def random_batch(card: ModelCard, n_atoms: int, seed: int) -> Batch:
    """Perturbed silicon with random labels, which do not affect the time."""
    graph = warm_graph(card, n_atoms, seed)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    stress = 0.01 * normal(1, 3, 3)
    labels = Labels(
        energy=-5.4 * n_atoms + normal(1),
        forces=FORCE_RMS * normal(n_atoms, 3),
        stress=stress + stress.transpose(1, 2),
    )
    return Batch(graph, labels, torch.tensor([seed]))
