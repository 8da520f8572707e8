"""Equivariant interatomic potentials: train on DFT data, relax, run molecular dynamics."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("tesseral")

_LAZY = {
    "AtomicGraph": "tesseral.data.graph",
    "MessagePassing": "tesseral.potentials.message_passing",
    "TesseralCalculator": "tesseral.calculators.ase",
    "load_model": "tesseral.deploy.modelfile",
    "open_store": "tesseral.data.store.read",
}

__all__ = ["AtomicGraph", "MessagePassing", "TesseralCalculator", "load_model", "open_store"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import tesseral`` stays instant."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tesseral' has no attribute {name!r}; it has {sorted(_LAZY)}")
