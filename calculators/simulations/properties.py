"""Properties of one structure: it is relaxed, then each property is computed and saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator

from tesseral.calculators.properties import elastic, eos, phonons, surface, vacancy, vibrations
from tesseral.calculators.properties.atoms import (
    copy_atoms,
    is_bulk,
    is_crystal,
    largest_force,
    repeated,
    space_group,
)
from tesseral.calculators.properties.relaxation import relaxing
from tesseral.calculators.simulations import pictures
from tesseral.calculators.simulations.config import PropertiesConfig
from tesseral.calculators.simulations.frames import frame_of, with_suffix, write_frames
from tesseral.calculators.simulations.relaxation import CELL_COLUMNS, Outcome, Show, theory_of
from tesseral.data.sources.opening import read_last_frame
from tesseral.files import write_json, write_whole

VACANCY_ATOMS = 60  # least size of the supercell
MESH = 12  # q points along each reciprocal lattice vector, for densities of states
TEMPERATURE = 300.0  # K, of the heat capacity


class Property(NamedTuple):
    """A property: how it is computed, and its most important numbers."""

    compute: Callable[[Atoms, PropertiesConfig, Path], dict[str, Any]]  # also draws and writes
    columns: Mapping[str, tuple[str, int]]  # column of the summary → title and decimals on screen
    options: tuple[str, ...] = ()  # fields of the configuration that it depends on
    molecules: bool = False  # of molecules instead of crystals


def properties_one(
    atoms: Atoms, calculator: Calculator, config: PropertiesConfig, prefix: Path, show: Show
) -> Outcome:
    """Relax a structure, and compute the properties that are not known yet.

    Args:
        atoms: initial structure; not changed.
        calculator: calculator of the model.
        config: options.
        prefix: path of the files without their endings: ``.extxyz`` and ``.cif`` (relaxed
            structure), ``-eos.json`` and ``-eos.png`` and so on.
        show: called before each property.

    Raises:
        ValueError: the model cannot evaluate the structure, or no requested property applies to it.
        CalculationFailed: energies or forces are not finite.
    """
    crystal = is_bulk(atoms)
    default = [name for name in DEFAULTS if PROPERTIES[name].molecules != crystal]
    wanted = list(config.requested or default)
    if not crystal and atoms.pbc.any() and not config.requested:
        raise ValueError(
            "it is neither a crystal without vacuum nor a molecule without periodic directions; "
            "none of the properties applies to it"
        )
    todo = [name for name in PROPERTIES if name in wanted]
    known = [name for name in PROPERTIES if name not in wanted and _known(name, config, prefix)]
    show(0, len(todo), "relaxing")
    relaxed, step, converged = _relaxed(atoms, calculator, config, prefix)
    values: dict[str, float | str] = {
        "energy_eV_atom": float(relaxed.get_potential_energy()) / len(relaxed),
        "max_force_eV_A": largest_force(relaxed),
    }
    if crystal:
        values |= zip(CELL_COLUMNS, relaxed.cell.cellpar(), strict=True)
        values["space_group"] = space_group(relaxed)
    problems = [] if converged else ["`steps` was not enough for the relaxation"]
    done = []
    for number, name in enumerate([*known, *todo]):
        show(number, len(todo), name)
        try:
            numbers = _known(name, config, prefix)
            if numbers is None:
                numbers = _computed(name, relaxed, crystal, config, prefix)
                numbers["level_of_theory"] = theory_of(calculator)
                numbers["options"] = _options(name, config)
                write_json(_file(prefix, name), numbers, indent=1)
        except (ValueError, CalculationFailed, np.linalg.LinAlgError) as error:
            problems.append(f"{name}: {error}")
            continue
        done.append(name)
        values |= {column: numbers.get(column, "") for column in PROPERTIES[name].columns}
    values["computed"] = " ".join(done)
    return Outcome("incomplete" if problems else "done", step, values, "; ".join(problems))


def _computed(
    name: str, atoms: Atoms, crystal: bool, config: PropertiesConfig, prefix: Path
) -> dict[str, Any]:
    """Numbers of a property of a relaxed structure."""
    if PROPERTIES[name].molecules and atoms.pbc.any():
        raise ValueError("needs a molecule without periodic directions")
    if not PROPERTIES[name].molecules and not crystal:
        raise ValueError("needs a crystal, periodic in three directions and without vacuum")
    return PROPERTIES[name].compute(atoms, config, prefix)


def _relaxed(
    atoms: Atoms, calculator: Calculator, config: PropertiesConfig, prefix: Path
) -> tuple[Atoms, int, bool]:
    """The relaxed structure with its calculator, the number of steps, and whether it converged."""
    path = with_suffix(prefix, ".extxyz")
    done = path.exists()
    if done:
        found = read_last_frame(path)
        found.set_constraint(atoms.constraints)
        atoms = found
    else:
        atoms = atoms.copy()
    atoms.calc = calculator
    for step in relaxing(atoms, fmax=config.fmax, steps=config.steps):  # noqa: B007
        pass
    if not done:
        write_frames(path, [frame_of(atoms, atoms.constraints)])
        if is_crystal(atoms):
            with write_whole(with_suffix(prefix, ".cif")) as temporary:
                ase.io.write(temporary, atoms, format="cif")
    return atoms, step.number, step.converged


def _file(prefix: Path, name: str) -> Path:
    """File with the numbers of a property."""
    return with_suffix(prefix, f"-{name}.json")


def _known(name: str, config: PropertiesConfig, prefix: Path) -> dict[str, Any] | None:
    """Numbers of a property that was computed before with the same options."""
    try:
        numbers = json.loads(_file(prefix, name).read_text(encoding="utf-8"))
        return numbers if numbers["options"] == _options(name, config) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _options(name: str, config: PropertiesConfig) -> dict[str, Any]:
    """Options of a property in JSON types."""
    options = {option: getattr(config, option) for option in PROPERTIES[name].options}
    found: dict[str, Any] = json.loads(json.dumps(options))
    return found


def _eos(atoms: Atoms, config: PropertiesConfig, prefix: Path) -> dict[str, Any]:
    result = eos.equation_of_state(atoms)
    misfit = result.fit(result.volumes) - result.energies
    pictures.draw_eos(result, with_suffix(prefix, "-eos.png"))
    return {
        "V0_A3_atom": result.fit.volume / result.n_atoms,
        "B0_GPa": result.fit.bulk_modulus,
        "B0_prime": result.fit.pressure_derivative,
        "E0_eV_atom": result.fit.energy / result.n_atoms,
        "largest_fit_error_meV_atom": 1000 * float(np.abs(misfit).max()) / result.n_atoms,
        "lattice": result.lattice,
        "volumes_A3_atom": result.volumes / result.n_atoms,
        "energies_eV_atom": result.energies / result.n_atoms,
    }


def _elastic(atoms: Atoms, config: PropertiesConfig, prefix: Path) -> dict[str, Any]:
    result = elastic.elastic_constants(atoms)
    moduli = elastic.hill_averages(result.stiffness)
    pictures.draw_stiffness(result.stiffness, with_suffix(prefix, "-elastic.png"))
    return {
        **moduli,
        "lowest_eigenvalue_GPa": result.eigenvalues[0],
        "stiffness_GPa": result.stiffness,
        "order": ["xx", "yy", "zz", "yz", "xz", "xy"],
        "axes": "Cartesian axes of the relaxed structure",
        "asymmetry_GPa": result.asymmetry,
        "cubic_GPa": elastic.cubic_constants(result.stiffness) if _is_cubic(atoms) else None,
    }


def _phonons(atoms: Atoms, config: PropertiesConfig, prefix: Path) -> dict[str, Any]:
    from phonopy.file_IO import write_FORCE_SETS  # imported here because it is slow

    constants = phonons.force_constants(atoms, length=config.length)
    model = constants.model
    with write_whole(with_suffix(prefix, "-phonopy.yaml")) as temporary:
        model.save(temporary, settings={"force_constants": True})
    with write_whole(with_suffix(prefix, "-FORCE_SETS")) as temporary:
        write_FORCE_SETS(model.dataset, filename=str(temporary))
    path = phonons.bands(constants)
    pictures.draw_bands(path, with_suffix(prefix, "-phonons.png"))
    thermal = phonons.thermal_properties(constants, TEMPERATURE, MESH)
    return {
        "lowest_frequency_THz": phonons.lowest_frequency(constants),
        "highest_frequency_THz": float(path.frequencies.max()),
        "zero_point_energy_meV_atom": thermal.zero_point_energy,
        "heat_capacity_J_K_mol": thermal.heat_capacity,
        "entropy_J_K_mol": thermal.entropy,
        "temperature_K": TEMPERATURE,
        "frequencies_at_gamma_THz": phonons.frequencies(constants, [0, 0, 0])[0],
        "supercell": list(constants.repeats),
        "displacements": constants.n_displacements,
    }


def _vacancies(atoms: Atoms, config: PropertiesConfig, prefix: Path) -> dict[str, Any]:
    potentials = {}
    for path in config.reservoirs:
        elemental = read_last_frame(path)
        symbols = set(elemental.get_chemical_symbols())
        if len(symbols) != 1:
            raise ValueError(f"the reservoir {path} has {len(symbols)} elements; it must have one")
        elemental.calc = atoms.calc
        for step in relaxing(elemental, fmax=config.fmax, steps=config.steps):
            potentials[symbols.copy().pop()] = step.energy
    symbols = set(atoms.get_chemical_symbols())
    if len(symbols) == 1:
        own = float(atoms.get_potential_energy()) / len(atoms)
        potentials.setdefault(symbols.copy().pop(), own)
    missing = sorted(symbols - set(potentials))
    if missing:
        raise ValueError(
            f"needs a reservoir of {', '.join(missing)}: give a structure of it as `reservoirs`"
        )
    found = vacancy.vacancy_energies(repeated(atoms, VACANCY_ATOMS), potentials)
    lowest = min(one.relaxed for one in found)
    return {
        "lowest_vacancy_eV": lowest,
        "vacancies": [one._asdict() for one in found],
        "supercell_atoms": found[0].n_atoms,
    }


def _surface(atoms: Atoms, config: PropertiesConfig, prefix: Path) -> dict[str, Any]:
    result = surface.surface_energy(atoms, config.miller, thickness=config.thickness)
    write_frames(with_suffix(prefix, "-surface.extxyz"), [frame_of(result.slab, [])])
    return {
        "surface_energy_J_m2": result.relaxed,
        "unrelaxed_J_m2": result.unrelaxed,
        "miller": list(config.miller),
        "atoms": len(result.slab),
        "area_A2": result.area,
        "converged": result.converged,
    }


def _vibrations(atoms: Atoms, config: PropertiesConfig, prefix: Path) -> dict[str, Any]:
    result = vibrations.vibrations(copy_atoms(atoms))
    pictures.draw_modes(result.frequencies, with_suffix(prefix, "-vibrations.png"))
    return {
        "lowest_mode_cm": float(result.frequencies[0]),
        "highest_mode_cm": float(result.frequencies[-1]),
        "zero_point_energy_eV": result.zero_point_energy,
        "frequencies_cm": result.frequencies,
    }


def _is_cubic(atoms: Atoms) -> bool:
    """Whether the cell is that of a cubic crystal along the Cartesian axes."""
    number = space_group(atoms).rpartition("(")[2].rstrip(")")
    cell = atoms.cell.array
    cube = cell @ cell.T / atoms.get_volume() ** (2 / 3)
    straight = np.abs(cube / cube[0, 0] - np.eye(3)).max() < 1e-3
    along = np.abs(np.abs(cell).max(axis=1) - atoms.cell.lengths()).max() < 1e-3
    return number.isdigit() and int(number) >= 195 and bool(straight and along)


PROPERTIES: Mapping[str, Property] = {
    "eos": Property(
        _eos,
        {"V0_A3_atom": ("V₀ Å³", 3), "B0_GPa": ("B₀ GPa", 1), "B0_prime": ("B₀′", 2)},
    ),
    "elastic": Property(
        _elastic,
        {
            "bulk_modulus_GPa": ("K GPa", 1),
            "shear_modulus_GPa": ("G GPa", 1),
            "young_modulus_GPa": ("E GPa", 1),
            "poisson_ratio": ("ν", 3),
            "lowest_eigenvalue_GPa": ("lowest C GPa", 1),
        },
    ),
    "phonons": Property(
        _phonons,
        {
            "lowest_frequency_THz": ("lowest THz", 2),
            "highest_frequency_THz": ("highest THz", 2),
            "zero_point_energy_meV_atom": ("ZPE meV/atom", 1),
            "heat_capacity_J_K_mol": ("C_V J/K/mol", 2),
        },
        options=("length",),
    ),
    "vacancies": Property(
        _vacancies, {"lowest_vacancy_eV": ("lowest eV", 3)}, options=("reservoirs",)
    ),
    "surface": Property(
        _surface, {"surface_energy_J_m2": ("γ J/m²", 3)}, options=("miller", "thickness")
    ),
    "vibrations": Property(
        _vibrations,
        {
            "lowest_mode_cm": ("lowest cm⁻¹", 1),
            "highest_mode_cm": ("highest cm⁻¹", 1),
            "zero_point_energy_eV": ("ZPE eV", 3),
        },
        molecules=True,
    ),
}
DEFAULTS = ("eos", "elastic", "phonons", "vibrations")
COLUMNS: Sequence[str] = (
    "energy_eV_atom",
    "max_force_eV_A",
    *CELL_COLUMNS,
    "space_group",
    *(column for each in PROPERTIES.values() for column in each.columns),
    "computed",
)
