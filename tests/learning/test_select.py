"""Selection of the structures of a round."""

from collections import Counter

import torch
from ase import Atoms
from ase.build import bulk

from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.store.read import open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import structure_from_atoms
from tesseral.deploy.modelfile import ModelCard, build_potential, save_model
from tesseral.learning.select import select
from tesseral.potentials.architectures.facet import FacetConfig

MODEL = FacetConfig(cutoff=3.6, layers=1, channels=8, grid_channels=8, l_max=2)


def frame(run, rattle, seed):
    atoms: Atoms = bulk("Cu", cubic=True)
    atoms.rattle(rattle, seed=seed)
    atoms.info["group"] = run
    return structure_from_atoms(atoms)


def calculator(folder):
    card = ModelCard(
        config=MODEL,
        elements=(29,),
        reference_energies=(0.0,),
        energy_scale=1.0,
        mean_neighbors=12.0,
    )
    torch.manual_seed(0)
    save_model(folder / "model.safetensors", build_potential(card), card)
    return TesseralCalculator(folder / "model.safetensors")


def chosen(folder, found, count):
    """How many structures of each run are selected."""
    write_store(folder / "explored.h5", found)
    structures, _ = select(calculator(folder), open_store(folder / "explored.h5"), [], count)
    return Counter(structure.group for structure in structures)


def test_runs_take_turns(tmp_path):
    hot = [frame("hot", 0.3, seed) for seed in range(20)]
    cold = [frame("cold", 0.02, seed) for seed in range(20)]
    assert chosen(tmp_path, [*cold, *hot], 7) == {"cold": 4, "hot": 3}


def test_a_run_with_few_structures_leaves_its_share_to_the_others(tmp_path):
    hot = [frame("hot", 0.3, seed) for seed in range(20)]
    assert chosen(tmp_path, [frame("cold", 0.02, 0), *hot], 7) == {"cold": 1, "hot": 6}
