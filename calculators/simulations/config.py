"""Options of relaxations, molecular dynamics and properties.

Their docstrings are the help of the commands, which is shown without importing PyTorch or ASE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from tesseral.executors import check_executor

Cell = Literal["auto", "fixed", "in-plane", "free"]
Optimizer = Literal["auto", "bfgs", "lbfgs", "fire"]
NptCell = Literal["isotropic", "axes", "free"]
BandMethod = Literal["climbing", "plain"]
COMPUTED = ("eos", "elastic", "phonons", "vacancies", "surface", "vibrations")


@dataclass(frozen=True, kw_only=True)
class RelaxConfig:
    """Relax positions, and cells where they are periodic.

    Args:
        structures: structure files in any format ASE reads: all frames, or those selected by
            FILE@INDEX (OUTCAR@-1 is the last).
        model: model file, universal, or a name that train-potential universal lists.
        level: level of theory, if the model has several. Default: its first.
        output: folder for the results. Default: STRUCTURE-relax, or relax for several files.
            Repeating the command resumes an interrupted run.
        fmax: convergence criterion: maximum force (eV/Å), including the force on the cell.
        steps: maximum number of steps per structure; can be increased later.
        cell: auto relaxes the cells of crystals and keeps those of structures with vacuum (over
            6 Å), with constraints, or periodic in fewer than three directions; fixed keeps all
            cells; in-plane relaxes the directions without vacuum; free relaxes all periodic ones.
        optimizer: auto (bfgs up to 100 atoms, lbfgs above), or one of these; use fire for poor
            starting structures.
        pressure: external pressure (GPa) for crystals.
        symmetry: preserve the symmetry of the structure (found with a tolerance of 0.01 Å).
        repeat: build an A × B × C supercell.
        processes: number of structures run in parallel, each on one thread. For many small
            structures use the number of cores.
        executor: structures run in parallel by another library, on many nodes: MODULE:FUNCTION or
            FILE.py:FUNCTION, a function without arguments that returns an executor of
            concurrent.futures (Dask, Parsl, executorlib, …). All nodes need the same files.
        dispersion: add D3(BJ) dispersion for this functional, such as pbe. Without a value: for the
            functional of the model's level of theory. Needs the package dftd3.
        dispersion_cutoff: largest distance (Å) of a pair in it. Default: 60 Bohr (31.75 Å).
        device: cpu, cuda, …. Default: a GPU if available.
        dtype: float32 or float64. Default: that of the model.

    Raises:
        ValueError: a value is out of range, or a pressure is given with a fixed cell.
    """

    structures: list[str]
    model: str = "universal"
    level: str | None = None
    output: str | None = None
    fmax: float = 0.02
    steps: int = 500
    cell: Cell = "auto"
    optimizer: Optimizer = "auto"
    pressure: float = 0.0
    symmetry: bool = False
    repeat: tuple[int, int, int] = (1, 1, 1)
    processes: int = 1
    executor: str | None = None
    dispersion: str | None = field(default=None, metadata={"alone": "auto"})
    dispersion_cutoff: float | None = None
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_executor(self.executor, self.processes)
        if not 0 < self.fmax < math.inf:
            raise ValueError(f"`fmax` is {self.fmax} eV/Å; it must be a positive number")
        for name in ("steps", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be 1 or more")
        for name, known in (("optimizer", get_args(Optimizer)), ("cell", get_args(Cell))):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}; use {', '.join(known)}")
        keeps = self.cell in ("fixed", "in-plane")
        if not math.isfinite(self.pressure) or (self.pressure and keeps):
            raise ValueError(
                f"`pressure` is {self.pressure} GPa; it must be a number, and 0 with "
                f"`cell={self.cell!r}`"
            )


@dataclass(frozen=True, kw_only=True)
class MdConfig:
    """Molecular dynamics at constant energy, temperature, or temperature and pressure.

    Args:
        structures: structure files in any format ASE reads: all frames, or those selected by
            FILE@INDEX (OUTCAR@-1 is the last).
        model: model file, universal, or a name that train-potential universal lists.
        level: level of theory, if the model has several. Default: its first.
        output: folder for the results. Default: STRUCTURE-md, or md for several files. Repeating
            the command resumes an interrupted run.
        ensemble: nve, nvt or npt.
        temperature: temperature (K) of the initial velocities and the thermostat.
        final_temperature: temperature (K) at the end of a ramp, for nvt and npt: the thermostat
            changes linearly with time.
        pressure: pressure (GPa) for npt.
        cell: cell in npt: isotropic keeps its shape (liquids, cubic crystals), axes changes the
            lengths of perpendicular vectors, free all lengths and angles.
        time: duration (ps); can be increased later, unless there is a ramp.
        timestep: time step (fs).
        every: number of steps between output frames.
        extxyz: also write the trajectory as extended XYZ, at the end of the run.
        seed: random seed.
        thermostat: thermostat for nvt: bussi disturbs the dynamics least, langevin equilibrates
            faster.
        damping: time constant (fs) of the thermostat.
        pressure_damping: time constant (fs) of the barostat.
        equilibrate: duration (ps) of thermostatted equilibration before nve; 0 to skip it.
        repeat: build an A × B × C supercell.
        stop_uncertainty: expected force error (eV/Å) of an atom at which a run stops and writes its
            structure. Default: the limit of the model, if it knows its uncertainty.
        no_stop_uncertainty: run on, whatever the expected errors are.
        processes: number of structures run in parallel, each on one thread. For many small
            structures use the number of cores.
        executor: structures run in parallel by another library, on many nodes: MODULE:FUNCTION or
            FILE.py:FUNCTION, a function without arguments that returns an executor of
            concurrent.futures (Dask, Parsl, executorlib, …). All nodes need the same files.
        dispersion: add D3(BJ) dispersion for this functional, such as pbe. Without a value: for the
            functional of the model's level of theory. Needs the package dftd3.
        dispersion_cutoff: largest distance (Å) of a pair in it. Default: 60 Bohr (31.75 Å).
        device: cpu, cuda, …. Default: a GPU if available.
        dtype: float32 or float64. Default: that of the model.

    Raises:
        ValueError: a value is out of range.
    """

    structures: list[str]
    model: str = "universal"
    level: str | None = None
    output: str | None = None
    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    temperature: float = 300.0
    final_temperature: float | None = None
    pressure: float = 0.0
    cell: NptCell = "isotropic"
    time: float = 2.0
    timestep: float = 1.0
    every: int = 10
    extxyz: bool = False
    seed: int = 0
    thermostat: Literal["bussi", "langevin"] = "bussi"
    damping: float = 100.0
    pressure_damping: float = 1000.0
    equilibrate: float = 0.2
    repeat: tuple[int, int, int] = (1, 1, 1)
    stop_uncertainty: float | None = None
    no_stop_uncertainty: bool = False
    processes: int = 1
    executor: str | None = None
    dispersion: str | None = field(default=None, metadata={"alone": "auto"})
    dispersion_cutoff: float | None = None
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_executor(self.executor, self.processes)
        for name in ("time", "timestep", "temperature", "damping", "pressure_damping"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"`{name}` is {value}; it must be a positive number")
        for name in ("every", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.equilibrate < math.inf:
            raise ValueError(f"`equilibrate` is {self.equilibrate} ps; it must be 0 or more")
        if self.stop_uncertainty is not None and not self.stop_uncertainty > 0:
            raise ValueError(
                f"`stop_uncertainty` is {self.stop_uncertainty}; it must be positive, in eV/Å"
            )
        if not math.isfinite(self.pressure) or (self.pressure and self.ensemble != "npt"):
            raise ValueError(
                f"`pressure` is {self.pressure} GPa; it must be a number, and needs "
                "`ensemble='npt'`"
            )
        if self.cell not in get_args(NptCell):
            raise ValueError(f"`cell` is {self.cell!r}; use {', '.join(get_args(NptCell))}")
        if self.cell != "isotropic" and self.ensemble != "npt":
            raise ValueError(f"`cell={self.cell!r}` needs `ensemble='npt'`")
        final = self.final_temperature
        if final is not None and not (0 < final < math.inf and self.ensemble != "nve"):
            raise ValueError(
                f"`final_temperature` is {final} K; it must be a positive number, and needs "
                "`ensemble='nvt'` or `ensemble='npt'`"
            )

    def temperature_at(self, fraction: float) -> float:
        """Temperature (K) of the thermostat after a fraction of the run, from 0 to 1."""
        if self.final_temperature is None:
            return self.temperature
        return self.temperature + fraction * (self.final_temperature - self.temperature)


@dataclass(frozen=True, kw_only=True)
class PropertiesConfig:
    """Relax structures, and compute their properties.

    Args:
        structures: structure files in any format ASE reads: all frames, or those selected by
            FILE@INDEX (OUTCAR@-1 is the last).
        model: model file, universal, or a name that train-potential universal lists.
        level: level of theory, if the model has several. Default: its first.
        output: folder for the results. Default: STRUCTURE-properties, or properties for several
            files. Repeating the command resumes an interrupted run; other properties are added.
        compute: comma-separated list of eos, elastic, phonons, vacancies, surface (crystals) and
            vibrations (molecules). Default: eos,elastic,phonons of crystals, vibrations of
            molecules.
        fmax: convergence criterion of the relaxation: maximum force (eV/Å).
        steps: maximum number of steps of the relaxation.
        length: least distance (Å) between opposite faces of the supercell for phonons.
        miller: Miller indices of the surface, in the cell of the file.
        thickness: least thickness (Å) of the slab for the surface.
        reservoirs: structure file whose energy per atom is the chemical potential of its element,
            for vacancies in compounds; may be repeated.
        processes: number of structures run in parallel, each on one thread.
        executor: structures run in parallel by another library, on many nodes: MODULE:FUNCTION or
            FILE.py:FUNCTION, a function without arguments that returns an executor of
            concurrent.futures (Dask, Parsl, executorlib, …). All nodes need the same files.
        dispersion: add D3(BJ) dispersion for this functional, such as pbe. Without a value: for the
            functional of the model's level of theory. Needs the package dftd3.
        dispersion_cutoff: largest distance (Å) of a pair in it. Default: 60 Bohr (31.75 Å).
        device: cpu, cuda, …. Default: a GPU if available.
        dtype: float32 or float64. Derivatives of the energy need float64.

    Raises:
        ValueError: a value is out of range.
    """

    structures: list[str]
    model: str = "universal"
    level: str | None = None
    output: str | None = None
    compute: str | None = None
    fmax: float = 0.001
    steps: int = 500
    length: float = 10.0
    miller: tuple[int, int, int] = (1, 1, 1)
    thickness: float = 12.0
    reservoirs: list[str] = field(default_factory=list)
    processes: int = 1
    executor: str | None = None
    dispersion: str | None = field(default=None, metadata={"alone": "auto"})
    dispersion_cutoff: float | None = None
    device: str | None = None
    dtype: str = "float64"

    def __post_init__(self) -> None:
        """Check the values."""
        check_executor(self.executor, self.processes)
        for name in ("fmax", "length", "thickness"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be a positive number")
        for name in ("steps", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be 1 or more")
        if not any(self.miller):
            raise ValueError("`miller` is 0 0 0; give the indices of a plane")
        for name in (self.compute or "").split(",") if self.compute is not None else ():
            if name.strip() not in COMPUTED:
                known = ", ".join(COMPUTED)
                raise ValueError(f"`compute` has {name.strip()!r}; use some of {known}")

    @property
    def requested(self) -> tuple[str, ...]:
        """Names of the properties to compute; empty for the default."""
        return tuple(name.strip() for name in self.compute.split(",")) if self.compute else ()


@dataclass(frozen=True, kw_only=True)
class NebConfig:
    """Find the minimum-energy path and the barrier between two structures.

    Args:
        start: file with the first structure, in any format ASE reads. Of a file with several,
            FILE@INDEX selects one (OUTCAR@-1 is the last); otherwise the structures of both files
            are paired.
        end: file with the last structure: the same atoms in the same order, in the same cell.
        model: model file, universal, or a name that train-potential universal lists.
        level: level of theory, if the model has several. Default: its first.
        output: folder for the results. Default: START-neb. Repeating the command resumes an
            interrupted run.
        images: number of structures along the path, with both ends.
        method: climbing moves the highest structure to the saddle point; plain does not.
        keep_ends: use both ends as they are. By default they are relaxed first; the cell is kept.
        fmax: convergence criterion: maximum force (eV/Å) on the ends and on the band.
        steps: maximum number of steps, of each end and of the path; can be increased later.
        dispersion: add D3(BJ) dispersion for this functional, such as pbe. Without a value: for the
            functional of the model's level of theory. Needs the package dftd3.
        dispersion_cutoff: largest distance (Å) of a pair in it. Default: 60 Bohr (31.75 Å).
        processes: number of paths computed in parallel, each on one thread.
        executor: structures run in parallel by another library, on many nodes: MODULE:FUNCTION or
            FILE.py:FUNCTION, a function without arguments that returns an executor of
            concurrent.futures (Dask, Parsl, executorlib, …). All nodes need the same files.
        device: cpu, cuda, …. Default: a GPU if available.
        dtype: float32 or float64. Default: that of the model.

    Raises:
        ValueError: a value is out of range.
    """

    start: str
    end: str
    model: str = "universal"
    level: str | None = None
    output: str | None = None
    images: int = 7
    method: BandMethod = "climbing"
    keep_ends: bool = False
    fmax: float = 0.05
    steps: int = 500
    dispersion: str | None = field(default=None, metadata={"alone": "auto"})
    dispersion_cutoff: float | None = None
    processes: int = 1
    executor: str | None = None
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_executor(self.executor, self.processes)
        if not 0 < self.fmax < math.inf:
            raise ValueError(f"`fmax` is {self.fmax} eV/Å; it must be a positive number")
        for name, least in (("images", 3), ("steps", 1), ("processes", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be {least} or more")
        if self.method not in get_args(BandMethod):
            known = ", ".join(get_args(BandMethod))
            raise ValueError(f"`method` is {self.method!r}; use {known}")

    @property
    def structures(self) -> list[str]:
        """File after which the folder is named."""
        return [self.start]
