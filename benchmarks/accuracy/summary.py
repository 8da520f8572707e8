"""Tables and figures of all results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.accuracy.curves import Curve, Point, compare
from benchmarks.accuracy.figures import plot_curves, plot_profile
from benchmarks.accuracy.recipes import UNITS, Recipe
from benchmarks.sheets import Sheet, cell, report, save

OURS = "tesseral"
KINDS = ("mae", "rmse")
LEGEND = (
    "MAE / RMSE. First those trained here, all on the same structures, cores and time; below, "
    "figures that others published, which took other hardware and mostly hours to days."
)


def curve_of(result: Mapping[str, Any]) -> Curve:
    """The validations of a result."""
    return [Point(**point) for point in result["curve"]]


def error_sheets(recipe: Recipe, results: Sequence[Mapping[str, Any]]) -> list[Sheet]:
    """Test errors of a set, one table a test set, with the published figures."""
    sheets = []
    for test in recipe.tests:
        shown = [name for name in UNITS if f"{name}_mae" in results[0]["errors"][test]]
        if recipe.stress:  # cells of many sizes: the energy of a whole one says little
            shown.remove("molecule_energy")
        columns = [f"{name.replace('_', ' ')} ({UNITS[name]})" for name in shown]
        title = f"{recipe.name}, {test}: {results[0]['minutes']:g} min"
        threads = results[0]["threads"]
        sheet = Sheet(
            f"{title} on {threads} thread{'s' * (threads > 1)}", ["potential", *columns], LEGEND
        )
        for result in results:
            errors = result["errors"][test]
            sheet.rows.append([result["program"], *(both(errors, name) for name in shown)])
        for entry in recipe.published:
            if test in entry.errors:
                cells = [both(entry.errors[test], name) for name in shown]
                sheet.rows.append([f"{entry.method}, {entry.source}", *cells])
        sheets.append(sheet)
    return sheets


def both(errors: Mapping[str, float], name: str) -> str:
    """MAE and RMSE as one cell."""
    values = [errors.get(f"{name}_{kind}") for kind in KINDS]
    return "–" if values == [None, None] else " / ".join(cell(value) for value in values)


def training_sheet(results: Sequence[Mapping[str, Any]]) -> Sheet:
    """How long each program trained, and what it did in that time."""
    sheet = Sheet(
        "Trainings",
        ["set, potential", "weights", "s", "epochs", "structures seen", "atoms/s", "CPU s", "MB"],
        "s: from the first step to the last validation; CPU s and MB: of the whole process, with "
        "its start",
    )
    for result in results:
        process = result["process"]
        name = f"{result['set']} {result['program']}" + " (stopped)" * result["stopped"]
        seen = (result["epochs"], result["structures_seen"], result["atoms_per_s"])
        numbers = [f"{result['parameters']:,}", cell(result["seconds"]), *map(cell, seen)]
        sheet.rows.append([name, *numbers, cell(process["cpu"]), cell(process["peak_mb"])])
    return sheet


def time_sheet(results: Sequence[Mapping[str, Any]]) -> Sheet:
    """Our time to the validation error of each peer's final model."""
    sheet = Sheet(
        "Time to reach the peers' accuracy",
        ["set, peer", "quantity", "peer's error", "peer's time (s)", "ours (s)", "share"],
        "error: validation MAE of the model that the peer delivers, meV/atom and meV/Å; times from "
        "the first step to the first validation that is as good, nothing interpolated",
    )
    ours = {result["set"]: curve_of(result) for result in results if result["program"] == OURS}
    for result in results:
        if result["program"] == OURS or result["set"] not in ours:
            continue
        errors = result["errors"]["validation"]
        final = {name: errors[f"{name}_mae"] for name in ("energy", "forces")}
        for reached in compare(ours[result["set"]], curve_of(result), final):
            texts = [reached.quantity, cell(reached.error), cell(reached.peer), cell(reached.ours)]
            share = "never" if reached.share is None else f"{reached.share:.1%}"
            sheet.rows.append([f"{result['set']} {result['program']}", *texts, share])
    return sheet


def write_summary(
    results: Mapping[tuple[str, str], Mapping[str, Any]],
    recipes: Mapping[str, Recipe],
    output: Path,
    facts: Mapping[str, str],
    command: Sequence[str],
    terminal: Console,
) -> None:
    """Print the tables; write accuracy.md, accuracy.json and the figures."""
    every = list(results.values())
    if not every:
        return
    by_set: dict[str, list[Mapping[str, Any]]] = {}
    for result in every:
        by_set.setdefault(result["set"], []).append(result)
    sheets = [sheet for name, some in by_set.items() for sheet in error_sheets(recipes[name], some)]
    sheets.append(training_sheet(every))
    times = time_sheet(every)
    sheets += [times] if times.rows else []
    report(sheets, facts, command, terminal, output / "accuracy.md")
    save(output / "accuracy.json", {"machine": facts, "command": list(command), "results": every})
    for name, some in by_set.items():
        curves = {result["program"]: curve_of(result) for result in some}
        title = f"{name}, {some[0]['minutes']:g} min, {some[0]['threads']} thread(s)"
        plot_curves(curves, title, output / f"{name}_time.png")
        for path, about in recipes[name].profiles.items():
            profiles = {result["program"]: result["profiles"][path] for result in some}
            plot_profile(profiles, about.label, f"{name}: {path}", output / f"{name}_{path}.png")
    terminal.print(f"written: {output / 'accuracy.md'}, accuracy.json and figures beside it")
