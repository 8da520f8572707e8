"""Recall and precision of ``data check`` for planted faults of the stress.

python -m benchmarks.data_check SET… [--models FOLDER [--seconds 60]] [--samples 3] [--parts 10]
    [--json FILE]

Each set is a dataset file, or a file that ASE reads. With ``--models`` the thorough check is
measured: a small potential for each set is fitted once to energies and forces, and its stresses are
kept in the folder. The labels of the sets are taken to be right. Random parts of a set, as a split
leaves them, are checked as they are: what is found there, and not in the whole set, is false.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from ase.io import read

from tesseral.data.doctor.checkup import check_values, take
from tesseral.data.doctor.findings import Finding, Fix
from tesseral.data.doctor.mending import frame_rotation, mended
from tesseral.data.doctor.ridge import Design, composition_energies, make_design, read_labels
from tesseral.data.doctor.sample import Array, Sample, read_sample
from tesseral.data.doctor.units import check_units
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import structure_from_atoms
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.files import json_text, write_text

FEW = 5  # structures with exchanged components
SIGNS = 0.1  # part of the structures with the opposite sign
SWAPS = {
    "yz/xz": (1, 2, 3, 5, 4, 6),
    "yz/xy": (1, 2, 3, 6, 5, 4),
    "xz/xy": (1, 2, 3, 4, 6, 5),
}
BINS = (0.0, 0.1, 0.3, 1.0, np.inf)  # GPa, RMS change of the stress components by the fault


class Fault(NamedTuple):
    """Planted fault."""

    name: str
    where: str  # all, group or few
    rows: Array  # structures
    fix: Fix  # which it needs; exchanges and signs are their own inverse


def faults(sample: Sample, samples: int) -> Iterator[Fault]:
    """Faults to plant in a set, one at a time."""
    every = np.arange(len(sample.rows))
    types = np.array(sample.store.texts("config_type"))
    names, counts = np.unique(types, return_counts=True)
    for swap, components in SWAPS.items():
        fix = Fix("stress", 1.0, components=components)
        yield Fault(swap, "all", every, fix)
        if len(names) > 1:
            yield Fault(swap, "group", np.nonzero(types == names[counts.argmax()])[0], fix)
    for seed in range(samples):
        rng = np.random.default_rng(seed)
        swap = list(SWAPS)[seed % len(SWAPS)]
        rows = rng.choice(every, FEW, replace=False)
        yield Fault("exchange", "few", rows, Fix("stress", 1.0, components=SWAPS[swap]))
        rows = rng.choice(every, max(1, int(SIGNS * len(every))), replace=False)
        yield Fault("sign", "few", rows, Fix("stress", -1.0))
    turned = np.array([_angle(s.cell) > 10 for s in sample.structures])
    if turned.sum() >= FEW:
        yield Fault("stress frame", "group", every[turned], Fix("stress", 1.0, frame="lower"))
        yield Fault("forces frame", "group", every[turned], Fix("forces", 1.0, frame="lower"))


def _angle(cell: Array) -> float:
    """Angle in degrees of the rotation to the frame in which the cell is lower triangular."""
    trace = np.trace(frame_rotation(cell, "lower"))
    return float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))))


def planted(sample: Sample, fault: Fault) -> Sample:
    """Sample with the labels of some structures damaged."""
    structures = list(sample.structures)
    for row in fault.rows:
        one = structures[row]
        if fault.fix.frame is None:
            structures[row] = mended(one, fault.fix)
            continue
        turn = frame_rotation(one.cell, fault.fix.frame)
        structures[row] = one._replace(
            **(
                {"forces": one.forces @ turn}
                if fault.fix.label == "forces"
                else {"stress": turn.T @ one.stress @ turn}
            )
        )
    return sample._replace(structures=structures)


def found_in(sample: Sample, design: Design, better: Array | None) -> tuple[list[Finding], bool]:
    """Findings about the values of labels, and whether the check would fit a better model."""
    references = composition_energies(sample)
    units = check_units(sample, design, read_labels(sample, references), references)
    findings, outliers = check_values(sample, design, units, better)
    every = [*units.findings, *findings, *outliers.findings]
    return [one for one in every if one.check != "large forces"], outliers.doubtful


def measure(
    sample: Sample, design: Design, better: Array | None, samples: int
) -> Iterator[dict[str, Any]]:
    """Results for each fault: numbers planted and found by size, and false findings."""
    findings, doubtful = found_in(sample, design, better)
    yield {
        "fault": "none",
        "where": "",
        "doubtful": doubtful,
        "false": [f"{f.check}: {f.found}" for f in findings],
    }
    stress = np.stack([s.stress for s in sample.structures]) * EV_PER_A3_IN_GPA
    for fault in faults(sample, samples):
        wrong = planted(sample, fault)
        findings, doubtful = found_in(wrong, design, better)
        known = np.isfinite(stress).all(axis=(1, 2))
        change = np.stack([s.stress for s in wrong.structures]) * EV_PER_A3_IN_GPA - stress
        size = np.sqrt(np.nan_to_num(change**2).mean(axis=(1, 2)))
        if fault.fix.label == "forces":
            size = np.full(len(size), np.inf)
        got = set()
        named = False
        for finding in findings:
            got |= set(finding.rows or range(len(known)))
            named |= finding.fix == fault.fix
        inside = set(fault.rows.tolist())
        bins = [
            [int(r) for r in fault.rows if low <= size[r] < high or (size[r] == high == np.inf)]
            for low, high in zip(BINS, BINS[1:], strict=False)
        ]
        yield {
            "fault": fault.name,
            "where": fault.where,
            "planted": [len(rows) for rows in bins],
            "found": [len(got & set(rows)) for rows in bins],
            "named": named,
            "false": sorted(got - inside),
            "doubtful": doubtful,
            "findings": [f"{f.check}: {f.found}" for f in findings],
        }


def measure_parts(sample: Sample, known: set[str], parts: int) -> Iterator[dict[str, Any]]:
    """Findings in random parts of a set, a third to nine tenths of it.

    Args:
        sample: the whole set.
        known: names of the checks that report something in the whole set.
        parts: number of parts.
    """
    for seed in range(parts):
        rng = np.random.default_rng(seed)
        number = round(float(rng.uniform(1 / 3, 0.9)) * len(sample.rows))
        part = take(sample, np.sort(rng.choice(len(sample.rows), number, replace=False)))
        findings, doubtful = found_in(part, make_design(part), None)
        yield {
            "fault": "none",
            "where": f"{number} structures",
            "doubtful": doubtful,
            "false": [f"{f.check}: {f.found}" for f in findings if f.check not in known],
        }


def predicted(path: Path, sample: Sample, folder: Path, seconds: float) -> Array:
    """Stresses of the potential for a set, fitted now or before."""
    from tesseral.training.stresses import fitted_stresses

    kept = folder / f"{path.stem}.npy"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(kept, fitted_stresses(sample.structures, f"{seconds:g}s", clock="cpu"))
    return np.asarray(np.load(kept))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_check")
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--models", type=Path, help="folder of the fitted potentials' stresses")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of a fit")
    parser.add_argument("--samples", type=int, default=3, help="random choices of structures")
    parser.add_argument("--parts", type=int, default=10, help="random parts without a fault")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    everything: dict[str, list[dict[str, Any]]] = {}
    for path in options.sets:
        results = everything[path.stem] = []
        with TemporaryDirectory() as folder:
            sample = _load(path, Path(folder) / "set.h5")
            _print(f"{path.stem}: {len(sample.rows)} structures")
            design = make_design(sample)
            better = None
            if options.models is not None:
                better = predicted(path, sample, options.models, options.seconds)
            for one in measure(sample, design, better, options.samples):
                results.append(one)
                _print(f"  {_line(one)}")
            known = {found.split(":")[0] for found in results[0]["false"]}
            for one in measure_parts(sample, known, options.parts):
                results.append(one)
                _print(f"  {_line(one)}")
        if options.json is not None:
            write_text(options.json, json_text(everything, indent=1))
    sizes = ", ".join(f"{low:g}–{high:g}" for low, high in zip(BINS, BINS[1:], strict=False))
    _print(f"found/planted by the RMS change of the stress components: {sizes} GPa")
    return 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _load(path: Path, copy: Path) -> Sample:
    if path.suffix == ".h5":
        return read_sample(open_store(path), 2**62)
    write_store(copy, [structure_from_atoms(atoms) for atoms in read(path, ":")])
    return read_sample(open_store(copy), 2**62)


def _line(one: dict[str, Any]) -> str:
    more = " (doubtful)" if one["doubtful"] else ""
    if one["fault"] == "none":
        where = f" {one['where']}" if one["where"] else ""
        return f"clean{where}: {one['false'] or 'nothing found'}{more}"
    parts = " ".join(f"{a}/{b}" for a, b in zip(one["found"], one["planted"], strict=True))
    false = f", false {len(one['false'])}" if one["false"] else ""
    right = ", right correction" if one["named"] else ""
    return f"{one['fault']} {one['where']}: {parts}{right}{false}{more}"


if __name__ == "__main__":
    sys.exit(main())
