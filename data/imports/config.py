"""Options of an import."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from tesseral.data.labels import LabelKeys, check_label_names
from tesseral.data.units import LENGTH_UNITS, unit_factor
from tesseral.executors import check_executor

STORES = (".h5", ".hdf5")  # endings of dataset files


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Files to import, and the keys and units of their labels.

    By default units, sign and order are those of the file format: ASE's (eV, eV/Å, eV/Å³, positive
    under tension) for outputs of DFT codes and for all formats ASE reads, VASP's stress (kbar, -1,
    vasp) for JSON in pymatgen's form. Units that an extxyz file states (``energy-unit=hartree``)
    are used; it is an error if the options contradict them. Where a format has no fixed units and
    the file does not contain them, they must be given.

    Args:
        sources: files, folders of calculations, or quoted patterns such as ``'runs/**/OUTCAR'``.
            Formats: outputs of VASP (OUTCAR, vasprun.xml, vaspout.h5, ML_AB), pw.x, GPAW, CP2K,
            ABINIT and FHI-aims; extxyz, traj, db, aselmdb and other formats of ASE; DeePMD folders,
            MLIP's .cfg, input.data of n2p2 and RuNNer, aenet's .xsf, .npz, HDF5 as of MACE, ANI
            and SPICE; JSON as of mlearn, MPtrj, CHGNet, pymatgen's Trajectory and NOMAD.
        output: dataset file to write.
        format: name of a format here or in ASE, or ``pymatgen`` (JSON). Default: detected from
            the files.
        index: frames to read from each file, in ASE notation: ``:``, ``0:1000``, ``::10``, ``-1``.
        energy_key: name of the energy in the files. Default: common names are recognised.
        forces_key: name of the forces.
        stress_key: name of the stress.
        virial_key: name of a virial (-V · stress, in the unit of the energy), instead of a stress.
        length_unit: unit of positions and cells, for formats that have no fixed one (input.data,
            npz, HDF5): A, Bohr or nm.
        energy_unit: unit of the energies: eV, meV, Ha, Ry, kcal/mol or kJ/mol; with /atom for
            energies per atom.
        forces_unit: unit of the forces: eV/A, meV/A, Ha/Bohr, Ha/A, Ry/Bohr, kcal/mol/A or
            kJ/mol/A. Default where the units must be given: that of the energy over that of the
            length.
        stress_unit: unit of the stresses: eV/A^3, Pa, GPa, kbar, bar, Ry/Bohr^3 or Ha/Bohr^3.
        stress_sign: 1 if the stress is positive under tension, -1 for the opposite.
        stress_order: order of six stress components: ase (xx yy zz yz xz xy), lammps (xx yy zz xy
            xz yz) or vasp (xx yy zz xy yz zx).
        elements: elements of the types 0, 1, …, for formats that number the types of atoms (MLIP's
            .cfg, DeePMD); several in one text are separated by commas.
        allow_missing: labels that may be missing: energy, forces, stress.
        config_type_key: key of the configuration type. Default: config_type or category.
        group_key: key of the group, which a split keeps together. Default: group; otherwise each
            calculation or trajectory is a group.
        theory: level of theory of the labels. Default: read from the files.
        overwrite: replace the output if it exists.
        processes: number of processes that read files. Default: the number of cores. Extended XYZ
            files are read in pieces, other files by one process each.
        executor: files read in parallel by another library, on many nodes: MODULE:FUNCTION or
            FILE.py:FUNCTION, a function without arguments that returns an executor of
            concurrent.futures (Dask, Parsl, executorlib, …). All nodes need the same files.
    """

    sources: list[str]
    output: str
    format: str | None = None
    index: str = ":"
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    length_unit: str | None = None
    energy_unit: str | None = None
    forces_unit: str | None = None
    stress_unit: str | None = None
    stress_sign: int | None = None
    stress_order: str | None = None
    elements: list[str] = field(default_factory=list)
    allow_missing: list[str] = field(default_factory=list)
    config_type_key: str | None = None
    group_key: str | None = None
    theory: str = ""
    overwrite: bool = False
    processes: int | None = None
    executor: str | None = None

    def __post_init__(self) -> None:
        """Reject invalid options before anything is read."""
        if not self.sources:
            raise ValueError("there are no sources to import; give one file or more")
        if Path(self.output).suffix not in (".h5", ".hdf5"):
            raise ValueError(f"the output {self.output} must end in .h5")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"`processes` is {self.processes}; it must be 1 or more")
        check_executor(self.executor, self.processes)
        check_label_names(self.allow_missing)
        self.keys(LabelKeys())
        if self.length_unit is not None:
            unit_factor(LENGTH_UNITS, self.length_unit)
        for name in self.given()["elements"]:
            if name not in atomic_numbers:
                raise ValueError(f"`elements` names {name!r}, which is not an element")

    def given(self) -> dict[str, Any]:
        """Options that readers take, with the elements one by one."""
        elements = [name for text in self.elements for name in text.replace(",", " ").split()]
        return {
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "elements": elements,
        }

    def keys(self, convention: LabelKeys) -> LabelKeys:
        """Keys and units, with those of a file format where none are given."""
        given = {
            name: getattr(self, name)
            for name in LabelKeys.__dataclass_fields__
            if getattr(self, name, None) is not None
        }
        return replace(convention, **given, optional=tuple(self.allow_missing))
