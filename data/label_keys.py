"""Where the labels of a file are and in which units, as the user states it."""

from __future__ import annotations

from dataclasses import dataclass

from tesseral.data.units import (
    ENERGY_UNITS,
    FORCE_UNITS,
    STRESS_UNITS,
    VOIGT_ORDERS,
    unit_factor,
)

LABELS = ("energy", "forces", "stress")
KNOWN_NAMES = {
    "energy": (
        "energy ref_energy dft_energy energy_dft total_energy totenergy potential_energy".split()
    ),
    "forces": "forces force ref_forces ref_force dft_forces dft_force forces_dft".split(),
    "stress": "stress ref_stress dft_stress stress_dft".split(),
    "virial": "virial virials ref_virial ref_virials dft_virial dft_virials".split(),
}


@dataclass(frozen=True, kw_only=True)
class LabelKeys:
    """Where the labels of a file are, and in which units.

    Args:
        energy_key: name of the energy in ``info`` or of the calculator; well-known names if None.
        forces_key: name of the forces in ``arrays`` or of the calculator.
        stress_key: name of the stress in ``info`` or of the calculator.
        virial_key: name of a virial, -V · stress, in ``energy_unit``; used in place of a stress.
        config_type_key: name of the configuration type; ``config_type`` or ``category`` if None.
        group_key: name of the group that a split must not divide; ``group`` if None.
        energy_unit: a key of ``units.ENERGY_UNITS``.
        forces_unit: a key of ``units.FORCE_UNITS``.
        stress_unit: a key of ``units.STRESS_UNITS``.
        stress_sign: 1 where the stress is positive under tension (ASE), -1 for the opposite (VASP).
        stress_order: Voigt order of six components: ``ase``, ``lammps`` or ``vasp``; those of a
            calculator are always in ASE's.
        optional: labels (energy, forces, stress) that may be absent even though they are asked for
            or something looks like them.
    """

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    config_type_key: str | None = None
    group_key: str | None = None
    energy_unit: str = "eV"
    forces_unit: str = "eV/Å"
    stress_unit: str = "eV/Å³"
    stress_sign: int = 1
    stress_order: str = "ase"
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse unknown units, signs, orders and labels."""
        unit_factor(ENERGY_UNITS, self.energy_unit)
        unit_factor(FORCE_UNITS, self.forces_unit)
        unit_factor(STRESS_UNITS, self.stress_unit)
        if self.stress_sign not in (1, -1):
            raise ValueError(f"stress_sign is {self.stress_sign}; use 1 or -1")
        if self.stress_order not in VOIGT_ORDERS:
            raise ValueError(
                f"stress_order {self.stress_order!r} is not one of {', '.join(VOIGT_ORDERS)}"
            )
        if self.stress_key is not None and self.virial_key is not None:
            raise ValueError("stress_key and virial_key are both given; choose one of them")
        check_label_names(self.optional)


def check_label_names(names: tuple[str, ...] | list[str]) -> None:
    """Refuse a name that is none of energy, forces, stress."""
    for name in names:
        if name not in LABELS:
            raise ValueError(f"{name!r} is not a label; use {', '.join(LABELS)}")
