"""Options of the selection of structures, read without importing PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Select structures that are as different from each other as possible.

    Args:
        sources: datasets (.h5), or files that data import reads; labels may be missing.
        output: file to write: a dataset (.h5), or a name whose ending ASE knows, such as .extxyz.
        count: number of structures to select.
        model: model file whose descriptors are compared, universal, or a name that train-potential
            universal lists.
        known: dataset or file of structures that need not be selected again; may be repeated.
        uncertain: prefer structures with a large expected force error; the model must know its
            uncertainty.
        overwrite: replace the output if it exists.
        device: cpu, cuda, …. Default: a GPU if available.

    Raises:
        ValueError: a value is out of range.
    """

    sources: list[str]
    output: str
    count: int
    model: str = "universal"
    known: list[str] = field(default_factory=list)
    uncertain: bool = False
    overwrite: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.count < 1:
            raise ValueError(f"`count` is {self.count}; it must be 1 or more")
