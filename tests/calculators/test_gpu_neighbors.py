"""Neighbours of many systems on a GPU, simulated on the CPU: torch-sim, joined relaxations."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from benchmarks.gpu import cpu_as_gpu
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.relaxing_together import relaxing_together
from tesseral.calculators.skin import GpuNeighbors
from tesseral.calculators.together import Crystals, Together
from tesseral.potentials.ops import compiled

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
    pytest.mark.skipif(not compiled.available(), reason="no compiled kernels"),
]


@pytest.fixture(autouse=True)
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The CPU passes for a GPU."""
    with cpu_as_gpu(tmp_path_factory.getbasetemp()):
        yield


def crystal(seed: int, repeat: int = 1) -> Atoms:
    atoms = bulk("SiC", "zincblende", a=5.0) * (repeat, 1, 1)
    strain = np.random.default_rng(seed).normal(0, 0.02, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def slab() -> Atoms:
    atoms = fcc111("Si", (2, 1, 3), a=4.5, vacuum=6.0)
    atoms.rattle(0.05, seed=2)
    return atoms


def disilane() -> Atoms:
    atoms = molecule("Si2H6")
    atoms.numbers[atoms.numbers == 1] = 6
    return atoms


class Batch:
    """A torch-sim model in float64, and the state of some structures."""

    def __init__(self, path: Path, structures: list[Atoms], pbc: Any = True, **options: Any):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch-sim 0.3 scripts functions
            ts = pytest.importorskip("torch_sim", reason="needs torch-sim")
        from tesseral.calculators.torchsim import TesseralModel

        self.model = TesseralModel(path, device="cpu", dtype="float64", **options)
        assert isinstance(self.model.neighbors, GpuNeighbors)
        cpu = torch.device("cpu")
        self.state = ts.initialize_state([atoms.copy() for atoms in structures], cpu, torch.float64)
        self.state.pbc, self.pbc = pbc, pbc
        self.plain = TesseralCalculator(path, device="cpu", dtype="float64", ops="reference")

    def compare(self) -> None:
        """Energies, forces and stresses are those of plain PyTorch, one by one."""
        found = self.model(self.state)
        for number in range(len(self.state.cell)):
            own = self.state.system_idx == number
            cell = self.state.cell[number].T.numpy()
            about = {"positions": self.state.positions[own].numpy(), "cell": cell, "pbc": self.pbc}
            atoms = Atoms(self.state.atomic_numbers[own].numpy(), **about, calculator=self.plain)
            energy = atoms.get_potential_energy()
            assert float(found["energy"][number]) == pytest.approx(energy, abs=1e-9)
            np.testing.assert_allclose(found["forces"][own], atoms.get_forces(), atol=1e-9)
            if atoms.pbc.all():
                stress = atoms.get_stress(voigt=False)
                np.testing.assert_allclose(found["stress"][number], stress, atol=1e-11)


@pytest.mark.parametrize(
    ("structures", "pbc"),
    [
        ([crystal(1), crystal(2, 3), crystal(3)], True),
        ([slab(), slab()], (True, True, False)),
        ([disilane(), disilane()], False),
    ],
    ids=["crystals", "slabs", "molecules"],
)
def test_batches_agree_with_plain_pytorch(
    small_model: Path, structures: list[Atoms], pbc: Any
) -> None:
    Batch(small_model, structures, pbc).compare()


def test_lists_are_made_anew_only_if_atoms_or_cells_have_moved(small_model: Path) -> None:
    batch = Batch(small_model, [crystal(1), crystal(2, 2)])
    batch.compare()
    builds = batch.model.neighbors
    batch.state.positions += 0.01 * torch.randn_like(batch.state.positions) + 3.0  # and a drift
    batch.state.cell *= 1.002
    batch.state.positions *= 1.002
    batch.compare()
    assert builds.builds == 1
    batch.state.positions[0] += 0.4
    batch.compare()
    assert builds.builds == 2
    batch.state.cell *= 0.93
    batch.state.positions *= 0.93
    batch.compare()
    assert builds.builds == 3


def test_systems_may_leave_and_enter(small_model: Path) -> None:
    structures = [crystal(1), crystal(2, 2), crystal(3)]
    batch = Batch(small_model, structures)
    batch.compare()
    for some in ([2, 1], [1], [0, 1, 2]):
        batch.state = Batch(small_model, [structures[k] for k in some]).state
        batch.compare()


def test_overlapping_atoms_are_named_and_may_be_nan(small_model: Path) -> None:
    structures = [crystal(1), crystal(2, 2)]
    structures[1].positions[3] = structures[1].positions[1] + 0.01
    batch = Batch(small_model, structures)
    with pytest.raises(ValueError, match="system 1, atom [13] and atom [13] are less than"):
        batch.model(batch.state)
    batch.model.failed = "nan"
    found = batch.model(batch.state)
    assert found["energy"].isfinite().tolist() == [True, False]
    assert found["forces"].isfinite().all(dim=1).tolist() == [True] * 2 + [False] * 4


def test_a_crowded_cell_is_refused(small_model: Path) -> None:
    dense = crystal(1)
    dense.set_cell(dense.cell.array * 0.05)
    batch = Batch(small_model, [crystal(2), dense])
    with pytest.raises(ValueError, match="2 atoms in a cell with .* check the cell and its unit"):
        batch.model(batch.state)


def test_joined_relaxations_are_those_of_plain_pytorch(small_model: Path) -> None:
    calculators = [
        TesseralCalculator(small_model, device="cpu", dtype="float64", ops=ops)
        for ops in ("auto", "reference")
    ]
    courses = []
    for calculator in calculators:
        structures = [crystal(1), crystal(2, 2), crystal(3)]
        events = relaxing_together(structures, calculator, fmax=0.05, steps=8, cell="free")
        courses.append([(e.number, e.step.energy, e.step.max_force) for e in events if e.step])
    assert isinstance(Together(calculators[0]).neighbors, GpuNeighbors)
    np.testing.assert_allclose(courses[0], courses[1], rtol=1e-7, atol=1e-8)


def test_all_crystals_are_one_call(small_model: Path) -> None:
    calculator = TesseralCalculator(small_model, device="cpu", dtype="float64")
    together, structures = Together(calculator), [crystal(1), crystal(2, 2)]
    positions = np.concatenate([atoms.positions for atoms in structures])
    numbers = np.concatenate([atoms.numbers for atoms in structures])
    cells = np.stack([atoms.cell.array for atoms in structures])
    crystals = Crystals((numbers == 14).astype(np.int64), np.array([2, 4]), positions, cells)
    found = together.evaluate(crystals)
    assert found is not None and together.neighbors.builds == 1
    for number, atoms in enumerate(structures):
        atoms.calc = calculator
        assert found.energies[number] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    positions[1] = positions[0]
    assert together.evaluate(crystals) is None
