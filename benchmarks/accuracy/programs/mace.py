"""Training of MACE with mace_run_train."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.accuracy.curves import Curve
from benchmarks.accuracy.process import read_stamped
from benchmarks.accuracy.programs import LOG, Task, json_lines, timed_points
from benchmarks.peers.environments import Peers
from benchmarks.peers.training import mace_options, mace_words

EPOCH = re.compile(r"INFO: Epoch (\d+): head")
FIRST, SECOND = "mace.model", "mace_stagetwo.model"
STAGE_TWO = 0.7  # fraction of the epochs, as suggested by its documentation
FEWEST = 4  # epochs for two stages


class Mace:
    """32 scalar channels, two stages, moving average of the weights."""

    name = "MACE"
    calculator = "mace"
    counts_epochs = True

    def __init__(self, peers: Peers) -> None:
        """Store the path of the environment."""
        self.peers = peers
        self.python = peers.program("mace", "python")

    def command(self, task: Task) -> list[str]:
        """Stage two begins at 70% of the epochs."""
        files = task.files.fit, task.files.validation
        options = mace_options(files, 5, task.folder, task.epochs)
        # With a stress loss MACE takes the log of MAE for one of per-atom stress and stops with a
        # KeyError; the MAE are in its result file in any case.
        options["error_table"] = "PerAtomRMSE"
        options["valid_batch_size"] = 5
        options["skip_evaluate_heads"] = "Default"  # table of errors at the end
        if task.recipe.stress:
            options |= {"loss": "stress", "stress_key": "REF_stress"}
        if task.files.isolated:
            from ase.data import atomic_numbers

            # ScaleShiftMACE starts from the mean binding energy, so it need not learn it.
            energies = {atomic_numbers[name]: e for name, e in task.files.isolated.items()}
            options |= {"E0s": str(energies), "model": "ScaleShiftMACE"}
        if task.epochs >= FEWEST:
            options["start_stage_two"] = round(STAGE_TWO * task.epochs)
        options |= task.recipe.peers.get(self.name, {})
        words = mace_words(self.peers, options)
        return [*words, "--stage_two"] if task.epochs >= FEWEST else words

    def begins(self, line: str) -> bool:
        """MACE validates once before the first step, which is part of the time."""
        return "Started training" in line

    def ends(self, line: str) -> bool:
        """After this line MACE makes the model."""
        return "Training complete" in line

    def curve(self, folder: Path) -> Curve:
        """Times from the log, MAE from the result file."""
        values = {
            entry["epoch"]: (1e3 * entry["mae_e_per_atom"], 1e3 * entry["mae_f"])
            for path in sorted(folder.glob("results/*_train.txt"))
            for entry in json_lines(path)
            if entry.get("mode") == "eval" and entry.get("epoch") is not None
        }
        return timed_points(read_stamped(folder / LOG), self.begins, EPOCH, values, 0)

    def model(self, folder: Path) -> Path:
        """The model of stage two if it was reached."""
        second = folder / SECOND
        return second if second.exists() else folder / FIRST

    def rescue(self, task: Task) -> list[str] | None:
        """Resuming with no epochs left makes the model; None if the model exists."""
        in_second = any(task.folder.glob("checkpoints/*_swa.pt"))
        made = task.folder / (SECOND if in_second else FIRST)
        if made.exists():
            return None
        # Stage two is exported only if it would begin before the last epoch.
        epochs = (
            ["--start_stage_two=0", "--max_num_epochs=1"] if in_second else ["--max_num_epochs=0"]
        )
        return [*self.command(task), "--restart_latest", *epochs]
