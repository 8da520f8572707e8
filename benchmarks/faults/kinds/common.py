"""Small inputs that several kinds use."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from benchmarks.faults.running import Refused
from tesseral.data.store.write import write_store
from tesseral.data.structures import structure_from_atoms
from tesseral.deploy.modelfile import ModelCard, build_potential, save_model
from tesseral.potentials.architectures.facet import FacetConfig

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "tests/compatibility/files/0.1.0/models"


def write_model(path: Path) -> None:
    """A small Facet for Al and Cu with random weights."""
    card = ModelCard(
        config=FacetConfig(cutoff=3.5, layers=2, channels=4, l_max=2, grid_channels=4),
        elements=(13, 29),
        reference_energies=(-1.5, -2.5),
        energy_scale=0.5,
        mean_neighbors=12.0,
    )
    torch.manual_seed(1)
    save_model(path, build_potential(card), card)


def labelled_frames(number: int, seed: int = 0) -> list[Atoms]:
    """Shaken and strained cells of four atoms with EMT's labels; every third is an alloy."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(number):
        atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
        if i % 3 == 1:
            atoms.numbers[:2] = 13
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), True)
        atoms.rattle(0.12, rng=rng)
        atoms.calc = EMT()
        atoms.get_stress()
        atoms.info["config_type"] = "alloy" if i % 3 == 1 else "copper"
        frames.append(atoms)
    return frames


def write_data(path: Path, number: int = 12, seed: int = 0) -> None:
    """A dataset of these frames."""
    write_store(path, [structure_from_atoms(atoms) for atoms in labelled_frames(number, seed)])


def write_structures(path: Path, number: int = 2) -> None:
    """An extended XYZ file of these frames without labels."""
    frames = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=True) for a in labelled_frames(number)]
    ase.io.write(path, frames, format="extxyz")


def summary_rows(folder: Path) -> Any:
    """Numbers of a summary of ``relax`` or ``md``: a row for each structure."""
    lines = (folder / "summary.csv").read_text("utf-8").splitlines()
    return [[_plain(word) for word in line.split(",")] for line in lines]


def refuse_failed(folder: Path) -> None:
    """Treat a failed structure in a summary as an error of the command.

    Raises:
        Refused: a structure failed; the text is the reason.
        AssertionError: the reason is an exception that is not meant for users.
    """
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["outcome"] == "failed":
                assert not re.match(r"\w+(Error|Exception): ", row["reason"]), row["reason"]
                raise Refused(row["reason"])


def _plain(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word
