"""Writing a corrected copy of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tesseral.data.doctor.findings import Finding, Fix, count
from tesseral.data.doctor.mending import describe_change, mended
from tesseral.data.store.read import Store, write_store
from tesseral.data.structures import Structure


def write_cleaned(store: Store, findings: Sequence[Finding], path: Path) -> list[str]:
    """Write a copy with the proposed corrections; everything else is unchanged.

    Wrong signs and units are corrected, labels that are wrongly zero become missing, and duplicates
    and structures with the labels of another one are removed.

    Args:
        store: dataset to copy.
        findings: findings about all its structures, from `checkup.check_set`.
        path: path of the copy.

    Returns:
        Descriptions of the changes.

    Raises:
        ValueError: no structure would be left.
    """
    mending = [finding for finding in findings if finding.fix is not None]
    left_out = {
        row
        for finding in mending
        if finding.fix is not None and finding.fix.label == "structure"
        for row in finding.rows
    }
    if len(left_out) == len(store):
        raise ValueError(f"every structure of {store.path} would be left out")
    factors = [_factors(finding, len(store)) for finding in mending]

    def structures() -> Iterator[Structure]:
        for row, structure in enumerate(store):
            if row in left_out:
                continue
            for finding, rows in zip(mending, factors, strict=True):
                if rows[row] and finding.fix is not None:
                    structure = mended(structure, finding.fix)
            yield structure

    write_store(path, structures(), attributes=store.attributes)
    done = Counter[str]()
    for finding, rows in zip(mending, factors, strict=True):
        done[_words(finding)] += int(rows.sum())
    return [f"{count(number)}: {words}" for words, number in done.items()]


def _factors(finding: Finding, n: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mask of the rows that a finding affects, (n,)."""
    rows = np.full(n, not finding.rows)
    rows[list(finding.rows)] = True
    return rows


def _words(finding: Finding) -> str:
    """Description of a fix."""
    assert finding.fix is not None
    label, factor = finding.fix[:2]
    if label == "structure":
        return f"left out ({finding.check})"
    if np.isnan(factor):
        return f"{label} made missing"
    if label == "stress" and finding.fix != Fix("stress", factor):
        return f"stresses corrected that {describe_change(finding.fix)}"
    if finding.fix.frame is not None:
        return f"{label} turned to the frame of the cell"
    return f"{label} multiplied by {factor:.6g}"
