"""Reading the members of a large JSON list or object one by one."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

CHUNK = 1 << 20  # initial number of characters read at a time
MAX_MEMBER = 1 << 30  # characters of one member


def iterate_json(path: str | os.PathLike[str]) -> Iterator[tuple[str | None, Any]]:
    """Members of the list or object in a JSON file, which may be gzipped.

    Only one member at a time is in memory.

    Args:
        path: the file.

    Yields:
        Key (None in a list) and value.

    Raises:
        ValueError: the file contains something else, or is invalid; the message says after which
            member.
    """
    name = Path(path)
    opened = gzip.open(name, "rt") if name.suffix == ".gz" else open(name, encoding="utf-8")
    with opened as file:
        yield from _Members(file, str(name))


class _Members:
    """Text file read in pieces, with the position in the current piece."""

    def __init__(self, file: TextIO, name: str) -> None:
        self.file, self.name = file, name
        self.text, self.place, self.count = "", 0, 0
        self.decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[tuple[str | None, Any]]:
        opening = self.next_character()
        if opening not in ("[", "{"):
            raise ValueError(f"{self.name} contains neither a JSON list nor a JSON object")
        closing = "]" if opening == "[" else "}"
        self.place += 1
        while (character := self.next_character()) != closing:
            if self.count and character == ",":
                self.place += 1
                self.next_character()
            elif self.count:
                raise self.broken("a comma is missing")
            key = None
            if opening == "{":
                key = self.value()
                if self.next_character() != ":":
                    raise self.broken("a colon is missing")
                self.place += 1
                self.next_character()
            yield key, self.value()
            self.count += 1

    def next_character(self) -> str:
        """The next character that is not a space."""
        while True:
            rest = self.text[self.place : self.place + 64].lstrip()
            if rest:
                self.place = self.text.index(rest[0], self.place)
                return rest[0]
            if self.place + 64 < len(self.text):
                self.place += 64
            elif not self.more(CHUNK):
                raise self.broken("the file ends too early")

    def value(self) -> Any:
        """Value that starts here."""
        size = CHUNK
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                if len(self.text) - self.place > MAX_MEMBER or not self.more(size):
                    raise self.broken(error.msg) from None
                size *= 2
                continue
            self.place = end
            return value

    def more(self, size: int) -> bool:
        """Read more, and drop the text already parsed."""
        piece = self.file.read(size)
        self.text, self.place = self.text[self.place :] + piece, 0
        return bool(piece)

    def broken(self, reason: str) -> ValueError:
        return ValueError(f"{self.name} is not valid JSON after member {self.count}: {reason}")
