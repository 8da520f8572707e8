"""Restriction of backward passes to the gradients that are used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_wanted = threading.local()


@contextmanager
def gradients_of(kind: str) -> Iterator[None]:
    """Skip gradients that are not used while a ``backward`` runs in this thread.

    PyTorch does not tell an operator written in Python which gradients are needed. Forces need only
    those with respect to the geometry (and features), a training step only those with respect to
    the weights (and features). Either is about half of the work.

    Args:
        kind: ``geometry`` (edge vectors) or ``weights``; the other gradients become None.
    """
    before = getattr(_wanted, "kind", "all")
    _wanted.kind = kind
    try:
        yield
    finally:
        _wanted.kind = before


def wants(kind: str) -> bool:
    """Whether gradients with respect to the ``geometry`` or the ``weights`` are needed."""
    return getattr(_wanted, "kind", "all") in (kind, "all")
