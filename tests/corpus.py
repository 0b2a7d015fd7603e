"""All broken files, taken in by the real path, and what came of them; `python -m tests.corpus` prints the counts."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from assets import ingest
from models.home import Home
from tests import broken_text
from tests.broken_file import File, Rows
from tests.broken_parquet import parquets
from tests.damaged_log import DAYS, SEEN, contract, events_of, quarantined

EVERY_DAY = ("unknown", "earlier", *DAYS)


@cache
def files() -> dict[str, File]:
    """Every file by its name."""
    return {made.name: made for group in (*broken_text.GROUPS, parquets) for made in group()}


@dataclass(frozen=True)
class Came:
    """What came of a file: the counts, the quarantined rows; and of all files of its contract, (item, user) of every event."""

    rows: int
    valid: int
    bad: list[dict[str, Any]]
    events: Rows


def ingested(folder: Path) -> dict[str, Came]:
    """All files taken in, those of one contract as one folder, by the real path: accept, events, quarantine."""
    groups: dict[str, list[File]] = {}
    for made in files().values():
        groups.setdefault(json.dumps(made.changes, sort_keys=True), []).append(made)
    found: dict[str, Came] = {}
    for place, group in enumerate(groups.values()):
        terms, source = contract(**group[0].changes), folder / f"in {place}"
        home = Home(folder / f"home {place}", terms.name)
        source.mkdir()
        for n, made in enumerate(group):
            (source / f"{n:03} {made.file}").write_bytes(made.data)
        accepted = {a.name: a for a in ingest.accept(home, terms, f"{source}/*", SEEN)}
        for day in {day for a in accepted.values() for day in a.split.days}:
            ingest.events(home, terms, day)
        rows = Counter((row["item"], row["user"]) for day in ("earlier", *DAYS) for row in events_of(home, day))
        bad = quarantined(home, *EVERY_DAY)
        for n, made in enumerate(group):
            name = str(source / f"{n:03} {made.file}")
            split = accepted[name].split
            found[made.name] = Came(split.rows_in, split.rows_valid, [r for r in bad if r["file"] == name], rows)
    return found


def table(came: dict[str, Came]) -> str:
    """A line a file: rows in, valid, quarantined by rule; and the sums."""
    rules = Counter[str]()
    lines = [f"{'file':64} {'rows in':>8} {'valid':>8} {'quarantined':>12}"]
    for name, one in came.items():
        own = Counter(row["rule"] for row in one.bad)
        rules.update(own)
        told = ", ".join(f"{rule} {n}" for rule, n in sorted(own.items()))
        lines.append(f"{name:64} {one.rows:>8,} {one.valid:>8,} {len(one.bad):>12,}  {told}")
    total = (sum(c.rows for c in came.values()), sum(c.valid for c in came.values()), sum(rules.values()))
    lines.append(f"{f'{len(came)} files':64} {total[0]:>8,} {total[1]:>8,} {total[2]:>12,}  {dict(sorted(rules.items()))}")
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(table(ingested(Path(scratch))))
