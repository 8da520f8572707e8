"""What a machine calls itself."""

from __future__ import annotations

import os
import platform

import torch


def machine(device: torch.device) -> str:
    """Processor or GPU, and the number of threads, for the record."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}"
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            found = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        name = found[0] if found else name
    return f"{name}, {torch.get_num_threads()} threads"
