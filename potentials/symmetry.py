"""x"""
from __future__ import annotations
from typing import cast
from torch import nn
from tesseral.potentials.facet import FacetLayer
from tesseral.potentials.message_passing import MessagePassing


def broken_weights(potential: MessagePassing) -> list[nn.Parameter]:
    """Coefficients of the learned functions of each layer, (mixings, S, M - 1, C); often none."""
    layers = [layer for layer in potential.layers if isinstance(layer, FacetLayer)]
    return [layer.broken for layer in layers if layer.broken is not None]
