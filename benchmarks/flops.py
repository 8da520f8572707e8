"""Number of multiplications and additions in one inference step of Facet."""

from __future__ import annotations

from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.sphere import coupling

MULTIPLY_ADD = 2


def inference_flops(config: FacetConfig, neighbors: float) -> dict[str, float]:
    """FLOPs per atom of energy, forces and virial as the compiled kernels compute them.

    The count includes the sums over paths of the convolutions, the maps by degree and the sphere
    products, each forwards and backwards. It neglects small contributions: harmonics, spline
    weights, couplings of an edge (shared by all channels), readout, sums of forces.

    Args:
        config: configuration of the potential.
        neighbors: number of edges per atom.
    """
    parts = {"convolutions": 0.0, "linear maps": 0.0, "sphere products": 0.0}
    channels, grid = config.channels, config.grid_channels
    for number in range(config.layers):
        l_in = 0 if number == 0 else config.message_degree
        l_out = 0 if number == config.layers - 1 else config.message_degree
        pairs = terms = rows_in = rows_out = 0
        paths = convolution_paths(l_in, config.edge_degree, config.l_max)
        for l1, l2, l3 in paths:
            nonzero = coupling(l1, l2, l3).abs() > 1e-10
            pairs += int(nonzero.any(dim=1).sum())
            terms += int(nonzero.sum())
            rows_in, rows_out = rows_in + 2 * l1 + 1, rows_out + 2 * l3 + 1
        radial = 4 * len(paths)
        forward = radial + pairs + rows_out
        backward = 2 * radial + pairs + 2 * rows_in + rows_in / 2 + pairs + terms / 2
        if number == 0:
            backward -= rows_in  # the embedding needs no gradient
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


def _terms(l_a: int, l_b: int, l_out: int) -> int:
    """Number of nonzero coefficients in the product of two functions on the sphere."""
    paths = convolution_paths(l_a, l_b, l_out)
    return sum(int((coupling(*path).abs() > 1e-10).sum()) for path in paths)
