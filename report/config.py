"""The options of a report, and the sizes of its computations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Options of a report: the model, the data to test it on, and how thoroughly.

    Args:
        model: model file, ….safetensors, or universal.
        data: dataset file (….h5) with structures that training has not seen.
        output: folder for report.html and report.json.
        train: dataset file that the model was trained on; looked for by the name and hash in the
            model's card if not given.
        references: JSON of reference results of crystals (a0_A, B_GPa, eos, C11_GPa …); looked for
            beside the data and among the shipped examples if not given.
        structures: crystal (CIF, extxyz …) to test beside those found in the data; may be repeated.
        temperatures: K, of the runs at constant energy, e.g. [300,1000].
        hot: K, of the hot run; 2000 for crystals and 1000 for molecules if not given.
        quick: a shorter report; smaller cells, shorter runs, fewer sizes.
        dtype: float32 or float64; that of the model if not given.
        device: cpu, cuda, cuda:1 …; a GPU where there is one if not given.
        threads: of the processor; PyTorch's choice if not given.
        batch_edges: edges (neighbour pairs) that are computed at once; bounds the memory.

    Raises:
        ValueError: temperatures or threads that are not positive numbers.
    """

    model: str
    data: str
    output: str
    train: str | None = None
    references: str | None = None
    structures: list[str] = field(default_factory=list)
    temperatures: list[float] | None = None
    hot: float | None = None
    quick: bool = False
    dtype: str | None = None
    device: str | None = None
    threads: int | None = None
    batch_edges: int = 20_000

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.temperatures is not None and not (
            self.temperatures and all(0 < value < 1e5 for value in self.temperatures)
        ):
            raise ValueError(
                f"`temperatures` is {self.temperatures}; give one or more in K, e.g. [300,1000]"
            )
        if self.hot is not None and not 0 < self.hot < 1e5:
            raise ValueError(f"`hot` is {self.hot}; give a temperature in K, e.g. 2000")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"`threads` is {self.threads}; give 1 or more")
        if self.batch_edges < 1:
            raise ValueError(f"`batch_edges` is {self.batch_edges}; it must be 1 or more")


class Effort(NamedTuple):
    """Sizes of everything that takes time, of a full report and of a quick one."""

    crystals: int  # at most so many different ones
    md_atoms: int  # of the supercell that MD runs on, at least
    md_time: float  # ps of each run at constant energy
    warm_up: float  # ps with a thermostat before
    hot_time: float  # ps
    vacancy_atoms: int  # of the supercell with a vacancy, at least
    phonon_length: float  # Å, least size of a supercell
    phonon_atoms: int  # up to which the supercell is twice the cutoff wide
    path_steps: int  # of 0.001 Å that an atom is moved in the material, each way
    structures: int  # of the test set, for symmetries and derivatives
    sizes: tuple[int, ...]  # numbers of atoms that are timed
    dimer_step: float = 0.02  # Å


FULL = Effort(4, 64, 2.0, 0.3, 2.0, 60, 10.0, 300, 300, 3, (8, 64, 512, 4096))
QUICK = Effort(3, 32, 0.5, 0.2, 0.5, 30, 10.0, 0, 120, 1, (8, 64, 512))
