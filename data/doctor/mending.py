"""Corrections of labels: what a `Fix` does to a structure, in numbers and in words."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from tesseral.data.doctor.findings import Fix, Frame
from tesseral.data.doctor.sample import Array
from tesseral.data.structures import Structure
from tesseral.data.units import STRESS_UNITS, VOIGT_ORDERS

NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")
PLAIN = (1, 2, 3, 4, 5, 6)
# Orders of six components in files; the last two are the rows of a triangle of the tensor.
ORDERS = {
    "ASE": NAMES,
    "LAMMPS": tuple(NAMES[VOIGT_ORDERS["ase"].index(pair)] for pair in VOIGT_ORDERS["lammps"]),
    "VASP": tuple(NAMES[VOIGT_ORDERS["ase"].index(pair)] for pair in VOIGT_ORDERS["vasp"]),
    "the upper triangle": ("xx", "xy", "xz", "yy", "yz", "zz"),
    "the lower triangle": ("xx", "xy", "yy", "xz", "yz", "zz"),
}
FRAMES: dict[Frame, str] = {
    "lower": "the first cell vector is along x and the second in the xy plane",
    "upper": "the third cell vector is along z and the second in the yz plane",
}


def mended(structure: Structure, fix: Fix) -> Structure:
    """Structure with one label corrected."""
    if fix.label == "structure":
        return structure
    if fix.label == "energy":
        return structure._replace(energy=fix.factor * structure.energy)
    if fix.label == "forces":
        turn = np.eye(3) if fix.frame is None else frame_rotation(structure.cell, fix.frame)
        return structure._replace(forces=fix.factor * structure.forces @ turn.T)
    stress = mended_stress(structure.stress[None], fix, structure.cell[None])
    return structure._replace(stress=stress[0])


def mended_stress(stress: Array, fix: Fix, cells: Array) -> Array:
    """Corrected stresses.

    Args:
        stress: (S, 3, 3) symmetric tensors in any unit.
        fix: correction of a stress.
        cells: (S, 3, 3) Å.
    """
    mended = fix.factor * stress
    if fix.per_volume:
        mended = mended / np.abs(np.linalg.det(cells))[:, None, None]
    if fix.components or fix.shear != 1:
        mended = tensors(voigt(mended) @ component_matrix(fix).T)
    if fix.frame is not None:
        turn = np.stack([frame_rotation(cell, fix.frame) for cell in cells])
        mended = turn @ mended @ turn.transpose(0, 2, 1)
    return np.asarray(mended)


def voigt(stress: Array) -> Array:
    """Components (…, 6) in ASE's order of tensors (…, 3, 3)."""
    first, second = np.array(VOIGT_ORDERS["ase"]).T
    return np.asarray(stress[..., first, second])


def tensors(components: Array) -> Array:
    """Tensors (…, 3, 3) with components (…, 6) in ASE's order."""
    return np.asarray(components[..., np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])])


def component_matrix(fix: Fix) -> Array:
    """Matrix (6, 6) that brings the components of a stress, in ASE's order, to their places."""
    matrix = np.zeros((6, 6))
    for place, source in enumerate(fix.components or PLAIN):
        matrix[place, abs(source) - 1] = np.sign(source) * (fix.shear if place > 2 else 1.0)
    return matrix


def frame_rotation(cell: Array, frame: Frame) -> Array:
    """Rotation (3, 3) of column vectors from the frame of a triangular cell to that of ``cell``.

    Args:
        cell: (3, 3) Å, rows are lattice vectors.
        frame: triangular form of the cell, with a positive diagonal (a left-handed cell has one
            negative element: zz of a lower, xx of an upper triangle).
    """
    # cell = triangle @ rotation.T, by the QR decomposition of the transpose or of its mirror image.
    flip = np.eye(3)[::-1] if frame == "upper" else np.eye(3)
    orthogonal, triangle = np.linalg.qr((flip @ cell).T)
    signs = np.where(np.diag(triangle) < 0, -1.0, 1.0)
    rotation: Array = (orthogonal * signs) @ flip
    if np.linalg.det(rotation) < 0:
        rotation[:, 0 if frame == "upper" else 2] *= -1
    return rotation


def composed(first: Fix, second: Fix) -> Fix:
    """One correction of a label in place of two; the first may not turn the frame."""
    assert first.label == second.label and first.frame is None
    a, b = first.components or PLAIN, second.components or PLAIN
    components = tuple(int(np.sign(k)) * a[abs(k) - 1] for k in b)
    return second._replace(
        factor=first.factor * second.factor,
        per_volume=first.per_volume or second.per_volume,
        components=() if components == PLAIN else components,
        shear=first.shear * second.shear,
    )


def describe_change(fix: Fix) -> str:
    """Fault of a stress that a correction removes, as the end of a sentence about it."""
    parts = []
    if fix.per_volume:
        parts.append("are multiplied by the volume of the cell (virials)")
    size = abs(fix.factor)
    if size != 1:
        unit = next((name for name, one in STRESS_UNITS.items() if np.isclose(one, size)), "")
        parts.append(f"are in {unit}" if unit else f"are {1 / size:.4g} times too large")
    if fix.factor < 0:
        parts.append("have the opposite sign")
    if fix.components:
        parts += _describe_order(fix.components)
    if fix.shear != 1:
        parts.append(f"have yz, xz and xy multiplied by {1 / fix.shear:g}")
    if fix.frame is not None:
        parts.append(f"belong to the frame in which {FRAMES[fix.frame]}")
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def _describe_order(components: tuple[int, ...]) -> list[str]:
    """Words about exchanged components and about their signs."""
    places = tuple(abs(k) - 1 for k in components)
    moved = [k for k in range(6) if places[k] != k]
    parts = []
    if moved:
        pairs = [(k, places[k]) for k in moved if places[places[k]] == k and k < places[k]]
        if 2 * len(pairs) == len(moved):
            said = "have " + ", and ".join(f"{NAMES[a]} and {NAMES[b]}" for a, b in pairs)
            said += " exchanged"
        else:
            there = [NAMES[places.index(k)] for k in moved]
            said = f"have {' '.join(there)} in place of {' '.join(NAMES[k] for k in moved)}"
        if places in MISTAKEN:
            said += f" ({MISTAKEN[places]})"
        parts.append(said)
    opposite = [NAMES[k] for k in range(6) if components[k] < 0]
    if opposite:
        parts.append(f"have the opposite sign of {', '.join(opposite)}")
    return parts


def _mistaken_orders() -> dict[tuple[int, ...], str]:
    """Orders of components that result if one order is mistaken for another."""
    found: dict[tuple[int, ...], str] = {}
    for written, read in permutations(ORDERS, 2):
        # The component that is called ORDERS[read][k] has the value of ORDERS[written][k].
        places = tuple(
            NAMES.index(ORDERS[read][ORDERS[written].index(component)]) for component in NAMES
        )
        words = f"the order of {written} was read as that of {read}"
        if read == "ASE" or places not in found:
            found[places] = words
    return found


MISTAKEN = _mistaken_orders()
