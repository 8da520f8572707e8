"""Sections on crystals: crystals found, equation of state, elastic constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from tesseral.calculators.properties import elastic, eos
from tesseral.report.content import NONE, Block, Note, Section, Verdict, table
from tesseral.report.context import Context
from tesseral.report.crystal_search import Crystal, conventional
from tesseral.report.figures import COLORS, finish, panels, picture
from tesseral.report.verdicts import decide, judge


def crystals(context: Context) -> Section | None:
    """Crystals found in the data, and their change on relaxation."""
    if not context.crystals:
        if context.molecule is not None:
            return None
        return Section(
            "No perfect crystal was found in the data: no periodic structure is both symmetric and "
            "free of forces. Give crystals as `structures` to test them.",
        )
    rows, verdicts = [], []
    for crystal in context.crystals:
        parameters = conventional(crystal.atoms).cell.cellpar()
        change = "lost" if crystal.problem else f"{crystal.volume_change:+.2f}".replace("-", "−")
        lengths = "  ".join(f"{value:.3f}" for value in parameters[:3])
        angles = "  ".join(f"{value:.1f}" for value in parameters[3:])
        group = f"{crystal.group} ({crystal.number})"
        rows.append((crystal.formula, group, lengths, angles, change, crystal.source))
        verdicts.append(_kept(crystal))
    columns = ("crystal", "space group", "a, b, c (Å)", "angles (°)", "volume (%)", "from")
    return Section(
        lead="Perfect crystals among the structures of the data, relaxed by the model (positions "
        "and cell, float64). The volume column shows the change by the relaxation.",
        blocks=(table(columns, rows),),
        verdicts=tuple(verdicts),
        numbers={
            crystal.name: {
                "cell": crystal.atoms.cell.array,
                "numbers": crystal.atoms.numbers,
                "scaled_positions": crystal.atoms.get_scaled_positions(),
                "volume_change_percent": crystal.volume_change,
                "converged": crystal.converged,
                "source": crystal.source,
                "problem": crystal.problem,
            }
            for crystal in context.crystals
        },
    )


def _kept(crystal: Crystal) -> Verdict:
    if crystal.problem:
        return decide("crystal-kept", "fail", crystal.problem, None, crystal.name)
    shown = f"volume {crystal.volume_change:+.2f}%".replace("-", "−")
    if crystal.group != crystal.group_before:
        shown += f", {crystal.group_before} becomes {crystal.group}"
    if crystal.number < crystal.number_before:  # a strained cell may become its crystal
        return decide("crystal-kept", "warn", shown, crystal.volume_change, crystal.name)
    if not crystal.converged:
        shown += ", not converged in 300 steps"
        return decide("crystal-kept", "warn", shown, crystal.volume_change, crystal.name)
    if crystal.strained:  # its volume in the data is not that of equilibrium
        shown += ", from a structure under stress"
        return decide("crystal-kept", "pass", shown, crystal.volume_change, crystal.name)
    return judge("crystal-kept", abs(crystal.volume_change), shown=shown, subject=crystal.name)


def equations_of_state(context: Context) -> Section | None:
    """Energy against volume, with references."""
    found = context.sound_crystals
    if not found:
        return None
    columns = min(len(found), 3)
    rows = -(-len(found) // columns)
    figure, axes = panels(rows, columns, width=3.2 * columns + 0.4, height=2.9 * rows)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    lines, verdicts, blocks, numbers = [], [], [], {}
    for axis, crystal in zip(axes.flat, found, strict=False):
        reference = _reference(context, crystal)
        try:
            result = eos.equation_of_state(crystal.atoms, points=9, extent=0.08)
        except ValueError as error:
            verdicts.append(decide("eos-minimum", "fail", str(error), None, crystal.name))
            blocks.append(Note(f"{crystal.name}: {error}"))
            axis.set_visible(False)
            continue
        _draw_eos(axis, crystal, result, reference)
        lines.append(_eos_row(crystal, result, reference))
        verdicts += _eos_verdicts(crystal, result, reference)
        numbers[crystal.name] = {
            **_eos_numbers(result),
            "against_reference": _deviations(crystal, result, reference),
        }
    header = ("crystal", "a (Å)", "ref.", "%", "B (GPa)", "ref.", "%", "B′", "E (eV/atom)")
    shown: list[Block] = [
        picture(
            figure,
            "equations of state",
            "Energy above the minimum against volume. Lines and dots: model. Squares: reference, "
            "if available; they should lie on the lines.",
        ),
        table(header, lines),
        *blocks,
    ]
    return Section(
        lead="Energy of each crystal when its volume is changed by up to ±8%. The minimum gives "
        "the lattice constant, the curvature gives the bulk modulus B.",
        blocks=tuple(shown),
        verdicts=tuple(verdicts),
        numbers=numbers,
    )


def _reference(context: Context, crystal: Crystal) -> dict[str, Any] | None:
    """Reference for this formula if the crystal is cubic, as the reference crystals are."""
    return context.references.crystals.get(crystal.formula) if crystal.cubic else None


def _lattice(crystal: Crystal, result: eos.EquationOfState) -> float:
    """Edge of the conventional cell of a cubic crystal at the minimum, Å."""
    cells = len(conventional(crystal.atoms)) / result.n_atoms
    return float((result.fit.volume * cells) ** (1 / 3))


def _deviations(
    crystal: Crystal, result: eos.EquationOfState, reference: dict[str, Any] | None
) -> dict[str, float]:
    """Deviations of lattice constant and bulk modulus in %, if the reference has them."""
    if reference is None:
        return {}
    off = {"a_percent": 100 * (_lattice(crystal, result) / reference["a0_A"] - 1)}
    if "B_GPa" in reference:
        off["B_percent"] = 100 * (result.fit.bulk_modulus / reference["B_GPa"] - 1)
    return off


def _eos_row(
    crystal: Crystal, result: eos.EquationOfState, reference: dict[str, Any] | None
) -> tuple[str, ...]:
    fit = result.fit
    a = f"{_lattice(crystal, result):.4f}" if crystal.cubic else NONE
    off = _deviations(crystal, result, reference)
    theirs = []
    for name, deviation, form in (("a0_A", "a_percent", ".4f"), ("B_GPa", "B_percent", ".1f")):
        known = reference is not None and deviation in off
        theirs += [f"{reference[name]:{form}}" if known and reference else NONE]
        theirs += [f"{off[deviation]:+.2f}".replace("-", "−") if known else NONE]
    return (
        crystal.name,
        a,
        *theirs[:2],
        f"{fit.bulk_modulus:.1f}",
        *theirs[2:],
        f"{fit.pressure_derivative:.2f}",
        f"{fit.energy / result.n_atoms:.4f}",
    )


def _eos_verdicts(
    crystal: Crystal, result: eos.EquationOfState, reference: dict[str, Any] | None
) -> list[Verdict]:
    off = abs(100 * (result.fit.volume / crystal.atoms.get_volume() - 1))
    verdicts = [judge("eos-minimum", off, subject=crystal.name)]
    against = _deviations(crystal, result, reference)
    for key, name in (("lattice", "a_percent"), ("bulk-modulus", "B_percent")):
        if name in against:
            shown = f"{against[name]:+.2f}%".replace("-", "−")
            verdicts.append(judge(key, abs(against[name]), shown=shown, subject=crystal.name))
    return verdicts


def _eos_numbers(result: eos.EquationOfState) -> dict[str, Any]:
    return {
        "volumes_A3_per_atom": result.volumes / result.n_atoms,
        "energies_eV_per_atom": result.energies / result.n_atoms,
        "volume_A3_per_atom": result.fit.volume / result.n_atoms,
        "energy_eV_per_atom": result.fit.energy / result.n_atoms,
        "bulk_modulus_GPa": result.fit.bulk_modulus,
        "pressure_derivative": result.fit.pressure_derivative,
        "lattice": result.lattice,
    }


def _draw_eos(
    axis: Any, crystal: Crystal, result: eos.EquationOfState, reference: dict[str, Any] | None
) -> None:
    n_atoms, fit = result.n_atoms, result.fit
    ends = [result.volumes.min(), result.volumes.max()]
    if reference is not None and not {"eos", "e0_eV_per_atom"} <= reference.keys():
        reference = None
    if reference is not None:
        theirs = np.array(reference["eos"]["V"]) / eos.reference_atoms(reference) * n_atoms
        ends += [theirs.min(), theirs.max()]
    fine = np.linspace(min(ends), max(ends), 200)
    axis.plot(fine / n_atoms, 1000 * (fit(fine) - fit.energy) / n_atoms, color=COLORS[0])
    above = 1000 * (result.energies - fit.energy) / n_atoms
    axis.plot(result.volumes / n_atoms, above, "o", ms=4, color=COLORS[0], label="model")
    if reference is not None:
        size = eos.reference_atoms(reference)
        volumes, energies = (np.array(reference["eos"][key]) / size for key in "VE")
        lowest = eos.fit_birch_murnaghan(volumes, energies).energy
        axis.plot(
            volumes, 1000 * (energies - lowest), "s", ms=5, mfc="none", color=COLORS[1],
            label="reference",
        )  # fmt: skip
    finish(axis, crystal.name, "volume (Å³/atom)", "energy (meV/atom)", legend=True)


def elastic_section(context: Context) -> Section | None:
    """Elastic constants, with references."""
    if not context.sound_crystals:
        return None
    rows, verdicts, numbers = [], [], {}
    blocks: list[Block] = []
    for crystal in context.sound_crystals:
        result = elastic.elastic_constants(crystal.atoms)
        lowest = float(result.eigenvalues[0])
        verdicts.append(judge("born", lowest, subject=crystal.name))
        numbers[crystal.name] = result._asdict()
        if crystal.cubic:
            rows.append(_elastic_row(context, crystal, result, verdicts, numbers))
        else:
            blocks.append(_matrix(crystal, result))
    if rows:
        header = ("crystal", "C11", "ref.", "C12", "ref.", "C44", "ref.", "B", "G", "lowest eig.")
        blocks.insert(0, table(header, rows, "Cubic crystals, GPa"))
    return Section(
        lead="Slopes of the stress at strains of ±0.25 and ±0.5%, with the atoms relaxed in each "
        "strained cell. B and G are bulk and shear modulus (Voigt averages).",
        blocks=tuple(blocks),
        verdicts=tuple(verdicts),
        numbers=numbers,
    )


def _elastic_row(
    context: Context,
    crystal: Crystal,
    result: elastic.Elasticity,
    verdicts: list[Verdict],
    numbers: dict[str, Any],
) -> tuple[str, ...]:
    mine = elastic.cubic_constants(result.stiffness)
    numbers[crystal.name]["cubic_GPa"] = mine
    reference = _reference(context, crystal) or {}
    theirs: dict[str, Any] = {name: reference.get(f"{name}_GPa") for name in mine}
    cells = []
    for name, value in mine.items():
        known = theirs[name]
        cells += [f"{value:.1f}", NONE if known is None else f"{known:.1f}"]
    if all(value is not None for value in theirs.values()):
        worst = max(mine, key=lambda name: abs(mine[name] - theirs[name]))
        share = 100 * (mine[worst] - theirs[worst]) / theirs["C11"]
        shown = f"{worst} {mine[worst] - theirs[worst]:+.1f} GPa, {abs(share):.1f}% of C11"
        shown = shown.replace("-", "−")
        verdicts.append(judge("elastic-reference", abs(share), shown=shown, subject=crystal.name))
        numbers[crystal.name]["reference_GPa"] = theirs
    return (
        crystal.name,
        *cells,
        f"{result.bulk_modulus:.1f}",
        f"{result.shear_modulus:.1f}",
        f"{result.eigenvalues[0]:.1f}",
    )


def _matrix(crystal: Crystal, result: elastic.Elasticity) -> Block:
    order = ("xx", "yy", "zz", "yz", "xz", "xy")
    rows = [
        (name, *(f"{value:.1f}" for value in row))
        for name, row in zip(order, result.stiffness, strict=True)
    ]
    return table(("", *order), rows, f"{crystal.name}: C in GPa, standard cell")
