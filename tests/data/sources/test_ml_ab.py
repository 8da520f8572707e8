"""ML_AB: what was written is read, in our units and signs, and nothing that is incomplete."""

from collections import Counter

import numpy as np
import pytest

from tesseral.data.sources.formats import find_format
from tesseral.data.sources.ml_ab import read_ml_ab
from tesseral.data.sources.outcar import read_outcar

CUT_OFF = "files end before their calculation did (killed or still running); complete steps kept"
UNREADABLE = "steps left out (numbers missing or overflowed to ***)"


def read(path, text):
    path.write_text(text)
    left_out = Counter()
    return list(read_ml_ab(str(path), left_out)), dict(+left_out)


def test_the_same_as_in_an_outcar(tmp_path, vasp):
    steps = vasp.make_steps(3)
    found, left_out = read(tmp_path / "ML_AB", vasp.ml_ab(steps))
    (tmp_path / "OUTCAR").write_text(vasp.outcar(steps))
    assert len(found) == 3 and not left_out
    for ours, other in zip(found, read_outcar(str(tmp_path / "OUTCAR"), Counter()), strict=True):
        assert ours.get_chemical_symbols() == other.get_chemical_symbols()
        assert ours.pbc.all()
        np.testing.assert_allclose(ours.positions, other.positions, atol=1e-9)
        np.testing.assert_allclose(ours.cell.array, other.cell.array, atol=1e-9)
        for name in ("forces", "stress", "free_energy"):
            np.testing.assert_allclose(ours.calc.results[name], other.calc.results[name], atol=1e-9)


def test_the_energy_is_the_free_energy(tmp_path, vasp):
    (step,) = vasp.make_steps(1)
    (atoms,) = read(tmp_path / "ML_AB", vasp.ml_ab([step]))[0]
    assert atoms.calc.results["energy"] == pytest.approx(step.free_energy, abs=1e-9)


def test_several_systems_in_one_file(tmp_path, vasp):
    first, second = vasp.make_steps(2)
    text = vasp.ml_ab([first, second])
    text = text[: text.index(f"{50 * '*'}\n     Configuration num.      2")]
    text += vasp.configuration(2, second, "C2Si", (("C", 2), ("Si", 1)))
    found, left_out = read(tmp_path / "ML_ABN", text)
    assert [str(atoms.symbols) for atoms in found] == ["SiC2", "C2Si"]
    assert [atoms.info["config_type"] for atoms in found] == ["SiC2", "C2Si"]
    assert not left_out


def test_the_content_tells(tmp_path, vasp):
    (tmp_path / "data.txt").write_text(vasp.ml_ab(vasp.make_steps(1)))
    assert find_format(str(tmp_path / "data.txt")) == "vasp-ml-ab"


def test_a_file_cut_off_anywhere_gives_its_whole_configurations(tmp_path, vasp, every_cut):
    every_cut(read_ml_ab, vasp.ml_ab(vasp.make_steps(4)).encode(), tmp_path / "ML_AB", cuts=200)


def test_fewer_configurations_than_announced_are_told(tmp_path, vasp):
    text = vasp.ml_ab(vasp.make_steps(2))
    text = text[: text.index(f"{50 * '*'}\n     Configuration num.      2")]
    found, left_out = read(tmp_path / "ML_AB", text)
    assert len(found) == 1 and left_out == {CUT_OFF: 1}


@pytest.mark.parametrize("bad", ["***********************", "                    NaN"])
def test_a_bad_number_costs_its_configuration(tmp_path, vasp, bad):
    steps = vasp.make_steps(3)
    text = vasp.ml_ab(steps).replace(f"{steps[1].forces[1, 1]:23.15E}", bad)
    found, left_out = read(tmp_path / "ML_AB", text)
    energies = [atoms.calc.results["energy"] for atoms in found]
    np.testing.assert_allclose(energies, [steps[0].free_energy, steps[2].free_energy])
    assert left_out == {UNREADABLE: 1}


def test_a_missing_block_costs_its_configuration(tmp_path, vasp):
    steps = vasp.make_steps(3)
    text = vasp.ml_ab(steps)
    start = text.index("     Total energy", text.index("num.      2"))
    end = text.index("     Forces", start)
    found, left_out = read(tmp_path / "ML_AB", text[:start] + text[end:])
    assert len(found) == 2 and left_out == {UNREADABLE: 1}
