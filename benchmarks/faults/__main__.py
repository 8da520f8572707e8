"""Thousands of damaged inputs: none may crash, hang, or show a traceback.

    python -m benchmarks.faults [--number 5000] [--seed 0] [--kind stores …] [--output FOLDER]
    python -m benchmarks.faults --kind stores --seed 0 --replay 123

Each case damages one input (a model file, a dataset, a text file of a DFT code, an option, a
structure, the folder of an interrupted run, …) and uses it with a command or as a script does, in a
process of its own. Seed, kind and number determine a case; ``--replay`` repeats one with its full
output in the folder ``replay-KIND-NUMBER``. Results are appended to ``results.jsonl`` of the output
folder as they come; the same command resumes. The exit status is 1 if there are faults.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a process with threads cannot fork

import torch  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.faults.kinds.table import KINDS  # noqa: E402
from benchmarks.faults.running import FAULTS, OUTCOMES, Kind, Result, prepare, replay, run_cases
from benchmarks.machine import machine  # noqa: E402
from benchmarks.sheets import Sheet, console, report  # noqa: E402

RESULTS = "results.jsonl"
EXAMPLES = 12  # faults of each kind that are shown


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--number", type=int, default=5000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="other cases")
    parser.add_argument("--kind", nargs="+", default=list(KINDS), metavar="KIND", choices=KINDS)
    parser.add_argument("--parallel", type=int, default=os.cpu_count(), help="cases at a time")
    parser.add_argument("--output", type=Path, default=Path("runs/faults"))
    parser.add_argument("--replay", type=int, metavar="CASE", help="repeat one case of one kind")
    options = parser.parse_args(arguments)
    if options.replay is not None and len(options.kind) != 1:
        parser.error("--replay needs one --kind")
    for name in ("number", "parallel"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; returns 1 if there are faults."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    torch.set_num_threads(1)
    kinds = [KINDS[name] for name in options.kind]
    with tempfile.TemporaryDirectory(prefix="faults-samples-") as folder:
        samples = Path(folder)
        for kind in kinds:
            prepare(kind, samples)
        if options.replay is not None:
            place = Path(f"replay-{kinds[0].name}-{options.replay}")
            place.mkdir()
            os.chdir(place)
            replay(kinds[0], options.replay, options.seed, samples)
            return 0
        options.output.mkdir(parents=True, exist_ok=True)
        results = _run(kinds, options, samples)
    faults = [result for result in results if result.outcome in FAULTS]
    command = ["python", "-m", "benchmarks.faults", *arguments]
    report([_sheet(results)], machine(), command, console(), options.output / "results.md")
    _show(faults)
    return int(bool(faults))


def _run(kinds: Sequence[Kind], options: argparse.Namespace, samples: Path) -> list[Result]:
    """Results of all cases, with those of an earlier run of the same command."""
    path = options.output / RESULTS
    results = []
    if path.exists():
        lines = path.read_text("utf-8").splitlines()
        saved = [json.loads(line) for line in lines if line.endswith("]")]
        results = [Result(*row) for seed, *row in saved if seed == options.seed]
    tasks = list(_tasks(kinds, options.number))
    wanted = {(kind.name, number) for kind, number in tasks}
    results = [result for result in results if (result.kind, result.number) in wanted]
    done = {(result.kind, result.number) for result in results}
    todo = [task for task in tasks if (task[0].name, task[1]) not in done]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # No refreshing thread: a process with threads cannot fork.
    with (
        path.open("a", encoding="utf-8") as file,
        Progress(*columns, TimeRemainingColumn(), auto_refresh=False) as bar,
    ):
        task = bar.add_task("0 faults", total=len(tasks), completed=len(done))
        faults = 0
        for result in run_cases(todo, options.seed, samples, options.parallel):
            results.append(result)
            file.write(json.dumps([options.seed, *result]) + "\n")
            file.flush()
            faults += result.outcome in FAULTS
            bar.update(task, advance=1, description=f"{faults} faults", refresh=True)
    return results


def _tasks(kinds: Sequence[Kind], number: int) -> Iterator[tuple[Kind, int]]:
    """Kinds and numbers of the cases; a larger number has the cases of a smaller one."""
    done: Counter[str] = Counter()
    for _ in range(number):
        kind = min(kinds, key=lambda each: (done[each.name] + 1) / each.share)
        yield kind, done[kind.name]
        done[kind.name] += 1


def _sheet(results: Sequence[Result]) -> Sheet:
    """Number of outcomes of each kind."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        counts[result.kind][result.outcome] += 1
    legend = "; ".join(f"{name}: {text}" for name, text in OUTCOMES.items())
    sheet = Sheet("Damaged inputs", ["kind", "cases", *OUTCOMES], legend)
    total: Counter[str] = Counter()
    for kind, found in counts.items():
        total.update(found)
        sheet.rows.append(
            [kind, f"{found.total()}", *(f"{found[name] or '–'}" for name in OUTCOMES)]
        )
    sheet.rows.append(["all", f"{total.total()}", *(f"{total[name] or '–'}" for name in OUTCOMES)])
    return sheet


def _show(faults: Sequence[Result]) -> None:
    """List some faults of each kind, one of each text first."""
    terminal = console()
    shown: Counter[str] = Counter()
    texts: set[str] = set()
    for fault in faults:
        short = fault.text[:60]
        if short not in texts and shown[fault.kind] < EXAMPLES:
            texts.add(short)
            shown[fault.kind] += 1
            text = f"{fault.kind} {fault.number} {fault.outcome}: {fault.what}\n    {fault.text}"
            terminal.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
