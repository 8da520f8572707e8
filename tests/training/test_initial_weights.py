"""Weights with which a training begins."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from tesseral.data.loading.config import DataConfig
from tesseral.data.loading.theories import energy_shift
from tesseral.data.store.write import write_store
from tesseral.data.structures import structure_from_atoms
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.training.batches import FitData
from tesseral.training.initial_weights import Trained, start

MODEL = FacetConfig(cutoff=3.6, layers=1, channels=8, grid_channels=8, l_max=3)


def copper(rattle, seed):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(rattle, seed=seed)
    atoms.calc = EMT()
    atoms.get_forces()
    return structure_from_atoms(atoms)


def scales(structures, folder):
    """Factors of the inputs of all linear maps, which the calibration sets."""
    write_store(folder / "train.h5", structures)
    write_store(folder / "validation.h5", structures[:2])
    data = FitData(
        DataConfig(train=str(folder / "train.h5"), validation=str(folder / "validation.h5")),
        MODEL.cutoff,
        (),
    )
    data.setup("fit")
    torch.manual_seed(0)
    potential = start(data, MODEL, None, dtype="float32", ops="reference").potential
    found = [part.scale.flatten() for part in potential.modules() if isinstance(part, DegreeLinear)]
    return torch.cat(found).numpy()


@pytest.mark.parametrize("crystals_first", [True, False])
def test_calibration_does_not_depend_on_the_order_of_the_structures(tmp_path, crystals_first):
    crystals = [copper(0.002, seed) for seed in range(60)]
    rattled = [copper(0.2, 100 + seed) for seed in range(60)]
    mixed = [each for pair in zip(crystals, rattled, strict=True) for each in pair]
    ordered = crystals + rattled if crystals_first else rattled + crystals
    ratio = scales(ordered, tmp_path) / scales(mixed, tmp_path)
    print("largest ratio of the scales", np.exp(np.abs(np.log(ratio)).max()))
    assert np.abs(np.log(ratio)).max() < np.log(1.5)


def of_two_theories(folder, **options):
    """Data of copper and aluminium: 20 structures of one theory and 4 of another, the target."""
    shift = {29: 3.0, 13: -2.0}

    def made(symbols, theory, seed):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[:] = symbols
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
        one = structure_from_atoms(atoms)._replace(theory=theory)
        if theory == "low":
            return one
        return one._replace(energy=one.energy + sum(shift[z] for z in atoms.numbers))

    kinds = ("Cu4", "Al2Cu2", "Al4", "AlCu3")
    low = [made(kinds[seed % 4], "low", seed) for seed in range(20)]
    high = [made(kinds[seed % 4], "high", seed) for seed in range(4)]
    write_store(folder / "both.h5", low + high)
    write_store(folder / "validation.h5", high)
    paths = {"train": str(folder / "both.h5"), "validation": str(folder / "validation.h5")}
    data = FitData(DataConfig(**paths, theory="high", **options), MODEL.cutoff, ())
    data.setup("fit")
    return data


def test_the_rows_of_the_target_are_those_of_its_theory(tmp_path):
    """The uncertainty of a model is calibrated with structures of its own level of theory."""
    data = of_two_theories(tmp_path)
    assert data.theories == ("high", "low")
    assert data.target_rows.tolist() == [20, 21, 22, 23]


def test_energies_of_isolated_atoms_are_of_the_theory_of_the_model(tmp_path):
    """They are its E0; those of the other theory are shifted by the difference of the labels."""
    given = {"Cu": 1.0, "Al": 2.0}
    data = of_two_theories(tmp_path, isolated_energies=given)
    torch.manual_seed(0)
    begun = start(data, MODEL, None, dtype="float64", ops="reference")
    high, low = begun.potential.scale.reference_energies.detach().reshape(2, 2).numpy()
    print("E0 of high and low", high, low)
    np.testing.assert_allclose(high, [2.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(high - low, [-2.0, 3.0], atol=0.15)
    trained = Trained("model", begun.potential, begun.card)
    other = of_two_theories(tmp_path, isolated_energies={"Cu": 5.0})
    again = start(other, MODEL, trained, dtype="float64", ops="reference")
    tuned = again.potential.scale.reference_energies.detach().reshape(2, 2).numpy()
    print("E0 after fine-tuning with another one of copper", tuned)
    assert tuned[0, 1] == pytest.approx(5.0)
    assert tuned[1, 1] < 4.0  # fitted to the labels of the other theory


def test_the_other_energies_are_fitted_beside_those_that_are_given():
    """A composition that occurs alone has the right energy with one of its elements given too."""
    counts = np.array([[9, 8, 4]] * 3 + [[1, 0, 0]])
    residuals = np.array([-100.0, -101.0, -99.0, np.nan])
    shift = energy_shift(counts, residuals, np.array([np.nan, -2.0, np.nan]))
    assert shift[1] == -2.0
    assert counts[0] @ shift == pytest.approx(-100.0)
    np.testing.assert_allclose(energy_shift(counts, residuals, np.ones(3)), 1.0)
