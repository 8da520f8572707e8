"""The model file of a training, with all that is known about it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import lightning
from torch import Tensor

from tesseral.deploy.modelfile import ModelCard, build_potential, save_model
from tesseral.potentials.message_passing import one_level
from tesseral.process import machine
from tesseral.training.batches import FitData
from tesseral.training.config import FitConfig
from tesseral.training.module import PotentialModule


class Exporter:
    """Writes the model file with everything that is known about it.

    Args:
        config: of the training.
        data: set up.
        card: of the untrained potential.
        module: for the time and the device.
    """

    def __init__(
        self, config: FitConfig, data: FitData, card: ModelCard, module: PotentialModule
    ) -> None:
        """Keep what the card will say."""
        self.config, self.data, self.card, self.module = config, data, card, module

    def __call__(self, weights: dict[str, Tensor], best: dict[str, Any]) -> None:
        """Write the weights.

        Args:
            weights: of the averaged potential.
            best: entry of the history they belong to, with its ``errors``.
        """
        settings = {
            f"{part}.{name}": value
            for part in ("loss", "optimization", "data")
            for name, value in asdict(getattr(self.config, part)).items()
            if value is not None and name not in ("train", "validation", "isolated_energies")
        }
        training = {
            "data": self.data.summary(),
            "settings": settings,
            "seed": self.config.seed,
            **({"started from": self.config.init_from} if self.config.init_from else {}),
            "steps": best["step"],
            "epochs": best["step"] / self.data.steps_per_epoch(self.config.trainer.ranks),
            "seconds": best["elapsed"],
            "machine": machine(self.module.device),
            "processes": self.module.trainer.world_size,
            "lightning": lightning.__version__,
        }
        card = replace(self.card, training=training, errors={"validation": best["errors"]})
        potential = build_potential(card)
        potential.load_state_dict(one_level(weights, potential.n_species))
        save_model(self.config.output, potential, card)
