"""Table of the kinds. A new one needs its file and a line in this table."""

from __future__ import annotations

from benchmarks.faults.kinds import models, options, processes, runs, stores, structures, texts
from benchmarks.faults.running import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        models.KIND,
        stores.KIND,
        texts.KIND,
        structures.KIND,
        options.KIND,
        runs.KIND,
        processes.KIND,
    )
}
