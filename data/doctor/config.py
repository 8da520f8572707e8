"""Options of a check of datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tesseral.data.imports.config import STORES
from tesseral.data.loading.config import SPLITS

MAX_ATOMS = 100_000  # in a full check


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Datasets to check, and the intended training.

    Args:
        files: datasets, or files ASE reads with standard label names and units. The first is the
            training set; the others must not share structures with it.
        cutoff: cutoff (Å) of the potential.
        split: split that fit would use if only the first dataset were given: auto, group, blocks
            or random.
        validation_fraction: as in fit.
        seed: as data.seed in fit.
        json: JSON file for the findings, with 0-based structure indices.
        fix: write a corrected copy of the first dataset. Signs and units are corrected, zero
            labels become missing, and duplicates and structures with the labels of another
            structure are removed; read the findings first, for some may be false.
        thorough: fit a small potential to energies and forces, which takes about a minute, and
            compare the stresses with it. Without this option it is done where a simpler model
            leaves doubts.
        max_atoms: larger datasets are checked on a random sample of this many atoms, unless fix is
            given.
    """

    files: list[str]
    cutoff: float = 5.0
    split: str = "auto"
    validation_fraction: float = 0.1
    seed: int = 0
    json: str | None = None
    fix: str | None = None
    thorough: bool = False
    max_atoms: int = MAX_ATOMS

    def __post_init__(self) -> None:
        """Reject invalid options before anything is read."""
        if not 0 < self.cutoff < 50:
            raise ValueError(f"`cutoff` is {self.cutoff} Å; it must be positive, usually 4 to 6")
        if self.split not in SPLITS:
            raise ValueError(f"`split` {self.split!r} is not one of {', '.join(SPLITS)}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` is {self.validation_fraction}; it must be between 0 and 1"
            )
        if self.max_atoms < 1:
            raise ValueError(f"`max_atoms` is {self.max_atoms}; it must be 1 or more")
        if self.fix is not None:
            if Path(self.fix).suffix not in STORES:
                raise ValueError(f"the name of the corrected copy, {self.fix}, must end in .h5")
            if Path(self.fix).exists():
                raise FileExistsError(f"{self.fix} exists; choose another name for the copy")
