"""Stresses of a small potential that is fitted to energies and forces alone."""

import numpy as np

from tesseral.data.store.read import open_store
from tesseral.training.stresses import fitted_stresses


def test_stresses_do_not_depend_on_their_labels(emt_files):
    structures = list(open_store(emt_files[0]))
    found = [
        fitted_stresses([s._replace(stress=factor * s.stress) for s in structures], max_steps=5)
        for factor in (1.0, -3.0)
    ]
    assert found[0].shape == (len(structures), 3, 3)
    assert np.isfinite(found[0]).all()
    assert np.abs(found[0]).max() > 0
    np.testing.assert_allclose(found[0], found[1])
    np.testing.assert_allclose(found[0], found[0].transpose(0, 2, 1))
