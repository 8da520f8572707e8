"""Equivariant interatomic potentials: train on DFT data, relax, run molecular dynamics.

The names below are the stable Python interface; ``docs/reference/python.md`` describes them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tesseral.calculators.ase import TesseralCalculator
    from tesseral.calculators.simulations.config import (
        MdConfig,
        NebConfig,
        PropertiesConfig,
        RelaxConfig,
    )
    from tesseral.calculators.simulations.runs import (
        compute_barriers,
        compute_properties,
        relax_structures,
        run_dynamics,
    )
    from tesseral.data.graph import AtomicGraph, Edges
    from tesseral.data.imports.config import ImportConfig
    from tesseral.data.imports.importer import import_structures
    from tesseral.data.loading.config import DataConfig
    from tesseral.data.store.read import open_store
    from tesseral.data.store.write import write_store
    from tesseral.deploy.export import export_model
    from tesseral.deploy.modelfile import load_model, save_model
    from tesseral.potentials.architectures.table import make_config
    from tesseral.potentials.message_passing import MessagePassing
    from tesseral.report.config import ReportConfig
    from tesseral.report.report import write_report
    from tesseral.training.config import FitConfig, LossConfig, OptimizationConfig, TrainerConfig
    from tesseral.training.evaluate import evaluate
    from tesseral.training.fit import fit

__version__ = version("tesseral")

_LAZY = {
    "AtomicGraph": "tesseral.data.graph",
    "DataConfig": "tesseral.data.loading.config",
    "Edges": "tesseral.data.graph",
    "FitConfig": "tesseral.training.config",
    "ImportConfig": "tesseral.data.imports.config",
    "LossConfig": "tesseral.training.config",
    "MdConfig": "tesseral.calculators.simulations.config",
    "MessagePassing": "tesseral.potentials.message_passing",
    "NebConfig": "tesseral.calculators.simulations.config",
    "OptimizationConfig": "tesseral.training.config",
    "PropertiesConfig": "tesseral.calculators.simulations.config",
    "RelaxConfig": "tesseral.calculators.simulations.config",
    "ReportConfig": "tesseral.report.config",
    "TesseralCalculator": "tesseral.calculators.ase",
    "TrainerConfig": "tesseral.training.config",
    "compute_barriers": "tesseral.calculators.simulations.runs",
    "compute_properties": "tesseral.calculators.simulations.runs",
    "evaluate": "tesseral.training.evaluate",
    "export_model": "tesseral.deploy.export",
    "fit": "tesseral.training.fit",
    "import_structures": "tesseral.data.imports.importer",
    "load_model": "tesseral.deploy.modelfile",
    "make_config": "tesseral.potentials.architectures.table",
    "open_store": "tesseral.data.store.read",
    "relax_structures": "tesseral.calculators.simulations.runs",
    "run_dynamics": "tesseral.calculators.simulations.runs",
    "save_model": "tesseral.deploy.modelfile",
    "write_report": "tesseral.report.report",
    "write_store": "tesseral.data.store.write",
}

__all__ = [
    "AtomicGraph",
    "DataConfig",
    "Edges",
    "FitConfig",
    "ImportConfig",
    "LossConfig",
    "MdConfig",
    "MessagePassing",
    "NebConfig",
    "OptimizationConfig",
    "PropertiesConfig",
    "RelaxConfig",
    "ReportConfig",
    "TesseralCalculator",
    "TrainerConfig",
    "compute_barriers",
    "compute_properties",
    "evaluate",
    "export_model",
    "fit",
    "import_structures",
    "load_model",
    "make_config",
    "open_store",
    "relax_structures",
    "run_dynamics",
    "save_model",
    "write_report",
    "write_store",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import tesseral`` stays instant."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tesseral' has no attribute {name!r}; it has {sorted(_LAZY)}")


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*__all__, "__version__"]
