"""Progress of a training: one live line on the screen, or plain lines in a file."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tesseral.screen import Columns
from tesseral.training.module import PotentialModule, Seen, seen_errors
from tesseral.training.schedule import Budget

GOOD_COVERAGE = 0.85, 0.97  # part of the errors below the bounds for 90%
FEW = 16  # structures; the coverage of a bound from fewer of them is rough
FAIR_ROC, GOOD_ROC = (
    0.7,
    0.95,
)  # areas at which the uncertainty sometimes, and nearly always, tells sets apart
REFRESH_SECONDS = 0.25
WINDOW = 40  # refreshes over which the training errors and the speed are averaged


class FitDisplay:
    """Line updated at most four times a second, and a line for each validation.

    Args:
        console: console to write to; None (all ranks but the first) writes nothing.
        live: update a line in place if the console is a terminal.
        world_size: number of processes, whose speeds are added.
        kind: whose errors are shown after each part of the training: validation or training.
    """

    def __init__(
        self,
        console: Console | None,
        *,
        live: bool,
        world_size: int,
        kind: Literal["validation", "training"] = "validation",
    ) -> None:
        """Create a display that is not started yet."""
        self.console = console
        self.world_size, self.kind = world_size, kind
        self.live = live and console is not None and console.is_terminal
        self._bar: Progress | None = None
        self._window: deque[tuple[float, Seen]] = deque(maxlen=WINDOW)
        self._drawn = 0.0
        self._budget = Budget()
        self._latest = ""
        self._speed = math.nan

    def start(self, budget: Budget, step: int, elapsed: float) -> None:
        """Start at the step and time at which a resumed training continues."""
        self._budget = budget
        if self.console is None:
            return
        if step > 0:
            text = f"resumes at step {step}, after {duration(elapsed)}"
            self.console.print(text, highlight=False, soft_wrap=True)
        if self.live:
            self._bar = Progress(
                BarColumn(bar_width=10),
                TextColumn("{task.percentage:3.0f}%"),
                TextColumn("{task.fields[status]}"),
                console=self.console,
                auto_refresh=False,
            )
            self._bar.add_task("fit", total=1.0, status="")
            self._bar.start()
        else:
            self.console.print(_HEADER.replace("validation", self.kind), highlight=False)

    def step(self, module: PotentialModule, step: int) -> None:
        """Count a completed step."""
        now = time.monotonic()
        if self.console is None or now - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = now
        self._window.append((now, module.snapshot()))
        (first, before), (last, after) = self._window[0], self._window[-1]
        if last > first:
            self._speed = self.world_size * (after.atoms - before.atoms) / (last - first)
        if self._bar is not None:
            errors = seen_errors(before, after)
            progress = self._budget.progress(step, module.elapsed)
            left = module.elapsed * (1.0 / progress - 1.0) if progress > 0 else math.nan
            status = (
                f"{duration(left)} left{self._latest} · {_speed(self._speed)} · "
                f"train {_errors(errors, 'energy_mae', 'forces_mae')} · step {step}"
            )
            status = status[: self.console.width - 17]  # a second line would not be overwritten
            self._bar.update(self._bar.task_ids[0], completed=progress, status=status)
            self._bar.refresh()

    def validation(self, entry: dict[str, Any], better: bool) -> None:
        """Show a validation.

        Args:
            entry: entry of the history of ``FitRun``.
            better: whether it is the best so far.
        """
        if self.console is None:
            return
        self._window.clear()  # validation time must not count in the speed
        if self.kind == "training":
            better = False  # or always
            entry = {
                **entry,
                "loss": entry.get("train_loss", math.nan),
                "energy_per_atom_mae": entry.get("train_energy_mae", math.nan),
                "forces_mae": entry.get("train_forces_mae", math.nan),
            }
        else:
            self._latest = f" · {validation_errors(entry)}"
        if self._bar is None:
            progress = self._budget.progress(entry["step"], entry["elapsed"])
            self.console.print(_row(entry, progress, self._speed, better), highlight=False)

    def close(self) -> None:
        """End the live line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


_HEADER = "    time   done     step       loss   meV/atom      meV/Å (validation)   atoms/s"


def _row(entry: dict[str, Any], progress: float, speed: float, better: bool) -> str:
    """Format a validation as a plain line below ``_HEADER``."""

    def number(name: str) -> str:
        return f"{entry[name]:10.3g}" if name in entry else " " * 9 + "–"

    return (
        f"{duration(entry['elapsed']):>8} {100 * progress:5.1f}% {entry['step']:8d} "
        f"{entry['loss']:10.4g} {number('energy_per_atom_mae')} {number('forces_mae')} "
        f"{'best' if better else '    '} {'' if math.isnan(speed) else f'{speed:17.0f}'}"
    ).rstrip()


def _errors(values: dict[str, Any], energy: str, forces: str) -> str:
    """Known errors of energy and forces as text."""
    parts = []
    if energy in values:
        parts.append(f"{values[energy]:.3g} meV/atom")
    if forces in values:
        parts.append(f"{values[forces]:.3g} meV/Å")
    return " ".join(parts) or "–"


def validation_errors(entry: dict[str, Any]) -> str:
    """Validation errors of an entry of the history as text."""
    return _errors(entry, "energy_per_atom_mae", "forces_mae")


def _speed(speed: float) -> str:
    return "– atoms/s" if math.isnan(speed) else f"{speed:.0f} atoms/s"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as text."""
    if not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def uncertainty_line(values: Mapping[str, Any]) -> str:
    """The calibration on a model card, in words."""
    count = values["structures"]
    rough = (
        f"\nwith only {count} validation structures, it may be 75 to 95% of other errors (rough)"
    )
    return (
        f"uncertainty: {values['coverage']:.0%} of the force errors of {values['atoms']:,} "
        f"validation atoms are below {values['bound']:.2f} times the\nexpected error; simulations "
        f"stop where that exceeds {values['stop']:.3g} eV/Å{rough if 0 < count < FEW else ''}"
    )


def calibration_line(values: Mapping[str, Any], name: str = "force") -> str:
    """Expected and true errors of a dataset, in words, with a verdict.

    Args:
        values: numbers of `calibration_errors`, or of `energy_calibration_errors`.
        name: force, or energy.
    """
    low, high = GOOD_COVERAGE
    if values["coverage"] < low:
        verdict = "too small: these structures are unlike the validation set"
    else:
        verdict = "well calibrated" if values["coverage"] <= high else "too large"
    rank = values["rank_correlation_structures"] if name == "force" else values["rank_correlation"]
    ranks = "" if rank is None else f"; rank correlation of structures {rank:.2f}"
    return (
        f"expected {name} errors are {verdict}: {values['coverage']:.0%} of the true errors are "
        f"below the bound for 90%, the mean error is {values['ratio']:.2f} times the expected "
        f"one{ranks}"
    )


def outside_line(values: Mapping[str, Any]) -> str:
    """How well the uncertainty tells the structures of another dataset apart, with a verdict."""
    area = values["roc_area"]
    verdict = "does not tell"
    if area >= FAIR_ROC:
        verdict = "tells" if area >= GOOD_ROC else "does not always tell"
    return (
        f"the uncertainty {verdict} structures of {values['outside']} from these: it is larger in "
        f"{area:.1%} of all pairs (area under the ROC curve)"
    )


def error_table(errors: dict[str, Any], title: str) -> Columns:
    """Errors of ``ErrorSums.summary`` as a table: overall, by config type, by element."""
    heads = ["\n\n", "\n\nn"]
    for name, unit in (("energy", "meV/atom"), ("forces", "meV/Å"), ("stress", "GPa")):
        heads += [f"{name}\n{kind}\n{unit}" for kind in ("MAE", "RMSE")]

    def row(name: str, part: dict[str, Any]) -> list[str]:
        cells = [
            f"{part[quantity][kind]:.4g}" if quantity in part else "–"
            for quantity in ("energy_per_atom", "forces", "stress")
            for kind in ("mae", "rmse")
        ]
        return [name, str(part.get("n_structures", "")), *cells]

    rows = [row("all", errors)]
    sections = []
    types = {name or "(no type)": part for name, part in errors["by_config_type"].items()}
    elements = errors["by_element"] if len(errors["by_element"]) > 1 else {}
    for parts in (types, elements):
        if parts:
            sections.append(len(rows))
            rows += [row(name, part) for name, part in parts.items()]
    return Columns(heads, rows, title=title, sections=sections)
