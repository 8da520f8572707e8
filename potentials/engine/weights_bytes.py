"""Weights of a potential as one block of bytes, for programs without Python or PyTorch.

The block contains the C structs of ``csrc/kernels.h`` and the arrays they point to. A pointer is
stored as the offset from the start of the block. A program that loads the block, aligned to 64
bytes, adds the address of its start to the pointers listed at its end, and obtains a
``tesseral_potential``:

    bytes 0 … 7     "tesseral"
    bytes 8 … 47    int64: version, size of a number (4 or 8), offset of the ``tesseral_potential``,
                    offset of the list of pointers, their number
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import torch

from tesseral.potentials.engine.packing import packed_weights
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.compiled import VERSION

ALIGNMENT = 64


def weights_bytes(potential: MessagePassing) -> bytes:
    """The block of a potential for which ``packing.can_pack`` is true."""
    packed = packed_weights(potential)
    parts = packed.parts
    data = bytearray(ALIGNMENT)
    places: dict[int, int] = {}  # address in this process -> offset in the block
    for part in parts:
        address, size = _extent(part)
        places[address] = len(data)
        data += ctypes.string_at(address, size)
        data += bytes(-len(data) % ALIGNMENT)
    pointers = [place for part in parts for place in _pointers(part, places)]
    for place in pointers:
        (address,) = struct.unpack_from("<q", data, place)
        struct.pack_into("<q", data, place, places[address])
    listed = len(data)
    data += struct.pack(f"<{len(pointers)}q", *pointers)
    number = potential.embedding.element_size()
    numbers = VERSION, number, places[ctypes.addressof(packed.struct)], listed, len(pointers)
    struct.pack_into("<8s5q", data, 0, b"tesseral", *numbers)
    return bytes(data)


def _extent(part: Any) -> tuple[int, int]:
    """Address and bytes of a tensor, an array of structs or a struct."""
    if isinstance(part, torch.Tensor):
        return part.data_ptr(), part.numel() * part.element_size()
    return ctypes.addressof(part), ctypes.sizeof(part)


def _pointers(part: Any, places: dict[int, int]) -> list[int]:
    """Offsets in the block of the non-null pointers of a struct or an array of structs."""
    if isinstance(part, torch.Tensor):
        return []
    found = []
    for each in part if isinstance(part, ctypes.Array) else [part]:
        offset = places[ctypes.addressof(part)] + ctypes.addressof(each) - ctypes.addressof(part)
        for name, kind in each._fields_:
            if kind is ctypes.c_void_p or hasattr(kind, "contents"):
                value = getattr(each, name)
                if value:
                    found.append(offset + getattr(type(each), name).offset)
    return found
