"""Rules that choose a validation, judged on other structures."""

import numpy as np

from benchmarks.best_step import RULES, Curves, judged, within

ENERGY = np.array([9.0, 5.0, 3.0, 2.0])
FORCES = np.array([90.0, 50.0, 51.0, 60.0])
LOSS = FORCES**2


def test_rules():
    chosen = {name: rule(ENERGY, FORCES, LOSS) for name, rule in RULES.items()}
    assert chosen["lowest loss"] == 1
    assert chosen["lowest energy error within 2% of the lowest loss"] == 1
    assert chosen["lowest energy error within 5%"] == 2
    assert chosen["last"] == chosen["lowest product of energy and force error"] == 3
    assert within(10.0)(ENERGY, FORCES, LOSS) == 3


def test_errors_are_those_of_structures_that_did_not_choose():
    energy = np.repeat(ENERGY[:, None], 6, axis=1)
    energy[:, 0] = 100.0  # wherever this structure does not choose, it counts
    found = judged(Curves(energy, np.repeat(FORCES[:, None], 6, axis=1), 1.0, 10.0), 2, draws=60)
    place, error, forces = found["last"].T
    assert set(place) == {1.0} and set(forces) == {60.0}
    assert {round(value, 6) for value in error} == {2.0, 2.0 + 98.0 / 4}
