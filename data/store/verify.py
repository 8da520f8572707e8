"""Checking the data of a dataset file against their stored hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tesseral.data.store.format import HASH_ROWS, Block, ContentHash, block_hash, cut_block
from tesseral.data.store.read import REMEDY, Store

READ_BLOCKS = 8  # blocks read together
PLACES_SHOWN = 5


def verify_store(store: Store, progress: Callable[[int, int], None] | None = None) -> None:
    """Read everything and check it against the hashes of the blocks and of the dataset.

    Args:
        store: the dataset.
        progress: callback with the number of structures read so far and the total.

    Raises:
        ValueError: the data do not match the hashes; the message names the structures.
    """
    count = 0
    for block in verified_blocks(store):
        count += len(block.starts) - 1
        if progress is not None:
            progress(count, len(store))


def verified_blocks(store: Store) -> Iterator[Block]:
    """All structures in blocks of HASH_ROWS; blocks that cannot be read are left out.

    Raises:
        ValueError: as `verify_store`, after the last block.
    """
    content = ContentHash()
    damaged: list[int] = []  # first structures of blocks
    elements: set[int] = set()
    for start, block in _readable(store, damaged):
        content.update(block)
        elements.update(np.unique(block.arrays["numbers"]).tolist())
        if not _is_right(store, start, block):
            damaged.append(start)
        yield block
    if damaged or content.digest() != store.content_hash or elements != set(store.elements):
        raise ValueError(
            f"the data of {store.path} do not match their content hash: {_places(store, damaged)} "
            f"changed or damaged since it was written; {REMEDY}"
        )


def _readable(store: Store, damaged: list[int]) -> Iterator[tuple[int, Block]]:
    """First structures and blocks; the first structure of an unreadable block is damaged."""
    step = READ_BLOCKS * HASH_ROWS
    for first in range(0, len(store), step):
        rows = range(first, min(first + step, len(store)))
        starts = rows[::HASH_ROWS]
        try:
            several = store.block(rows.start, rows.stop)
        except ValueError:
            several = None
        for start in starts:
            stop = min(start + HASH_ROWS, rows.stop)
            try:
                if several is None:
                    yield start, store.block(start, stop)
                else:
                    yield start, cut_block(several, start - first, stop - first)
            except ValueError:
                damaged.append(start)


def _is_right(store: Store, start: int, block: Block) -> bool:
    """Whether a block matches its hash."""
    hashes = store.block_hashes
    return hashes is None or np.array_equal(hashes[start // HASH_ROWS], block_hash(block))


def _places(store: Store, damaged: list[int]) -> str:
    """Description of the damaged structures."""
    if not damaged:
        return "the file has been"
    shown = ", ".join(
        f"{start} to {min(start + HASH_ROWS, len(store)) - 1}" for start in damaged[:PLACES_SHOWN]
    )
    more = f" and {len(damaged) - PLACES_SHOWN} more blocks" if len(damaged) > PLACES_SHOWN else ""
    return f"structures {shown}{more} have been"
