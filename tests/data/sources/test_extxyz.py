"""Extended XYZ: frames, comment lines and names of atoms as programs write them."""

import numpy as np
import pytest
from ase import units

from tesseral.data.sources.extxyz import IncompleteFrame, periodic_directions, read_extxyz

LATTICE = 'Lattice="5 0 0 0 5 0 0 0 5"'
COLUMNS = "Properties=species:S:1:pos:R:3:forces:R:3"
ROWS = "Si 0 0 0 0.1 0.2 0.3\nC 1 1 1 -0.1 -0.2 -0.3\n"


def write(folder, text, name="a.xyz"):
    (folder / name).write_text(text)
    return folder / name


def frame(comment=f'{LATTICE} {COLUMNS} energy=-1 pbc="T T T"', rows=ROWS):
    return f"2\n{comment}\n{rows}"


def one(folder, comment, rows=ROWS):
    (atoms,) = read_extxyz(write(folder, frame(comment, rows)))
    return atoms


@pytest.mark.parametrize("gap", ["", "\n", "\n \n\t\n", "\r\n"])
def test_blank_lines_between_frames_are_skipped(tmp_path, gap):
    path = write(tmp_path, gap + gap.join([frame()] * 4) + gap)
    assert len(list(read_extxyz(path))) == 4


@pytest.mark.parametrize("index, count", [(":", 4), ("::2", 2), ("-1", 1), ("1:3", 2), ("-2:", 2)])
def test_frames_are_selected(tmp_path, index, count):
    path = write(tmp_path, "\n".join([frame()] * 4))
    assert len(list(read_extxyz(path, index))) == count


def test_text_between_frames_is_an_error(tmp_path):
    frames = read_extxyz(write(tmp_path, f"{frame()}\nsome text\n{frame()}"))
    next(frames)
    with pytest.raises(ValueError, match="line 6 should be the number of atoms .*'some text'"):
        next(frames)


@pytest.mark.parametrize(
    "end", ["2\nx\nSi 0 0 0 0.1 0.2 0.3\n", "2\nx\nSi 0 0 0 0.1 0.2 0.3\nC 1 1", "2\n", "2\nx"]
)
def test_an_incomplete_last_frame_is_an_error(tmp_path, end):
    frames = read_extxyz(write(tmp_path, frame() + end))
    next(frames)
    with pytest.raises(IncompleteFrame, match="line"):
        next(frames)


def test_a_number_that_was_cut_is_an_error(tmp_path):
    row = "H 0.12345678 0.12345678 0.12345678\n"
    with pytest.raises(IncompleteFrame, match="line 6"):
        list(read_extxyz(write(tmp_path, f"4\n\n{row * 4}"[:-5])))


def test_an_incomplete_frame_before_others_is_an_error(tmp_path):
    path = write(tmp_path, "99\nx\nSi 0 0 0\n" + frame())
    with pytest.raises(ValueError, match="line 4 is the beginning of another frame"):
        list(read_extxyz(path))


def test_keys_may_be_in_lower_case(tmp_path):
    atoms = one(tmp_path, f"{LATTICE.lower()} {COLUMNS.lower()} energy=-1")
    assert atoms.pbc.all() and atoms.cell.volume == pytest.approx(125)


@pytest.mark.parametrize("key", ["config_type= ", "config_type =  "])
def test_a_key_without_a_value_is_named(tmp_path, key):
    with pytest.raises(ValueError, match="line 2 of frame 0: the key 'config_type' has no value"):
        one(tmp_path, f"{key}{LATTICE} {COLUMNS}")


def test_an_empty_value_in_quotes_is_read(tmp_path):
    atoms = one(tmp_path, f'config_type="" {LATTICE} {COLUMNS}')
    assert atoms.info["config_type"] == "" and atoms.pbc.all()


@pytest.mark.parametrize(
    "text, directions",
    [
        ('pbc="T T F"', "TTF"),
        ('PBC="F F F"', "FFF"),
        ('pbc="1 1 0"', "TTF"),
        ('boundary="p p f"', "TTF"),
        ("periodic=True", "TTT"),
        ("periodic=False", "FFF"),
        ('Periodic="true true false"', "TTF"),
    ],
)
def test_periodic_directions_are_understood(tmp_path, text, directions):
    atoms = one(tmp_path, f"{LATTICE} {COLUMNS} {text}")
    assert "".join("FT"[int(each)] for each in atoms.pbc) == directions


@pytest.mark.parametrize("text", ["periodic=maybe", 'pbc="T T"', 'pbc="T T T" periodic=False'])
def test_unclear_periodic_directions_are_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"line 2 of frame 0: .*(pbc|periodic)"):
        one(tmp_path, f"{LATTICE} {COLUMNS} {text}")


def test_words_of_a_plain_comment_are_no_keys(tmp_path):
    atoms = one(tmp_path, "periodic slab with lattice of 5 units, pbc", "Si 0 0 0\nC 1 1 1\n")
    assert not atoms.pbc.any()


def test_a_cell_under_another_key_is_named(tmp_path):
    with pytest.raises(ValueError, match="under the key 'cell'"):
        one(tmp_path, f'cell="5 0 0 0 5 0 0 0 5" {COLUMNS}')


def test_columns_without_positions_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no pos:R:3"):
        one(tmp_path, f"{LATTICE} Properties=species:S:1:where:R:3:forces:R:3")


@pytest.mark.parametrize(
    "label, number", [("D", 1), ("14", 14), ("Fe1", 26), ("C_a", 6), ("SI", 14), ("Fe", 26)]
)
def test_names_of_atoms_are_understood(tmp_path, label, number):
    atoms = one(tmp_path, f"{LATTICE} {COLUMNS} energy=-1", ROWS.replace("Si", label))
    assert atoms.numbers.tolist() == [number, 6]
    assert atoms.calc.results["energy"] == -1 and not atoms.calc.check_state(atoms)


def test_deuterium_has_its_mass(tmp_path):
    atoms = one(tmp_path, COLUMNS, ROWS.replace("Si", "D"))
    assert atoms.get_masses() == pytest.approx([2.014, 12.011])


@pytest.mark.parametrize("label", ["X", "HO1", "Va", "200"])
def test_other_names_of_atoms_are_located(tmp_path, label):
    path = write(tmp_path, frame() + frame(rows=ROWS.replace("C", label)))
    with pytest.raises(ValueError, match=f"line 8, atom 1 of frame 1: '{label} 1 1 1"):
        list(read_extxyz(path))


def test_a_number_that_cannot_be_read_is_located(tmp_path):
    with pytest.raises(ValueError, match="line 4, atom 1 of frame 0: .*1.0O"):
        one(tmp_path, f"{LATTICE} {COLUMNS}", ROWS.replace("C 1", "C 1.0O"))


def test_lengths_are_converted(tmp_path):
    atoms = one(tmp_path, f"{LATTICE} {COLUMNS} energy=-1 length-unit=bohr")
    np.testing.assert_allclose(atoms.positions[1], units.Bohr)
    assert atoms.cell.lengths() == pytest.approx(5 * units.Bohr)
    assert not atoms.calc.check_state(atoms)


def test_unknown_lengths_are_named(tmp_path):
    with pytest.raises(ValueError, match="unknown unit 'furlong'"):
        one(tmp_path, f"{LATTICE} {COLUMNS} length_unit=furlong")


@pytest.mark.parametrize("value, found", [("ppf", (True, True, False)), ("x", None), ("F", None)])
def test_directions_in_one_word(value, found):
    expected = (False,) * 3 if value == "F" else found
    assert periodic_directions(value) == expected
