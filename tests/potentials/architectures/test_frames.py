"""Frame averaging: principal axes make forces jump, weighted frames do not."""

import pytest
import torch
from ase.build import bulk
from torch import nn

from tesseral.data.graph import AtomicGraph
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials import testing
from tesseral.potentials.architectures.frames import FrameAverage, FramesConfig, points_of
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.blocks.point_groups import group_elements
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics
from tesseral.potentials.calibrate import calibrate
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing

pytestmark = pytest.mark.usefixtures("seed")


class PrincipalAxes(nn.Module):
    """Eigenvectors of the covariance of the neighbours, with all signs, at equal weights."""

    def forward(self, edges, n_local):
        """Frames as ``PairFrames`` returns them."""
        directions = edges.harmonics[:, 1:4] * 3**-0.5
        outer = directions.unsqueeze(2) * directions.unsqueeze(1)
        covariance = outer.new_zeros(n_local, 3, 3).index_add(0, edges.receivers, outer)
        axes = torch.linalg.eigh(covariance).eigenvectors.mT  # rows
        signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=axes.dtype)] * 3)
        frames = (signs.view(8, 1, 3, 1) * axes).flatten(0, 1)
        return frames, frames.new_ones(len(frames)), torch.arange(n_local).repeat(8)


def star(turn):
    """Vectors to an atom from four neighbours; at turn 0, two principal axes change places."""
    angle = torch.tensor(0.25 * torch.pi + turn, dtype=torch.float64)
    x, y = angle.cos(), angle.sin()
    directions = torch.tensor([[x, y, 0], [x, -y, 0], [0, 0, 1], [0, 0, -1]]).double()
    return directions * torch.tensor([[1.9], [2.4], [1.9], [2.2]]).double()


def energies(principal, turns):
    """Energy of the central atom while two of its neighbours turn."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(14, 16), nn.SiLU(), nn.Linear(16, 1)).double()
    average = FrameAverage(network, 2, 4.0)
    if principal:
        average.frames = PrincipalAxes()
    found = []
    for turn in turns:
        vectors = star(float(turn))
        harmonics, radii = EdgeHarmonics(2)(vectors, torch.float64)
        zero = torch.zeros(4, dtype=torch.int64)
        edges = EdgeFeatures(harmonics, radii, zero, zero)
        field = (harmonics * torch.exp(4.0 - 2.0 * radii).unsqueeze(1)).sum(0).view(1, 9, 1)
        found.append(float(average(field.detach(), edges).detach()))
    return torch.tensor(found)


def largest_jump(principal):
    """Largest change of the energy in one of many small steps, relative to a coarse step."""
    fine = energies(principal, torch.linspace(-0.3, 0.3, 601)).diff().abs().max()
    coarse = energies(principal, torch.linspace(-0.3, 0.3, 7)).diff().abs().max()
    return float(fine / coarse)


def test_principal_axes_jump_and_weighted_frames_do_not():
    jumps = {principal: largest_jump(principal) for principal in (True, False)}
    print(f"in a hundredth of the step: {jumps[True]:.3f} principal, {jumps[False]:.3f} weighted")
    assert jumps[True] > 0.3
    assert jumps[False] < 0.05


def test_forces_are_smooth_where_three_atoms_line_up():
    """There the frame of the pair is undefined."""
    config = make_config("frames", cutoff=4.0, channels=6, layers=1, frame_cutoff=4.0)
    model = MessagePassing(config, (14,), mean_neighbors=2.0, dtype=torch.float64)

    def bent(height):
        positions = torch.tensor([[-1.9, 0, 0], [0, height, 0], [1.9, 0, 0.0]]).double()
        ends = torch.tensor([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]])
        return AtomicGraph(
            positions=positions,
            species=torch.zeros(3, dtype=torch.int64),
            structure=torch.zeros(3, dtype=torch.int64),
            cell=torch.zeros(1, 3, 3, dtype=torch.float64),
            senders=ends[0],
            receivers=ends[1],
            shifts=torch.zeros(6, 3, dtype=torch.float64),
        )

    calibrate(model, bent(0.5))
    for readout in model.readouts:
        nn.init.normal_(readout.linear.weight)
    forces = torch.stack([predict(model, bent(h)).forces for h in (-2e-3, -1e-3, 0.0, 1e-3, 2e-3)])
    slopes = forces.diff(dim=0) / 1e-3
    print(
        f"slopes up to {float(slopes.abs().max()):.2f}, "
        f"changes up to {float(slopes.diff(dim=0).abs().max()):.1e} eV/Å²"
    )
    assert torch.isfinite(forces).all()
    assert float(slopes.diff(dim=0).abs().max()) < 0.02 * float(slopes.abs().max())


def test_the_points_contain_their_mirror_images():
    average = FrameAverage(nn.Identity(), 3, 3.0)
    mirrored = average.points[average.mirror] * torch.tensor([1.0, -1.0, 1.0])
    assert len(average.points) == points_of(3)
    torch.testing.assert_close(mirrored, average.points, rtol=0, atol=1e-12)


def test_frames_beyond_the_cutoff_are_refused():
    with pytest.raises(ValueError, match="`frame_cutoff` is 6.0 Å; .* at most `cutoff`"):
        FramesConfig(frame_cutoff=6.0)


def group_potential(group):
    config = make_config("frames", cutoff=3.6, channels=6, layers=2, group=group)
    model = MessagePassing(config, (6, 14), mean_neighbors=12.0, dtype=torch.float64)
    atoms = bulk("SiC", "zincblende", a=4.38, cubic=True)
    atoms.rattle(0.15, seed=0)
    graph = atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (6, 14), cutoff=3.6
    )
    calibrate(model, graph)
    for readout in model.readouts:
        nn.init.normal_(readout.linear.weight)
    return model, graph


def test_a_mean_over_a_group_has_its_symmetries_and_no_others():
    model, graph = group_potential("4mm")
    scale = float(predict(model, graph).forces.square().mean().sqrt())
    others = {
        "an eighth of a turn": group_elements("C8")[1],
        "half a turn about x": group_elements("D1")[1],
        "inversion": group_elements("Ci")[1],
    }
    kept = testing.orthogonal_errors(model, graph, group_elements("C4v"))[1] / scale
    print(f"C4v changes forces by {kept:.1e} of their RMS")
    assert kept < 1e-12
    for name, matrix in others.items():
        lost = testing.orthogonal_errors(model, graph, matrix.unsqueeze(0))[1] / scale
        print(f"{name} changes them by {lost:.1e}")
        assert lost > 1e-3


def test_an_average_over_one_element_is_the_network():
    average = group_potential("1")[0].layers[0].average
    field = torch.randn(3, 9, 6, dtype=torch.float64)
    values = (average.values @ field).flatten(1)
    torch.testing.assert_close(average(field, None), average.network(values))


def test_a_mean_has_no_frames():
    with pytest.raises(ValueError, match="`frame_cutoff` is 3.0, but with `group`"):
        FramesConfig(frame_cutoff=3.0, group="C4v")
    with pytest.raises(ValueError, match="`group` is 'C∞v'"):
        FramesConfig(group="C∞v")
