"""Options of a distillation, read without importing PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tesseral.training.duration import parse_duration


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Train a fast potential of a material on energies and forces of a universal one.

    Args:
        structures: structure files in any format ASE reads: all frames, or those selected by
            FILE@INDEX.
        teacher: model that is learned: a model file, universal, or a name that train-potential
            universal lists; several, each with its own option: the mean of their energies, forces
            and stresses. Default: universal.
        output: folder for the results. Default: STRUCTURE-distilled, or distilled for several
            files. Repeating the command resumes an interrupted run.
        temperature: range of temperatures (K) in which the potential is used, LOW:HIGH.
        time: time for everything, as 90s, 30m, 1h30m; more time gives smaller errors.
        clock: clock of the time: wall, or cpu (CPU time of trainings and of the teacher), for a
            machine that is busy with other work.
        atoms: smallest number of atoms of the supercells in molecular dynamics.
        strain: largest strain of the cells.
        vacancies: also learn a vacancy of each element.
        fast: a smaller student, as with configs/fast.yaml: a third of the time of a step, and
            larger errors.
        init_from: model file from which the student starts, such as an earlier distillation of the
            same material with another teacher; the student has its size.
        test_temperature: temperature (K) of the dynamics for the test. Default: the middle of the
            range.
        timestep: time step (fs). Default: 2, or 1 with hydrogen.
        seed: random seed.
        device: cpu, cuda, … for the teacher. Default: a GPU if available.

    Raises:
        ValueError: a value is out of range.
    """

    structures: list[str]
    teacher: list[str] = field(default_factory=list)
    output: str | None = None
    temperature: str = "300:1500"
    time: str = "30m"
    clock: Literal["wall", "cpu"] = "wall"
    atoms: int = 60
    strain: float = 0.06
    vacancies: bool = False
    fast: bool = False
    init_from: str | None = None
    test_temperature: float | None = None
    timestep: float | None = None
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if isinstance(self.teacher, str):
            object.__setattr__(self, "teacher", [self.teacher])
        twice = next((name for name in self.teacher if self.teacher.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"`teacher` has {twice} twice; give each teacher once")
        low, high = self.temperatures
        if not (0 < low <= high < math.inf):
            raise ValueError(
                f"`temperature` is {self.temperature!r}; write two positive temperatures in K, as "
                "in 300:1500"
            )
        parse_duration(self.time)
        if self.atoms < 1:
            raise ValueError(f"`atoms` is {self.atoms}; it must be 1 or more")
        if not 0 <= self.strain < 0.5:
            raise ValueError(f"`strain` is {self.strain}; it must be from 0 to below 0.5")
        if self.fast and self.init_from is not None:
            raise ValueError("`fast` and `init_from` both set the size of the student; give one")
        for name in ("test_temperature", "timestep"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`{name}` is {value}; it must be a positive number")

    @property
    def teachers(self) -> list[str]:
        """The teachers, or the default."""
        return self.teacher or ["universal"]

    @property
    def temperatures(self) -> tuple[float, float]:
        """Lowest and highest temperature, K; NaN if they cannot be read."""
        try:
            parts = [float(part) for part in self.temperature.split(":")]
        except ValueError:
            parts = []
        return (parts[0], parts[-1]) if 1 <= len(parts) <= 2 else (math.nan, math.nan)

    @property
    def test_at(self) -> float:
        """Temperature of the test, K."""
        low, high = self.temperatures
        return (low + high) / 2 if self.test_temperature is None else self.test_temperature

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        if self.output is not None:
            return Path(self.output)
        one = len(self.structures) == 1
        return Path(f"{Path(self.structures[0]).stem}-distilled" if one else "distilled")
