"""Comparison of converted Nequix networks with Nequix, and the predictions that are stored."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from ase import Atoms
from ase.io import read, write
from rich.console import Console

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

from benchmarks.sheets import Sheet, cell, save  # noqa: E402
from benchmarks.universal.agreement import (  # noqa: E402
    UNITS,
    largest,
    sort_sheet,
    summary_sheet,
)
from benchmarks.universal.intervals import chosen, errors_of, with_intervals  # noqa: E402
from benchmarks.universal.predictions import Difference, difference, predict  # noqa: E402
from benchmarks.universal.programs import ours, peer  # noqa: E402
from benchmarks.universal.speed import time_programs  # noqa: E402
from benchmarks.universal.structures import structures  # noqa: E402
from tesseral.data.neighbors import atomic_graph  # noqa: E402
from tesseral.deploy.modelfile import load_model  # noqa: E402
from tesseral.deploy.nequix.original import STORED, file_hash, mixed_crystals  # noqa: E402
from tesseral.deploy.nequix.weights import read_weights  # noqa: E402
from tesseral.files import write_text  # noqa: E402

CUTOFF = 6.0  # Å
FINE = 1200  # intervals of the initial model of the study; a multiple of all others
INTERVALS = (20, 50, 100, 150, 200, 300, 400, 600, 1200)
SIZES = (64, 216, 512)


def weights_file(options: argparse.Namespace) -> Path:
    """The weights to compare with.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    path: Path = options.weights or options.data / "nequix" / "nequix-oam-1-pft.nqx"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; name a file of Nequix weights: --weights")
    return path


def model_file(options: argparse.Namespace, intervals: int | None = None) -> Path:
    """The converted model.

    Raises:
        FileNotFoundError: it does not exist.
    """
    weights = weights_file(options)
    name = weights.stem if intervals is None else f"{weights.stem}-{intervals}"
    path: Path = options.output / f"{name}.safetensors"
    if intervals is None and options.model:
        path = options.model
    if not path.is_file():
        words = "" if intervals is None else f" --intervals {intervals}"
        raise FileNotFoundError(
            f"there is no {path}; make it: train-potential convert {weights} -o {path}{words}"
        )
    return path


def frames_of(options: argparse.Namespace) -> tuple[Path, list[Atoms]]:
    """Those of the 200 structures with few edges, sorted by them, since Nequix needs a second each.

    Slabs repeat in all directions, across 12 Å of vacuum: Nequix's own program ignores the cell of
    structures that do not.
    """
    made = structures()
    for atoms in made:
        atoms.pbc = atoms.pbc.any()
    edges = [_edges(atoms) for atoms in made]
    order = np.argsort(edges, kind="stable")
    made = [made[i] for i in order if edges[i] < options.edges]
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "nequix_structures.xyz"
    write(path, made, format="extxyz")
    return path, read(path, ":")


def _edges(atoms: Atoms) -> int:
    """Number of edges within the cutoff."""
    elements = sorted(set(atoms.numbers.tolist()))
    cell = atoms.cell.array
    graph = atomic_graph(atoms.numbers, atoms.positions, cell, atoms.pbc, elements, CUTOFF)
    return len(graph.senders)


def agreement_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Compare our results with Nequix; on request, both in float64 too."""
    path, frames = frames_of(options)
    weights, model = str(weights_file(options).resolve()), model_file(options)
    programs = {"Nequix": peer(options, "nequix", path=weights), "ours": ours(options, model)}
    pairs = [("ours", "Nequix")]
    if options.float64:
        exact = peer(options, "nequix", path=weights, dtype="float64")
        programs |= {"Nequix in float64": exact}
        programs |= {"ours in float64": ours(options, model, dtype="float64")}
        pairs += [("ours in float64", "Nequix in float64"), ("Nequix", "Nequix in float64")]
    found = {}
    for name, program in programs.items():
        terminal.print(f"predictions: {name}")
        found[name] = predict(program, path, options.output)
    differences = {
        f"{one} and {other}": difference(frames, found[one], found[other]) for one, other in pairs
    }
    content: dict[str, Any] = {
        name: {what: values.tolist() for what, values in apart._asdict().items()}
        for name, apart in differences.items()
    }
    content["structures"] = [atoms.info for atoms in frames]
    save(options.output / "nequix_agreement.json", content)
    title = f"{weights_file(options).stem}: {{}}, largest differences by sort"
    return [
        summary_sheet(frames, differences),
        _median_sheet(differences),
        *(sort_sheet(frames, differences[f"{a} and {b}"], title.format(a)) for a, b in pairs[:2]),
    ]


def _median_sheet(differences: dict[str, Difference]) -> Sheet:
    """Medians over the structures."""
    sheet = Sheet("Medians", ("", *(f"{what}, {unit}" for what, unit in UNITS.items())))
    for name, apart in differences.items():
        sheet.rows.append((name, *(f"{np.nanmedian(values):.2g}" for values in apart)))
    return sheet


def interval_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Differences from Nequix in float64 against the number of spline intervals."""
    fine = load_model(model_file(options, FINE), device="cpu", dtype="float64", ops="reference")
    _, every = frames_of(options)
    frames = chosen(every)
    path = options.output / "nequix_interval_structures.xyz"
    write(path, frames, format="extxyz")
    frames = read(path, ":")
    weights = str(weights_file(options).resolve())
    exact = predict(peer(options, "nequix", path=weights, dtype="float64"), path, options.output)
    rows: list[dict[str, float]] = []
    for intervals in INTERVALS:
        terminal.print(f"{intervals} intervals")
        model = fine if intervals == FINE else with_intervals(fine, intervals)
        rows.append({"intervals": intervals, **errors_of(model, frames, exact)})
    save(options.output / "nequix_intervals.json", {"rows": rows})
    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for what, unit in UNITS.items():
        places = [row["intervals"] for row in rows]
        axes.loglog(places, [row[what] for row in rows], "o-", label=f"{what}, {unit}")
    axes.set(xlabel="intervals", ylabel="largest difference")
    axes.legend()
    figure.savefig(options.output / "nequix_intervals.png", dpi=150)
    sheet = Sheet(
        f"{len(frames)} structures, K intervals, float64",
        ("K", *(f"{name}, {unit}" for name, unit in UNITS.items()), "mean", "mean", "mean"),
        "Largest differences from Nequix in float64, then their means.",
    )
    for row in rows:
        values = [cell(row[f"{name}{mean}"], 2) for mean in ("", "_mean") for name in UNITS]
        sheet.rows.append((str(int(row["intervals"])), *values))
    return [sheet]


def speed_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Time the converted model and Nequix's own calculator in turn."""
    weights = str(weights_file(options).resolve())
    programs = [
        ours(options, model_file(options)),
        peer(options, "nequix_calculator", path=weights),
    ]
    return time_programs(options, terminal, programs, "nequix_speed")


def store_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Write the predictions with which ``convert`` compares where Nequix is not installed."""
    files = sorted((options.data / "nequix").glob("*.nqx"))
    if not files:
        raise FileNotFoundError(f"there are no .nqx files in {options.data / 'nequix'}; see --data")
    path = options.output / "nequix_crystals.xyz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, mixed_crystals(read_weights(files[0]).elements), format="extxyz")
    frames = read(path, ":")
    crystals = [
        {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
        }
        for atoms in frames
    ]
    kept: dict[str, Any] = {"crystals": crystals, "files": {}}
    starts = np.cumsum([0, *(len(atoms) for atoms in frames)])
    for file in files:
        terminal.print(f"predictions: {file.name}")
        found = predict(peer(options, "nequix", path=str(file.resolve())), path, options.output)
        kept["files"][file_hash(file)] = {
            "name": file.stem,
            "energy": np.round(found.energy, 6).tolist(),
            "forces": [
                np.round(found.forces[a:b], 6).tolist()
                for a, b in zip(starts, starts[1:], strict=False)
            ],
            "stress": np.round(found.stress, 8).tolist(),
        }
    write_text(STORED, json.dumps(kept, separators=(",", ":")) + "\n")
    sheet = Sheet("Stored predictions", ("file", "crystals", "largest force, eV/Å"))
    for own in kept["files"].values():
        top = max(largest(np.abs(np.array(each)).ravel())[0] for each in own["forces"])
        sheet.rows.append((own["name"], str(len(crystals)), f"{top:.2f}"))
    return [sheet]
