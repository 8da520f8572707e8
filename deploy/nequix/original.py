"""Nequix's own predictions, from its package or stored; and the files of its releases.

The package ``nequix`` compiles a network again for each number of atoms and edges, about half a
minute on a CPU. ``NequixOriginal`` pads structures to few sizes instead.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii

from tesseral.deploy.releases import NEQUIX_NAMES

CACHE = Path("~/.cache/nequix/models")  # where the package keeps what it has downloaded
STORED = Path(__file__).with_name("predictions.json")  # written by benchmarks.universal.nequix


def weights_path(source: str | Path) -> Path:
    """File of a release in the cache of the package ``nequix``, or the given file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    path = Path(source)
    if path.is_file():
        return path
    if str(source) not in NEQUIX_NAMES:
        raise FileNotFoundError(
            f"{path} is not a file of Nequix weights; give one, or one of {', '.join(NEQUIX_NAMES)}"
        )
    kept = CACHE.expanduser() / f"{source}.nqx"
    if not kept.is_file():
        raise FileNotFoundError(
            f"there is no {kept}; Nequix downloads it when it is first used (pip install "
            f"'tesseral[nequix]', then python -c \"from nequix.calculator import NequixCalculator; "
            f"NequixCalculator('{source}', use_kernel=False)\"), or give a file"
        )
    return kept


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stored_predictions() -> dict[str, Any]:
    """Crystals, and by the hash of a file with weights, its name and Nequix's predictions."""
    content: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return content


def originals(source: str | Path, modality: str | None, elements: Sequence[int]) -> list[Atoms]:
    """Crystals of all elements whose calculators give Nequix's energies, forces and stress.

    Args:
        source: name of a release in the cache of the package ``nequix``, or a file.
        modality: not used.
        elements: atomic numbers.

    Raises:
        FileNotFoundError: the source is neither a release in the cache nor a file.
        ValueError: ``nequix`` is not installed, and there are no stored predictions of this file.
    """
    path = weights_path(source)
    if importlib.util.find_spec("nequix") is not None:
        crystals = mixed_crystals(elements)
        calculator = NequixOriginal(path, crystals)
        for atoms in crystals:
            atoms.calc = calculator
        return crystals
    stored = stored_predictions()
    own = stored["files"].get(file_hash(path))
    if own is None:
        raise ValueError(
            f"no predictions of {path} are stored here, and nequix is not installed to make them "
            "for the comparison with the original; run pip install 'tesseral[nequix]'"
        )
    results = zip(own["energy"], own["forces"], own["stress"], strict=True)
    crystals = []
    for structure, (energy, forces, stress) in zip(stored["crystals"], results, strict=True):
        atoms = Atoms(**structure, pbc=True)
        given = {"energy": energy, "forces": np.array(forces), "stress": np.array(stress)}
        atoms.calc = SinglePointCalculator(atoms, **given)
        crystals.append(atoms)
    return crystals


def mixed_crystals(elements: Sequence[int]) -> list[Atoms]:
    """Distorted crystals of up to eight elements each, which together contain every element."""
    rng = np.random.default_rng(0)
    order = rng.permutation(elements)
    crystals = []
    for start in range(0, len(order), 8):
        numbers = np.resize(order[start : start + 8], 8)
        atoms = bulk("NaCl", "rocksalt", a=4.2 * covalent_radii[numbers].mean(), cubic=True)
        atoms.numbers = numbers
        atoms.rattle(0.1, rng=rng)
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), True)
        crystals.append(atoms)
    return crystals


class NequixOriginal(Calculator):
    """Nequix's own network in JAX, on the CPU, with structures padded to few sizes."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, path: Path, structures: Sequence[Atoms] = ()) -> None:
        """Load the network.

        Args:
            path: file with weights.
            structures: all that it will compute, if known, so that it is compiled only once.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        jax, equinox = (importlib.import_module(name) for name in ("jax", "equinox"))
        jax.config.update("jax_platforms", "cpu")
        self.data = importlib.import_module("nequix.data")
        self.pad = importlib.import_module("jraph").pad_with_graphs
        self.network, settings = importlib.import_module("nequix.model").load_model(path)
        self.cutoff = settings["cutoff"]
        self.places = self.data.atomic_numbers_to_indices(settings["atomic_numbers"])
        self.run = equinox.filter_jit(lambda network, graph: network(graph))
        self.sizes = [16, 256]  # atoms and edges, powers of two
        for atoms in structures:
            self._graph(atoms)

    def _graph(self, atoms: Atoms) -> Any:
        """Graph of a structure; makes room for it."""
        parts = self.data.preprocess_graph(atoms, self.places, self.cutoff, False)
        if parts["cell"] is None:  # the same program as for crystals; the stress is then 0
            parts["cell"] = np.zeros((3, 3), dtype=np.float32)
        graph = self.data.dict_to_graphstuple(parts)
        needed = int(graph.n_node[0]) + 1, int(graph.n_edge[0]) + 1
        for place, need in enumerate(needed):
            self.sizes[place] = max(self.sizes[place], 1 << (need - 1).bit_length())
        return graph

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Energy, forces and stress, which is zero without periodic boundaries."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        graph = self._graph(self.atoms)
        nodes, edges = self.sizes
        padded = self.pad(graph, n_node=nodes, n_edge=edges, n_graph=2)
        energy, forces, stress = self.run(self.network, padded)
        self.results = {
            "energy": float(energy[0]),
            "forces": np.asarray(forces, dtype=float)[: len(self.atoms)],
            "stress": np.asarray(stress[0], dtype=float).ravel()[[0, 4, 8, 5, 2, 1]],
        }
