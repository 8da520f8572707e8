"""Prediction of energies, forces and stress in the environment of a program.

    python -m benchmarks.accuracy.predict CALCULATOR MODEL THREADS FOLDER FILE.xyz …

CALCULATOR is a function of ``calculators``. For each file, FOLDER gets an .npz with ``energy``
(structures,), eV; ``forces`` (all atoms, 3), eV/Å; if the file has stress labels, ``stress``
(structures, 6), eV/Å³ in ASE order; and info.json with the number of weights and the seconds.
Needs only NumPy and ASE besides the program. Labels are not read, except for their presence.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read

from benchmarks.accuracy import calculators


def predict(calculator: Any, path: Path) -> dict[str, np.ndarray]:
    """Predictions of the calculator for the structures of a file."""
    parts: dict[str, list[Any]] = {"energy": [], "forces": [], "stress": []}
    for frame in read(path, ":"):
        atoms = frame.copy()
        atoms.calc = calculator
        parts["energy"].append(atoms.get_potential_energy())
        parts["forces"].append(atoms.get_forces())
        if "stress" in frame.calc.results:
            parts["stress"].append(atoms.get_stress())
    arrays = {"energy": np.array(parts["energy"]), "forces": np.concatenate(parts["forces"])}
    if parts["stress"]:
        arrays["stress"] = np.array(parts["stress"])
    return arrays


def main() -> None:
    """Predict for all files."""
    name, model, threads, folder, *files = sys.argv[1:]
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(int(threads))
    calculator, weights = getattr(calculators, name)(model)
    torch.set_num_threads(int(threads))
    start = time.perf_counter()
    for file in files:
        path = Path(file)
        arrays: dict[str, Any] = predict(calculator, path)
        np.savez(Path(folder) / f"{path.stem}.npz", **arrays)
    info = {"parameters": weights, "seconds": time.perf_counter() - start}
    (Path(folder) / "info.json").write_text(json.dumps(info))


if __name__ == "__main__":
    main()
