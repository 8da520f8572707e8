"""File that HDF5 can write to on a full disk."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any


class CheckedFile(io.RawIOBase):
    """New file for HDF5, which hides some errors of writing and crashes after others.

    The first error of a write is kept, and from then on the content is written to memory only, so
    that HDF5 can close the file. Ctrl-C must be delayed while HDF5 works, since an exception in
    these methods is also an error of writing to it.

    Attributes:
        error: first error of a write; None so far.
    """

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            OSError: the file cannot be created.
        """
        self.error: OSError | None = None
        self._file = io.FileIO(path, "w+")
        self._place = 0
        self._unwritten: list[tuple[int, bytes]] = []  # in the order of the writes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the place of the next operation."""
        if whence == os.SEEK_END:
            ends = [start + len(content) for start, content in self._unwritten]
            offset += max([self._file.seek(0, os.SEEK_END), *ends])
        elif whence == os.SEEK_CUR:
            offset += self._place
        self._place = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        """Read; bytes that were never written are zero."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._place)
        content = bytearray(self._file.read(len(view)).ljust(len(view), b"\0"))
        for start, part in self._unwritten:
            low, high = max(start, self._place), min(start + len(part), self._place + len(view))
            if low < high:
                content[low - self._place : high - self._place] = part[low - start : high - start]
        view[:] = content
        self._place += len(view)
        return len(view)

    def write(self, content: Any) -> int:
        """Write, or keep the error and the content."""
        view = memoryview(content).cast("B")
        try:
            if self.error is None:
                self._file.seek(self._place)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:])
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._unwritten.append((self._place, bytes(view)))
        self._place += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file; default: the place of the next operation."""
        size = self._place if size is None else size
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def close(self) -> None:
        """Close the file; `check` still gives the error."""
        self._file.close()
        super().close()

    def check(self) -> None:
        """Raise the first error, if there was one.

        Raises:
            OSError: a part of the content could not be written.
        """
        if self.error is not None:
            raise self.error
