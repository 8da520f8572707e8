"""The LAMMPS plugin, built once for all tests."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tesseral.deploy.lammps import plugin_folder
from tesseral.deploy.lammps.build import INTERFACE, PLUGIN, SOURCES, build_plugin, installed_lammps
from tesseral.potentials.ops.library import library_path


@pytest.fixture(scope="session")
def lammps_plugin() -> Iterator[Path]:
    """Folder of a plugin of the sources as they are; skipped where there is no LAMMPS."""
    try:
        installed_lammps()
    except ValueError as problem:
        pytest.skip(str(problem))
    if not library_path().exists():
        pytest.skip("the compiled kernels are missing")
    folder = Path(plugin_folder())
    folder.mkdir(exist_ok=True)
    sources = [*SOURCES.iterdir(), INTERFACE / "kernels.h", library_path()]
    with (folder / ".lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        plugin = folder / PLUGIN
        newest = max(path.stat().st_mtime for path in sources)
        if not plugin.exists() or plugin.stat().st_mtime < newest:
            build_plugin()
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield folder
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before
