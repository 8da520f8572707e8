"""Contract of an exported model, for programs without Python, as lines of plain text.

    tesseral 1
    elements C Si
    cutoff 5
    layers 2
    dtype float32
    atoms 8
    <species> <x> <y> <z> <energy> <force x> <force y> <force z> <allowed>   for each atom

The atoms are a cluster with the energies (eV) and forces (eV/Å) that the model gave when it was
exported. If an energy or force differs by more than ``allowed``, the build or the file is broken.
"""

from __future__ import annotations

import torch

from tesseral.deploy.card import ModelCard
from tesseral.deploy.probe import TOLERANCE, Probe, probe_scale

CONTRACT_FILE = "tesseral_contract.txt"
CONTRACT_VERSION = 1


def contract_text(card: ModelCard, probe: Probe) -> str:
    """Lines of the contract."""
    allowed = TOLERANCE[card.dtype] * probe_scale(card, probe)
    numbers = [probe.positions, probe.energies[:, None], probe.forces, allowed[:, None]]
    rows = torch.cat(numbers, dim=1).tolist()
    lines = [
        f"tesseral {CONTRACT_VERSION}",
        f"elements {' '.join(card.symbols)}",
        f"cutoff {card.config.cutoff!r}",
        f"layers {card.config.layers}",
        f"dtype {card.dtype}",
        f"atoms {len(rows)}",
        *(
            " ".join([str(int(species)), *(repr(value) for value in row)])
            for species, row in zip(probe.species, rows, strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


def contract_probe(text: str) -> Probe:
    """Probe in the lines that ``contract_text`` wrote.

    Raises:
        ValueError: the text is not a contract.
    """
    head, _, rows = text.partition("\natoms ")
    if head.splitlines()[:1] != [f"tesseral {CONTRACT_VERSION}"]:
        raise ValueError(f"its contract is not of version {CONTRACT_VERSION}")
    count, *lines = rows.splitlines()
    try:
        numbers = torch.tensor(
            [[float(word) for word in line.split()] for line in lines], dtype=torch.float64
        )
        if numbers.shape != (int(count), 9):
            raise ValueError(f"there are {numbers.numel()} numbers")
    except ValueError as error:
        raise ValueError(f"its contract cannot be read ({error})") from None
    species = numbers[:, 0].to(torch.int64)
    return Probe(species, numbers[:, 1:4], numbers[:, 4], numbers[:, 5:8])
