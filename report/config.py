"""Options of a report, and the sizes of its computations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Options of a report: model, test data, and effort.

    Args:
        model: model file (.safetensors), or universal.
        output: folder for report.html and report.json.
        data: test set: dataset file (.h5) with structures that were not used in training. Without
            one, ``structures`` are tested, and the sections that compare with labels are left out.
        train: training set: dataset file. Default: found by the name and hash in the model card.
        outside: dataset file (.h5) with structures unlike those of ``data``, to test whether the
            uncertainty of the model tells them apart. Labels are not used.
        references: JSON file with reference results of crystals (a0_A, B_GPa, eos, C11_GPa, …).
            Default: found next to the data or among the shipped examples.
        structures: additional crystal to test (CIF, extxyz, …); may be repeated. Without ``data``
            it may be a molecule.
        temperatures: temperatures (K) of the constant-energy runs, e.g. [300,1000].
        hot: temperature (K) of the high-temperature run. Default: 2000 for crystals, 1000 for
            molecules.
        quick: shorter report: smaller cells, shorter runs, fewer sizes.
        dtype: float32 or float64. Default: that of the model.
        device: cpu, cuda, cuda:1, …. Default: a GPU if available.
        threads: number of CPU threads. Default: chosen by PyTorch.
        batch_edges: number of edges (neighbour pairs) computed at once; limits the memory.
        shift_energies: correct a different zero of energy of model and data by one constant per
            element, fitted to the data, as in evaluate.

    Raises:
        ValueError: temperatures or threads that are not positive numbers, or nothing to test.
    """

    model: str
    output: str
    data: str | None = None
    train: str | None = None
    outside: str | None = None
    references: str | None = None
    structures: list[str] = field(default_factory=list)
    temperatures: list[float] | None = None
    hot: float | None = None
    quick: bool = False
    dtype: str | None = None
    device: str | None = None
    threads: int | None = None
    batch_edges: int = 20_000
    shift_energies: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.data is None and not self.structures:
            raise ValueError(
                "there is nothing to test; give a labelled test set as `data`, or structures "
                "without labels as `structures`"
            )
        if self.outside is not None and self.data is None:
            raise ValueError("`outside` is compared with a test set; give one as `data`")
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
    """Sizes of the computations of a report that take time."""

    crystals: int  # maximum number of different crystals
    md_atoms: int  # least size of the supercell for MD
    md_time: float  # ps, each constant-energy run
    warm_up: float  # ps with a thermostat before it
    hot_time: float  # ps, the high-temperature run
    vacancy_atoms: int  # least size of the supercell for a vacancy
    phonon_length: float  # Å, least size of a supercell
    phonon_atoms: int  # largest supercell that is made twice the cutoff wide
    path_steps: int  # steps of 0.001 Å by which an atom is moved in the material, each way
    structures: int  # test structures for symmetries and derivatives
    sizes: tuple[int, ...]  # numbers of atoms that are timed
    dimer_step: float = 0.02  # Å


FULL = Effort(4, 64, 2.0, 0.3, 2.0, 60, 10.0, 300, 300, 3, (8, 64, 512, 4096))
QUICK = Effort(3, 32, 0.5, 0.2, 0.5, 30, 10.0, 0, 120, 1, (8, 64, 512))
