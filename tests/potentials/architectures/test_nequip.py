"""What is special in NequIP: channels of each degree, gates."""

import pytest
import torch

from tesseral.potentials.architectures.nequip import NequIPConfig, gate
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.message_passing import MessagePassing

pytestmark = pytest.mark.usefixtures("seed")


def layers_of(**options):
    config = NequIPConfig(channels=8, layers=3, **options)
    return MessagePassing(config, (6, 14)).layers


def test_layers_have_the_channels_of_each_degree():
    layers = layers_of(l_max=2, channels_by_degree=[8, 4, 2])
    assert [layer.channels for layer in layers] == [[8, 4, 2], [8, 4, 2], [8]]
    # l3 = 1 is reached from 0 (l2 1), 1 (l2 0, 2) and 2 (l2 1): 8 + 2 · 4 + 2 channels.
    assert layers[1].convolution.channels_out[1] == 18
    assert layers[1].leave.weights[1].shape == (1, 18, 4)
    assert layers[1].keep.weights[0].shape == (2, 8, 8 + 4 + 2)  # scalars and gates


def test_channels_are_equal_unless_given():
    assert [layer.channels for layer in layers_of(l_max=1)] == [[8, 8], [8, 8], [8]]


@pytest.mark.parametrize("channels", [[8, 4], [8, 4, 2, 1], [4, 4, 4], [8, 4, 0]])
def test_channels_that_do_not_fit_are_refused(channels):
    with pytest.raises(ValueError, match="with l_max 2 it has 3 numbers of 1 or more, the first"):
        layers_of(l_max=2, channels_by_degree=channels)


def test_other_architectures_have_no_such_channels():
    with pytest.raises(ValueError, match="facet has no channels_by_degree"):
        make_config("facet", channels_by_degree=[16] * 5)


def test_gates_open_one_channel_each():
    """Two scalars, two gates (open, shut), one channel of l = 1 and one of l = 2."""
    rows = torch.randn(4, 2 + 2 + 3 + 5)
    rows[:, 2], rows[:, 3] = 30.0, -30.0
    result = gate(rows, [2, 1, 1])
    assert result.shape == (4, 2 + 3 + 5)
    torch.testing.assert_close(result[:, :2], torch.nn.functional.silu(rows[:, :2]))
    torch.testing.assert_close(result[:, 2:5], rows[:, 4:7])
    assert float(result[:, 5:].abs().max()) < 1e-11


def test_the_embedding_may_have_its_own_channels():
    layers = layers_of(l_max=1, embedding_channels=3)
    assert layers[0].convolution.channels_in == [3]
    assert layers[0].channels == [8, 8] and layers[1].convolution.channels_in == [8, 8]
    with pytest.raises(ValueError, match="`embedding_channels` is 0; it must be 1 or more"):
        layers_of(embedding_channels=0)


def test_the_norm_acts_on_scalars_gates_and_degrees():
    (first, _, last) = layers_of(l_max=1, field_norm=True)
    assert [len(weight) for weight in first.norm.weights] == [8 + 8, 8]
    assert [len(weight) for weight in last.norm.weights] == [8]
    assert layers_of(l_max=1)[0].norm is None
