"""Progress and results of ``relax`` and ``md`` on the screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from rich.console import Console
from rich.progress import TaskID

from tesseral.calculators.simulations.runs import Progress, Row, RunResult
from tesseral.calculators.simulations.structures import located
from tesseral.commands.parser import resumable
from tesseral.deploy.catalogue import CATALOGUE
from tesseral.deploy.universal import NAME
from tesseral.process import ctrl_c
from tesseral.screen import print_table, print_written, progress_bar, progress_line

SHOWN = 40  # structures on the screen; the summary file has all


def ready_on_screen(model: str, structures: Sequence[str], console: Console) -> None:
    """Make a universal model that is missing, if that needs no download; say which one is used.

    Raises:
        FileNotFoundError: a structure file does not exist; said before the model is made.
        ValueError: a structure file is a folder.
    """
    for file in structures:
        located(file)
    if model != NAME and model not in CATALOGUE:
        return
    from tesseral.deploy.obtain import ready_model

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with progress_line(console, "comparing with the original") as bar:
        path = ready_model(model, bar, tell)
    tell(f"model: {path}")


class Column(NamedTuple):
    """Column of the summary that is shown on the screen."""

    name: str  # in the file
    title: str
    decimals: int
    error: str = ""  # column of its standard error


def run_on_screen(
    run: Callable[[Callable[[Progress], None]], RunResult],
    columns: Sequence[Column],
    console: Console,
    words: Callable[[str], str],
    more: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> int:
    """Run many structures with a progress bar, and show the summary.

    Args:
        run: function that takes a callback for the progress.
        columns: columns of the summary to show.
        console: console to write to.
        words: function that rewrites reasons such as "`steps` was not enough", turning arguments
            into options.
        more: function that shows more about the rows in the table.

    Returns:
        The exit status: 1 if a structure failed or did not converge, 0 otherwise.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the message says how to resume.
    """
    with resumable(), ExitStack() as stack:
        result = run(_Display(console, stack))
    more(_show(result, columns, console, words))
    print_written(console, *result.written)
    return int(bool(result.bad))


class _Display:
    """Progress bars for all structures and for the steps of the current structure.

    It appears when the first structure begins. From then on Ctrl-C waits for the end of a step.
    """

    def __init__(self, console: Console, stack: ExitStack) -> None:
        """Show nothing yet; the bars end with the stack."""
        self.console, self.stack = console, stack
        self.bar = progress_bar(console)
        self.check: Callable[[], None] | None = None
        self.whole: TaskID | None = None
        self.current: TaskID | None = None

    def __call__(self, state: Progress) -> None:
        """Show a state of the run."""
        if self.whole is None:
            self._begin(state)
        elif state.outcome:
            self._structure_done(state)
        elif state.name:
            self._step(state)
        assert self.check is not None
        self.check()

    def _begin(self, state: Progress) -> None:
        if state.done:
            self.console.print(f"{state.done} of {state.total} structures are already done")
        self.stack.enter_context(self.bar)
        self.check = self.stack.enter_context(ctrl_c())
        self.whole = self.bar.add_task("structures", total=state.total, completed=state.done)

    def _step(self, state: Progress) -> None:
        if self.current is None:
            self.current = self.bar.add_task("", total=None)
        if state.steps is None:
            self.bar.reset(self.current, description=state.name)
            return
        text = f"{state.name}, {state.text}"
        self.bar.update(self.current, completed=state.step, total=state.steps, description=text)

    def _structure_done(self, state: Progress) -> None:
        assert self.whole is not None
        self.bar.update(self.whole, completed=state.done)
        if not self.console.is_terminal:  # no bar, for example in a log file
            text = f"{state.done}/{state.total} {state.name}: {state.outcome}"
            self.console.print(text, highlight=False)
        if state.done == state.total and self.current is not None:
            self.bar.remove_task(self.current)
            self.current = None


def _show(
    result: RunResult,
    columns: Sequence[Column],
    console: Console,
    words: Callable[[str], str],
) -> Sequence[Row]:
    """Show the summary, of many structures those that need attention; returns the rows shown."""
    rows, bad = result.rows, result.bad
    shown = (rows if len(rows) <= SHOWN else bad)[:SHOWN]
    columns = [c for c in columns if any(row[c.name] for row in shown)]
    lines = []
    for row in shown:
        values = [_number(row, c) for c in columns]
        ends = [row["steps"] or "–", row["outcome"]]
        lines.append([row["name"], row["formula"] or "–", row["atoms"] or "–", *values, *ends])
    if lines:
        heads = ("structure", "formula", "atoms", *(c.title for c in columns), "steps", "outcome")
        print_table(console, heads, lines)
    for row in bad[:SHOWN]:
        text = f"{row['name']} ({row['file']}, frame {row['frame']}): {words(row['reason'])}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if result.cut_out:
        names = ", ".join(result.cut_out[:SHOWN]) + (" …" if len(result.cut_out) > SHOWN else "")
        text = (
            f"note: {names}: filled cell without periodic directions, computed as a cluster; for a "
            'crystal set pbc="T T T" in the file'
        )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    theories = dict.fromkeys(row["theory"] for row in rows if row["theory"])
    if theories:
        console.print(f"level of theory: {', '.join(theories)}", markup=False, highlight=False)
    console.print(f"{len(rows) - len(bad)} of {len(rows)} structures {result.good}")
    return shown


def _number(row: Row, column: Column) -> str:
    """A value with its error if there is one."""
    text, error = row[column.name], row.get(column.error, "")
    if not text:
        return "–"
    shown = f"{float(text):.{column.decimals}f}"
    return f"{shown}±{float(error):.{column.decimals}f}" if error else shown
