"""Tables and figures of all results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.accuracy.curves import Curve, Point, compare
from benchmarks.accuracy.figures import plot_curves, plot_profile
from benchmarks.accuracy.recipes import OURS, UNITS, Recipe
from benchmarks.sheets import Sheet, cell, report, save

Result = Mapping[str, Any]
KINDS = ("mae", "rmse")
LEGEND = (
    "MAE / RMSE. First: trained here, all on the same structures, cores and time. Below: "
    "values published by others, with other hardware and mostly hours to days of training."
)


def curve_of(result: Result) -> Curve:
    """Validations of a result."""
    return [Point(**point) for point in result["curve"]]


def error_sheets(recipe: Recipe, results: Sequence[Result]) -> list[Sheet]:
    """Test errors of a set, one table per test set, with the published values."""
    sheets = []
    for test in recipe.tests:
        shown = [name for name in UNITS if f"{name}_mae" in results[0]["errors"][test]]
        if recipe.stress:  # cells of many sizes: the total energy is not meaningful
            shown.remove("molecule_energy")
        columns = [f"{name.replace('_', ' ')} ({UNITS[name]})" for name in shown]
        sheet = Sheet(f"{about(results[0])}: {test} set", ["potential", *columns], LEGEND)
        ours = of_ours(results)
        for result in results:
            errors = result["errors"][test]
            sheet.rows.append([label(result, ours), *(both(errors, name) for name in shown)])
            if len(ours) > 1 and result is ours[-1]:
                means = [mean_cell(ours, test, name) for name in shown]
                sheet.rows.append([f"{OURS}, mean of {len(ours)} seeds", *means])
        for entry in recipe.published:
            if test in entry.errors:
                cells = [both(entry.errors[test], name) for name in shown]
                sheet.rows.append([f"{entry.method}, {entry.source}", *cells])
        sheets.append(sheet)
    return sheets


def of_ours(results: Sequence[Result]) -> list[Result]:
    """Results of our program, one for each seed."""
    return [result for result in results if result["program"] == OURS]


def label(result: Result, ours: Sequence[Result]) -> str:
    """Name of a result in a table, with the seed if ours has several."""
    name: str = result["program"]
    return f"{name}, seed {result['seed']}" if len(ours) > 1 and name == OURS else name


def of_seeds(ours: Sequence[Result], test: str, name: str) -> dict[str, float] | None:
    """Mean and standard deviation of an error over the seeds; None if it is not there."""
    values = [result["errors"][test].get(name) for result in ours]
    if None in values:
        return None
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))}


def mean_cell(ours: Sequence[Result], test: str, name: str) -> str:
    """Means of MAE and RMSE over the seeds, with their standard deviations, as one cell."""
    found = [of_seeds(ours, test, f"{name}_{kind}") for kind in KINDS]
    parts = [f"{cell(each['mean'])} ± {cell(each['deviation'], 2)}" for each in found if each]
    return " / ".join(parts) or "–"


def seed_means(comparable: Sequence[Sequence[Result]]) -> list[dict[str, Any]]:
    """Mean errors of our trainings with several seeds, for the file of all numbers."""
    means = []
    for some in comparable:
        ours = of_ours(some)
        if len(ours) > 1:
            head = {name: ours[0][name] for name in ("set", "minutes", "threads", "clock")}
            errors = {
                test: {name: of_seeds(ours, test, name) for name in ours[0]["errors"][test]}
                for test in ours[0]["errors"]
            }
            means.append({**head, "seeds": [one["seed"] for one in ours], "errors": errors})
    return means


def first_seed(results: Sequence[Result]) -> dict[str, Result]:
    """One result of each program, by its name: of ours, that of the first seed."""
    found: dict[str, Result] = {}
    for result in results:
        found.setdefault(result["program"], result)
    return found


def about(result: Result) -> str:
    """Description of the training data and time."""
    threads = result["threads"]
    time = f"{result['minutes']:g} {'CPU ' * (result.get('clock') == 'cpu')}min"
    return f"{result['set']}, {time} on {threads} thread{'s' * (threads > 1)}"


def profile_sheet(recipe: Recipe, results: Sequence[Result]) -> Sheet:
    """Table of the errors along paths."""
    columns = [f"{name.replace('_', ' ')} (meV)" for name in recipe.profiles]
    sheet = Sheet(
        f"{about(results[0])}: energies along paths",
        ["potential", *columns],
        "MAE / largest error of the energy of the molecule relative to the lowest DFT structure",
    )
    ours = of_ours(results)
    for result in results:
        cells = []
        for name in recipe.profiles:
            _, dft, energy = result["profiles"][name]
            wrong = np.abs(np.subtract(energy, dft))
            cells.append(f"{cell(float(wrong.mean()))} / {cell(float(wrong.max()))}")
        sheet.rows.append([label(result, ours), *cells])
    return sheet


def both(errors: Mapping[str, float], name: str) -> str:
    """MAE and RMSE as one cell."""
    values = [errors.get(f"{name}_{kind}") for kind in KINDS]
    return "–" if values == [None, None] else " / ".join(cell(value) for value in values)


def training_sheet(results: Sequence[Result]) -> Sheet:
    """Table of the training time of each program, and its epochs and steps in that time."""
    sheet = Sheet(
        "Trainings",
        ["set, potential", "weights", "s", "epochs", "structures seen", "atoms/s", "cores", "MB"],
        "s: from the first step to the last validation; cores: CPU time divided by wall-clock time "
        "of the whole process. If this is less than the number of threads, other programs used the "
        "machine, and the times cannot be compared; MB: peak memory of the process",
    )
    for result in results:
        process = result["process"]
        seed = f", seed {result['seed']}" if result.get("seed") else ""
        name = f"{result['set']} {result['program']}{seed}" + " (stopped)" * result["stopped"]
        seen = (result["epochs"], result["structures_seen"], result["atoms_per_s"])
        numbers = [f"{result['parameters']:,}", cell(result["seconds"]), *map(cell, seen)]
        sheet.rows.append(
            [name, *numbers, cell(process["cpu"] / process["wall"]), cell(process["peak_mb"])]
        )
    return sheet


def time_sheet(comparable: Sequence[Sequence[Result]]) -> Sheet:
    """Our time to reach the validation error of each peer's final model.

    Args:
        comparable: result of ``groups``.
    """
    sheet = Sheet(
        "Time to reach the peers' accuracy",
        ["set, peer", "quantity", "peer's error", "peer's time (s)", "ours (s)", "share"],
        "error: validation MAE of the final model of the peer, meV/atom and meV/Å; times from "
        "the first step to the first validation that is as good, without interpolation",
    )
    for some in comparable:
        by_program = first_seed(some)
        if OURS not in by_program:
            continue
        ours = curve_of(by_program.pop(OURS))
        for result in by_program.values():
            errors = result["errors"]["validation"]
            final = {name: errors[f"{name}_mae"] for name in ("energy", "forces")}
            for reached in compare(ours, curve_of(result), final):
                numbers = [cell(value) for value in (reached.error, reached.peer, reached.ours)]
                share = "never" if reached.share is None else f"{reached.share:.1%}"
                name = f"{result['set']} {result['program']}"
                sheet.rows.append([name, reached.quantity, *numbers, share])
    return sheet


def groups(results: Sequence[Result]) -> list[list[Result]]:
    """Groups of comparable results, with the same set, time and threads."""
    found: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        key = tuple(result[name] for name in ("set", "minutes", "threads"))
        found.setdefault(key, []).append(result)
    return list(found.values())


def write_summary(
    results: Sequence[Result],
    recipes: Mapping[str, Recipe],
    output: Path,
    command: Sequence[str],
    terminal: Console,
) -> None:
    """Print the tables; write accuracy.md, accuracy.json and the figures.

    Args:
        results: results of all trainings.
        recipes: recipes by name of the set.
        output: output folder.
        command: command line, for the record.
        terminal: console to print on.
    """
    if not results:
        return
    comparable = groups(results)
    sheets = []
    for some in comparable:
        recipe = recipes[some[0]["set"]]
        sheets += error_sheets(recipe, some)
        sheets += [profile_sheet(recipe, some)] if recipe.profiles else []
    sheets.append(training_sheet(results))
    times = time_sheet(comparable)
    sheets += [times] if times.rows else []
    facts = dict(results[0]["machine"])
    others = {result["machine"]["processor"] for result in results} - {facts["processor"]}
    if others:
        facts["not all on this machine; also"] = ", ".join(sorted(others))
    report(sheets, facts, command, terminal, output / "accuracy.md")
    content = {"command": list(command), "results": list(results), "means": seed_means(comparable)}
    save(output / "accuracy.json", content)
    for some in sorted(comparable, key=len):  # of several, the one with most programs is kept
        plot(recipes[some[0]["set"]], some, output)
    terminal.print(f"written: {output / 'accuracy.md'}, accuracy.json and figures next to it")


def plot(recipe: Recipe, results: Sequence[Result], output: Path) -> None:
    """The figures of a set; of several seeds, the first is shown."""
    shown = first_seed(results)
    curves = {name: curve_of(result) for name, result in shown.items()}
    plot_curves(curves, about(results[0]), output / f"{recipe.name}_time.png")
    for name, path in recipe.profiles.items():
        profiles = {program: result["profiles"][name] for program, result in shown.items()}
        title = f"{about(results[0])}: {name.replace('_', ' ')}"
        plot_profile(profiles, path.label, title, output / f"{recipe.name}_{name}.png")
