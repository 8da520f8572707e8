"""Random damage to bytes, texts, values and nested values. Each function names what it did."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

Generator = np.random.Generator

NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[Ee][-+]?\d+)?")
WORDS = (  # in place of a number of a text
    *("1000000000", "99999999999999999999", "-1", "0", "49.99", "1e400", "-1e-300", "1e300"),
    *("nan", "inf", "-inf", "NaN", "*****", "", "x", "True", "1_0", "٣", "0x10", "1.2.3", "--1"),
)
VALUES: tuple[Any, ...] = (  # in place of a value of a JSON or YAML file
    *(None, True, False, "", "x", "1e9", "nan", -1, 0, 1, 2, 1.5, 49.99, 7, 1000, -0.5),
    *(10**9, 10**20, -(10**20), 1e308, 1e-308, float("nan"), float("inf"), -float("inf")),
    *([], {}, [[]], [1, 2, 3], [None], ["x"], {"x": 1}, [10**9], [0.5, -1], "x" * 300, "\ud800"),
)


def pick(rng: Generator, values: Any) -> Any:
    """One of several values of any type."""
    values = list(values)
    return values[int(rng.integers(len(values)))]


def damaged_bytes(rng: Generator, data: bytes) -> tuple[str, bytes]:
    """Bytes after bit flips, a cut, or the loss, repetition or overwriting of a block."""
    size = len(data)
    start = int(rng.integers(max(size, 1)))
    if rng.random() < 0.4:  # the beginning has the headers
        start = int(rng.integers(max(min(size, 4096), 1)))
    stop = min(size, start + int(rng.integers(1, 2 ** int(rng.integers(1, 13)))))
    what = pick(rng, ("flip", "flip", "flip", "cut", "zero", "ones", "lose", "repeat", "noise"))
    block = data[start:stop]
    if what == "flip":
        mutable, flips = bytearray(data), int(rng.integers(1, 9))
        for place in rng.integers(start, max(stop, start + 1), size=flips):
            if place < size:
                mutable[int(place)] ^= 1 << int(rng.integers(8))
        return f"{flips} bits flipped from byte {start} on", bytes(mutable)
    if what == "cut":
        return f"cut at byte {start} of {size}", data[:start]
    replacements = {
        "zero": bytes(len(block)),
        "ones": b"\xff" * len(block),
        "lose": b"",
        "repeat": block * 2,
        "noise": rng.integers(0, 256, size=len(block), dtype=np.uint8).tobytes(),
    }
    return f"{what}: bytes {start} to {stop}", data[:start] + replacements[what] + data[stop:]


def _number(rng: Generator, text: bytes) -> tuple[str, bytes]:
    found = list(NUMBER.finditer(text))
    if not found:
        return "nothing", text
    # Counts are in the first lines of most formats.
    one = pick(rng, pick(rng, (found, found, found[:40], found[:6])))
    word = "1000000000" if rng.random() < 0.15 else pick(rng, WORDS)
    return f"{one[0].decode()} at {one.start()} replaced by {word!r}", (
        text[: one.start()] + word.encode() + text[one.end() :]
    )


def _swap(rng: Generator, text: bytes) -> tuple[str, bytes]:
    found = list(NUMBER.finditer(text))
    if len(found) < 2:
        return "nothing", text
    i, j = sorted(int(k) for k in rng.choice(len(found), 2, replace=False))
    one, two = found[i], found[j]
    middle = text[one.end() : two.start()]
    joined = text[: one.start()] + two[0] + middle + one[0] + text[two.end() :]
    return f"{one[0].decode()} at {one.start()} and {two[0].decode()} swapped", joined


def _digit(rng: Generator, text: bytes) -> tuple[str, bytes]:
    digits = [m.start() for m in re.finditer(rb"\d", text)]
    if not digits:
        return "nothing", text
    at = pick(rng, digits)
    new = b"%d" % rng.integers(10)
    return f"digit at {at} is {new.decode()}", text[:at] + new + text[at + 1 :]


def _lines(rng: Generator, text: bytes) -> tuple[str, bytes]:
    lines = text.splitlines(keepends=True)
    if not lines:
        return "nothing", text
    at = int(rng.integers(len(lines)))
    many = min(len(lines) - at, int(rng.integers(1, 2 ** int(rng.integers(1, 7)))))
    what = pick(rng, ("delete", "delete", "delete", "repeat", "swap", "blank", "join", "shuffle"))
    part = lines[at : at + many]
    if what == "delete":
        part = []
    elif what == "repeat":
        part = part * 2
    elif what == "blank":
        part = [b"\n", *part]
    elif what == "join":
        part = [line.rstrip(b"\r\n") for line in part]
    elif what == "swap":
        other = int(rng.integers(len(lines)))
        lines[at], lines[other] = lines[other], lines[at]
        return f"lines {at} and {other} swapped", b"".join(lines)
    else:
        part = [part[int(k)] for k in rng.permutation(len(part))]
    return f"{what}: {many} lines from {at}", b"".join([*lines[:at], *part, *lines[at + many :]])


def _words(rng: Generator, text: bytes) -> tuple[str, bytes]:
    words = list(re.finditer(rb"\S+", text))
    if not words:
        return "nothing", text
    one = pick(rng, words)
    new = pick(rng, (b"", b"x", b"\xff\xfe", b"\x00", b"<", b'"', b"{", b"=", b"\xc3\xa9"))
    what = f"word {one[0][:30]!r} at {one.start()} replaced by {new!r}"
    return what, text[: one.start()] + new + text[one.end() :]


def _encoding(rng: Generator, text: bytes) -> tuple[str, bytes]:
    what = pick(rng, ("utf-16", "cr", "nul", "bom", "empty", "blank", "long", "latin"))
    at = int(rng.integers(len(text) + 1))
    made = {
        "utf-16": text.decode("utf-8", "replace").encode("utf-16"),
        "cr": text.replace(b"\n", b"\r"),
        "nul": text[:at] + bytes(16) + text[at:],
        "bom": b"\xef\xbb\xbf" + text,
        "empty": b"",
        "blank": b"\n \n",
        "long": text[:at] + b"9" * 20000 + text[at:],
        "latin": text[:at] + b"\xe9\xff" + text[at:],
    }
    return f"{what} at {at}", made[what]


def damaged_text(rng: Generator, text: bytes) -> tuple[str, bytes]:
    """Text after damage to its numbers, words, lines, encoding or bytes."""
    kinds: list[Callable[[Generator, bytes], tuple[str, bytes]]]
    kinds = [_number, _number, _number, _swap, _digit, _lines, _lines, _words, _encoding]
    return pick(rng, [*kinds, damaged_bytes])(rng, text)


def damaged_value(rng: Generator, value: Any) -> tuple[str, Any]:
    """Another value in place of a value: of another type, or too large, or slightly different."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.4:
        factor = pick(rng, (-1, 0.5, 2, 10, 1000, 1e6, 1e-6, 1.01))
        new: Any = type(value)(value * factor)
    elif isinstance(value, list) and value and rng.random() < 0.5:
        new = list(value)
        new = pick(rng, (new[:-1], [*new, new[-1]], new[::-1], [new], [*new[:-1], None]))
    elif isinstance(value, str) and value and rng.random() < 0.4:
        new = pick(rng, (value[:-1], value + "x", value.upper(), value * 20))
    else:
        new = pick(rng, VALUES)
    shown = repr(new)
    return f"{shown[:40]} in place of {repr(value)[:40]}", new


def damaged_tree(rng: Generator, tree: Any) -> tuple[str, Any]:
    """Nested mappings and lists after one change somewhere in them."""
    tree = copy.deepcopy(tree)
    nodes: list[tuple[str, Any, Any]] = []  # path, container, key

    def visit(node: Any, path: str) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            nodes.append((f"{path}.{key}", node, key))
            if isinstance(value, (dict, list)):
                visit(value, f"{path}.{key}")

    visit(tree, "")
    if not nodes or rng.random() < 0.03:
        return damaged_value(rng, tree)
    path, container, key = pick(rng, nodes)
    what = pick(rng, ("value", "value", "value", "value", "delete", "add"))
    if what == "delete":
        del container[key]
        return f"{path[1:]} deleted", tree
    if what == "add":
        value = pick(rng, VALUES)
        if isinstance(container, dict):
            container[f"{key}_"] = value
        else:
            container.insert(key, value)
        return f"{value!r:.40} added at {path[1:]}", tree
    done, container[key] = damaged_value(rng, container[key])
    return f"{path[1:]}: {done}", tree


def damaged_json(rng: Generator, text: str) -> tuple[str, str]:
    """JSON with one changed value, or damaged as a text."""
    if rng.random() < 0.15:
        what, data = damaged_text(rng, text.encode())
        return what, data.decode("utf-8", "replace")
    what, tree = damaged_tree(rng, json.loads(text))
    return what, json.dumps(tree)
