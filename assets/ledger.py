"""Which source files were ever accepted: one JSON line each, appended, never rewritten.

A file is known by the SHA-256 of its bytes, so a redelivery under another name is no new file. The ledger says when
things were first seen, and so stays out of every content hash. A file may be withdrawn by another line, and accepted again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from models.home import Home


@dataclass(frozen=True)
class Entry:
    """One file: content hash, path when first seen, when that was, and why it no longer counts (None: it does)."""

    file: str
    name: str
    first_seen: datetime
    withdrawn: str | None = None


def read(home: Home) -> dict[str, Entry]:
    """Every file ever accepted, by content hash, in the order first seen. A line that a kill cut off is not there."""
    entries: dict[str, Entry] = {}
    if not home.ledger.is_file():
        return entries
    for line in home.ledger.read_bytes().split(b"\n")[:-1]:
        record = json.loads(line) if line.endswith(b"}") else {}
        if not record:
            continue
        known = entries.get(record["file"])
        if "withdrawn" in record:
            if known:
                entries[known.file] = replace(known, withdrawn=record["why"])
        elif known:
            entries[known.file] = replace(known, withdrawn=None)
        else:
            entries[record["file"]] = Entry(record["file"], record["name"], datetime.fromisoformat(record["first_seen"]))
    return entries


def active(home: Home) -> list[Entry]:
    """The files whose rows count, ordered by content hash: the order of their arrival must not matter."""
    return sorted((e for e in read(home).values() if e.withdrawn is None), key=lambda e: e.file)


def accept(home: Home, file: str, name: str, seen: datetime) -> Entry:
    """The file's entry; a line is appended when it is new, or was withdrawn."""
    known = read(home).get(file)
    if known is None or known.withdrawn is not None:
        _append(home, {"file": file, "name": name, "first_seen": seen.isoformat()})
        known = read(home)[file]
    return known


def withdraw(home: Home, file: str, why: str, seen: datetime) -> None:
    """Let the file's rows count no more; `accept` undoes it."""
    _append(home, {"file": file, "withdrawn": seen.isoformat(), "why": why})


def _append(home: Home, record: dict[str, Any]) -> None:
    home.ledger.parent.mkdir(parents=True, exist_ok=True)
    with home.ledger.open("ab+") as file:
        file.seek(max(file.tell() - 1, 0))
        cut = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * cut + json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
