"""Spline convolution, with the reference form in plain PyTorch that others are tested against.

``out[i, l3 m3, c] = Σ_{j→i} Σ_p R_p(r_ij)[c] Σ_{m1 m2} CG_p Y[l2 m2](r̂_ij) x[j, l1 m1, c]``
with ``R_p(r)[c] = Σ_k B_k(r) coefficients[k, p, c]`` and the sum over paths ``p = (l1, l2, l3)`` of
natural parity (l1 + l2 + l3 even).

The compiled form, ``torch.ops.tesseral.spline_convolution``, works on the tensors of atoms and
edges directly; the reference form builds a padded neighbour table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.fusable import Fusable
from tesseral.potentials.blocks.radial import smooth_splines, spline_basis
from tesseral.potentials.blocks.sphere import EdgeFeatures, coupling, degree_slice


def convolution_paths(
    l_max_in: int, l_max_edge: int, l_max_out: int, *, odd: bool = False
) -> list[tuple[int, int, int]]:
    """Paths (l1, l2, l3) of feature, edge and output degree, ordered by l2, then l1, then l3.

    Only paths of natural parity, l1 + l2 + l3 even; with ``odd`` also the others.
    """
    return [
        (l1, l2, l3)
        for l2 in range(l_max_edge + 1)
        for l1 in range(l_max_in + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, l_max_out) + 1)
        if odd or (l1 + l2 + l3) % 2 == 0
    ]


def neighbor_table(receivers: Tensor, n_atoms: int) -> Tensor:
    """Edges of each atom as a padded table (N, W) of edge indices; E means "no edge".

    Args:
        receivers: (E,) sorted.
        n_atoms: N.
    """
    n_edges = receivers.shape[0]
    counts = torch.bincount(receivers, minlength=n_atoms)
    width = int(counts.max()) if n_edges > 0 else 0
    first = counts.cumsum(0) - counts
    slot = torch.arange(n_edges, device=receivers.device) - first[receivers]
    table = torch.full((n_atoms * width,), n_edges, dtype=torch.int64, device=receivers.device)
    return table.scatter(
        0, receivers * width + slot, torch.arange(n_edges, device=receivers.device)
    ).view(n_atoms, width)


class SplineConvolution(Fusable, ExactBuffers):
    """Sum over neighbours of radial function × (harmonics ⊗ features), for each channel."""

    def __init__(
        self,
        l_max_in: int,
        l_max_edge: int,
        l_max_out: int,
        channels: int,
        intervals: int,
        cutoff: float,
    ) -> None:
        """Make the coupling tables and the spline coefficients (K, P, C).

        Args:
            l_max_in: highest degree of the input features.
            l_max_edge: highest degree of the edge harmonics.
            l_max_out: highest degree of the result.
            channels: C, the number of channels.
            intervals: K, the number of spline intervals.
            cutoff: cutoff (Å).
        """
        super().__init__()
        self.cutoff, self.l_max_out = cutoff, l_max_out
        self.paths = convolution_paths(l_max_in, l_max_edge, l_max_out)
        splines = smooth_splines(intervals, len(self.paths) * channels)
        self.coefficients = nn.Parameter(splines.view(intervals, len(self.paths), channels))
        # One row for each (path, m1). The product of a row with the 2 l2 + 1 harmonics of its path
        # is summed over neighbours and then coupled to the output by one matrix.
        row_path: list[int] = []
        row_component: list[int] = []
        self.rows_of_degree: list[int] = []
        blocks: list[Tensor] = []
        ways = [sum(l3 == degree for _, _, l3 in self.paths) for degree in range(l_max_out + 1)]
        for l2 in range(l_max_edge + 1):
            n_rows = 0
            columns = []
            for number, (l1, degree, l3) in enumerate(self.paths):
                if degree != l2:
                    continue
                row_path += [number] * (2 * l1 + 1)
                row_component += list(range(l1 * l1, (l1 + 1) ** 2))
                n_rows += 2 * l1 + 1
                block = torch.zeros(
                    2 * l2 + 1, 2 * l1 + 1, (l_max_out + 1) ** 2, dtype=torch.float64
                )
                block[:, :, degree_slice(l3)] = coupling(l1, l2, l3).transpose(0, 1)
                columns.append(block / ways[l3] ** 0.5)
            self.rows_of_degree.append(n_rows)
            if columns:
                blocks.append(torch.cat(columns, dim=1).flatten(0, 1))
        self.register_buffer("row_path", torch.tensor(row_path), persistent=False)
        self.register_buffer("row_component", torch.tensor(row_component), persistent=False)
        self.register_buffer("couplings", torch.cat(blocks).T.contiguous(), persistent=False)
        self.row_path: Tensor
        self.row_component: Tensor
        self.couplings: Tensor  # (M3, Σ_l2 (2 l2 + 1) rows_of_degree[l2])

    def forward(self, features: Tensor, edges: EdgeFeatures, n_out: int) -> Tensor:
        """Compute the convolution.

        Args:
            features: (N, M1, C).
            edges: edges with harmonics of degree 0 to ``l_max_edge``; receivers are below n_out.
            n_out: number of receiving atoms, which are the first ones.

        Returns:
            (n_out, M3, C).
        """
        if self.fused and features.is_cpu:
            fused: Tensor = torch.ops.tesseral.spline_convolution(
                features,
                edges.harmonics,
                edges.radii,
                self.coefficients,
                edges.senders,
                edges.receivers,
                self.cutoff,
                self.l_max_out,
                n_out,
            )
            return fused
        return self.reference(features, edges, n_out)

    def reference(self, features: Tensor, edges: EdgeFeatures, n_out: int) -> Tensor:
        """Reference form in plain PyTorch."""
        intervals = self.coefficients.shape[0]
        basis = spline_basis(edges.radii, self.cutoff, intervals).to(features.dtype)  # (E, K)
        table = neighbor_table(edges.receivers, n_out)
        width = table.shape[1]
        n_rows, channels = self.row_path.shape[0], features.shape[2]
        # The padded places refer to one additional edge of zeros.
        basis = torch.cat([basis, torch.zeros_like(basis[:1])])[table.flatten()]
        harmonics = torch.cat([edges.harmonics, torch.zeros_like(edges.harmonics[:1])])[table]
        senders = torch.cat([edges.senders, torch.zeros_like(edges.senders[:1])])[table.flatten()]
        product = self.products(features, basis, senders).view(n_out, width, n_rows * channels)
        split_rows = [rows * channels for rows in self.rows_of_degree]
        split_harmonics = [2 * degree + 1 for degree in range(len(split_rows))]
        sums = []
        for y, rows in zip(
            torch.split(harmonics, split_harmonics, dim=2), torch.split(product, split_rows, dim=2)
        ):
            sized = y.shape[2] * (rows.shape[2] // channels)  # not -1: there may be no atoms
            sums.append((y.transpose(1, 2) @ rows).reshape(n_out, sized, channels))
        return self.couplings.to(features.dtype) @ torch.cat(sums, dim=1)

    def products(self, features: Tensor, basis: Tensor, senders: Tensor) -> Tensor:
        """Radial functions times the features of the senders, (E, rows C)."""
        radial = basis @ self.coefficients[:, self.row_path].flatten(1)
        sent = features[:, self.row_component].flatten(1)
        return radial * sent.index_select(0, senders)
