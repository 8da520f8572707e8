"""The torch-sim model: as the ASE calculator, for any batch, whatever comes and goes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import CalculationFailed

from tesseral.calculators.ase import TesseralCalculator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch-sim 0.3 scripts functions, which torch deprecates
    ts = pytest.importorskip("torch_sim", reason="needs torch-sim")
from tesseral.calculators.torchsim import TesseralModel  # noqa: E402

CPU = torch.device("cpu")


def crystal(seed: int = 1, repeat: int = 1, symbols: str = "SiC") -> Atoms:
    """Rattled, sheared SiC or Si; the primitive cell is far smaller than the cutoff."""
    kind = ("zincblende", 4.36) if symbols == "SiC" else ("diamond", 5.43)
    atoms = bulk(symbols, *kind)
    strain = np.random.default_rng(seed).normal(0, 0.03, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return atoms * (repeat, 1, repeat)


def cluster() -> Atoms:
    """A molecule without a cell."""
    atoms = molecule("Si2H6")
    atoms.numbers[atoms.numbers == 1] = 6
    return atoms


def slab() -> Atoms:
    """Layers of Si, periodic in two directions."""
    atoms = fcc111("Si", (2, 1, 3), a=4.5, vacuum=6.0)
    atoms.rattle(0.05, seed=2)
    return atoms


def make_state(structures: list[Atoms], pbc: Any = True) -> Any:
    """Structures as a float64 state; the cells are the columns."""
    state = ts.initialize_state([atoms.copy() for atoms in structures], CPU, torch.float64)
    state.pbc = pbc
    return state


@pytest.fixture
def model(small_model: Path) -> TesseralModel:
    """A fresh float64 model on the CPU."""
    return TesseralModel(small_model, device="cpu", dtype="float64")


def assert_as_ase(
    model: TesseralModel, structures: list[Atoms], path: Path, pbc: Any = True
) -> None:
    """Energies, forces and, in crystals, stresses are those of the ASE calculator."""
    results = model(make_state(structures, pbc))
    dtype = next(model.potential.parameters()).dtype
    end = 0
    for number, atoms in enumerate(structures):
        start, end = end, end + len(atoms)
        atoms = atoms.copy()
        atoms.calc = TesseralCalculator(path, device="cpu", dtype=dtype)
        tolerance = {"rtol": 0, "atol": 1e-10 if dtype == torch.float64 else 1e-5}
        energy, forces = results["energy"][number], results["forces"][start:end]
        np.testing.assert_allclose(energy, atoms.get_potential_energy(), **tolerance)
        np.testing.assert_allclose(forces, atoms.get_forces(), **tolerance)
        if atoms.pbc.any():
            stress = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(results["stress"][number], stress, **tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_crystals_agree_with_ase(small_model: Path, dtype: str) -> None:
    model = TesseralModel(small_model, device="cpu", dtype=dtype)
    assert_as_ase(model, [crystal(1), crystal(2, 2), crystal(3, 1, "Si")], small_model)


def test_single_system_agrees_with_ase(model: TesseralModel, small_model: Path) -> None:
    assert_as_ase(model, [crystal(1, 2)], small_model)


@pytest.mark.parametrize("pbc", [(True, True, False), torch.tensor([True, True, False])])
def test_slab_agrees_with_ase(model: TesseralModel, small_model: Path, pbc: Any) -> None:
    assert_as_ase(model, [slab(), slab()], small_model, pbc)


def test_molecules_agree_with_ase_and_have_no_stress(
    model: TesseralModel, small_model: Path
) -> None:
    alone = Atoms("Si", positions=[[3.0, 0, 0]])
    boxed = cluster()
    boxed.center(vacuum=1.0)
    assert_as_ase(model, [cluster(), alone, boxed], small_model, pbc=False)
    assert model(make_state([boxed], pbc=False))["stress"].isnan().all()


def test_stress_is_the_derivative_of_the_energy(model: TesseralModel) -> None:
    state = make_state([crystal(1), crystal(2)])
    stress = model(state)["stress"]
    assert stress.abs().max() > 1e-4
    step, (i, j) = 1e-5, (0, 2)
    energies = []
    for sign in (-1, 1):
        strain = torch.eye(3, dtype=torch.float64)
        strain[i, j] += sign * step / 2
        strain[j, i] += sign * step / 2
        changed = state.clone()
        changed.positions = state.positions @ strain
        changed.cell = strain @ state.cell  # columns are lattice vectors
        energies.append(model(changed)["energy"])
    slope = (energies[1] - energies[0]) / (2 * step) / state.volume.abs()
    torch.testing.assert_close(stress[:, i, j], slope, rtol=1e-5, atol=1e-9)


def test_torch_sim_finds_its_interface_fulfilled(small_model: Path) -> None:
    from torch_sim.models.interface import validate_model_outputs

    class SiliconForAll(TesseralModel):
        """Torch-sim validates with elements that the small model does not have."""

        def forward(self, state: Any) -> Any:
            state = state.clone()
            state.atomic_numbers[:] = 14
            return super().forward(state)

    model = SiliconForAll(small_model, device="cpu")
    assert model.dtype == torch.float64 and model.compute_forces and model.compute_stress
    validate_model_outputs(model, CPU, torch.float64)
    validate_model_outputs(model, CPU, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_state(model: TesseralModel, dtype: torch.dtype) -> None:
    state = ts.initialize_state([crystal()], CPU, dtype)
    assert {result.dtype for result in model(state).values()} == {dtype}


def test_dictionary_does_for_a_state(model: TesseralModel) -> None:
    state = make_state([crystal()])
    fields = {name: getattr(state, name) for name in ("positions", "cell", "pbc")}
    fields["atomic_numbers"] = state.atomic_numbers
    torch.testing.assert_close(model(fields)["energy"], model(state)["energy"])


def test_a_part_of_a_state_in_the_same_memory_is_another_state(model: TesseralModel) -> None:
    structures = [crystal(1), crystal(2, 2)]
    state = make_state(structures)
    whole = model(state)
    names = ("positions", "atomic_numbers", "system_idx")
    part = {name: getattr(state, name)[: len(structures[0])] for name in names}
    found = model({**part, "cell": state.cell[:1], "pbc": True})
    torch.testing.assert_close(found["energy"], whole["energy"][:1])


def test_lists_are_reused_while_atoms_move_little(model: TesseralModel, seed: None) -> None:
    state = make_state([crystal(seed) for seed in range(5)])
    for _ in range(4):
        state.positions = state.positions + 0.01 * torch.randn_like(state.positions)
        state.cell = state.cell * 1.001
        model(state)
    assert model.neighbors.builds == 5
    bond = state.positions[1] - state.positions[0]
    state.positions[0] -= bond / bond.norm()  # 1 Å away from its neighbour
    model(state)
    assert model.neighbors.builds == 6


def test_systems_that_leave_take_no_list_with_them(model: TesseralModel) -> None:
    state = make_state([crystal(seed, 1 + seed % 2) for seed in range(6)])
    model(state)
    state.pop([0, 3])
    before = model(state)
    assert model.neighbors.builds == 6
    state = ts.concatenate_states([state, make_state([crystal(7), crystal(8, 2)])])
    after = model(state)
    assert model.neighbors.builds <= 8
    torch.testing.assert_close(after["energy"][:4], before["energy"])


def test_any_sequence_of_batches_agrees_with_ase(model: TesseralModel, small_model: Path) -> None:
    pool = [crystal(seed, 1 + seed % 2, ("SiC", "Si")[seed % 3 == 0]) for seed in range(6)]
    random = np.random.default_rng(0)
    for _ in range(12):
        for atoms in pool:
            atoms.positions += random.normal(0, 0.08, atoms.positions.shape)
            atoms.set_cell(atoms.cell.array * random.normal(1, 0.01), scale_atoms=True)
        members = random.permutation(6)[: random.integers(1, 7)]
        assert_as_ase(model, [pool[member] for member in members], small_model)
    assert model.neighbors.builds < 50


def test_equal_systems_that_part_do_not_share_a_list(
    model: TesseralModel, small_model: Path
) -> None:
    twins = [crystal(), crystal()]
    model(make_state(twins[:1]))
    assert_as_ase(model, twins, small_model)
    twins[1].positions[0] += [0.5, 0.4, 0.0]
    assert_as_ase(model, twins, small_model)
    builds = model.neighbors.builds
    assert_as_ase(model, twins, small_model)
    assert model.neighbors.builds == builds


def test_periodicity_may_change_between_calls(model: TesseralModel, small_model: Path) -> None:
    atoms = slab()
    for pbc in ((True, True, False), (False, True, False), (True, True, False)):
        atoms.pbc = pbc
        assert_as_ase(model, [atoms], small_model, pbc)


def test_state_is_not_changed(model: TesseralModel) -> None:
    state = make_state([crystal(1), crystal(2)])
    before = state.clone()
    model(state)
    for name in ("positions", "cell", "atomic_numbers", "system_idx"):
        assert torch.equal(getattr(state, name), getattr(before, name))


def broken_state(what: str) -> Any:
    """Three systems, of which the second has no answer."""
    pbc = what != "overlap"
    structures = [crystal(1), crystal(2, 2), crystal(3)] if pbc else [cluster() for _ in range(3)]
    state = make_state(structures, pbc)
    first = len(structures[0])
    if what == "overlap":
        state.positions[first + 1] = state.positions[first] + 0.05
    elif what == "position":
        state.positions[first + 1, 2] = float("nan")
    elif what == "cell":
        state.cell[1, 0, 0] = float("inf")
    else:
        state.cell[1, :, 2] = state.cell[1, :, 1]
    return state


SENTENCES = {
    "overlap": r"system 1, atom \d and atom \d are less than 0\.2 Å apart",
    "position": r"system 1, atom 1: its position .*nan\] is not finite",
    "cell": "system 1: its cell .* is not finite",
    "volume": "system 1: its cell .* has no volume",
}


@pytest.mark.parametrize("what", SENTENCES)
def test_system_without_an_answer_is_refused_by_name(model: TesseralModel, what: str) -> None:
    with pytest.raises(ValueError, match=SENTENCES[what]):
        model(broken_state(what))


@pytest.mark.parametrize("what", SENTENCES)
def test_system_without_an_answer_need_not_stop_the_others(small_model: Path, what: str) -> None:
    model = TesseralModel(small_model, device="cpu", dtype="float64", failed="nan")
    state = broken_state(what)
    results = model(state)
    others = ts.concatenate_states([state.split()[0], state.split()[2]])
    expected = model(others)
    good = torch.tensor([True, False, True])
    for name, keep in (("energy", good), ("forces", good[state.system_idx]), ("stress", good)):
        torch.testing.assert_close(results[name][keep], expected[name], equal_nan=True)
        assert results[name][~keep].isnan().all()


def test_batch_without_any_answer_is_all_nan(small_model: Path) -> None:
    model = TesseralModel(small_model, device="cpu", failed="nan")
    state = make_state([crystal()])
    state.positions[:] = float("nan")
    assert all(result.isnan().all() for result in model(state).values())


def test_unknown_element_and_unsorted_atoms_are_refused(model: TesseralModel) -> None:
    germanium = bulk("Ge")
    with pytest.raises(
        ValueError, match="element Ge is not one of those the model supports: C, Si"
    ):
        model(make_state([crystal(), germanium]))
    state = make_state([crystal(1), crystal(2)])
    state.system_idx = torch.tensor([1, 1, 0, 0])
    with pytest.raises(ValueError, match="not sorted by system"):
        model(state)


def test_result_that_is_not_finite_is_refused(model: TesseralModel) -> None:
    with torch.no_grad():
        model.potential.embedding.fill_(float("nan"))
    with pytest.raises(CalculationFailed, match="system 0: the model gives .* not finite"):
        model(make_state([crystal()]))


def test_impossible_settings_are_refused(small_model: Path) -> None:
    with pytest.raises(ValueError, match="skin is -1"):
        TesseralModel(small_model, skin=-1.0)
    with pytest.raises(ValueError, match="failed is 'ignore'; use one of raise, nan"):
        TesseralModel(small_model, failed="ignore")
    with pytest.raises(FileNotFoundError, match="no model file"):
        TesseralModel("no.safetensors")


def test_dynamics_of_a_batch_conserve_energy(model: TesseralModel) -> None:
    settings = {"kT": torch.tensor(0.05), "dt": torch.tensor(0.02)}  # eV, 0.2 fs
    state = make_state([crystal(1, 2), crystal(2, 2)])
    if hasattr(ts, "nve_step"):
        state.rng = 0
        state, step = ts.nve_init(state, model, **settings), partial(ts.nve_step, model=model)
    else:  # torch-sim 0.3
        initialize, step = ts.integrators.nve(model, **settings)
        state = initialize(state, seed=0)
    potentials, totals = [], []
    for _ in range(50):
        kinetic = ts.calc_kinetic_energy(
            masses=state.masses, momenta=state.momenta, system_idx=state.system_idx
        )
        potentials.append(state.energy.clone())
        totals.append(state.energy + kinetic)
        state = step(state, **settings)
    exchanged, lost = (torch.stack(energies).std(dim=0) for energies in (potentials, totals))
    assert (exchanged > 1e-3).all() and (lost < 0.01 * exchanged).all()


@pytest.mark.parametrize("pbc", [True, False])
def test_dispersion_agrees_with_ase(small_model: Path, pbc: bool) -> None:
    pytest.importorskip("dftd3", reason="needs dftd3")
    settings = {"device": "cpu", "dtype": "float64", "dispersion": "pbe", "dispersion_cutoff": 20.0}
    structures = [crystal(1), crystal(2, 2)] if pbc else [cluster(), Atoms("Si", [[3.0, 0, 0]])]
    results = TesseralModel(small_model, **settings)(make_state(structures, pbc))
    forces = results["forces"].split([len(atoms) for atoms in structures])
    for number, atoms in enumerate(structures):
        atoms.calc = TesseralCalculator(small_model, **settings)
        tolerance = {"rtol": 0, "atol": 1e-10}
        energy = atoms.get_potential_energy()
        np.testing.assert_allclose(results["energy"][number], energy, **tolerance)
        np.testing.assert_allclose(forces[number], atoms.get_forces(), **tolerance)
        if pbc:
            stress = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(results["stress"][number], stress, **tolerance)


def test_sums_of_models_are_sums(model: TesseralModel) -> None:
    interface = pytest.importorskip("torch_sim.models.interface")
    if not hasattr(interface, "SumModel"):
        pytest.skip("torch-sim 0.3 has no sums of models")
    state = make_state([crystal(1), crystal(2, 2)])
    # A model that occurs twice would count once.
    both = interface.SumModel(model, deepcopy(model))(state)
    alone = model(state)
    for name in ("energy", "forces", "stress"):
        torch.testing.assert_close(both[name], 2 * alone[name])


def test_system_without_an_answer_has_no_dispersion(small_model: Path) -> None:
    pytest.importorskip("dftd3", reason="needs dftd3")
    model = TesseralModel(
        small_model, device="cpu", dtype="float64", failed="nan", dispersion="pbe"
    )
    state = broken_state("overlap")
    energy = model(state)["energy"]
    assert energy[1].isnan()
    torch.testing.assert_close(energy[2], model(state.split()[2])["energy"][0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu(small_model: Path) -> None:
    results = []
    for device in ("cpu", "cuda"):
        model = TesseralModel(small_model, device=device, dtype="float64")
        state = ts.initialize_state(
            [crystal(1), crystal(2, 2)], torch.device(device), torch.float64
        )
        results.append({name: value.cpu() for name, value in model(state).items()})
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-10)


def test_without_torch_sim_the_import_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch_sim'] = None\n"
        "try:\n"
        "    import tesseral.calculators.torchsim\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install torch-sim-atomistic" in answer.stdout, answer.stderr
