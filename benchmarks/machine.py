"""Description of the machine that runs a benchmark."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")


def machine() -> dict[str, str]:
    """Processor, memory, system, compiler and libraries as text."""
    import torch

    facts = {
        **_processor(),
        "cores": f"{os.cpu_count()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "system": platform.platform(),
        "compiler": _compiler(),
        "Python": platform.python_version(),
        "PyTorch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{'MKL' if torch.backends.mkl.is_available() else 'no MKL'}",
        "tesseral": _version("tesseral") + _commit(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
    return {name: text for name, text in facts.items() if text}


def free_memory_mb() -> float:
    """Available memory, in MB."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return float("inf")
    found = re.search(r"MemAvailable:\s+(\d+)", info.read_text())
    return int(found[1]) / 1024 if found else float("inf")


def _processor() -> dict[str, str]:
    """Name, caches and vector instructions."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return {"processor": platform.processor() or platform.machine()}
    lines = dict(
        re.split(r"\s*:\s*", line, maxsplit=1)
        for line in info.read_text().split("\n\n")[0].splitlines()
        if ":" in line
    )
    name = lines.get("model name", platform.machine())
    family = ", ".join(f"{key} {lines[key]}" for key in ("cpu family", "model") if key in lines)
    flags = set(lines.get("flags", "").split())
    return {
        "processor": f"{name} ({family})",
        "vector instructions": " ".join(flag for flag in FEATURES if flag in flags),
        "caches": _caches(),
    }


def _caches() -> str:
    """Sizes of the data caches of a core."""
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = [
        f"L{(index / 'level').read_text().strip()} {(index / 'size').read_text().strip()}"
        for index in sorted(folder.glob("index*"))
        if (index / "type").read_text().strip() != "Instruction"
    ]
    return " ".join(sizes)


def _compiler() -> str:
    """First line of the version of the C++ compiler."""
    name = os.environ.get("CXX", "c++")
    return _first_line(name, "--version") if shutil.which(name) else ""


def _commit() -> str:
    """The commit, marked if files have changed since."""
    commit = _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    return f" at {commit}" if commit else ""


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.splitlines() or [""])[0] if done.returncode == 0 else ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown version"
