"""Lightning callback of a training: validation, checkpoints, logs, model file, stopping."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ase.io
import lightning
import torch
from torch import Tensor

from tesseral.data.graph import Batch
from tesseral.data.structures import atoms_from_structure
from tesseral.files import write_whole
from tesseral.training.batches import FitData
from tesseral.training.display import FitDisplay
from tesseral.training.metrics import ErrorSums
from tesseral.training.module import DivergenceError, PotentialModule, Seen, seen_errors
from tesseral.training.schedule import ValidationPlan
from tesseral.training.validation import Validation, all_sum, validate

SLACK = 0.05  # above the lowest validation loss, within which the energies decide
CHECKPOINT_SECONDS = 600.0  # between checkpoints, if validations are less frequent
BAD_BATCH = "diverged_batch.extxyz"
SIGNALS = (  # from a user, from a launcher or preemption, and before the end of a SLURM job
    *(signal.SIGINT, signal.SIGTERM),
    *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []),  # Windows has none
)


class FitRun(lightning.Callback):
    """Callback that validates, saves, exports and ends the training.

    Args:
        data: data module, already set up.
        directory: folder of the checkpoints.
        identity: properties that a training that resumes from the checkpoints must share.
        plan: schedule of the validations, whose budget ends the training.
        display: progress display.
        export: function that writes the model file from the best weights; called on rank 0 with
            the state.
        log_every: number of steps between entries of the logs.
        known_errors: errors for the model file, if there are no validation structures. The model
            is then exported at each point of the plan.
        trained: whether the weights are those of another training, which are validated first: they
            are kept if this one does not improve them.
    """

    def __init__(
        self,
        *,
        data: FitData,
        directory: Path,
        identity: dict[str, Any],
        plan: ValidationPlan,
        display: FitDisplay,
        export: Callable[[dict[str, Tensor], dict[str, Any]], None],
        log_every: int,
        known_errors: dict[str, Any] | None = None,
        trained: bool = False,
    ) -> None:
        """Start with an empty history."""
        self.data, self.directory, self.identity = data, directory, identity
        self.plan, self.display, self.export = plan, display, export
        self.log_every, self.known_errors, self.trained = log_every, known_errors, trained
        self.history: list[dict[str, Any]] = []  # one entry per validation
        self.best: dict[str, Any] = {}  # loss, step, errors, weights
        self.signal: int | None = None
        self._elapsed = 0.0
        self._saved = 0.0
        self._at_log = self._at_validation = Seen(*(0.0,) * len(Seen._fields))
        self._saved_step: int | None = None  # step of last.ckpt

    def state_dict(self) -> dict[str, Any]:
        """State for resuming the training, saved in the checkpoints."""
        return {
            "identity": self.identity,
            "elapsed": self._elapsed,
            "history": self.history,
            "best": self.best,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint."""
        self._elapsed = self._saved = state_dict["elapsed"]
        self.history = list(state_dict["history"])
        self.best = dict(state_dict["best"])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Set the clock from the checkpoint and install the signal handlers."""
        module: PotentialModule = pl_module
        module.clock.set(self._elapsed)
        module.elapsed = self._elapsed
        self.plan.done(trainer.global_step, self._elapsed, 0.0)
        self._catch_signals(module)  # again: Lightning has installed its own handlers
        self.display.start(self.plan.budget, trainer.global_step, self._elapsed)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Before the first epoch, validate weights of another training."""
        if self.trained and not self.history and self.known_errors is None:
            self.validate(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log, validate, save or stop if due."""
        module: PotentialModule = pl_module
        step = trainer.global_step
        end = self.plan.budget.progress(step, module.elapsed) >= 1.0 or module.stopping
        if step % self.log_every == 0:
            self._at_log = self._log(trainer, module, "train", self._at_log)
        if end or self.plan.due(step, module.elapsed):
            self.validate(trainer, module)
        elif module.elapsed - self._saved > CHECKPOINT_SECONDS:
            self._save(trainer, module, "last")
        else:
            self.display.step(module, step)
        trainer.should_stop = end

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the display."""
        self.display.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """If training diverged, save the structures, and a model if there is none yet."""
        self.display.close()
        if isinstance(exception, DivergenceError):
            if not self.best:
                self.validate(trainer, pl_module, save=False)
            if trainer.is_global_zero:
                store = self.data.train_dataset.store
                culprits = [atoms_from_structure(store[row]) for row in exception.rows]
                with write_whole(self.directory / BAD_BATCH) as temporary:
                    ase.io.write(temporary, culprits, format="extxyz")

    def validate(self, trainer: Any, module: PotentialModule, *, save: bool = True) -> None:
        """Validate the averaged weights; save and export them if they are the best so far."""
        started = module.clock.elapsed
        result = self._validation(module)
        self._record(trainer, module, result)
        better = result is None or self._is_better(module.final_weights[0] > 0)
        if better:
            weights = {k: v.detach().clone() for k, v in module.averaged.state_dict().items()}
            entry = self.history[-1]
            errors = self.known_errors if result is None else result.errors
            best = {**entry, "errors": errors, "weights": weights}
            if trainer.is_global_zero:
                self.export(weights, best)
            self.best = best
        if save:
            self._save(trainer, module, "last")
            if better:
                self._save(trainer, module, "best")
        cost = torch.tensor(
            [module.clock.elapsed - started if trainer.is_global_zero else 0.0],
            dtype=torch.float64,
            device=module.device,
        )
        all_sum(cost)
        self.plan.done(trainer.global_step, module.elapsed, float(cost))
        self.display.validation(self.history[-1], better)

    def _validation(self, module: PotentialModule) -> Validation | None:
        """Loss and errors of the averaged weights; None without validation structures."""
        if self.known_errors is not None:
            return None
        return validate(
            module.averaged,
            self.data.val_dataloader(),
            ErrorSums(self.data.elements),
            device=module.device,
            loss=module.loss_config,
            weights=module.final_weights,
            force_rms=module.force_rms,
        )

    def _is_better(self, energies: bool) -> bool:
        """Whether the last validation is the best.

        The forces decide the loss, so that energies of the lowest one are left to chance. Among
        validations with nearly the lowest loss, the one with the best energies is taken.

        Args:
            energies: whether the loss has energies.
        """
        entry, best, name = self.history[-1], self.best, "energy_per_atom_mae"
        finite = [each["loss"] for each in self.history if math.isfinite(each["loss"])]
        limit = (1 + SLACK) * min(finite, default=-math.inf)
        if not entry["loss"] <= limit:
            return False
        if best.get("loss", math.inf) > limit:
            return True
        if not energies or name not in entry or name not in best:
            return bool(entry["loss"] < best["loss"])
        return bool(entry[name] < best[name])

    def _record(self, trainer: Any, module: PotentialModule, result: Validation | None) -> None:
        """Add a validation to the history and the logs."""
        now = module.snapshot()
        train = seen_errors(self._at_validation, now)
        self._at_validation = now
        found = {}
        if result is not None:
            found = {"loss": result.loss} | {
                f"{name}_{kind}": result.errors[name][kind]
                for name in ("energy_per_atom", "forces", "stress")
                for kind in ("mae", "rmse")
                if name in result.errors
            }
        entry = {
            "step": trainer.global_step,
            "elapsed": module.clock.elapsed,
            **found,
            **{f"train_{name}": value for name, value in train.items()},
        }
        self.history.append(entry)
        shown = {f"validation/{name}": value for name, value in found.items()}
        for logger in trainer.loggers:
            logger.log_metrics(shown, step=trainer.global_step)

    def _log(self, trainer: Any, module: PotentialModule, name: str, before: Seen) -> Seen:
        """Log the training errors since the last entry."""
        now = module.snapshot()
        values = {f"{name}/{key}": value for key, value in seen_errors(before, now).items()}
        values["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        values["seconds"] = module.elapsed
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        return now

    def _save(self, trainer: Any, module: PotentialModule, name: str) -> None:
        """Write a checkpoint; the old one is replaced only when the new one is complete."""
        self._elapsed = module.clock.elapsed
        self._saved = module.elapsed
        # All processes gather the state; only the first one writes.
        trainer.save_checkpoint(self.directory / f"{name}.ckpt")
        if name == "last":
            self._saved_step = trainer.global_step

    def how_to_resume(self) -> str:
        """Advice on resuming after an end without a new checkpoint."""
        path = self.directory / "last.ckpt"
        if not path.exists():
            return "there is no checkpoint yet, so start it again"
        step = "" if self._saved_step is None else f" of step {self._saved_step}"
        return f"to resume from {path}{step}, run it again with `ckpt_path='last'`"

    @contextmanager
    def signals(self, module: PotentialModule) -> Iterator[None]:
        """Context in which the first signal stops the training cleanly."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._catch_signals(module)
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _catch_signals(self, module: PotentialModule) -> None:
        """Install the signal handlers; a second Ctrl-C ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if module.stop_requested and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = number
            module.stop_requested = True

        for number in SIGNALS:
            signal.signal(number, handle)
