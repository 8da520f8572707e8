"""Products by contraction tree: equivariance, numbers of paths, equivalence of trees."""

import pytest
import torch
from e3nn import o3

from tesseral.potentials.blocks.fusion import Fusion, contraction, parse_tree

pytestmark = pytest.mark.usefixtures("seed")


def fields(degrees, number=6, channels=3):
    return [
        torch.randn(number, (degrees[leaf] + 1) ** 2, channels, dtype=torch.float64)
        for leaf in ("A", "x")
    ]


@pytest.mark.parametrize("text", ["A", "x", "(A A)", "((A A) A)", "((A x) x)", "((A A) (A x))"])
@pytest.mark.parametrize("mirror", [1, -1])
def test_a_tree_turns_with_its_fields(text, mirror):
    degrees = {"A": 2, "x": 1}
    fusion = Fusion(parse_tree(text), degrees, 1, 3, 2).double().requires_grad_(False)
    species = torch.tensor([0, 1] * 3)
    matrix = mirror * o3.rand_matrix(dtype=torch.float64)
    a_turn, x_turn = (
        o3.Irreps.spherical_harmonics(degree).D_from_matrix(matrix) for degree in (2, 1)
    )
    a, x = fields(degrees)
    found, expected = fusion(a_turn @ a, x_turn @ x, species), x_turn @ fusion(a, x, species)
    print(f"largest difference {float((found - expected).abs().max()):.1e}")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # of e3nn's matrices
    assert float(expected[:, 1:].square().mean()) > 1e-3


def test_numbers_of_paths_are_those_of_symmetric_powers():
    """Invariants of equal factors, counted with characters of the rotation group."""
    angles = (torch.arange(4000, dtype=torch.float64) + 0.5) * (torch.pi / 4000)
    measure = (1 - angles.cos()) / 4000

    def character(times):  # of degrees 0 to 2
        return sum(2 * torch.cos(m * times * angles) * (3 - m) for m in (1, 2)) + 3

    one, two, three = (character(times) for times in (1, 2, 3))
    squares = (one**2 + two) / 2
    cubes = (one**3 + 3 * one * two + 2 * three) / 6
    for text, powers in (("(A A)", squares), ("((A A) A)", cubes)):
        _, root = contraction(parse_tree(text), {"A": 2, "x": 0}, 0)
        assert len(root.irreps) <= round(float((powers * measure).sum()))
        both = _both_parities(text)
        assert both == round(float((powers * measure).sum()))


def _both_parities(text):
    """Number of invariants with those of the other parity."""
    steps, _ = contraction(("x", parse_tree(text)), {"A": 2, "x": 0}, 0)
    return steps[-1].table.shape[2]


@pytest.mark.parametrize(
    ("first", "second"), [("((A A) A)", "(A (A A))"), ("(((A A) A) A)", "((A A) (A A))")]
)
def test_trees_of_equal_factors_span_the_same_functions(first, second):
    degrees, a = {"A": 2, "x": 0}, torch.randn(60, 9, 1, dtype=torch.float64)
    columns = []
    for text in (first, second):
        fusion = Fusion(parse_tree(text), degrees, 0, 1, 1).double().requires_grad_(False)
        paths = fusion.weight.shape[1]
        own = []
        for path in range(paths):
            fusion.weight.zero_()
            fusion.weight[0, path] = 1.0
            own.append(fusion(a, a[:, :1], torch.zeros(60, dtype=torch.int64)).flatten())
        columns.append(torch.stack(own, dim=1))
    assert columns[0].shape == columns[1].shape
    rest = columns[1] - columns[0] @ torch.linalg.lstsq(columns[0], columns[1]).solution
    print(f"{paths} paths, rest {float(rest.norm() / columns[1].norm()):.1e}")
    assert float(rest.norm()) < 1e-8 * float(columns[1].norm())


def test_paths_of_the_other_parity_are_used_inside_a_tree():
    """a × (b × c) is a vector; each product alone with natural parity does not contain it."""
    steps, _ = contraction(parse_tree("((A x) A)"), {"A": 1, "x": 1}, 1)
    assert steps[0].table.shape[0] > 1 + 1 + 3 + 3 + 5


@pytest.mark.parametrize("text", ["", "(A)", "(A A A)", "(A B)", "((A A) A", "A A", "((A A) x) A)"])
def test_no_tree_is_refused(text):
    with pytest.raises(ValueError, match="is not a tree of products; write for example"):
        parse_tree(text)


def test_too_many_factors_are_refused():
    with pytest.raises(ValueError, match="at most 4 factors"):
        parse_tree("((((A A) A) A) A)")
