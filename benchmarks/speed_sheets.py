"""Tables of benchmarks/speed.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.sheets import Sheet, cell


def inference_sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """Table of times per atom, share of the neighbour list, memory, and arithmetic."""
    counted = any("gflops" in row for row in rows)
    columns = ["setting", "atoms", "wall min", "median", "CPU min", "median", "rebuilt"]
    columns += ["list", "MB", "sgemm"] + (["GFLOP/s", "of sgemm"] if counted else [])
    per_list = next((row["steps_per_list"] for row in rows if "steps_per_list" in row), math.nan)
    sheet = Sheet(
        "Energy, forces and stress, µs per atom and step",
        columns,
        "rebuilt: median with a new neighbour list in each step; list: share of the list in MD, "
        f"with a search in {per_list:.0f} steps; MB: peak above the import of torch; sgemm: "
        "GFLOP/s and thread of a matrix product in the same run",
    )
    for row in rows:
        if "error" in row:
            empty = [""] * (len(columns) - 3)
            sheet.rows.append([row["name"], str(row["atoms"]), row["error"], *empty])
            continue
        scale = 1e6 / row["atoms"]
        step = row["step"]
        keys = ("wall_min", "wall_median", "cpu_min", "cpu_median")
        texts = [row["name"], str(row["atoms"]), *(cell(scale * step[key]) for key in keys)]
        texts += [cell(scale * row["rebuilt"]["wall_median"])]
        texts += [f"{100 * row['list_share']:.1f}%" if "list_share" in row else "–"]
        texts += [cell(row["peak_mb"], 4), cell(row["sgemm_gflops_per_thread"])]
        if counted:
            texts += [cell(row.get("gflops")), f"{100 * row.get('of_sgemm', math.nan):.0f}%"]
        sheet.rows.append(texts)
    return sheet


def training_sheet(rows: Sequence[dict[str, Any]], batch: str) -> Sheet:
    """Table of the throughput of optimiser steps."""
    sheet = Sheet(
        f"Optimiser steps with energy, forces and stress of {batch}",
        ["setting", "atoms/s median", "best", "CPU µs/atom median", "best", "MB", "sgemm"],
        "MB: peak above the import of torch; sgemm: GFLOP/s and thread of a matrix product in the "
        "same run",
    )
    for row in rows:
        step, n_atoms = row["step"], row["atoms"]
        if "error" in row:
            sheet.rows.append([row["name"], row["error"], *[""] * 5])
            continue
        texts = [cell(n_atoms / step[key]) for key in ("wall_median", "wall_min")]
        texts += [cell(1e6 * step[key] / n_atoms) for key in ("cpu_median", "cpu_min")]
        texts += [cell(row["peak_mb"], 4), cell(row["sgemm_gflops_per_thread"])]
        sheet.rows.append([row["name"], *texts])
    return sheet
