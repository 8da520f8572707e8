"""Build ``sic_pbe.h5`` and ``sic_pbe_test.h5`` from the labelled frames of ``make_dataset.py``.

Usage: ``python -m benchmarks.shipped_data.build dataset.extxyz [folder]``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tesseral.data.labels import LabelKeys
from tesseral.data.sources.opening import read_frames
from tesseral.data.store.write import write_store
from tesseral.data.structures import structure_from_atoms

FILES = {"train": "sic_pbe.h5", "test": "sic_pbe_test.h5"}
ATTRIBUTES = {
    "source": "computed for tesseral with GPAW 26.7 (benchmarks/shipped_data/make_dataset.py)",
    "theory": (
        "PBE, PAW, plane waves 600 eV, Fermi-Dirac 0.1 eV, half-shifted Monkhorst-Pack grids with "
        "n·L >= 14 Å, no spin; energies are free energies"
    ),
    "license": "CC0-1.0",
}


def build(dataset: str | Path, folder: str | Path) -> dict[str, int]:
    """Write the two dataset files.

    Args:
        dataset: extxyz file whose frames are tagged ``split=train`` or ``split=test``.
        folder: output folder.

    Returns:
        File name → number of structures.
    """
    frames = list(read_frames(dataset))
    keys = LabelKeys(energy_key="free_energy", config_type_key="category")
    counts = {}
    for split, name in FILES.items():
        structures = (
            structure_from_atoms(atoms, keys)._replace(theory="PBE")
            for atoms in frames
            if atoms.info["split"] == split
        )
        counts[name] = write_store(Path(folder) / name, structures, attributes=ATTRIBUTES)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("folder", nargs="?", default="data/examples")
    arguments = parser.parse_args()
    build(arguments.dataset, arguments.folder)
