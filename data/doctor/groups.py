"""Groups of structures that may share a fault: the whole set, and those with the same texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tesseral.data.doctor.sample import Integers, Sample

PARTS = ("config_type", "source", "group")
SMALLEST = 3  # structures of a group
MOST = 200  # groups of each kind, the largest
NAMED = 6  # groups that are named in a finding


def groups_of(sample: Sample, chosen: NDArray[np.bool_]) -> Iterator[Integers]:
    """Positions of the chosen structures, of all and of each group, larger groups first.

    Args:
        sample: the structures.
        chosen: (S,) structures to divide into groups.
    """
    seen = set()
    whole = np.nonzero(chosen)[0]
    parts = [whole]
    for name in PARTS:
        values, kind = np.unique(_texts(sample, name)[whole], return_inverse=True)
        inside = [whole[kind == k] for k in range(len(values))]
        parts += sorted(inside, key=len, reverse=True)[:MOST]
    for members in parts:
        if len(members) >= SMALLEST and members.tobytes() not in seen:
            seen.add(members.tobytes())
            yield members


def group_words(sample: Sample, members: Sequence[int] | Integers) -> str:
    """Groups that hold all the given structures and hardly others, in brackets; may be empty."""
    inside = np.isin(np.arange(len(sample.rows)), members)
    for name in PARTS:
        texts = _texts(sample, name)
        values = np.unique(texts[inside])
        if len(values) <= NAMED and values.all() and not np.isin(texts[~inside], values).all():
            if np.isin(texts, values).sum() < 1.5 * inside.sum():
                return f" ({name} {', '.join(values)})"
    return ""


def _texts(sample: Sample, name: str) -> NDArray[np.str_]:
    texts = sample.store.texts(name)
    return np.array([texts[row] for row in sample.rows])
