"""Equation of state: energy against volume, equilibrium lattice and bulk modulus.

python -m tesseral.md_examples.equation_of_state structure.cif model.safetensors
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from rich.console import Console

from tesseral.calculators.properties import eos
from tesseral.calculators.properties.eos import (
    EquationOfState,
    compare,
    fit_birch_murnaghan,
    reference_atoms,
)
from tesseral.calculators.simulations.frames import with_suffix
from tesseral.md_examples.common import (
    COLORS,
    finish_axes,
    load_atoms,
    make_figure,
    make_parser,
    output_prefix,
    run_example,
    save_figure,
)
from tesseral.screen import print_table, progress_bar


def equation_of_state(
    atoms: Atoms,
    *,
    points: int = 9,
    extent: float = 0.06,
    fixed_positions: bool = False,
    prefix: Path | None = None,
    reference: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> EquationOfState:
    """``calculators.properties.eos.equation_of_state`` with a progress bar, a plot and a file.

    Args:
        atoms: relaxed, periodic in three directions, with a calculator; not changed.
        points: number of volumes.
        extent: largest relative change of the volume, both ways.
        fixed_positions: do not relax the atoms within each cell.
        prefix: start of the ``.png`` and ``.json`` files; none if not given.
        reference: ``eos`` (``V`` in Å³ and ``E`` in eV) and ``e0_eV_per_atom`` to draw beside.
        console: shows a progress bar if given.

    Raises:
        ValueError: not a crystal, too few points, or no minimum among the volumes.
    """
    with progress_bar(console) as progress:
        result = eos.equation_of_state(
            atoms,
            points=points,
            extent=extent,
            fixed_positions=fixed_positions,
            track=lambda volumes: progress.track(list(volumes), description="equation of state"),
        )
    if prefix is not None:
        _plot(result, reference, with_suffix(prefix, ".png"))
        with_suffix(prefix, ".json").write_text(json.dumps(_numbers(result), indent=1) + "\n")
    return result


def read_reference(path: Path, name: str) -> dict[str, Any]:
    """One cubic crystal of a file of reference values.

    The file holds ``{name: {"a0_A", "B_GPa", "e0_eV_per_atom", "eos": {"V", "E"}}}``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or the crystal is not in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no reference file {path}")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get(name), dict):
        raise ValueError(f"{path} has no crystal {name!r}; name one with --reference-name")
    entry: dict[str, Any] = content[name]
    missing = [key for key in ("a0_A", "B_GPa", "e0_eV_per_atom", "eos") if key not in entry]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)} for {name}")
    return entry


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = make_parser("Equation of state of a relaxed crystal.", "equation_of_state")
    add = parser.add_argument
    add("--points", type=int, default=9, help="number of volumes (%(default)s)")
    add(
        "--range",
        type=float,
        default=0.06,
        help="largest relative change of the volume (%(default)s)",
    )
    add("--fixed-positions", action="store_true", help="do not relax the atoms in each cell")
    add("--reference", type=Path, help="JSON of reference values to compare with")
    add("--reference-name", help="crystal in it; the chemical formula if not given")
    arguments = parser.parse_args(argv)

    def run(console: Console) -> None:
        atoms = load_atoms(arguments)
        prefix = output_prefix(arguments, "equation_of_state")
        reference = None
        if arguments.reference is not None:
            name = arguments.reference_name or atoms.get_chemical_formula(
                mode="metal", empirical=True
            )
            reference = read_reference(arguments.reference, name)
        result = equation_of_state(
            atoms,
            points=arguments.points,
            extent=arguments.range,
            fixed_positions=arguments.fixed_positions,
            prefix=prefix,
            reference=reference,
            console=console,
        )
        fit = result.fit
        rows = [
            ("volume (Å³/atom)", f"{fit.volume / result.n_atoms:.4f}"),
            ("energy (eV/atom)", f"{fit.energy / result.n_atoms:.5f}"),
            *((f"lattice {name}", f"{value:.4f}") for name, value in result.lattice.items()),
            ("bulk modulus (GPa)", f"{fit.bulk_modulus:.1f}"),
            ("its pressure derivative", f"{fit.pressure_derivative:.2f}"),
        ]
        if reference is not None:
            off = compare(result, reference)
            rows.append(("lattice against the reference", f"{off['a_percent']:+.2f} %"))
            rows.append(("bulk modulus against the reference", f"{off['B_percent']:+.1f} %"))
        print_table(console, ("", ""), rows)
        console.print(f"wrote {prefix}.png, {prefix}.json")

    return run_example(run)


def _numbers(result: EquationOfState) -> dict[str, Any]:
    """The result as plain numbers."""
    return {
        "volume_A3_per_atom": result.fit.volume / result.n_atoms,
        "energy_eV_per_atom": result.fit.energy / result.n_atoms,
        "bulk_modulus_GPa": result.fit.bulk_modulus,
        "pressure_derivative": result.fit.pressure_derivative,
        "lattice": result.lattice,
        "volumes_A3": result.volumes.tolist(),
        "energies_eV": result.energies.tolist(),
    }


def _plot(result: EquationOfState, reference: Mapping[str, Any] | None, path: Path) -> None:
    """Energy per atom above the minimum against volume per atom."""
    figure = make_figure(5.5, 4.0)
    axis = figure.subplots()
    n_atoms, fit = result.n_atoms, result.fit
    fine = np.linspace(result.volumes.min(), result.volumes.max(), 200)
    axis.plot(fine / n_atoms, 1000 * (fit(fine) - fit.energy) / n_atoms, color=COLORS[0])
    above = 1000 * (result.energies - fit.energy) / n_atoms
    axis.plot(result.volumes / n_atoms, above, "o", color=COLORS[0], label="model")
    if reference is not None:
        theirs = reference_atoms(reference)
        volumes, energies = (np.array(reference["eos"][key]) / theirs for key in "VE")
        lowest = fit_birch_murnaghan(volumes, energies).energy
        axis.plot(volumes, 1000 * (energies - lowest), "s", color=COLORS[1], label="reference")
    finish_axes(axis, "volume (Å³/atom)", "energy above the minimum (meV/atom)", legend=True)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
