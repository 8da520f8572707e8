"""Nequix weights as models of ours.

The numbers of the original in ``ORIGINAL`` were computed once by nequix 0.4.5 in float64.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT

from tesseral.calculators.ase import TesseralCalculator
from tesseral.commands.main import main
from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.store.write import write_store
from tesseral.data.structures import structure_from_atoms
from tesseral.deploy.export import export_model
from tesseral.deploy.lammps.verify import verify
from tesseral.deploy.modelfile import load_model, read_card, save_model
from tesseral.deploy.nequix import original
from tesseral.deploy.nequix.convert import bessel_basis, convert, polynomial_cutoff
from tesseral.deploy.nequix.original import stored_predictions
from tesseral.deploy.nequix.weights import couplings, read_weights
from tesseral.deploy.releases import NEQUIX_NAMES
from tesseral.potentials.engine.packing import can_pack
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops
from tesseral.training.config import FitConfig, OptimizationConfig, TrainerConfig
from tesseral.training.fit import fit

SETTINGS = {
    "cutoff": 4.0,
    "atomic_numbers": [6, 1, 8],
    "scale": 0.7,
    "shift": -1.25,
    "avg_n_neighbors": 20.0,
    "hidden_irreps": "8x0e + 4x1o + 2x2e",
    "lmax": 2,
    "n_layers": 3,
    "radial_basis_size": 4,
    "radial_mlp_size": 6,
    "radial_mlp_layers": 2,
    "radial_polynomial_p": 6.0,
    "mlp_init_scale": 4.0,
    "index_weights": False,
    "layer_norm": True,
}


def write_nqx(path: Path, after: bytes = b"", **changes: object) -> Path:
    """A file of random weights, as Nequix writes them."""
    settings = {**SETTINGS, **changes}
    random = np.random.RandomState(3)  # its numbers are the same in every version of NumPy
    shapes: list[tuple[int, ...]] = [(3,)]
    for number, functions in enumerate((9, 48, 14)):
        first, last = number == 0, number == 2
        inner = [3] if first else [8, 4, 2]
        shapes += [(4, 6), (6, 6), (6, functions)]
        shapes += [(size, size) for size in inner]
        message = [3, 3, 3] if first else [14, 18, 16][: 1 if last else 3]
        field = [8] if last else [14, 4, 2]
        shapes += list(zip(message, field, strict=True))
        own = (3,) if settings["index_weights"] else ()
        shapes += [(*own, *pair) for pair in zip(inner, field, strict=False)]
        shapes += [(size,) for size in field] if settings["layer_norm"] else []
    shapes.append((8, 1))
    with path.open("wb") as file:
        file.write(json.dumps(settings).encode() + b"\n")
        for shape in shapes:
            np.lib.format.write_array(file, random.normal(size=shape).astype(np.float32))
        file.write(after)
    return path


def methanol() -> Atoms:
    """Six atoms in a skew periodic cell, some of them neighbours of their own images."""
    places = [(0.0, 0.1, 0.2), (1.4, 0.0, 0.1), (-0.4, 1.0, 0.3)]
    places += [(-0.3, -0.6, 0.9), (-0.4, -0.5, -0.8), (1.7, 0.8, -0.3)]
    cell = [[3.9, 0.0, 0.0], [0.3, 4.4, 0.0], [-0.2, 0.4, 4.1]]
    return Atoms([6, 8, 1, 1, 1, 1], places, cell=cell, pbc=True)


VARIANTS = {"norm": {}, "by element": {"index_weights": True, "layer_norm": False}}
ORIGINAL: dict[str, tuple[float, list[list[float]], list[float]]] = {  # eV, eV/Å, eV/Å³
    "norm": (
        -0.8229508,
        [
            [0.6736937, 0.2208308, -0.0700086],
            [-0.2390026, -0.0715282, 0.1702175],
            [-0.3581642, -0.4545176, -0.2489849],
            [-0.0589195, -0.2058774, 0.2008239],
            [-0.2725328, 0.0340931, 0.0327004],
            [0.2549254, 0.4769992, -0.0847482],
        ],
        [0.028346, -0.00729751, 0.00041914, 0.00535522, -0.0013595, -0.00345766],
    ),
    "by element": (
        -0.1482718,
        [
            [0.1689351, 0.1135134, 0.0737416],
            [-0.0362815, -0.0456247, 0.0067042],
            [0.0064718, 0.3296211, 0.0847249],
            [-0.0484651, -0.1320394, 0.2516057],
            [-0.0165936, -0.1685725, -0.4198298],
            [-0.0740667, -0.096898, 0.0030534],
        ],
        [-0.00764363, -0.00336166, -0.00387332, -0.00109709, -0.00076855, 0.0009526],
    ),
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_it_computes_what_nequix_does(tmp_path: Path, name: str) -> None:
    potential, card = convert(write_nqx(tmp_path / "small.nqx", **VARIANTS[name]), intervals=400)
    atoms = methanol()
    atoms.calc = TesseralCalculator.from_model(potential.double(), card)
    energy, forces, stress = ORIGINAL[name]
    scale = float(np.abs(forces).max())
    apart = np.abs(atoms.get_forces() - forces).max()
    print(f"{atoms.get_potential_energy() - energy:.1e} eV, {apart:.1e} of {scale:.2f} eV/Å")
    assert scale > 0.1
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-5 * max(1, scale))
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-6 * max(1, scale))


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels here")
@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_compiled_engine_gives_the_same(tmp_path: Path, name: str) -> None:
    potential, card = convert(write_nqx(tmp_path / "small.nqx", **VARIANTS[name]), intervals=40)
    potential = potential.double()
    assert can_pack(potential)
    atoms, results = methanol(), []
    for ops in ("fused", "reference"):
        atoms.calc = TesseralCalculator.from_model(select_ops(potential, ops), card)
        found = [atoms.get_potential_energy()], atoms.get_forces().ravel(), atoms.get_stress()
        results.append(np.concatenate(found))
        atoms.calc = None
    np.testing.assert_allclose(results[0], results[1], rtol=1e-11, atol=1e-10)


def test_mirror_images_have_the_same_energy(tmp_path: Path) -> None:
    potential, card = convert(write_nqx(tmp_path / "small.nqx"), intervals=40)
    atoms = methanol()
    atoms.calc = TesseralCalculator.from_model(potential.double(), card)
    mirror = atoms.copy()
    flip = np.array([1.0, 1.0, -1.0])
    mirror.set_cell(atoms.cell.array * flip)
    mirror.positions = atoms.positions * flip
    mirror.calc = atoms.calc
    forces = atoms.get_forces()
    assert float(np.abs(forces).max()) > 0.1
    assert mirror.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-11)
    np.testing.assert_allclose(mirror.get_forces(), forces * flip, rtol=0, atol=1e-10)


def test_radial_functions_are_the_formulas_of_the_paper() -> None:
    radii = torch.tensor([0.0, 1.3, 4.0, 4.5], dtype=torch.float64)
    basis = bessel_basis(radii, 2, 4.0)
    expected = 0.5 * np.sin(2 * np.pi * 1.3 / 4) / 1.3
    assert float(basis[1, 1]) == pytest.approx(expected)
    assert float(basis[0, 1]) == pytest.approx(0.5 * 2 * np.pi / 4)
    envelope = polynomial_cutoff(radii / 4.0, 6.0)
    x = 1.3 / 4
    assert float(envelope[1]) == pytest.approx(1 - 28 * x**6 + 48 * x**7 - 21 * x**8)
    assert envelope.tolist()[::2] == pytest.approx([1.0, 0.0], abs=1e-12) and envelope[3] == 0


def test_paths_are_in_the_order_of_nequix() -> None:
    assert couplings(2, 2, 2) == [(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1)]


def test_settings_after_the_weights_are_no_weights(tmp_path: Path) -> None:
    """Some published files repeat them as arrays without a dimension."""
    path = write_nqx(tmp_path / "plain.nqx", b"\n")
    assert len(read_weights(path).layers) == 3
    with path.open("ab") as file:
        np.lib.format.write_array(file, np.array(6.0))
    # The empty line is in between now, which is not how the package writes it.
    with pytest.raises(ValueError, match="plain.nqx"):
        read_weights(path)
    again = write_nqx(tmp_path / "again.nqx")
    with again.open("ab") as file:
        np.lib.format.write_array(file, np.array(6.0))
    assert len(read_weights(again).layers) == 3
    with again.open("ab") as file:
        np.lib.format.write_array(file, np.ones(3))
    with pytest.raises(ValueError, match=r"weights that are not known, of shapes \[\(3,\)\]"):
        read_weights(again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_irreps": "8x0e + 4x1e + 2x2e"}, "of natural parity"),
        ({"hidden_irreps": "8x0e + 4x1o"}, "features .* harmonics up to degree 2"),
        (
            {"n_layers": 4},
            r"layer 2 has shape \(6, 14\); a network of these settings has \(6, 48\)",
        ),
        ({"radial_basis_size": 5}, r"the radial network of layer 0 has shape \(4, 6\)"),
    ],
)
def test_networks_that_ours_cannot_be_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write_nqx(tmp_path / "other.nqx", **change)
    with pytest.raises(ValueError, match=message):
        convert(path, intervals=40)


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.nqx"
    wrong.write_text("nothing")
    with pytest.raises(ValueError, match="wrong.nqx is not a file of Nequix weights"):
        convert(wrong, intervals=40)
    wrong.write_text('{"cutoff": 6.0}\n')
    with pytest.raises(ValueError, match="wrong.nqx is not a file of Nequix weights"):
        convert(wrong, intervals=40)
    cut = write_nqx(tmp_path / "cut.nqx")
    cut.write_bytes(cut.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.nqx"):
        convert(cut, intervals=40)
    with pytest.raises(FileNotFoundError, match="give one, or one of nequix-oam-1-pft"):
        convert(tmp_path / "missing.nqx", intervals=40)
    with pytest.raises(ValueError, match="one level of theory only"):
        convert(write_nqx(tmp_path / "small.nqx"), intervals=40, modality="PBE")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    path = write_nqx(tmp_path / "small.nqx")
    head = path.read_bytes().split(b"\n")[0]
    with path.open("wb") as file:
        file.write(head + b"\n")
        np.lib.format.write_array(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_weights(path)


def test_a_release_is_found_in_the_cache_of_nequix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original, "CACHE", tmp_path)
    with pytest.raises(FileNotFoundError, match="Nequix downloads it when it is first used"):
        convert("nequix-mp-1", intervals=40)
    write_nqx(tmp_path / "nequix-mp-1.nqx")
    _, card = convert("nequix-mp-1", intervals=40)
    assert card.training["converted_from"] == "nequix-mp-1"
    assert "CC-BY-4.0" in card.training["licence"] and "Koker" in card.training["licence"]


def test_what_cannot_be_compared_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path, output = write_nqx(tmp_path / "small.nqx"), tmp_path / "model.safetensors"
    assert main(["convert", str(path), "-o", str(output), "--intervals", "40"]) == 2
    assert "pip install 'tesseral[nequix]'" in capsys.readouterr().err
    assert not output.exists()


def test_stored_crystals_contain_all_elements() -> None:
    stored = stored_predictions()
    elements = {number for each in stored["crystals"] for number in each["numbers"]}
    assert len(elements) == 89
    for own in stored["files"].values():
        assert own["name"] in NEQUIX_NAMES
        for crystal, forces in zip(stored["crystals"], own["forces"], strict=True):
            assert np.shape(forces) == (len(crystal["numbers"]), 3)
            # Without external forces they sum to zero, as far as rounding in float32 allows.
            assert np.abs(np.sum(forces, axis=0)).max() < 1e-3


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """The converted small network, as a model file in float64."""
    potential, card = convert(write_nqx(tmp_path / "small.nqx"), intervals=40)
    save_model(tmp_path / "small.safetensors", potential.double(), card)
    return tmp_path / "small.safetensors"


def test_torch_sim_agrees_with_ase(small_file: Path) -> None:
    torch_sim = pytest.importorskip("torch_sim")
    from tesseral.calculators.torchsim import TesseralModel

    model = TesseralModel(small_file, device="cpu")
    structures = [methanol(), methanol().repeat((2, 1, 1))]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=number)
    state = torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)
    results = model(state)
    calculator, start = TesseralCalculator(small_file), 0
    for number, atoms in enumerate(structures):
        atoms.calc = calculator
        forces = results["forces"][start : start + len(atoms)]
        np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-9)
        energy = float(results["energy"][number])
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        stress = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(results["stress"][number], stress, rtol=0, atol=1e-9)
        start += len(atoms)


@pytest.mark.slow
def test_lammps_exchanges_features_between_processes(
    lammps_plugin: Path, small_file: Path, tmp_path: Path
) -> None:
    export_model(small_file, tmp_path / "model.pt")
    differences = verify(tmp_path / "model.pt", ranks=(1, 2))
    for one in differences:
        print(one)
    assert differences and all(one.passed for one in differences)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the compositions of the training set determine only 1")
def test_it_can_be_fine_tuned(small_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, number in (("train", 12), ("validation", 4)):
        labelled = []
        for _ in range(number):
            atoms = methanol()
            atoms.rattle(0.05, rng=rng)
            atoms.calc = EMT()
            atoms.get_stress()
            labelled.append(structure_from_atoms(atoms))
        write_store(tmp_path / f"{name}.h5", labelled)
    errors = []
    for steps in (1, 60):
        result = fit(
            FitConfig(
                data=DataConfig(
                    train=str(tmp_path / "train.h5"),
                    validation=str(tmp_path / "validation.h5"),
                    batch_structures=6,
                ),
                optimization=OptimizationConfig(learning_rate=0.005, ema_decay=0.9),
                trainer=TrainerConfig(
                    accelerator="cpu",
                    max_steps=steps,
                    enable_progress_bar=False,
                    validate_every=steps,
                ),
                init_from=str(small_file),
                output=str(tmp_path / f"tuned{steps}.safetensors"),
            )
        )
        card = read_card(result.model)
        assert card.config == read_card(small_file).config
        errors.append(card.errors["validation"]["forces"]["mae"])
    print(f"forces after 1 step {errors[0]:.0f} meV/Å, after 60 steps {errors[1]:.0f}")
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nequix-mp-1", "nequix-oam-1", "nequix-oam-1-pft"])
def test_published_weights_give_the_stored_predictions(
    third_party_data: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = third_party_data / "nequix" / f"{name}.nqx"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    output = tmp_path / "model.safetensors"
    assert main(["convert", str(path), "-o", str(output)]) == 0
    card = read_card(output)
    found = card.training["largest difference from the original"]
    print(name, found)
    assert found["energy (meV/atom)"] < 0.1
    assert found["forces (meV/Å)"] < 1
    assert found["stress (GPa)"] < 0.01
    assert card.training["converted_from"] == name
    model, _ = load_model(output)
    assert can_pack(model)
