"""A repair for extended XYZ: stresses of six components, which ASE refuses to read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ase.io.extxyz import key_val_str_to_dict

from tesseral.data.units import stress_tensor

SIX_COMPONENTS = re.compile(r"""(?<!\S)(stress|virial)=(["'{\[])([^"'}\]]*)(["'}\]])""")


def properties_parser(order: str) -> Callable[[str], dict[str, Any]]:
    """A parser of comment lines that writes six components of ``stress`` or ``virial`` as nine.

    Args:
        order: Voigt order of the six: ``ase``, ``lammps`` or ``vasp``.
    """

    def parse(line: str) -> dict[str, Any]:
        fields: dict[str, Any] = key_val_str_to_dict(SIX_COMPONENTS.sub(nine, line))
        return fields

    def nine(match: re.Match[str]) -> str:
        values = match.group(3).replace(",", " ").split()
        if len(values) != 6:
            return match.group(0)
        tensor = stress_tensor([float(value) for value in values], order)
        return f'{match.group(1)}="{" ".join(repr(float(x)) for x in tensor.ravel())}"'

    return parse
