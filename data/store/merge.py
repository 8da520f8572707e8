"""Merging dataset files: copied block by block and checked at the same time."""

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

    The sources are checked against their hashes while they are read. The output gets its name when
    it is complete. It may be one of the sources, to append structures to a file; the old file
    exists until then.

    Args:
        sources: dataset files, in this order.
        output: dataset file to write.
        attributes: texts about the whole dataset. Default: those of the sources, joined by ``; ``
            where they differ.
        overwrite: replace an output that exists and is not the first of the sources.
        progress: callback with the number of structures written so far and the total.

    Returns:
        The content hash of the output.

    Raises:
        FileNotFoundError: a source does not exist.
        FileExistsError: the output exists and ``overwrite`` is not set.
        ValueError: a source is not a dataset, or is damaged. Nothing is written in this case.
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
    """Attributes of all stores; texts that differ are joined, each once."""
    parts: dict[str, dict[str, None]] = {}
    for store in stores:
        for name, text in store.attributes.items():
            parts.setdefault(name, {}).update(dict.fromkeys(text.split("; ")))
    return {name: "; ".join(texts) for name, texts in parts.items()}
