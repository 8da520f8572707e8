"""Stresses from a small potential fitted to energies and forces alone, for ``data check``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import Structure
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.training.config import FitConfig, LossConfig, TrainerConfig
from tesseral.training.evaluate import evaluate
from tesseral.training.fit import fit
from tesseral.training.module import DivergenceError

VALIDATED = 32  # structures; only the weights at the end are used


def fitted_stresses(
    structures: Sequence[Structure],
    max_time: str = "60s",
    max_steps: int | None = None,
    clock: Literal["wall", "cpu"] = "wall",
) -> NDArray[np.float64]:
    """Fit a small Facet to energies and forces, and predict the stresses of the same structures.

    Args:
        structures: structures; their stresses are not used, missing labels are left out.
        max_time: duration of the training.
        max_steps: maximum number of its steps.
        clock: clock of ``max_time``.

    Returns:
        Stresses (S, 3, 3) in eV/Å³; NaN for structures without a volume.

    Raises:
        ValueError: the structures cannot be trained on, for example without forces.
        KeyboardInterrupt: a signal stopped the training.
    """
    with tempfile.TemporaryDirectory() as folder:
        train, model = Path(folder) / "train.h5", Path(folder) / "model.safetensors"
        some = Path(folder) / "some.h5"
        write_store(train, structures)
        spread = np.linspace(0, len(structures) - 1, min(VALIDATED, len(structures))).astype(int)
        write_store(some, [structures[k] for k in spread])
        config = FitConfig(
            data=DataConfig(train=str(train), validation=str(some)),
            output=str(model),
            model=FacetConfig(layers=2, channels=8, l_max=2),
            loss=LossConfig(stress_weight=0.0),
            trainer=TrainerConfig(
                max_time=max_time,
                max_steps=max_steps,
                clock=clock,
                validate_every=10**9,
                enable_progress_bar=False,
            ),
        )
        with suppress(DivergenceError):  # the last good weights have been written
            if fit(config).signal is not None:
                raise KeyboardInterrupt
        potential, card = load_model(model)[:2]
        store = open_store(train)
        found = evaluate(potential, store, card.elements).stress / EV_PER_A3_IN_GPA
        store.close()
    return found[:, np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])]
