"""Number of multiplications and additions in one inference step of Facet."""

from __future__ import annotations

from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.sphere import coupling

MULTIPLY_ADD = 2


def inference_flops(config: FacetConfig, neighbors: float) -> dict[str, float]:
    """FLOPs per atom of energy, forces and virial as the compiled kernels compute them.

    The count includes the convolutions in the frames of edges (``csrc/aligned.h``), the maps by
    degree and the sphere products, each forwards and backwards. It neglects small contributions:
    frames and spline weights of an edge (shared by all channels), readout, sums of forces.

    Args:
        config: configuration of the potential.
        neighbors: number of edges per atom.
    """
    parts = {"convolutions": 0.0, "linear maps": 0.0, "sphere products": 0.0}
    channels, grid = config.channels, config.grid_channels
    for number in range(config.layers):
        l_in = 0 if number == 0 else config.message_degree
        l_out = 0 if number == config.layers - 1 else config.message_degree
        forward, backward = _convolution(l_in, config.l_max)
        if number == 0:
            backward -= 1  # the embedding needs no gradient
        parts["convolutions"] += MULTIPLY_ADD * neighbors * channels * (forward + backward)
        m_all, m_in, m_out = ((degree + 1) ** 2 for degree in (config.l_max, l_in, l_out))
        maps = m_all * channels * channels + m_in * channels * channels * (1 if number == 0 else 2)
        maps += m_all * channels * channels  # messages, backwards
        products = 0.0
        for mixing in range(config.mixings):
            last = mixing == config.mixings - 1
            l_mixed = l_out if last else config.l_max
            maps += 2 * channels * grid * (2 * m_all + (l_mixed + 1) ** 2)
            forward = _terms(config.l_max, config.l_max, l_mixed)
            backward = _terms(l_mixed, config.l_max, config.l_max)
            products += 1.5 * grid * (forward + 2 * backward)
        parts["linear maps"] += MULTIPLY_ADD * maps
        parts["sphere products"] += MULTIPLY_ADD * products
    parts["total"] = sum(parts.values())
    return parts


def _convolution(l_in: int, l_out: int) -> tuple[int, int]:
    """Multiplications of an edge and channel, forwards and backwards."""
    both = [(l1, l3) for l3 in range(l_out + 1) for l1 in range(l_in + 1)]
    weights = sum(min(pair) + 1 for pair in both)  # radial functions
    products = sum(2 * min(pair) + 1 for pair in both)  # of them with components

    def turn(l_max: int, most: int) -> int:
        return sum((2 * l + 1) * (2 * min(l, most) + 1) for l in range(l_max + 1))  # noqa: E741

    def torque(degree: int) -> int:
        """Products of components with |m| one apart, about two axes, and factors of their sums."""
        shells = range(min(degree, l_in + 1))
        apart = sum((2 if k == 0 else 4) * (2 if k < min(degree, l_in) else 1) for k in shells)
        return apart + 2 * len(shells)

    forward = turn(l_in, l_in) + 4 * weights + products + turn(l_out, l_in)
    backward = 2 * turn(l_in, l_in) + turn(l_out, l_in + 1) + 8 * weights + 3 * products
    backward += sum(torque(l3) for l3 in range(l_out + 1))
    backward += sum(torque(l1) for l1 in range(l_in + 1)) if l_in else 0
    return forward, backward


def _terms(l_a: int, l_b: int, l_out: int) -> int:
    """Number of nonzero coefficients in the product of two functions on the sphere."""
    paths = convolution_paths(l_a, l_b, l_out)
    return sum(int((coupling(*path).abs() > 1e-10).sum()) for path in paths)
