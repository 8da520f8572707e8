"""Access to the compiled kernels: plain C functions through ctypes, independent of PyTorch."""

from __future__ import annotations

import ctypes
import platform
import sysconfig
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

VERSION = 7  # version of the structs in csrc/kernels.h
ISA_NAMES = ("baseline", "avx2", "avx512")
MODES = ("auto", "fused", "reference")


class Convolution(ctypes.Structure):
    """``tesseral_convolution`` of csrc/kernels.h."""

    _fields_ = [
        ("features", ctypes.c_void_p),
        ("harmonics", ctypes.c_void_p),
        ("radii", ctypes.c_void_p),
        ("coefficients", ctypes.c_void_p),
        ("senders", ctypes.c_void_p),
        ("receivers", ctypes.c_void_p),
        ("atoms", ctypes.c_int64),
        ("edges", ctypes.c_int64),
        ("l_in", ctypes.c_int32),
        ("l_edge", ctypes.c_int32),
        ("l_out", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("intervals", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("cutoff", ctypes.c_double),
        ("owned", ctypes.c_int64),
        ("paths", ctypes.c_void_p),
        ("channels_in", ctypes.c_void_p),
        ("n_paths", ctypes.c_int32),
        ("splines", ctypes.c_int32),
        ("pieces", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
    ]


POINTER, INT64, INT32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class FacetMixingWeights(ctypes.Structure):
    """``tesseral_facet_mixing`` of csrc/kernels.h."""

    _fields_ = [
        *((name, POINTER) for name in ("enter", "second", "enter_t", "second_t")),
        *((name, POINTER) for name in ("leave", "leave_t", "bias")),
        *((name, INT32) for name in ("l_in", "l_out")),
    ]


class ReadoutWeights(ctypes.Structure):
    """``tesseral_readout`` of csrc/kernels.h."""

    _fields_ = [
        *((name, POINTER) for name in ("linear", "output", "shift", "hidden", "hidden_t")),
        ("constant", ctypes.c_double),
        *((name, POINTER) for name in ("by_scalars", "by_hidden")),
    ]


class FacetLayerWeights(ctypes.Structure):
    """``tesseral_facet_layer`` of csrc/kernels.h."""

    _fields_ = [
        *((name, POINTER) for name in ("coefficients", "message", "message_t", "skip", "skip_t")),
        ("readout", ctypes.POINTER(ReadoutWeights)),
        ("mixing", ctypes.POINTER(FacetMixingWeights)),
        *((name, INT32) for name in ("mixings", "l_in")),
    ]


class FacetWeights(ctypes.Structure):
    """``tesseral_facet`` of csrc/kernels.h."""

    _fields_ = [
        ("layer", ctypes.POINTER(FacetLayerWeights)),
        ("embedding", POINTER),
        *((name, INT32) for name in ("l_max", "channels", "grid_channels")),
    ]


class NequIPLayerWeights(ctypes.Structure):
    """``tesseral_nequip_layer`` of csrc/kernels.h."""

    _fields_ = [
        *((name, POINTER) for name in ("coefficients", "paths")),
        *((name, POINTER) for name in ("channels_in", "channels_message", "channels_field")),
        *((name, POINTER) for name in ("enter", "enter_t", "keep", "keep_t", "leave", "leave_t")),
        *((name, POINTER) for name in ("enter_bias", "leave_bias", "norm")),
        ("readout", ctypes.POINTER(ReadoutWeights)),
        *((name, INT32) for name in ("n_paths", "l_in", "l_out", "keep_species")),
    ]


class NequIPWeights(ctypes.Structure):
    """``tesseral_nequip`` of csrc/kernels.h."""

    _fields_ = [
        ("layer", ctypes.POINTER(NequIPLayerWeights)),
        *((name, POINTER) for name in ("first_sent", "first_field", "pieces", "first")),
        *((name, INT32) for name in ("splines", "silu_gates")),
    ]


class UncertaintyWeights(ctypes.Structure):
    """``tesseral_uncertainty`` of csrc/kernels.h."""

    _fields_ = [
        ("center", POINTER),
        *((name, ctypes.c_double) for name in ("forces", "exponent", "reach")),
        ("rank", INT32),
        ("landmarks", INT32),
    ]


class PotentialWeights(ctypes.Structure):
    """``tesseral_potential`` of csrc/kernels.h."""

    _fields_ = [
        ("facet", ctypes.POINTER(FacetWeights)),
        ("nequip", ctypes.POINTER(NequIPWeights)),
        *((name, POINTER) for name in ("reference_energies", "energy_scale", "binding_energies")),
        *((name, POINTER) for name in ("zbl_charge", "zbl_screening", "zbl_reach")),
        ("inner_radii", POINTER),
        *((name, INT32) for name in ("layers", "l_edge", "intervals", "species")),
        ("cutoff", ctypes.c_double),
        ("uncertainty", ctypes.POINTER(UncertaintyWeights)),
    ]


class Graph(ctypes.Structure):
    """``tesseral_graph`` of csrc/kernels.h."""

    _fields_ = [
        *((name, POINTER) for name in ("species", "vectors", "senders", "receivers")),
        *((name, INT64) for name in ("atoms", "edges")),
        ("threads", INT32),
        *((name, POINTER) for name in ("energies", "forces", "virials")),
        ("owned", INT64),
        ("exchange", POINTER),
        ("uncertainties", POINTER),
    ]


ARGUMENTS: dict[str, list[Any]] = {  # in the order of the struct
    "convolve": [ctypes.POINTER(Convolution)] + [POINTER],
    "convolve_backward": [ctypes.POINTER(Convolution)] + [POINTER] * 5,
    "convolve_twice": [ctypes.POINTER(Convolution)] + [POINTER] * 10,
    "harmonics": [POINTER, INT64, INT32, INT32] + [POINTER] * 2,
    "harmonics_backward": [POINTER, INT64, INT32, INT32] + [POINTER] * 3,
    "harmonics_twice": [POINTER, INT64, INT32, INT32] + [POINTER] * 6,
    "degree_linear": [POINTER] * 2 + [INT64] + [INT32] * 4 + [POINTER],
    "degree_outer": [POINTER] * 2 + [INT64] + [INT32] * 4 + [POINTER],
    "sphere_product": [POINTER] * 2 + [INT64] + [INT32] * 5 + [POINTER],
    "workspace": [ctypes.POINTER(PotentialWeights), INT64, INT64],
    "evaluate": [ctypes.POINTER(PotentialWeights), ctypes.POINTER(Graph), POINTER],
    "near_edges": [POINTER] * 6 + [INT64, ctypes.c_double] + [POINTER] * 4,
}
RESULTS = {"workspace": INT64, "near_edges": INT64}  # the others return nothing


class Kernels(ctypes.Structure):
    """``tesseral_kernels`` of csrc/kernels.h: one function for each name."""

    _fields_ = [
        (name, ctypes.CFUNCTYPE(RESULTS.get(name), *types)) for name, types in ARGUMENTS.items()
    ]


def library_path() -> Path:
    """Path of the compiled kernels after a build."""
    return Path(__file__).with_name(
        "_kernels" + (sysconfig.get_config_var("SHLIB_SUFFIX") or ".so")
    )


@lru_cache
def _library() -> ctypes.CDLL | None:
    """The shared library, or None if it was not built, is outdated, or cannot be loaded."""
    path = library_path()
    if not path.exists():
        return None
    try:
        library = _open(path)
    except OSError:
        return None
    made_for = getattr(library, "tesseral_version", lambda: 1)()
    if made_for != VERSION:
        warnings.warn(
            f"{path} was compiled from version {made_for} of the kernels and this is version "
            f"{VERSION}; plain PyTorch, ten times slower, is used until you compile it again: "
            "make, or pip install -e .",
            stacklevel=2,
        )
        return None
    return library


def _open(path: Path) -> ctypes.CDLL:
    """Load the library with the OpenMP of PyTorch, since two would compete for the cores."""
    for openmp in sorted(Path(torch.__file__).with_name("lib").glob("lib*omp*")):
        ctypes.CDLL(str(openmp), mode=ctypes.RTLD_GLOBAL)
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
    for name in ("tesseral_kernels_float", "tesseral_kernels_double"):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_int], ctypes.POINTER(Kernels)
    return library


@lru_cache
def instruction_sets() -> tuple[str, ...]:
    """Instruction sets with kernels that run on this processor, the best one last."""
    library = _library()
    if library is None:
        return ()
    return tuple(name for isa, name in enumerate(ISA_NAMES) if library.tesseral_kernels_float(isa))


@lru_cache
def kernels(dtype: torch.dtype, isa: str | None = None) -> Kernels:
    """The functions for float32 or float64, for the best or a given instruction set."""
    library, names = _library(), instruction_sets()
    assert library is not None and names, "no compiled kernels; ask `available` first"
    number = ISA_NAMES.index(names[-1] if isa is None else isa)
    kind = {torch.float32: "float", torch.float64: "double"}[dtype]
    pointer = getattr(library, f"tesseral_kernels_{kind}")(number)
    assert pointer, f"no {isa} kernels on this processor"
    table: Kernels = pointer.contents
    return table


def available() -> bool:
    """Whether the compiled kernels can be used in this process."""
    return bool(instruction_sets())


@lru_cache
def _warn_once() -> None:
    warnings.warn(
        f"tesseral was installed without its compiled kernels ({library_path()} is missing or does "
        f"not load on {platform.machine()}): everything works, but ten times slower. Install a C++ "
        "compiler (apt install g++, or conda install cxx-compiler) and run pip install "
        "--force-reinstall --no-deps tesseral",
        stacklevel=4,
    )


def use_fused(mode: str) -> bool:
    """Whether a mode selects the compiled kernels on this machine.

    Args:
        mode: ``fused`` (compiled kernels), ``reference`` (plain PyTorch) or ``auto`` (compiled
            kernels if available; otherwise warns once that the model is slower).

    Raises:
        ValueError: the mode is unknown, or ``fused`` is given without compiled kernels.
    """
    if mode not in MODES:
        raise ValueError(f"ops is {mode!r}; use one of {', '.join(MODES)}")
    if mode == "fused" and not available():
        raise ValueError(
            "ops is 'fused', but the compiled kernels are missing here; install again with a C++ "
            "compiler on the path, or use ops='reference'"
        )
    if mode == "auto" and not available():
        _warn_once()
    return mode != "reference" and available()


def check_indices(name: str, index: torch.Tensor, length: int, limit: int) -> None:
    """Check indices (length,) on the CPU before compiled code uses them, which does not check.

    Raises:
        ValueError: the type or shape is wrong, or an index is not from 0 to ``limit`` - 1.
    """
    if index.dtype != torch.int64 or index.shape != (length,):
        raise ValueError(
            f"{name} must be int64 of shape ({length},); found {index.dtype} {tuple(index.shape)}"
        )
    if length:
        low, high = index.aminmax()
        if int(low) < 0 or int(high) >= limit:
            raise ValueError(f"{name} goes from {int(low)} to {int(high)}, beyond 0 to {limit - 1}")


def check_vectors(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Check numbers in float64 before compiled code uses them.

    Raises:
        ValueError: the type or shape is wrong.
    """
    if values.dtype != torch.float64 or values.shape != shape:
        raise ValueError(
            f"{name} must be float64 of shape {shape}; found {values.dtype} {tuple(values.shape)}"
        )


def threads_for(work: int) -> int:
    """Number of threads for a number of multiplications; one if starting more costs more."""
    return torch.get_num_threads() if work > 200_000 else 1
