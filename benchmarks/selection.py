"""Time and memory of farthest-point selection from a million structures.

``python -m benchmarks.selection`` computes the descriptors of real structures, adds noise to them
until there are a million, and selects from the stream::

    python -m benchmarks.selection model.safetensors set.h5 --number 1000000 --count 1000

The first line also says how many structures per second the descriptors are computed of.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from benchmarks.machine import describe_machine
from tesseral.calculators.selection import described
from tesseral.data.selection import FarthestPoints
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import load_model

BLOCK = 4096


def main() -> None:
    """Run the benchmark."""
