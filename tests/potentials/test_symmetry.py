"""Broken symmetry: what learned functions do to a potential, their axes, their point group."""

import itertools
import math

import pytest
import torch
from ase.build import bulk
from e3nn import o3

from tesseral.data.neighbors import atomic_graph
from tesseral.potentials import testing
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.point_groups import group_elements
from tesseral.potentials.blocks.sphere import representations
from tesseral.potentials.derivatives import predict
from tesseral.potentials.engine.evaluate import can_pack
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.symmetry import (
    broken_functions,
    broken_weights,
    gram_matrices,
    leading_axis,
    point_group,
)

X, Z, DIAGONAL = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)
FIELD = torch.tensor([0.48, -0.64, 0.6], dtype=torch.float64)


def turn(axis, order):
    direction = torch.tensor(axis, dtype=torch.float64)
    angle = torch.tensor(2 * math.pi / order, dtype=torch.float64)
    return o3.axis_angle_to_matrix(direction / direction.norm(), angle)


def skew():
    return o3.angles_to_matrix(*torch.tensor([0.3, 1.1, 2.0], dtype=torch.float64))


def generated(*generators):
    """All products of some matrices."""
    group = [torch.eye(3, dtype=torch.float64)]
    for element in group:  # grows on the way
        for product in (element @ generator for generator in generators):
            if all((product - other).abs().max() > 1e-6 for other in group):
                group.append(product)
    return group


def invariant_functions(group, l_max, number=6, noise=0.03):
    """Random functions (M - 1, number) that a group leaves as they are, but for some noise."""
    generator = torch.Generator().manual_seed(3)
    shape = ((l_max + 1) ** 2 - 1, number)
    seeds = torch.randn(shape, generator=generator, dtype=torch.float64)
    parity = torch.cat([torch.full((2 * l + 1,), (-1.0) ** l) for l in range(1, l_max + 1)])  # noqa: E741
    functions = torch.zeros_like(seeds)
    for element in group:
        sign = float(torch.linalg.det(element))
        blocks = representations((sign * element).unsqueeze(0), l_max)
        turned = torch.block_diag(*(block[0] for block in blocks)) @ seeds
        functions += turned if sign > 0 else parity.unsqueeze(1) * turned
    functions = functions / functions.norm()
    noises = torch.randn(shape, generator=generator, dtype=torch.float64)
    return functions + noise * noises / noises.norm()


INVERSION = -torch.eye(3, dtype=torch.float64)
FLAT, UPRIGHT = INVERSION @ turn(Z, 2), INVERSION @ turn(X, 2)
GROUPS = {
    "C1": [],
    "Cs": [FLAT],
    "Ci": [INVERSION],
    "C3": [turn(Z, 3)],
    "C2v": [turn(Z, 2), UPRIGHT],
    "C4v": [turn(Z, 4), UPRIGHT],
    "C3h": [turn(Z, 3), FLAT],
    "S4": [FLAT @ turn(Z, 4)],
    "D3": [turn(Z, 3), turn(X, 2)],
    "D2h": [turn(Z, 2), turn(X, 2), INVERSION],
    "D2d": [FLAT @ turn(Z, 4), turn(X, 2)],
    "D3d": [turn(Z, 3), turn(X, 2), INVERSION],
    "Td": [FLAT @ turn(Z, 4), turn(DIAGONAL, 3)],
    "Oh": [turn(Z, 4), turn(DIAGONAL, 3), INVERSION],
}


@pytest.mark.parametrize("name", GROUPS)
def test_point_groups_are_found_in_any_orientation(name):
    turned = [skew() @ generator @ skew().T for generator in GROUPS[name]]
    group = generated(*turned)
    found = point_group(gram_matrices(invariant_functions(group, 4)), tolerance=0.3)
    print(f"{name}: {found.name}, {len(group)} operations, deviation {found.deviation:.3f}")
    assert found.name == name
    assert len(found.elements) == len(group)
    for element in group:
        assert min(float((element - other).abs().max()) for other in found.elements) < 0.05
    if name in ("C3", "C4v", "S4", "D3"):
        main = torch.tensor(found.axis, dtype=torch.float64)
        assert abs(float(main @ skew() @ torch.tensor(Z, dtype=torch.float64))) > 0.999


@pytest.mark.parametrize(("degrees", "name"), [((1, 2), "C∞v"), ((2, 4), "D∞h"), ((3,), "C∞v")])
def test_axial_functions_have_infinite_groups(degrees, name):
    harmonics = o3.spherical_harmonics([1, 2, 3, 4], FIELD, True).double()
    functions = torch.zeros_like(harmonics)
    for degree in degrees:
        part = slice(degree**2 - 1, (degree + 1) ** 2 - 1)
        functions[part] = harmonics[part]
    found = point_group(gram_matrices(functions.outer(torch.tensor([1.0, -0.4]).double())), 0.1)
    assert found.name == name
    assert abs(float(torch.tensor(found.axis).double() @ FIELD)) > 1 - 1e-9


def test_nothing_broken_leaves_everything():
    assert point_group([torch.zeros(3, 3).double()], 0.3).name == "O(3)"


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_axis_of_an_axial_function(degree):
    harmonics = o3.spherical_harmonics(degree, FIELD, True).double()
    axis = leading_axis(harmonics.outer(harmonics))
    assert abs(float(torch.tensor(axis.direction).double() @ FIELD)) == pytest.approx(1, abs=1e-7)
    assert axis.share == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1.0])
def test_a_tolerance_that_means_nothing_is_refused(tolerance):
    with pytest.raises(ValueError, match="it must be between 0 and 1"):
        point_group([torch.eye(3).double()], tolerance)


def relaxed_potential(fill, group=None):
    """Float64, two layers; ``fill`` sets the learned functions (mixings, S, M - 1, C)."""
    torch.manual_seed(0)
    config = FacetConfig(
        cutoff=3.6, channels=6, grid_channels=8, l_max=2, l_max_message=2, relaxed=True, group=group
    )
    potential = MessagePassing(config, (6, 14), mean_neighbors=12.0, dtype=torch.float64)
    with torch.no_grad():
        for weight in broken_weights(potential):
            fill(weight)
    return potential


def crystal():
    atoms = bulk("SiC", "zincblende", a=4.38, cubic=True)
    atoms.rattle(0.15, seed=0)
    return atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (6, 14), cutoff=3.6
    )


def test_the_physics_suite_notices_broken_components():
    """Rotations and reflections change forces; all other laws, forces and stress still hold."""
    laws = {}
    for size in (0.0, 1e-3, 0.1):
        potential = relaxed_potential(lambda weight, s=size: weight.normal_(std=s) if s else None)
        laws[size] = testing.physics_report(potential, crystal())
        scale = float(predict(potential, crystal()).forces.square().mean().sqrt())
        laws[size] = {name: error / scale for name, error in laws[size].items()}
        for name, error in laws[size].items():
            print(f"{size:g} {name:40s} {error:.1e}")
    for name in ("rotation: forces", "rotation: virial per atom", "reflection: forces"):
        assert laws[0.0][name] < 1e-11
        assert laws[1e-3][name] > 1e-5
        assert laws[0.1][name] > 1e-3
    for name, error in laws[0.1].items():
        if not name.startswith(("rotation", "reflection")):
            assert error < (1e-6 if "finite" in name else 1e-11), name


def test_the_point_group_is_that_of_the_energy():
    """Symmetries of the functions turn forces with the crystal; other rotations do not."""
    group = generated(*(skew() @ each @ skew().T for each in GROUPS["C2v"]))
    functions = invariant_functions(group, 2, number=24, noise=0.0)

    def fill(weight):
        weight.copy_(functions.view(8, 2, 2, 6).permute(1, 2, 0, 3)[:1])

    potential = relaxed_potential(fill)
    grams = gram_matrices(torch.cat(list(itertools.chain(*broken_functions(potential))), dim=1))
    found = point_group(grams, 0.01)
    assert found.name == "C2v"
    kept = testing.orthogonal_errors(potential, crystal(), found.elements)[1]
    lost = testing.orthogonal_errors(potential, crystal(), skew().unsqueeze(0))[1]
    print(f"RMS change of the forces: {kept:.1e} by the group, {lost:.1e} by another rotation")
    assert kept < 1e-6 * lost


@pytest.mark.parametrize("group", ["C4v", "4mm", "mm2", "S4"])
def test_a_given_group_is_kept_and_all_else_broken(group):
    potential = relaxed_potential(lambda weight: weight.normal_(std=0.1), group)
    kept = testing.orthogonal_errors(potential, crystal(), group_elements(group))[1]
    lost = testing.orthogonal_errors(potential, crystal(), skew().unsqueeze(0))[1]
    print(f"RMS change of the forces: {kept:.1e} by {group}, {lost:.1e} by another rotation")
    assert kept < 1e-11 * lost
    grams = gram_matrices(torch.cat(list(itertools.chain(*broken_functions(potential))), dim=1))
    # With l_max 2 nothing distinguishes a fourfold axis from an infinite one.
    left = {"C4v": "C∞v", "4mm": "C∞v", "mm2": "C2v", "S4": "D∞h"}
    assert point_group(grams, 0.01).name == left[group]


def test_the_limits_of_the_group_are_no_group_and_no_breaking():
    """Group 1 is the same as none; with O(3), nothing that is learned has an effect."""

    def forces(group, size):
        potential = relaxed_potential(lambda weight: weight.fill_(size), group)
        return predict(potential, crystal()).forces

    torch.testing.assert_close(forces("1", 0.1), forces(None, 0.1), rtol=1e-10, atol=1e-12)
    assert float((forces("O(3)", 0.1) - forces(None, 0.1)).abs().max()) > 1e-3
    torch.testing.assert_close(forces("O(3)", 0.1), forces(None, 0.0), rtol=0, atol=0)


def test_a_group_without_relaxation_is_refused():
    with pytest.raises(ValueError, match="`group` is 'C4v', but .* add `relaxed=True`"):
        FacetConfig(group="C4v")
    with pytest.raises(ValueError, match="`group` is 'C4w', not the symbol of a point group"):
        FacetConfig(relaxed=True, group="C4w")


def test_other_programs_are_not_given_a_relaxed_potential():
    """The compiled inference does not know broken components."""
    assert not can_pack(relaxed_potential(lambda weight: None))


def test_relaxed_without_directions_is_refused():
    with pytest.raises(ValueError, match="`relaxed` needs directions"):
        FacetConfig(l_max=0, relaxed=True)
