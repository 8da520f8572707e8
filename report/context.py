"""Data shared by the sections: model in two precisions, test set, predictions, crystals."""

from __future__ import annotations

import shutil
import weakref
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import copy_atoms, repeated
from tesseral.calculators.properties.relaxation import Relaxed, relaxed
from tesseral.data.graph import AtomicGraph
from tesseral.data.loading.datasets import check_elements
from tesseral.data.neighbors import atomic_graph, species_index
from tesseral.data.sources.opening import read_last_frame
from tesseral.data.store.read import Store, open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import atoms_from_structure, structure_from_atoms
from tesseral.deploy.modelfile import ModelCard
from tesseral.report.config import FULL, QUICK, Effort, ReportConfig
from tesseral.report.crystal_search import (
    Crystal,
    conventional,
    find_candidates,
    read_candidates,
    relax_crystals,
)
from tesseral.report.fingerprints import Fingerprints, fingerprints
from tesseral.report.references import References, find_references
from tesseral.training.evaluate import Predictions, evaluate


class TrainingSet:
    """The training set, or the reason why it is not available."""

    def __init__(self, store: Store | None, why: str) -> None:
        self.store, self.why = store, why


RATTLED = (0.05, 0.1)  # Å, displacements of the copies of structures without labels
MANY_ELEMENTS = 10  # a model with more elements is tested only on those of the data


class Context:
    """Data that more than one section needs, computed on first use.

    Args:
        config: options of the report.
        effort: sizes of the computations. Default: those of the configuration.

    Raises:
        FileNotFoundError: no such model or data.
        ValueError: files that cannot be read, or elements that the model does not know.
    """

    def __init__(self, config: ReportConfig, effort: Effort | None = None) -> None:
        self.config = config
        self.effort = effort or (QUICK if config.quick else FULL)
        self.device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.calculator = TesseralCalculator(config.model, device=self.device, dtype=config.dtype)
        self.card: ModelCard = self.calculator.card
        if config.data is not None:
            self.test = open_store(config.data)
        else:
            folder = mkdtemp()
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self.test = self._without_labels(Path(folder) / "structures.h5")
        check_elements(self.test, self.card.elements)
        self.references: References = find_references(
            config.references, self.test, self.card.symbols
        )
        crystals = config.structures
        if config.data is None:
            crystals = [path for path in crystals if read_last_frame(path).pbc.all()]
        self.extra = read_candidates(crystals)

    def _without_labels(self, path: Path) -> Store:
        """A set of the given structures, and of rattled copies, with the model's own results.

        No section that compares with labels is computed from them.
        """
        found = []
        rng = np.random.default_rng(0)
        for name in self.config.structures:
            atoms = read_last_frame(name)
            atoms.set_constraint()
            for size in (0.0, *RATTLED):
                copy = atoms.copy()
                copy.positions += rng.normal(scale=size, size=copy.positions.shape)
                species_index(copy.numbers, self.card.elements)
                copy.calc = self.calculator
                results = {"energy": copy.get_potential_energy(), "forces": copy.get_forces()}
                copy.calc = SinglePointCalculator(copy, **results)
                found.append(structure_from_atoms(copy))
        write_store(path, found)
        return open_store(path)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Elements to test: those of the model, or those of the test set for a universal model."""
        own = self.card.symbols
        if len(own) <= MANY_ELEMENTS:
            return own
        return tuple(symbol for symbol in own if atomic_numbers[symbol] in self.test.elements)

    @property
    def cutoff(self) -> float:
        """Cutoff of the model, Å."""
        return self.card.config.cutoff

    @property
    def dtype(self) -> str:
        """Precision of the features as the model is used."""
        return self.config.dtype or self.card.dtype

    @cached_property
    def exact(self) -> TesseralCalculator:
        """The same model in float64, for derivatives, where rounding errors would matter."""
        return TesseralCalculator(self.config.model, device=self.device, dtype="float64")

    @cached_property
    def predictions(self) -> Predictions:
        """Predictions of the model for the test set."""
        return evaluate(
            self.calculator.potential,
            self.test,
            self.card.elements,
            known=self.card.uncertainty,
            batch_edges=self.config.batch_edges,
            shift_energies=self.config.shift_energies,
        )

    @cached_property
    def train(self) -> TrainingSet:
        """The training set: the given one, or the one named in the model card if it is found."""
        return find_training_set(self.config, self.card)

    @cached_property
    def test_fingerprints(self) -> Fingerprints:
        """Features of the atoms of the test set."""
        return fingerprints(self.calculator.potential, self.card, self.test)

    @cached_property
    def train_fingerprints(self) -> Fingerprints:
        """Features of the atoms of the training set, which must be available."""
        assert self.train.store is not None
        return fingerprints(self.calculator.potential, self.card, self.train.store)

    @cached_property
    def crystals(self) -> list[Crystal]:
        """Different perfect crystals from the given files and the data, relaxed in float64."""
        stores = [(self.test.path.name, self.test)]
        if self.train.store is not None:
            stores.append((self.train.store.path.name, self.train.store))
        candidates = [*self.extra, *find_candidates(stores)]
        return relax_crystals(candidates, self.exact, self.effort.crystals)

    @property
    def sound_crystals(self) -> list[Crystal]:
        """Crystals whose properties can be computed."""
        return [crystal for crystal in self.crystals if not crystal.problem]

    @cached_property
    def molecule(self) -> tuple[Atoms, Relaxed] | None:
        """The lowest-energy molecule of the data, unrelaxed and relaxed in float64, or None.

        The energy is counted per atom, above the reference energies. Molecules are the structures
        without a cell.
        """
        lowest, where = np.inf, None
        for store in [self.test] + ([self.train.store] if self.train.store is not None else []):
            zero = [self._reference_energy(number) for number in store.elements]
            above = (store.energies - store.compositions() @ zero) / store.n_atoms
            apart = store.pbc.any(axis=1) | (store.n_atoms < 2) | ~np.isfinite(above)
            above = np.where(apart, np.inf, above)
            if above.min() < lowest:
                lowest, where = above.min(), (store, int(np.argmin(above)))
        if where is None:
            return None
        atoms = atoms_from_structure(where[0][where[1]])
        atoms.info.clear()
        atoms.calc = self.exact
        return atoms, relaxed(atoms, fmax=1e-4, steps=500)

    def _reference_energy(self, number: int) -> float:
        """E0 of an element, 0 if the model does not know it."""
        known = dict(zip(self.card.elements, self.card.reference_energies, strict=True))
        return known.get(number, 0.0)

    @cached_property
    def sample(self) -> Atoms:
        """Structure for MD: a supercell of the first crystal, the molecule, or a test structure."""
        atoms = self._sample()
        atoms.calc = self.calculator
        return atoms

    def _sample(self) -> Atoms:
        if self.sound_crystals:
            return supercell_of(self.sound_crystals[0], self.effort.md_atoms)
        if self.molecule is not None:
            return copy_atoms(self.molecule[1].atoms)
        best = int(np.argmin(np.abs(self.test.n_atoms - self.effort.md_atoms)))
        atoms = atoms_from_structure(self.test[best])
        atoms.info.clear()
        return atoms

    @property
    def sample_name(self) -> str:
        """Description of ``sample``."""
        if self.sound_crystals:
            return f"{self.sound_crystals[0].name}, {len(self.sample)} atoms"
        formula = self.sample.get_chemical_formula(mode="hill")
        return f"{formula}, {len(self.sample)} atoms"

    @cached_property
    def timesteps(self) -> tuple[float, float]:
        """Two time steps in fs that suit the lightest element."""
        lightest = float(self.sample.get_masses().min())
        short = 0.25 if lightest < 3 else 0.5 if lightest < 11 else 1.0
        return short, 2 * short

    @cached_property
    def temperatures(self) -> tuple[float, ...]:
        """Temperatures of the constant-energy runs, K."""
        if self.config.temperatures is not None:
            return tuple(self.config.temperatures)
        return (300.0, 1000.0) if self.sample.pbc.all() else (300.0, 600.0)

    def graphs(self, most: int = 200) -> list[AtomicGraph]:
        """Some structures of the test set as graphs: the largest ones up to a limit."""
        sizes, number = self.test.n_atoms, self.effort.structures
        rows = [int(i) for i in np.argsort(-sizes, kind="stable") if sizes[i] <= most]
        picked = rows[:: max(1, len(rows) // number)][:number] or [int(np.argmin(sizes))]
        return [
            atomic_graph(s.numbers, s.positions, s.cell, s.pbc, self.card.elements, self.cutoff)
            for s in (self.test[row] for row in picked)
        ]


def supercell_of(crystal: Crystal, number: int) -> Atoms:
    """A supercell with at least this many atoms and edges of similar length."""
    cell = conventional(crystal.atoms)
    cell.calc = crystal.atoms.calc
    return repeated(cell, number)


def find_training_set(config: ReportConfig, card: ModelCard) -> TrainingSet:
    """The given store, or the one with the hash in the model card, near the model or the data.

    Raises:
        FileNotFoundError: the given file does not exist.
        ValueError: it is not a dataset.
    """
    entry = card.training.get("data", {}).get("train", {})
    name, wanted = str(entry.get("file", "")), entry.get("content_hash")
    if config.train is not None:
        store = open_store(config.train)
        same = store.content_hash == wanted
        known = "it is the one in the model card" if same else "the model card names another file"
        return TrainingSet(store, f"{store.path}, given as `train`; {known}")
    if not name:
        return TrainingSet(None, "the model card names no training file; give one as `train`")
    beside = [] if config.data is None else [Path(config.data).parent]
    folders = [*beside, Path(config.model).parent, Path.cwd()]
    folders += [Path(config.model).parent.parent, Path(str(files("tesseral.data.examples")))]
    for folder in folders:
        path = folder / name
        if not path.is_file():
            continue
        try:
            store = open_store(path)
        except ValueError:
            continue
        if store.content_hash == wanted:
            return TrainingSet(store, f"{path}, found by the hash in the model card")
    return TrainingSet(
        None,
        f"the model was trained on {name}, which is not next to the data or the model (with the "
        "hash in the model card); give it as `train`",
    )
