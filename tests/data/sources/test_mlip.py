"""Configurations of MLIP."""

from collections import Counter

import numpy as np
import pytest
from two_atoms import CELL, ENERGY, FORCES, POSITIONS, VIRIAL, assert_read

from tesseral.data.sources.common import CUT_OFF, UNCONVERGED
from tesseral.data.sources.formats import find_format
from tesseral.data.sources.mlip import read_mlip

VOIGT = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}


def rows(table):
    return "".join(" ".join(f"{x:14.8f}" for x in row) + "\n" for row in table)


def configuration(order="xx yy zz yz xz xy", stress="PlusStress:", mark="VASP", direct=False):
    positions = POSITIONS @ np.linalg.inv(CELL) if direct else POSITIONS
    names = "direct_x direct_y direct_z" if direct else "cartes_x cartes_y cartes_z"
    table = np.column_stack([[1, 2], FORCES, [1, 0], positions])
    components = [VIRIAL[VOIGT[name]] for name in order.split()]
    return (
        f"BEGIN_CFG\n Size\n    2\n Supercell\n{rows(CELL)} AtomData:  id fx fy fz type {names}\n"
        f"{rows(table)} Energy\n {ENERGY:20.12f}\n {stress}  {order}\n{rows([components])}"
        f" Feature   EFS_by       {mark}\nEND_CFG\n\n"
    )


def read(folder, text, elements=("O", "Si")):
    (folder / "train.cfg").write_text(text)
    left_out = Counter()
    return list(read_mlip(str(folder / "train.cfg"), left_out, elements=elements)), left_out


@pytest.mark.parametrize("order", ["xx yy zz yz xz xy", "xx yy zz xy xz yz"])
@pytest.mark.parametrize("direct", [False, True])
def test_columns_and_components_in_any_order(tmp_path, order, direct):
    frames, _ = read(tmp_path, 2 * configuration(order, direct=direct))
    assert len(frames) == 2
    for atoms in frames:
        assert_read(atoms)


def test_it_is_not_taken_for_a_file_of_atomeye(tmp_path):
    (tmp_path / "train.cfg").write_text(configuration())
    assert find_format(str(tmp_path / "train.cfg")) == "mlip-cfg"


def test_the_last_line_needs_no_end(tmp_path):
    frames, left_out = read(tmp_path, configuration().rstrip())
    assert len(frames) == 1
    assert not left_out


def test_types_without_elements_are_refused(tmp_path):
    with pytest.raises(ValueError, match="types 0 to 1 .*`elements`"):
        read(tmp_path, configuration(), elements=())


def test_unconverged_and_incomplete_configurations_are_counted(tmp_path):
    text = configuration(mark="VASP_not_converged") + configuration()
    frames, left_out = read(tmp_path, text + configuration()[:300])
    assert len(frames) == 1
    assert (left_out[UNCONVERGED], left_out[CUT_OFF]) == (1, 1)


def test_stresses_of_uncertain_sign_are_refused(tmp_path):
    with pytest.raises(ValueError, match="PlusStress"):
        read(tmp_path, configuration(stress="Stress:"))
