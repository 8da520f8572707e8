"""Weights with which a training begins."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from tesseral.data.loading.config import DataConfig
from tesseral.data.store.write import write_store
from tesseral.data.structures import structure_from_atoms
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.training.batches import FitData
from tesseral.training.initial_weights import start

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
