"""Spline convolution with separate paths, for different numbers of channels in each degree.

``out_p[i, m3, c] = Σ_{j→i} R_p(r_ij)[c] Σ_{m1 m2} CG_p Y[l2 m2](r̂_ij) x[j, l1 m1, c]``
for each path p = (l1, l2, l3); ``R_p(r)[c] = Σ_k B_k(r) coefficients_p[k, c]``. A subsequent linear
map by degree can weight the paths, which ``SplineConvolution`` has already summed. In e3nn this is
a tensor product with "uvu" instructions.

Rows are flat as in ``potentials/blocks/flat.py``; the C_l1 channels of the paths to l3 are next to
each other, in the order of the paths.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import neighbor_table
from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.flat import degree_widths
from tesseral.potentials.blocks.fusable import Fusable
from tesseral.potentials.blocks.radial import piecewise_basis, smooth_splines, spline_pieces
from tesseral.potentials.blocks.sphere import EdgeFeatures, coupling


class PathConvolution(Fusable, ExactBuffers):
    """Sum over neighbours of radial function × (harmonics ⊗ features), for each path."""

    def __init__(
        self,
        paths: Sequence[tuple[int, int, int]],
        channels_in: list[int],
        intervals: int,
        cutoff: float,
        kinks: Sequence[float] = (),
    ) -> None:
        """Make the coupling tables and the spline coefficients, (S, C_l1) for each path.

        Args:
            paths: degrees (l1, l2, l3) of feature, harmonic and result, of any parity, sorted by
                l2. Every degree up to the highest l3 needs a path.
            channels_in: C_l of the features, l = 0, 1, …
            intervals: K, the number of spline intervals.
            cutoff: cutoff (Å).
            kinks: see ``spline_pieces``; S = K + len(kinks).
        """
        super().__init__()
        self.cutoff = cutoff
        self.paths = list(paths)
        self.path_degrees = [degree for path in paths for degree in path]
        self.channels_in = list(channels_in)
        self.channels = [channels_in[l1] for l1, _, _ in paths]
        self.channels_out = [
            sum(channels_in[l1] for l1, _, l3 in paths if l3 == degree)
            for degree in range(max(l3 for _, _, l3 in paths) + 1)
        ]
        assert min(self.channels_out) > 0
        assert self.paths == sorted(paths, key=lambda path: path[1])
        self.coefficients = nn.ParameterList(
            smooth_splines(intervals + len(kinks), number) for number in self.channels
        )
        pieces, first = spline_pieces(intervals, cutoff, kinks)
        self.register_buffer("pieces", pieces, persistent=False)
        self.register_buffer("first", first, persistent=False)
        self.pieces: Tensor
        self.first: Tensor
        # Columns: all (m1, channel) of the features of each path, with its radial functions. Their
        # products with the harmonics of degree l2 are summed over neighbours and then coupled to
        # the result.
        widths = degree_widths(channels_in)
        column, function = [], []
        self.columns: list[list[int]] = [[] for _ in range(max(l2 for _, l2, _ in paths) + 1)]
        for p, (l1, l2, _) in enumerate(paths):
            column.append(torch.arange(widths[l1]) + sum(widths[:l1]))
            own = torch.arange(self.channels[p]) + sum(self.channels[:p])
            function.append(own.repeat(2 * l1 + 1))
            self.columns[l2].append(widths[l1])
        couplings = [coupling(*path).permute(2, 1, 0).flatten(1) for path in paths]
        self.coupling_sizes = [table.numel() for table in couplings]
        tables = torch.cat([table.flatten() for table in couplings])
        self.register_buffer("column", torch.cat(column), persistent=False)
        self.register_buffer("function", torch.cat(function), persistent=False)
        self.register_buffer("couplings", tables, persistent=False)
        self.column: Tensor
        self.function: Tensor
        self.couplings: Tensor  # (2 l3 + 1, (2 l2 + 1)(2 l1 + 1)) of each path, concatenated

    def forward(self, features: Tensor, edges: EdgeFeatures, n_out: int) -> Tensor:
        """Compute the convolution.

        Args:
            features: (N, D_in), one flat row of ``channels_in`` per atom.
            edges: edges; receivers are below n_out.
            n_out: number of receiving atoms, which are the first ones.

        Returns:
            (n_out, D_out), flat rows of ``channels_out``.
        """
        splines = torch.cat([each for each in self.coefficients], dim=1)  # noqa: C416, TorchScript
        if self.fused and features.is_cpu:
            fused: Tensor = torch.ops.tesseral.path_convolution(
                features,
                edges.harmonics,
                edges.radii,
                splines,
                edges.senders,
                edges.receivers,
                self.pieces,
                self.first,
                self.cutoff,
                self.path_degrees,
                self.channels_in,
                n_out,
            )
            return fused
        table = neighbor_table(edges.receivers, n_out)
        width, places = table.shape[1], table.flatten()
        # The padded places refer to one additional edge of zeros.
        basis = self.basis(edges.radii).to(features.dtype)
        basis = torch.cat([basis, torch.zeros_like(basis[:1])]).index_select(0, places)
        harmonics = torch.cat([edges.harmonics, torch.zeros_like(edges.harmonics[:1])])[places]
        senders = torch.cat([edges.senders, torch.zeros_like(edges.senders[:1])])[places]
        sent = features.index_select(1, self.column).index_select(0, senders)
        product = basis @ splines.index_select(1, self.function) * sent
        product = product.view(n_out, width, self.column.shape[0])
        directions = harmonics.view(n_out, width, harmonics.shape[1])
        harmonic_sizes = [2 * degree + 1 for degree in range(len(self.columns))]
        harmonic_sizes.append(harmonics.shape[1] - sum(harmonic_sizes))  # those without a path
        outer: list[Tensor] = []  # for each path, summed over neighbours
        for y, part, sizes in zip(
            torch.split(directions, harmonic_sizes, dim=2),
            torch.split(product, [sum(sizes) for sizes in self.columns], dim=2),
            self.columns,
        ):
            outer.extend(torch.split(y.transpose(1, 2) @ part, sizes, dim=2))
        return self.coupled(outer)

    def basis(self, radii: Tensor) -> Tensor:
        """Values (E, S) of the radial splines at distances (E,) Å."""
        splines = self.coefficients[0].shape[0]
        return piecewise_basis(radii, self.cutoff, self.pieces, self.first, splines)

    def coupled(self, outer: list[Tensor]) -> Tensor:
        """Flat rows from the products of each path, (n, 2 l2 + 1, (2 l1 + 1) C_l1)."""
        tables = torch.split(self.couplings.to(outer[0].dtype), self.coupling_sizes)
        results: list[Tensor] = []
        for degree in range(len(self.channels_out)):
            beside: list[Tensor] = []
            for p, (l1, l2, l3) in enumerate(self.paths):
                if l3 == degree:
                    terms = (2 * l2 + 1) * (2 * l1 + 1)
                    product = outer[p].reshape(outer[p].shape[0], terms, self.channels[p])
                    beside.append(tables[p].view(2 * l3 + 1, terms) @ product)
            results.append(torch.cat(beside, dim=2).flatten(1))
        return torch.cat(results, dim=1)
