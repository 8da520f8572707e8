"""Numbers of atoms that a text file announces, compared with its size before it is read.

ASE's readers reserve memory for them, or look for as many lines, before they find the file's end.
"""

from __future__ import annotations

from ase.io.formats import filetype, open_with_compression

FORMATS = ("vasp",)  # the counts are on lines of whole numbers; our reader of xyz checks its own
DIGITS = 18  # of a whole number that fits 64 bits


def check_announced(path: str, form: str | None = None) -> None:
    """Reject a file that announces more atoms than it has bytes.

    Args:
        path: the file, plain or compressed.
        form: its format as ASE names it. Default: detected.

    Raises:
        ValueError: the file announces too many atoms; the message names the line.
        ase.io.formats.UnknownFileTypeError: the format is not recognised.
    """
    if (form or filetype(path)) not in FORMATS:
        return
    size = largest = place = 0
    with open_with_compression(path, "rb") as file:
        for number, line in enumerate(file, 1):
            size += len(line)
            words = line.split()
            if words and all(map(bytes.isdigit, words)):
                count = max(int(word[:DIGITS]) for word in words)
                if count > largest:
                    largest, place = count, number
    if largest > size:
        raise ValueError(f"line {place} announces {largest} atoms, but the file has {size} bytes")
