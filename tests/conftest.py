"""Fixtures shared by all tests: seeds, small structures, small potentials, third-party data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import seeds
import torch

if TYPE_CHECKING:
    from tesseral.deploy.card import ModelCard

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Other processors, random numbers and threads; CONTRIBUTING.md says when to use them."""
    group = parser.getgroup("tesseral")
    group.addoption("--isa", help="best instruction set the kernels may use: baseline, avx2, ...")
    group.addoption("--seed", type=int, default=0, help="random numbers of the tests (default 0)")
    group.addoption("--threads", type=int, default=1, help="threads of PyTorch (default 1)")


def pytest_configure(config: pytest.Config) -> None:
    """Apply the options before the tests are collected: some are listed by instruction set."""
    torch.set_num_threads(config.getoption("threads"))
    seeds.offset = config.getoption("seed")
    if config.getoption("isa") is not None:
        use_processor_with(config.getoption("isa"))


def use_processor_with(isa: str) -> None:
    """Let the kernels of this process find a processor whose best instruction set is ``isa``."""
    from tesseral.potentials.ops import compiled

    every = compiled.instruction_sets
    if isa not in every():
        there = ", ".join(every()) or "none: the kernels are not compiled"
        raise pytest.UsageError(f"--isa {isa}: no such kernels on this machine (it has {there})")

    @lru_cache
    def usable() -> tuple[str, ...]:
        found = every.__wrapped__()
        return found[: found.index(isa) + 1] if found else ()

    compiled.instruction_sets = usable
    compiled.kernels.cache_clear()


@pytest.fixture
def seed() -> None:
    """Same random numbers in every run with the same ``--seed``."""
    seeds.reseed(0)


@pytest.fixture(scope="session")
def third_party_data() -> Path:
    """Folder of the third-party DFT datasets; the test is skipped where it is absent."""
    folder = Path(os.environ.get("TESSERAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"third-party data not found in {folder}; set TESSERAL_DATA to their folder")
    return folder


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """``small_files(bytes)``: larger files cannot be written, as on a full disk."""
    resource = pytest.importorskip("resource")  # Windows has none
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def emt_files(tmp_path_factory) -> tuple[Path, Path]:
    """Files with 12 training and 4 validation structures."""
    # Imported here, after `pytest_configure` has chosen the kernels.
    from benchmarks.faults.kinds.common import write_data

    folder = tmp_path_factory.mktemp("emt")
    for name, number, seed in (("train", 12, 0), ("validation", 4, 1)):
        write_data(folder / f"{name}.h5", number, seed)
    return folder / "train.h5", folder / "validation.h5"


def small_card() -> ModelCard:
    """Of a small Facet for C and Si."""
    from tesseral.deploy.card import ModelCard
    from tesseral.potentials.architectures.facet import FacetConfig

    return ModelCard(
        config=FacetConfig(cutoff=4.0, layers=2, channels=8, grid_channels=8),
        elements=(6, 14),
        reference_energies=(-1.5, -2.5),
        energy_scale=1.0,
        mean_neighbors=20.0,
        training={"file": "none", "structures": 0},
    )


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Facet for C and Si with seeded random weights and forces of some 0.5 eV/Å."""
    from dataclasses import replace

    from tesseral.deploy.modelfile import build_potential, save_model
    from tesseral.deploy.probe import make_probe

    card = small_card()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        probe = make_probe(build_potential(card), card, torch.device("cpu"))
        card = replace(card, energy_scale=0.5 / float(probe.forces.square().mean().sqrt()))
        torch.manual_seed(1)
        potential = build_potential(card)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(path, potential, card)
    return path


@pytest.fixture(scope="session")
def stable_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Facet for C and Si whose random weights hold crystals together.

    Zinc blende at 5.42 Å and diamond silicon at 5.85 Å are elastically stable (C44 83 and 54 GPa).
    """
    from tesseral.deploy.modelfile import build_potential, save_model

    card = small_card()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(50)
        potential = build_potential(card)
    path = tmp_path_factory.mktemp("model") / "stable.safetensors"
    save_model(path, potential, card)
    return path


@pytest.fixture(scope="session")
def knowing_model(stable_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stable model with an uncertainty in units of its features, and a limit of 1 eV/Å."""
    from dataclasses import replace

    from tesseral.deploy.modelfile import build_potential, load_model, save_model

    potential, card = load_model(stable_model)
    values = {"forces": 1.0, "exponent": 1.0, "reach": 1e6, "energy": 0.1, "bound": 2.0}
    card = replace(card, uncertainty={**values, "stop": 1.0})
    made = build_potential(card)
    made.load_state_dict(potential.state_dict(), strict=False)
    assert made.uncertainty is not None
    torch.nn.init.eye_(made.uncertainty.factor)
    path = tmp_path_factory.mktemp("model") / "knowing.safetensors"
    save_model(path, made, card)
    return path


@pytest.fixture(scope="session")
def lammps_plugin() -> Iterator[Path]:
    """Folder of the LAMMPS plugin, built if it is older than its sources; skips without LAMMPS."""
    import fcntl

    from tesseral.deploy.lammps import plugin_folder
    from tesseral.deploy.lammps.build import (
        INTERFACE,
        PLUGIN,
        SOURCES,
        build_plugin,
        installed_lammps,
    )
    from tesseral.potentials.ops.compiled import library_path

    try:
        installed_lammps()
    except ValueError as problem:
        pytest.skip(str(problem))
    if not library_path().exists():
        pytest.skip("the compiled kernels are missing, on which the LAMMPS plugin stands")
    folder = Path(plugin_folder())
    folder.mkdir(exist_ok=True)
    sources = [*SOURCES.iterdir(), INTERFACE / "kernels.h", library_path()]
    with (folder / ".lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        plugin = folder / PLUGIN
        newest = max(path.stat().st_mtime for path in sources)
        if not plugin.exists() or plugin.stat().st_mtime < newest:
            build_plugin()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder


@pytest.fixture(scope="session")
def lammps_model(
    stable_model: Path, lammps_plugin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The stable model, exported for the pair style."""
    from tesseral.deploy.export import export_model

    path = tmp_path_factory.mktemp("export") / "model.pt"
    export_model(stable_model, path)
    return path


@pytest.fixture
def own_environment() -> Iterator[None]:
    """Environment variables that a test sets are removed; Dask sets numbers of threads."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
