"""Which gradients somebody will read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_wanted = threading.local()


@contextmanager
def gradients_of(kind: str) -> Iterator[None]:
    """Leave out gradients that nobody will read while a ``backward`` runs in this thread.

    PyTorch does not tell an operator written in Python which gradients are asked for. Forces need
    those by the geometry (and features) only; a training step those by the weights (and features)
    only; either is about half of the work.

    Args:
        kind: ``geometry`` (edge vectors) or ``weights``; the others become None.
    """
    before = getattr(_wanted, "kind", "all")
    _wanted.kind = kind
    try:
        yield
    finally:
        _wanted.kind = before


def wants(kind: str) -> bool:
    """Whether gradients by the ``geometry`` or the ``weights`` are to be computed."""
    return getattr(_wanted, "kind", "all") in (kind, "all")
