"""Point groups have the elements of pymatgen, and project functions on the sphere correctly."""

import pytest
import torch
from e3nn import o3
from pymatgen.symmetry.groups import PointGroup

from tesseral.potentials.blocks.point_groups import (
    SCHOENFLIES,
    group_elements,
    invariant_functions,
)
from tesseral.potentials.symmetry import schoenflies

AXIAL = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("name", SCHOENFLIES)
def test_crystallographic_groups_are_those_of_pymatgen(name):
    """Those with hexagonal axes have other coordinates there, in which only traces are equal."""
    theirs = [torch.tensor(op.rotation_matrix) for op in PointGroup(name).symmetry_ops]
    ours = group_elements(name)
    assert len(ours) == len(theirs)
    if any(digit in name for digit in "36") and name not in ("23", "m-3", "432", "-43m", "m-3m"):
        traces = [sorted(round(float(e.trace())) for e in some) for some in (ours, theirs)]
        assert traces[0] == traces[1]
        return
    if name in ("2", "m", "2/m"):  # their axis is y
        ours = ours[:, [0, 2, 1]][:, :, [0, 2, 1]]
    for element in theirs:
        assert float((ours - element).abs().amax((1, 2)).min()) < 1e-12


@pytest.mark.parametrize(
    "name",
    "C1 Ci Cs C5 C2v C4v C3h C5h S4 S6 S8 D5 D2h D3d D4d D7h T Th Td O Oh I Ih".split(),
)
def test_the_symbol_of_the_elements_is_the_given_one(name):
    assert schoenflies(group_elements(name))[0] == name


def test_mirror_planes_include_the_main_axis_in_c1v():
    elements = group_elements("C1v")
    assert torch.allclose(elements[1], torch.diag(torch.tensor([1.0, -1, 1]).double()))


@pytest.mark.parametrize("name", ["C4v", "S4", "D3", "Oh", "I"])
def test_projected_functions_do_not_change(name):
    l_max = 6
    kept = invariant_functions(name, l_max)
    torch.testing.assert_close(kept @ kept, kept, rtol=0, atol=1e-12)
    assert round(float(kept.trace())) > 0
    points = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=1)

    def values(places):
        return o3.spherical_harmonics(list(range(1, l_max + 1)), places, True) @ kept

    for element in group_elements(name):
        torch.testing.assert_close(values(points @ element), values(points), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "odd"), [("C∞v", 1), ("Cinfv", 1), ("D∞h", 0), ("C∞h", 0)])
def test_infinite_groups_keep_axial_functions(name, odd):
    kept = invariant_functions(name, 4)
    axial = o3.spherical_harmonics([1, 2, 3, 4], AXIAL, True, "component").double()
    expected = torch.zeros_like(kept)
    for degree in (1, 2, 3, 4):
        part = slice(degree**2 - 1, (degree + 1) ** 2 - 1)
        if odd or degree % 2 == 0:
            expected[part, part] = axial[part].outer(axial[part]) / (2 * degree + 1)
    torch.testing.assert_close(kept, expected, rtol=0, atol=1e-7)


def test_the_trivial_group_keeps_all_functions_and_the_full_one_none():
    torch.testing.assert_close(invariant_functions("1", 3), torch.eye(15).double())
    assert float(invariant_functions("O(3)", 3).abs().max()) == 0


@pytest.mark.parametrize("name", ["", "C", "C0", "C25", "S3", "D3v", "C2d", "S4v", "S∞", "4mmm"])
def test_a_wrong_symbol_is_refused(name):
    with pytest.raises(ValueError, match="`group` is .*, not the symbol of a point group"):
        invariant_functions(name, 3)


def test_an_infinite_group_has_no_list_of_elements():
    with pytest.raises(ValueError, match="not the symbol of a point group"):
        group_elements("C∞v")
