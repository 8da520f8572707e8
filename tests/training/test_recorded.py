"""Recorded training steps, with stand-ins for a GPU, take the steps of those that are not."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ase.build import bulk
from host_kernels import host_kernels
from seeds import reseed
from torch.utils._python_dispatch import TorchDispatchMode

from tesseral.data.graph import Batch, Labels, join_batches
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.engine.gpu import capture, evaluate, host
from tesseral.potentials.engine.gpu.capture import Recorded, Results
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops
from tesseral.training import module as modules
from tesseral.training.config import LossConfig, OptimizationConfig
from tesseral.training.module import DivergenceError, PotentialModule
from tesseral.training.schedule import Budget

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
    pytest.mark.skipif(not compiled.available(), reason="no compiled kernels"),
]
WAITS = {  # operations for whose results the host waits
    *("_local_scalar_dense", "nonzero", "bincount", "masked_select", "is_nonzero", "equal"),
    *("_unique2", "unique_dim", "unique_consecutive", "linalg_det", "_linalg_det"),
}


class Watched(TorchDispatchMode):
    """Fails at an operation for whose result the host waits, or at numbers from the host."""

    def __init__(self, *, from_host: bool) -> None:
        super().__init__()
        self.from_host = from_host

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name = function.overloadpacket.__name__
        assert name not in WAITS
        assert self.from_host or name != "lift_fresh", "a number from the host is not recorded"
        if name in ("index", "index_put_"):
            assert not any(i is not None and i.dtype == torch.bool for i in args[1])
        return function(*args, **(kwargs or {}))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The CPU passes for a GPU; numbers of recordings and replays."""
    counts: Counter[str] = Counter()

    def record(function: Callable[[], Results]) -> Recorded:
        counts["losses"] += 1
        results, again = host.record(function)
        for each in results:
            assert each is not None
            each.fill_(math.nan)  # a recorded call computes nothing

        def replay() -> None:
            counts["replayed losses"] += 1
            with Watched(from_host=False):
                again()

        return results, replay

    def record_update(update: Callable[[], None]) -> Callable[[], None]:
        counts["updates"] += 1

        def replay() -> None:
            counts["replayed updates"] += 1
            with Watched(from_host=False):
                update()

        return replay

    monkeypatch.setattr(capture, "CALLS", 3)
    monkeypatch.setattr(capture, "record", record)
    monkeypatch.setattr(capture, "record_update", record_update)
    monkeypatch.setattr(evaluate, "on_gpu", lambda potential: True)
    monkeypatch.setattr(evaluate, "make_kernels", lambda text, *about: host_kernels(text))
    return counts


class Loop(PotentialModule):
    """A plain loop in place of Lightning."""

    number = 0
    trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    global_rank = 0  # type: ignore[assignment]

    @property
    def global_step(self) -> int:
        return self.number

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        return self.optimizer

    def take(self, batch: Batch) -> None:
        """One step, in the order of Lightning's closure."""
        loss = self.training_step(batch, self.number)
        self.optimizer.zero_grad()
        self.backward(loss)
        self.update()
        self.number += 1


FACET = FacetConfig(cutoff=3.5, channels=8, grid_channels=8, l_max=1)
NEQUIP = NequIPConfig(cutoff=3.5, channels=8, l_max=1, layers=2, linear_readout=True)


def loop(optimizer: str = "soap", config: PotentialConfig = FACET, **options: Any) -> Loop:
    reseed(3)
    model = select_ops(MessagePassing(config, (6, 14), dtype=torch.float64))
    found = Loop(
        model,
        loss=LossConfig(energy_weight_final=20.0, stress_target="stress", forces="huber"),
        optimization=OptimizationConfig(
            **{"optimizer": optimizer, "dtype": "float64", "weight_decay": 0.01, **options}  # type: ignore[arg-type]
        ),
        budget=Budget(steps=60),
        force_rms=1.0,
    )
    found.optimizer = found.configure_optimizers()
    found.on_train_start()
    return found


def batch_of(structures: int, seed: int) -> Batch:
    """Structures of several sizes; the first one has no energy and no stress."""
    parts = []
    for number in range(structures):
        atoms = bulk("SiC", "zincblende", a=4.4).repeat((1 + number % 2, 1, 1))
        atoms.rattle(0.1, seed=seed + number)
        about = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
        random = torch.Generator().manual_seed(seed + number)
        labels = Labels(
            *(
                torch.randn(shape, generator=random, dtype=torch.float64)
                for shape in ((1,), (len(atoms), 3), (1, 3, 3))
            )
        )
        if number == 0:
            labels = labels._replace(energy=labels.energy * torch.nan, stress=labels[2] * torch.nan)
        graph = atomic_graph(*about, (6, 14), 3.5)
        parts.append(Batch(graph, labels, torch.tensor([10 * seed + number])))
    return join_batches(parts)


def results(module: Loop) -> list[torch.Tensor]:
    weights = [*module.potential.parameters(), *module.averaged.parameters()]
    return [*(weight.detach() for weight in weights), module.seen]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("soap", {}),
        ("adam", {"part_rates": {"embedding": 0, "layers.0": 0.3}}),
        ("adam", {"config": NEQUIP}),
        ("adam", {"config": NEQUIP, "part_rates": {"layers.*.convolution": 0}}),
    ],
    ids=["SOAP", "Adam", "NequIP", "NequIP, frozen radial functions"],
)
def test_steps_are_the_same(optimizer: str, options: dict[str, Any], gpu: Counter[str]) -> None:
    """Batches of all sizes, some of which need a new recording.

    Beside Adam on a CPU; beside SOAP that is not recorded, since its first basis is that of a few
    gradients only, where rounding chooses the vectors without a curvature.
    """
    batches = [batch_of(1 + seed % 4, seed) for seed in range(24)]
    found = loop(optimizer, **options)
    for batch in batches:
        found.take(batch)
    assert gpu["losses"] <= 4 and gpu["replayed losses"] == 24 - 4
    assert gpu["updates"] == 1 and gpu["replayed updates"] >= 24 - 5
    with pytest.MonkeyPatch.context() as patch:
        if optimizer == "adam":
            patch.setattr(evaluate, "on_gpu", lambda potential: False)
        patch.setattr(capture, "CALLS", len(batches))
        expected = loop(optimizer, **options)
        start = [weight.clone() for weight in results(expected)]
        for batch in batches:
            expected.take(batch)
    assert gpu["replayed losses"] == 24 - 4
    for one, other, before in zip(results(found), results(expected), start, strict=True):
        assert float((one - other).norm()) <= 1e-8 * float((other - before).norm())


def test_nothing_waits_between_two_checks(gpu: Counter[str]) -> None:
    found = loop()
    for seed in range(10):
        found.take(batch_of(3, seed))
    batch = batch_of(3, 99)
    with Watched(from_host=True):
        for _ in range(modules.PATIENCE - 1):
            found.take(batch)


def test_a_step_that_is_not_finite_changes_nothing_and_is_named(gpu: Counter[str]) -> None:
    found = loop()
    for seed in range(10):
        found.take(batch_of(2, seed))
    batch = batch_of(2, 50)
    found.take(batch_of(2, 49))
    kept = [weight.clone() for weight in results(found)[:-1]]
    labels = batch.labels._replace(energy=batch.labels.energy * 1e200)
    found.take(batch._replace(labels=labels))
    with pytest.raises(DivergenceError, match="loss became nan or infinite at step 11") as error:
        for seed in range(60, 60 + modules.PATIENCE):
            found.take(batch_of(2, seed))
    assert error.value.rows == [500, 501]
    for one, other in zip(results(found)[:-1], kept, strict=True):
        assert torch.equal(one, other)


@contextmanager
def failing(name: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(function: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with patch.context() as own:
        own.setattr(capture, name, fail)
        yield


@pytest.mark.parametrize("name", ["record", "record_update"])
def test_a_recording_that_fails_is_said_once(
    name: str, gpu: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = loop()
    with failing(name, monkeypatch), pytest.warns(UserWarning, match="is capturing$") as said:
        for seed in range(8):
            found.take(batch_of(2, seed))
    assert len(said) == 1
