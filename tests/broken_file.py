"""A broken file written out: its bytes, and what must become of every line of it.

What is expected is written beside the bytes, line by line, and knows nothing of the reader. A good row carries a number of
its own as its item, so that the events say which lines they came from.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.damaged_log import START

COLUMNS = ("u", "i", "c", "b", "t")
Rows = Counter[tuple[int, int]]
"""(item, user) of each valid row."""
NUMBERS = count(1)


@dataclass(frozen=True)
class Dialect:
    """One way of writing rows as text."""

    name: str
    source: dict[str, Any]
    mark: str | None = None
    """What stands between fields; None: JSON lines."""
    header: bool = False

    def written(self, fields: tuple[str, ...]) -> bytes:
        if self.mark is None:
            return json.dumps(dict(zip(COLUMNS, fields, strict=True)), ensure_ascii=False).encode()
        return self.mark.join(fields).encode()

    def good(self, number: int) -> bytes:
        return self.written(("1", str(number), "3", "pv", str(START + number)))

    @property
    def head(self) -> list[Line]:
        return [Line(self.mark.join(COLUMNS).encode(), skipped=True)] if self.header and self.mark else []


CSV = Dialect("csv", {"header": False}, ",")
HEADED = Dialect("csv with header", {"header": True, "columns": ()}, ",", header=True)
TSV = Dialect("tsv", {"header": False, "delimiter": "\t"}, "\t")
JSONL = Dialect("json lines", {"format": "jsonl", "columns": ()})
TEXTS = (CSV, HEADED, TSV, JSONL)
CELLS = (CSV, HEADED, TSV)


@dataclass(frozen=True)
class Line:
    """A physical line: its bytes, how it ends, the rule that it breaks, and what the detail must say (a regular expression)."""

    data: bytes
    rule: str | None = None
    says: str = ""
    end: bytes = b"\n"
    item: int = 0
    user: int = 1
    skipped: bool = False
    """No row: blank, or a header."""

    @property
    def raw(self) -> str:
        return self.data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")[:4000]


@dataclass(frozen=True)
class Bad:
    """A row that must be quarantined: its place, rule, raw text, and what its detail must say."""

    place: int | None
    rule: str
    raw: str | None
    says: str = ""


@dataclass(frozen=True)
class File:
    """A file, the contract to read it under, and what must come of it: items of the valid rows, and the bad rows."""

    name: str
    data: bytes
    valid: Rows
    bad: list[Bad]
    changes: dict[str, Any] = field(default_factory=dict)
    file: str = "log.csv"

    @property
    def rows(self) -> int:
        return sum(self.valid.values()) + len(self.bad)


def good(d: Dialect, number: int, end: bytes = b"\n") -> Line:
    """A good row; `number` only tells the rows of one file apart for the reader of this page."""
    item = next(NUMBERS)
    return Line(d.good(item), end=end, item=item)


def file(name: str, d: Dialect, lines: list[Line], *, before: bytes = b"", end: bytes | None = None, **changes: Any) -> File:
    """The file of these lines; `end` is put at the end of each."""
    lines = [*d.head, *lines]
    data = before + b"".join(line.data + (line.end if end is None else end) for line in lines)
    bad = [Bad(n, x.rule, x.raw, x.says) for n, x in enumerate(lines, 1) if x.rule]
    valid = Counter((x.item, x.user) for x in lines if not x.rule and not x.skipped)
    source = {"source": {**d.source, **changes.pop("source", {})}}
    return File(f"{name} ({d.name})", data, valid, bad, {**source, **changes})


def refused(name: str, data: bytes, rule: str, says: str, d: Dialect | None = None, **more: Any) -> File:
    """A file of which no row can be used: one quarantined row stands for it."""
    own = {"changes": {"source": d.source}} if d else {}
    return File(name, data, Counter(), [Bad(None, rule, None, says)], **own, **more)
