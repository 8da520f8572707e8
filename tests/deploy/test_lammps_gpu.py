"""pair_style tesseral gpu, with a driver that runs the kernels on the CPU."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io.lammpsdata import write_lammps_data
from host_kernels import host_kernels

from tesseral.deploy import export
from tesseral.deploy.card import ModelCard
from tesseral.deploy.export import export_model
from tesseral.deploy.lammps import verify
from tesseral.deploy.lammps.systems import System, systems
from tesseral.deploy.lammps.verify import call_lammps, run_lammps
from tesseral.deploy.modelfile import build_potential, save_model
from tesseral.md_examples.lammps.__main__ import HERE
from tesseral.md_examples.lammps.tables import read_table
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.engine.gpu import plan
from tesseral.potentials.engine.gpu.cuda import CudaError
from tesseral.potentials.engine.gpu.source import digest

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
    pytest.mark.usefixtures("lammps_plugin", "driver"),
]
CUTOFF = 4.0
PACKED = """
#include <utility>
namespace {
template <class... A, size_t... I> void call(void (*f)(A...), void** p, std::index_sequence<I...>) {
  f(*static_cast<A*>(p[I])...);
}
template <class... A> void call(void (*f)(A...), void** p) {
  call(f, p, std::index_sequence_for<A...>{});
}
}
"""


@pytest.fixture(scope="session")
def driver_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a ``libcuda.so.1``."""
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("cuda_stand_in.cpp")
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", str(source), "-ldl"]
    subprocess.run([*command, "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


@pytest.fixture
def driver(driver_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAMMPS finds the driver, and exports have kernels for it."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver_folder))
    monkeypatch.setattr(export, "portable_code", host_code)


def host_code(source: str) -> bytes:
    """Path of the kernels compiled for the CPU, in the place of PTX."""
    names = [line.split("TESSERAL_")[1] for line in source.splitlines() if "TESSERAL_" in line]
    kernels = ["embed", "edges_forward", "edges_backward", "atoms_forward", "atoms_backward"]
    kernels += ["edge_vectors", "read_out", "add_places", "expected_errors"]
    for name in names:
        kind, _, numbers = name.partition("(")
        for one in {
            "CONVOLUTION": ("convolve", "pull"),
            "LAYER": ("enter_field", "leave_field"),
        }.get(kind, ("mix", "mix_back") if kind == "MIXING" else ()):
            kernels.append("_".join([one, *numbers.rstrip(")").split(", ")]))
    calls = [
        f'extern "C" void packed_{name}(void** p) {{ call(tesseral::{name}, p); }}'
        for name in kernels
    ]
    text = source + PACKED + "\n".join(calls) + "\n"
    host_kernels(text)
    return str(Path(gettempdir()) / "tesseral-host-kernels" / f"{digest(text)}.so").encode()


def card(**options: object) -> ModelCard:
    """Of a small Facet with all that a potential may have besides its layers."""
    config = FacetConfig(  # type: ignore[arg-type]
        **{
            "cutoff": CUTOFF,
            "channels": 16,
            "grid_channels": 16,
            "l_max": 2,
            "zbl": True,
            **options,
        }
    )
    values = {"forces": 1.0, "exponent": 0.7, "reach": 2.0, "energy": 0.1, "bound": 2.0}
    return ModelCard(
        config=config,
        elements=(6, 14),
        reference_energies=(-1.5, -2.5),
        energy_scale=0.1,
        mean_neighbors=20.0,
        uncertainty={**values, "stop": 1.0},
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    about = card()
    potential = build_potential(about)
    assert potential.uncertainty is not None
    torch.nn.init.normal_(potential.uncertainty.factor)
    torch.nn.init.normal_(potential.uncertainty.center)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, potential, about)
    return path


@pytest.fixture(params=["float64", "float32"])
def exported(model: Path, tmp_path: Path, driver: None, request: pytest.FixtureRequest) -> Path:
    export_model(model, tmp_path / "model.pt", dtype=request.param, gpu=True)
    return tmp_path / "model.pt"


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_results_are_those_of_the_cpu(exported: Path, ranks: int) -> None:
    far = Atoms("CSi", positions=[[1, 1, 1], [9, 9, 9]], cell=[20, 20, 20], pbc=True)
    cases = [*systems((6, 14), CUTOFF), System("two isolated atoms", far)]
    exact = b"float64" in exported.read_bytes()
    results = [run_lammps(exported, ("C", "Si"), cases, word, ranks) for word in ("gpu", "")]
    for case, found, expected in zip(cases, *results, strict=True):
        limit = (1e-12 if exact else 2e-5) * max(1.0, float(np.abs(expected.forces).max()))
        assert abs(found.energy - expected.energy) < limit * len(expected.forces), case.name
        assert np.abs(found.forces - expected.forces).max() < limit, case.name
        scale = max(1e4, float(np.abs(expected.pressure).max()))
        assert np.abs(found.pressure - expected.pressure).max() < limit * scale, case.name


RUN = """units metal
atom_style atomic
read_data sic.data
pair_style tesseral {word}
pair_coeff * * model.pt C Si
neighbor 0.3 bin
compute expected all tesseral/uncertainty
compute largest all reduce max c_expected
compute stresses all stress/atom NULL virial
compute sums all reduce sum c_stresses[*]
velocity all create 3000 1
timestep 0.0005
fix move all nve
thermo 1
thermo_style custom step pe pxx pyz c_largest c_sums[1] c_sums[5]
thermo_modify format float %.12g
run 40
"""


def write_crystal(folder: Path) -> None:
    """Data file of a rattled crystal."""
    atoms = bulk("SiC", "zincblende", a=5.0, cubic=True) * (2, 2, 1)
    atoms.rattle(0.05, seed=0)
    about = {"specorder": ["C", "Si"], "masses": True, "atom_style": "atomic"}
    write_lammps_data(folder / "sic.data", atoms, **about)


def thermo(folder: Path, word: str, ranks: int) -> tuple[np.ndarray, int]:
    """Table of a run, and how often its neighbour list was made anew."""
    (folder / "in.run").write_text(RUN.format(word=word))
    lines = call_lammps(["-in", "in.run", "-log", "none"], ranks, folder, limit=120.0).splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:2] == ["Step", "PotEng"])
    rows = [[float(number) for number in line.split()] for line in lines[start + 1 : start + 42]]
    builds = next(line for line in lines if line.startswith("Neighbor list builds"))
    return np.array(rows), int(builds.split()[-1])


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_is_that_of_the_cpu(
    model: Path, tmp_path: Path, driver: None, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(model, tmp_path / "model.pt", dtype="float64", gpu=True)
    write_crystal(tmp_path)
    found, builds = thermo(tmp_path, "gpu", ranks)
    expected, _ = thermo(tmp_path, "", ranks)
    assert builds > 1
    scale = np.abs(expected).max(axis=0)
    assert (scale > 0).all()
    assert np.abs((found - expected) / scale).max() < 1e-8  # it grows in a run


def energy_of(folder: Path, word: str = "gpu") -> str:
    """Output of LAMMPS for a crystal."""
    case = systems((6, 14), CUTOFF)[0]
    return str(run_lammps(folder / "model.pt", ("C", "Si"), [case], word, 1))


FAILURES = {
    "no GPU": ({"STAND_IN_GPUS": "0"}, "the CUDA driver finds no GPU here: leave out"),
    "old": ({"STAND_IN_CAPABILITY": "61"}, r"GPU \(Stand-in\) has compute capability 6.1, and its"),
    "old driver": ({"STAND_IN_MODULE": "222"}, "driver here is older than the compiler of its"),
    "other card": ({"STAND_IN_MODULE": "209"}, "its kernels are for newer GPUs than this one"),
    "any error": ({"STAND_IN_MODULE": "700"}, "CUDA driver reports error 700, an error"),
    "tiny": ({"STAND_IN_MEMORY": "1000"}, "there is no memory left on the GPU"),
    "small": (
        {"STAND_IN_MEMORY": "200000"},
        r"48 atoms with \d+ edges on one process need about .* GB are free, enough for about [1-9]",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_say_what_to_do(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(model, tmp_path / "model.pt", gpu=True)
    settings, message = FAILURES[name]
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        energy_of(tmp_path)


def test_a_machine_without_a_driver_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/usr/lib/x86_64-linux-gnu/libcuda.so.1").exists():
        pytest.skip("there is a driver here")
    export_model(model, tmp_path / "model.pt", gpu=True)
    monkeypatch.delenv("LD_LIBRARY_PATH")
    with pytest.raises(ValueError, match=r"there is no CUDA driver \(libcuda.so.1\) here: leave"):
        energy_of(tmp_path)


def test_an_export_without_kernels_is_refused(model: Path, tmp_path: Path) -> None:
    export_model(model, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="it has no kernels for GPUs: export it again with"):
        energy_of(tmp_path)
    with pytest.raises(ValueError, match="either on a GPU or with the portable engine"):
        energy_of(tmp_path, "gpu portable")


def test_kernels_that_give_other_numbers_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = plan.make_plan

    def bent(potential: object) -> plan.Plan:
        made = make(potential)  # type: ignore[arg-type]
        half = len(made.weights) // 2
        numbers = 1.5 * np.frombuffer(made.weights[half : half + 8192], dtype=np.float32)
        return made._replace(
            weights=made.weights[:half] + numbers.tobytes() + made.weights[half + 8192 :]
        )

    monkeypatch.setattr(plan, "make_plan", bent)
    export_model(model, tmp_path / "model.pt", gpu=True)
    with pytest.raises(ValueError, match="gives different energies and forces here than when it"):
        energy_of(tmp_path)


def test_models_without_kernels_are_not_exported(tmp_path: Path) -> None:
    about = replace(card(), config=NequIPConfig(cutoff=CUTOFF), uncertainty={})
    save_model(tmp_path / "nequip.safetensors", build_potential(about), about)
    with pytest.raises(ValueError, match="`gpu` needs a Facet with the default `activation`"):
        export_model(tmp_path / "nequip.safetensors", tmp_path / "model.pt", gpu=True)


def test_a_missing_compiler_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: str) -> bytes:
        raise CudaError("libnvrtc.so.12 was not found")

    monkeypatch.setattr(export, "portable_code", fail)
    with pytest.raises(ValueError, match=r"`gpu`: libnvrtc.so.12 was not found"):
        export_model(model, tmp_path / "model.pt", gpu=True)
    assert not (tmp_path / "model.pt").exists()


def test_a_gpu_is_verified_where_there_is_a_driver(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(model, tmp_path / "model.pt", gpu=True)
    for there in (True, False):
        monkeypatch.setattr(verify, "has_driver", lambda there=there: there)
        assert ("gpu" in dict(verify.engines(tmp_path / "model.pt"))) == there


@pytest.mark.parametrize(
    ("name", "column", "settings"),
    [
        ("gcmc", "inserted", {"a": 5.85, "cells": 1, "mu": -0.5, "elements": "Si"}),
        ("swap", "exchanged", {"data": "sic.data", "elements": "C Si"}),
    ],
)
def test_atoms_that_come_go_and_change_are_those_of_the_cpu(
    name: str, column: str, settings: dict[str, object], model: Path, tmp_path: Path
) -> None:
    export_model(model, tmp_path / "model.pt", dtype="float64", gpu=True)
    write_crystal(tmp_path)
    settings = {"temperature": 20000, "time": 0.02, "every": 10, **settings}
    tables = []
    for style in ("tesseral gpu", "tesseral"):
        arguments = ["-in", str(HERE / f"in.{name}"), "-log", "none"]
        for key, value in (settings | {"style": style}).items():
            arguments += ["-var", key, str(value)]
        call_lammps(arguments, 1, tmp_path, limit=120.0)
        tables.append(read_table(tmp_path / f"{name}.txt"))
    assert tables[1][column][-1] > 0
    for key, values in tables[1].items():
        np.testing.assert_allclose(tables[0][key], values, rtol=1e-6)
