"""Append-only JSON lines, one file a process: a line is written whole and at once, so it survives a killed process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Lines:
    """The file `<started>-<pid>.jsonl` in `folder`; it is made with its first line, so an idle process leaves none."""

    def __init__(self, folder: Path, started: int) -> None:
        self.path = folder / f"{started}-{os.getpid()}.jsonl"
        self._encoder = msgspec.json.Encoder()

    def append(self, record: Any) -> None:
        line = self._encoder.encode(record) + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Opened for each line (20 µs): a file that was landed and removed meanwhile is made again, not written to unseen.
        with self.path.open("ab", buffering=0) as file:
            file.write(line)


def read(folder: Path, kind: type[T]) -> Iterator[T]:
    """Every record of every process, file by file; the half of a line that a kill left is none.

    Raises ValueError, naming file and line, for a line that is whole and of another kind.
    """
    decoder = msgspec.json.Decoder(kind)
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            if line.endswith(b"\n"):
                try:
                    yield decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise ValueError(f"{path}, line {number}: {error}; mend the line, or move the file away") from None
