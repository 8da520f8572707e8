"""Selection of structures from files: what is found, resumed, written and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from tesseral.calculators import selection
from tesseral.calculators.select_config import SelectConfig
from tesseral.calculators.selection import describe, select_structures
from tesseral.data.graph import join_batches
from tesseral.data.loading.datasets import labelled_graph
from tesseral.data.store.read import open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import make_structure, structure_from_atoms
from tesseral.deploy.modelfile import load_model

ODD = (7, 23, 31)


def structures() -> list[Atoms]:
    """Forty crystals that are nearly the same, but for three, with a displaced atom."""
    found = []
    for number in range(40):
        atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
        atoms.rattle(0.01, seed=number)
        if number in ODD:
            atoms.positions[ODD.index(number) * 3, ODD.index(number)] += 0.5
            atoms.set_cell(atoms.cell * (1.0, 1.06, 0.95)[ODD.index(number)], scale_atoms=True)
        found.append(atoms)
    return found


@pytest.fixture
def crystals(tmp_path: Path) -> Path:
    """The structures as a dataset without labels."""
    path = tmp_path / "crystals.h5"
    write_store(path, [structure_from_atoms(atoms) for atoms in structures()])
    return path


def options(source: Path, model: Path, output: str = "selected.h5", **more: object) -> SelectConfig:
    """Selection of four structures: the three, and one of the others."""
    values = {"sources": [str(source)], "output": str(source.with_name(output)), "count": 4}
    return SelectConfig(**{**values, "model": str(model), "device": "cpu", **more})


def test_the_structures_unlike_the_others_are_selected_and_written(
    crystals: Path, small_model: Path
) -> None:
    found = select_structures(options(crystals, small_model))
    assert set(found.chosen.numbers.tolist()) > set(ODD)
    written, given = open_store(crystals.with_name("selected.h5")), open_store(crystals)
    for structure, number in zip(written, found.chosen.numbers, strict=True):
        np.testing.assert_array_equal(structure.positions, given[int(number)].positions)
    assert [path.name for path in sorted(crystals.parent.iterdir())] == [
        "crystals.h5",
        "selected.h5",
    ]


def test_known_structures_are_not_selected(
    crystals: Path, small_model: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known.h5"
    write_store(known, [structure_from_atoms(structures()[number]) for number in (0, *ODD[:2])])
    found = select_structures(options(crystals, small_model, known=[str(known)], count=1))
    assert found.chosen.numbers.tolist() == [ODD[2]]


def test_any_file_is_read_and_written(crystals: Path, small_model: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames.extxyz"
    write(frames, structures()[:30])
    sources = [str(frames), str(crystals)]
    found = select_structures(options(frames, small_model, "new.extxyz", sources=sources, count=5))
    written = read(tmp_path / "new.extxyz", ":")
    every = [*structures()[:30], *structures()]
    assert {n % 30 if n < 30 else n - 30 for n in found.chosen.numbers.tolist()} >= set(ODD)
    for atoms, number in zip(written, found.chosen.numbers, strict=True):
        np.testing.assert_allclose(atoms.positions, every[number].positions, atol=1e-6)


def test_the_most_uncertain_structures_are_preferred(
    crystals: Path, knowing_model: Path, small_model: Path
) -> None:
    found = select_structures(options(crystals, knowing_model, uncertain=True, count=1))
    potential, card = load_model(knowing_model)
    store = open_store(crystals)
    graphs = [labelled_graph(one, card.elements, potential.cutoff) for one in store]
    points = describe(potential, join_batches(graphs))
    assert points.errors is not None
    away = np.linalg.norm(points.points - points.points.mean(axis=0), axis=1)
    assert found.chosen.numbers.tolist() == [int(np.argmax(points.errors * away))]
    with pytest.raises(ValueError, match="does not know its uncertainty"):
        select_structures(options(crystals, small_model, "other.h5", uncertain=True))


def test_an_interrupted_selection_resumes(
    crystals: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "BATCH_EDGES", 2000)
    whole = select_structures(options(crystals, small_model, "whole.h5"))
    passed: list[float] = []

    def stop(done: float, total: float, text: str) -> None:
        if text == "structures":
            passed.append(done)
            if len(passed) == 3:
                import signal

                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        select_structures(options(crystals, small_model), stop)
    first = passed[-1]
    assert 0 < first < 40
    seen: list[float] = []
    found = select_structures(
        options(crystals, small_model), lambda done, total, text: seen.append(done)
    )
    assert min(done for done in seen if done) > first
    assert found.chosen.numbers.tolist() == whole.chosen.numbers.tolist()


def test_the_state_of_another_selection_is_not_used(
    crystals: Path, small_model: Path, stable_model: Path
) -> None:
    def stop(done: float, total: float, text: str) -> None:
        if done:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        select_structures(options(crystals, small_model), stop)
    seen: list[float] = []
    select_structures(options(crystals, stable_model), lambda done, *_: seen.append(done))
    assert seen[-1] == 40


def test_descriptors_of_a_structure_do_not_depend_on_the_batch_or_the_cell(
    small_model: Path,
) -> None:
    potential, card = load_model(small_model, dtype="float64")
    graphs = [
        labelled_graph(structure_from_atoms(atoms), card.elements, potential.cutoff)
        for atoms in (structures()[7], structures()[8], structures()[7].repeat((1, 2, 1)))
    ]
    together = describe(potential, join_batches(graphs)).points
    np.testing.assert_allclose(together[2], together[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(describe(potential, graphs[1]).points[0], together[1], rtol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_refusals(crystals: Path, small_model: Path) -> None:
    with pytest.raises(ValueError, match="both a source and the output"):
        select_structures(options(crystals, small_model, crystals.name, overwrite=True))
    select_structures(options(crystals, small_model))
    with pytest.raises(FileExistsError, match="overwrite"):
        select_structures(options(crystals, small_model))
    with pytest.raises(ValueError, match="`count` is 0"):
        options(crystals, small_model, count=0)
    metal = crystals.with_name("metal.h5")
    copper = bulk("Cu")
    write_store(metal, [make_structure(copper.numbers, copper.positions, cell=copper.cell.array)])
    with pytest.raises(ValueError, match="Cu"):
        select_structures(options(metal, small_model, "copper.h5"))
