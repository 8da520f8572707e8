"""Options of learning in rounds; their docstrings are the help of the command."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.config import PotentialConfig
from tesseral.training.config import LossConfig, OptimizationConfig, TrainerConfig

MANUAL = "manual"


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """Structures among which each round selects.

    Args:
        temperatures: temperatures (K) of the molecular dynamics. Where the model does not know a
            structure, it starts again with other velocities.
        pressures: pressures (GPa) at which each temperature is also run, with a variable cell;
            only for crystals. Constant volume is always run.
        time: duration (ps) at each temperature and pressure.
        timestep: time step (fs).
        every: number of steps between structures that may be selected.
        repeat: numbers of cells of the supercell of each start structure.
        distorted: number of rattled and strained copies of each start structure, in the first
            round only: they differ more from what is known than structures of the dynamics do, and
            would take most of the labels of the others.
        strain: largest strain of the copies, in each component.
        rattle: largest root mean square displacement (Å) of the atoms of the copies, along each
            axis.
        random: number of structures with the atoms of each start structure at random places.
        closest: smallest distance of two atoms, as a fraction of the sum of their covalent radii;
            structures with a smaller one are left out.
        model: model that explores the first round, for example universal. Default: that of
            init_from, else rattled and strained copies only.
        stop_uncertainty: expected force error (eV/Å) of an atom at which a run stops. Default:
            that of the model.
        seed: random seed.
    """

    temperatures: list[float] = field(default_factory=lambda: [300.0, 600.0, 1000.0])
    pressures: list[float] = field(default_factory=list)
    time: float = 2.0
    timestep: float = 1.0
    every: int = 20
    repeat: tuple[int, int, int] = (1, 1, 1)
    distorted: int = 20
    strain: float = 0.05
    rattle: float = 0.1
    random: int = 0
    closest: float = 0.75
    model: str | None = None
    stop_uncertainty: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject values that give no structures."""
        for name in ("time", "timestep"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be positive")
        for value in self.temperatures:
            if not 0 < value < math.inf:
                raise ValueError(f"`temperatures` has {value} K; temperatures must be positive")
        for name in ("strain", "rattle", "closest"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be from 0 to 1")
        for name, least in (("every", 1), ("random", 0), ("distorted", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be {least} or more")


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Source of energies, forces and stresses.

    Args:
        calculator: import path of an ASE calculator, such as gpaw.GPAW or
            ase.calculators.espresso.Espresso; a model file or the name of a universal model; or
            manual: structures are written to a folder for somebody else, and the results are read
            from another.
        arguments: arguments of the calculator. A mapping with an entry class, an import path, is
            an object made from the other entries, such as the profile of Espresso.
        processes: number of labels computed at the same time, each in a process of this machine.
        executor: function that returns an executor of concurrent.futures, which computes the
            labels elsewhere: module:function or file.py:function.
        theory: level of theory, stored with the labels. Default: that in the outputs of the
            calculator, or that of the model.
        partial: manual labels: continue with those that are there.
    """

    calculator: str
    arguments: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    executor: str | None = None
    theory: str = ""
    partial: bool = False

    def __post_init__(self) -> None:
        """Reject a number of processes below 1."""
        if self.processes < 1:
            raise ValueError(f"`processes` is {self.processes}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class RoundFitConfig:
    """Training in each round, as in train-potential fit.

    Args:
        model: architecture and size.
        loss: terms and weights of the loss.
        optimization: optimiser, learning rate and averaging of the weights.
        trainer: run time of each round, hardware and checkpoints. Default of max_time: 5m.
        validation_fraction: part of the labels that is set aside for validation and for the
            calibration of the uncertainty. A label stays in its part.
        batch_structures: maximum number of structures in a training batch.
        batch_edges: maximum number of edges (neighbour pairs) in a batch.
        isolated_energies: energies of isolated atoms (eV) by chemical symbol, used as reference
            energies. Default: least squares.
        init_from: model file (or universal) from which the first round starts; the others start
            from the model of the round before.
        short_range: join the potential to the repulsion of the nuclei.
        seed: random seed of the initial weights.
    """

    model: PotentialConfig = field(default_factory=FacetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_time="5m"))
    validation_fraction: float = 0.2
    batch_structures: int = 8
    batch_edges: int = 4_000
    isolated_energies: dict[str, float] | None = None
    init_from: str | None = None
    short_range: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject a fraction that leaves a part empty, and options that each round sets."""
        if not 0 < self.validation_fraction <= 0.5:
            raise ValueError(
                f"`validation_fraction` is {self.validation_fraction}; it must be above 0 and at "
                "most 0.5"
            )
        if self.trainer.ranks > 1:
            raise ValueError(
                f"`trainer.devices` and `trainer.num_nodes` ask for {self.trainer.ranks} "
                "processes; a round trains in one"
            )
        if self.trainer.directory is not None:
            raise ValueError("`trainer.directory` is chosen by each round; leave it out")


@dataclass(frozen=True, kw_only=True)
class LearnConfig:
    """Learn a potential in rounds, with few labels.

    Each round explores with the present model, selects structures that the model does not know
    and that differ from each other, labels them, tests the model on them, and trains it again.

    Args:
        structures: files with start structures, in any format that ASE reads.
        output: folder of the results.
        labels: source of energies, forces and stresses.
        explore: structures among which each round selects.
        fit: training in each round.
        data: dataset file with labels to start from, made by train-potential data import, at the
            level of theory of the new ones.
        first_labels: number of labels in the first round.
        labels_per_round: number of labels in each further round.
        rounds: largest number of rounds.
        budget: largest number of labels; failed ones count.
        target: mean absolute force error (eV/Å) on the structures just selected, before they are
            learned, at which learning ends.
    """

    structures: list[str]
    output: str
    labels: LabelConfig
    explore: ExploreConfig = field(default_factory=ExploreConfig)
    fit: RoundFitConfig = field(default_factory=RoundFitConfig)
    data: str | None = None
    first_labels: int = 10
    labels_per_round: int = 10
    rounds: int = 5
    budget: int | None = None
    target: float | None = None

    def __post_init__(self) -> None:
        """Reject numbers that leave nothing to learn."""
        if not self.structures:
            raise ValueError("`structures` is empty; give a file with a start structure")
        for name, least in (("labels_per_round", 1), ("rounds", 1), ("first_labels", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be {least} or more")
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"`budget` is {self.budget}; it must be 1 or more")
        if self.target is not None and not 0 < self.target < math.inf:
            raise ValueError(f"`target` is {self.target} eV/Å; it must be positive")
