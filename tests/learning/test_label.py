"""Labels from calculators in this process and from programs that write files."""

from __future__ import annotations

import json
from concurrent.futures import BrokenExecutor, Executor, Future

import numpy as np
import pytest
from ase.calculators.emt import EMT

from tesseral.data.structures import atoms_from_structure
from tesseral.learning.config import LabelConfig
from tesseral.learning.label import (
    compute_labels,
    find_calculator,
    known_label,
    make_calculator,
    match_labels,
    order_of,
    read_outputs,
)

EMT_PATH = "ase.calculators.emt.EMT"


def computed(structures, config, folder, executor):
    named = {f"s{n}": structure for n, structure in enumerate(structures)}
    list(compute_labels(named, config, folder, executor))
    return [known_label(folder, name) for name in named]


def check_emt(structure, label, atol):
    atoms = atoms_from_structure(structure)
    atoms.calc = EMT()
    assert label.energy == pytest.approx(atoms.get_potential_energy(), abs=atol)
    np.testing.assert_allclose(label.forces, atoms.get_forces(), atol=atol)
    np.testing.assert_allclose(label.stress, atoms.get_stress(voigt=False), atol=atol)


def test_labels_of_a_calculator(copper, here, tmp_path):
    structures = copper(2)
    labels = computed(structures, LabelConfig(calculator=EMT_PATH, theory="EMT"), tmp_path, here())
    for structure, label in zip(structures, labels, strict=True):
        check_emt(structure, label.structure, 1e-6)
        found = label.structure
        assert (found.config_type, found.theory) == ("rattled", "EMT")
        assert found.group == structure.group and found.source == f"{EMT_PATH} {label.name}"
    assert not any(path.is_dir() for path in tmp_path.iterdir())  # nothing was written there


def test_a_label_is_not_computed_again(copper, here, killed, tmp_path):
    structures, config = copper(4), LabelConfig(calculator=EMT_PATH)
    with pytest.raises(killed):
        computed(structures, config, tmp_path, here(tasks=2))
    rest = here()
    computed(structures, config, tmp_path, rest)
    assert rest.done == 2


class Breaks(Executor):
    """Ends abruptly with one task, and with those that are being computed then."""

    def __init__(self, cause, begun=()):
        self.cause, self.begun, self.pending = cause, begun, []

    def submit(self, function, name, structure, config, folder):
        future = Future()
        if name == self.cause or name in self.begun:
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "output.txt").write_text("SCF cycle 1")
            self.pending.append(future)
        else:
            future.set_result(function(name, structure, config, folder))
        if name == self.cause:
            for each in self.pending:
                each.set_exception(BrokenExecutor("killed"))
        return future


def test_a_label_whose_process_ends_abruptly_is_tried_alone_and_then_given_up(
    copper, here, tmp_path
):
    structures, config = copper(4), LabelConfig(calculator=EMT_PATH)
    with pytest.raises(BrokenExecutor):
        computed(structures, config, tmp_path, Breaks("s1", begun=["s0"]))
    begun = sorted(path.name for path in tmp_path.glob("*.suspect"))
    assert begun == ["s0.suspect", "s1.suspect"]  # nobody knows yet which one was the cause
    with pytest.raises(BrokenExecutor):
        computed(structures, config, tmp_path, Breaks("s1"))
    labels = computed(structures, config, tmp_path, here(tasks=0))
    assert [label.structure is None for label in labels] == [False, True, False, False]
    assert "ended abruptly twice" in labels[1].reason
    assert not any(tmp_path.glob("*.suspect"))
    (tmp_path / "s1.failed.json").unlink()  # as the documentation says
    assert computed(structures, config, tmp_path, here())[1].structure is not None


def test_an_interrupted_label_is_computed_however_often_it_was(copper, here, tmp_path):
    (tmp_path / "s0").mkdir()
    (tmp_path / "s0" / "attempts.json").write_text("2")  # an earlier version counted them
    (label,) = computed(copper(1), LabelConfig(calculator=EMT_PATH), tmp_path, here())
    assert label.structure is not None and not (tmp_path / "s0").exists()


def test_a_folder_that_workers_do_not_share_is_named(copper, tmp_path, monkeypatch):
    class Elsewhere(Executor):
        def submit(self, function, *arguments):
            future = Future()
            future.set_result(None)
            return future

    monkeypatch.setattr("tesseral.learning.label.LAG", 0)
    with pytest.raises(OSError, match="label s0 was computed, but is not in .* must see"):
        computed(copper(1), LabelConfig(calculator=EMT_PATH), tmp_path, Elsewhere())


def test_a_failed_label_has_its_reason(copper, here, tmp_path):
    gold = copper(1)[0]._replace(numbers=np.full(4, 92))
    labels = computed([gold, copper(1)[0]], LabelConfig(calculator=EMT_PATH), tmp_path, here())
    assert labels[0].structure is None and "U" in labels[0].reason
    assert labels[1].structure is not None


def espresso(program):
    profile = {
        "class": "ase.calculators.espresso.EspressoProfile",
        "command": str(program),
        "pseudo_dir": str(program.parent),
    }
    return LabelConfig(
        calculator="ase.calculators.espresso.Espresso",
        arguments={
            "profile": profile,
            "pseudopotentials": {"Cu": "Cu.upf"},
            "input_data": {"system": {"ecutwfc": 40}, "control": {"tprnfor": True}},
        },
    )


def test_quantum_espresso(copper, here, pw_x, tmp_path):
    structures = copper(2)
    labels = computed(structures, espresso(pw_x(unconverged=1)), tmp_path / "labels", here())
    check_emt(structures[0], labels[0].structure, 1e-5)
    assert labels[0].structure.theory == "pw.x PBE 544.2 eV"
    assert labels[1].structure is None and "did not converge" in labels[1].reason


def vasp(program):
    arguments = {"command": str(program), "xc": "PBE", "encut": 400, "pp": "PBE"}
    return LabelConfig(calculator="ase.calculators.vasp.Vasp", arguments=arguments)


@pytest.mark.filterwarnings("ignore:Loaded VASP_PP_PATH")
def test_vasp(copper, here, vasp_std, tmp_path, monkeypatch):
    potcar = tmp_path / "potpaw_PBE" / "Cu" / "POTCAR"
    potcar.parent.mkdir(parents=True)
    potcar.write_text("  PAW_PBE Cu 22Jun2005\n   11.0000000000000\n End of Dataset\n")
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    structures = copper(2)
    labels = computed(structures, vasp(vasp_std(unconverged=1)), tmp_path / "labels", here())
    assert labels[0].structure is not None, labels[0].reason
    check_emt(structures[0], labels[0].structure, 1e-4)
    assert labels[1].structure is None and "did not converge" in labels[1].reason


def test_a_program_that_fails(copper, here, tmp_path):
    (label,) = computed(copper(1), espresso(tmp_path / "none"), tmp_path / "labels", here())
    assert label.structure is None and "none" in label.reason


def test_outputs_are_matched_whatever_the_order_of_the_atoms(copper):
    one, two = copper(2)
    one = one._replace(numbers=np.array([29, 47, 29, 47]), forces=np.arange(12.0).reshape(4, 3))
    order = np.array([1, 3, 0, 2])
    moved = one.positions[order] + one.cell[0]
    sorted_ = one._replace(
        numbers=one.numbers[order], positions=moved, forces=one.forces[order], energy=-3.0
    )
    bare = one._replace(forces=np.full((4, 3), np.nan))
    labels, others = match_labels({"a": two, "b": bare}, [sorted_, copper(3)[2]])
    assert list(labels) == ["b"] and others == 1
    np.testing.assert_array_equal(labels["b"].forces, one.forces)
    assert labels["b"].energy == -3.0


def test_other_structures_do_not_match(copper):
    one, two = copper(2)
    assert order_of(one, two) is None
    assert order_of(one, one._replace(cell=1.1 * one.cell)) is None
    assert order_of(one, one._replace(numbers=np.full(4, 47))) is None
    np.testing.assert_array_equal(order_of(one, one), np.arange(4))


def test_outputs_of_a_folder(copper, here, pw_x, tmp_path):
    computed(copper(2), espresso(pw_x()), tmp_path / "labels", here())
    assert len(read_outputs(tmp_path / "labels")) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_code.Calculator", "the package no_such_code is not installed"),
        ("ase.calculators.emt.EMTT", "has no EMTT"),
        ("ase.calculators.none.None", "cannot be imported"),
    ],
)
def test_calculators_that_do_not_exist(name, words):
    with pytest.raises(ValueError, match=words):
        find_calculator(LabelConfig(calculator=name))


def test_a_model_that_does_not_exist():
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        find_calculator(LabelConfig(calculator="none.safetensors"))


def test_wrong_arguments_of_a_calculator(tmp_path):
    config = LabelConfig(calculator="fractions.Fraction", arguments={"sigma": 3})
    with pytest.raises(ValueError, match="fractions.Fraction: .*sigma"):
        make_calculator(config, tmp_path)


def test_the_failure_is_kept(copper, here, tmp_path):
    uranium = copper(1)[0]._replace(numbers=np.full(4, 92))
    computed([uranium], LabelConfig(calculator=EMT_PATH), tmp_path, here())
    assert json.loads((tmp_path / "s0.failed.json").read_text())["reason"]
