"""Making one dataset file of several: copied block by block, checked on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tesseral.data.store.read import Store, open_store
from tesseral.data.store.verify import verified_blocks
from tesseral.data.store.write import StoreWriter


def merge_stores(
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    attributes: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Write the structures of several dataset files, one after the other, to a new one.

    The sources are compared with their hashes on the way. The output gets its name when it is
    complete; it may be one of the sources, which is how structures are appended to a file: what
    was there stays until then.

    Args:
        sources: dataset files, in this order.
        output: dataset file to write.
        attributes: texts about the whole dataset; those of the sources if not given, where they
            differ joined by ``; ``.
        overwrite: replace an output that exists and is not the first of the sources.
        progress: called with the number of structures written so far and that of all.

    Returns:
        The content hash of the output.

    Raises:
        FileNotFoundError: a source does not exist.
        FileExistsError: the output exists and is not to be overwritten.
        ValueError: a source is no dataset, or damaged. Nothing is written then.
    """
    stores = [open_store(source) for source in sources]
    if not stores:
        raise ValueError("there are no datasets to merge; give one file or more")
    target = Path(output)
    if target.exists() and not overwrite and not target.samefile(stores[0].path):
        raise FileExistsError(f"{target} exists; pass `overwrite` to replace it")
    total = sum(len(store) for store in stores)
    if attributes is None:
        attributes = _joined_attributes(stores)
    with StoreWriter(target, attributes=attributes) as writer:
        for store in stores:
            for block in verified_blocks(store):
                writer.extend(block)
                if progress is not None:
                    progress(writer.count, total)
            store.close()
    return open_store(target).content_hash


def _joined_attributes(stores: Sequence[Store]) -> dict[str, str]:
    """The attributes of all; texts that differ one after the other, each once."""
    parts: dict[str, dict[str, None]] = {}
    for store in stores:
        for name, text in store.attributes.items():
            parts.setdefault(name, {}).update(dict.fromkeys(text.split("; ")))
    return {name: "; ".join(texts) for name, texts in parts.items()}
