"""Options of an evaluation and of a calibration, read without importing PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Compare a model with a dataset.

    Args:
        model: model file (.safetensors), universal, or a name of train-potential universal.
        data: dataset file (.h5), or a file ASE reads with standard label names and units.
        level: level of theory, if the model has several. Default: its first.
        outside: further dataset, with structures unlike those of ``data``: whether the uncertainty
            of the model tells them apart. Labels are not used.
        json: file to write the errors to.
        plots: folder to write parity plots to.
        dtype: float32 or float64. Default: that of the model.
        device: cpu, cuda, cuda:1, …. Default: a GPU if available.
        batch_edges: number of edges (neighbour pairs) computed at once; limits the memory.
        shift_energies: correct a different zero of energy of model and data by one constant per
            element, fitted to the data; for models of other DFT settings, such as universal ones.
    """

    model: str
    data: str
    level: str | None = None
    outside: str | None = None
    json: str | None = None
    plots: str | None = None
    dtype: str | None = None
    device: str | None = None
    batch_edges: int = 20_000
    shift_energies: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.batch_edges < 1:
            raise ValueError(f"`batch_edges` is {self.batch_edges}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig:
    """Give a model its uncertainty, from the data it was trained on.

    Args:
        model: model file (.safetensors), or universal.
        data: dataset file (.h5) of structures that the model knows, usually its training set.
        output: model file to write (.safetensors).
        validation: dataset file of structures that it was not trained on. Default: a part of
            ``data``, which is then not counted as known.
        validation_fraction: fraction of ``data`` for it.
        seed: random seed of this split; that of the training, so that it is the same.
        device: cpu, cuda, …. Default: a GPU if available.
    """

    model: str
    data: str
    output: str
    validation: str | None = None
    validation_fraction: float = 0.1
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if Path(self.output).suffix != ".safetensors":
            raise ValueError(f"`output` is {self.output!r}; name it ….safetensors")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` is {self.validation_fraction}; it must be between 0 and 1"
            )
