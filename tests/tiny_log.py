"""A tiny event log for tests of ingest: one user, item, behaviour and second a row, four UTC days."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from assets import ingest, lake
from assets.lake import Manifest
from models.contract import Contract, load
from models.home import Home

SEEN = datetime(2024, 6, 1, tzinfo=UTC)
START = 1_704_067_200  # 2024-01-01 00:00 UTC
TOML = """
name = "tiny"
shape = "events"
[source]
format = "csv"
header = false
columns = ["u", "i", "b", "t"]
[columns]
user = "u"
item = "i"
behaviour = "b"
[time]
column = "t"
kind = "epoch_s"
[calendar]
first_day = 2024-01-01
last_day = 2024-01-04
accept_from = 2023-12-30
[behaviours.view]
values = ["pv"]
[tasks.view]
behaviours = ["view"]
horizon_hours = 24
[validation]
repeats = "REPEATS"
max_bad_share = LIMIT
"""
DAY1, DAY2, DAY3 = "2024-01-01", "2024-01-02", "2024-01-03"


def contract(folder: Path, repeats: str = "real", limit: float = 0.1) -> Contract:
    """One user, item, behaviour and second a row, four UTC days; written as the file that Dagster's resource reads."""
    path = folder / "tiny.toml"
    path.write_text(TOML.replace("REPEATS", repeats).replace("LIMIT", str(limit)))
    return load(path)


def row(day: int, user: int = 1, item: int = 1, second: int = 0) -> str:
    return f"{user},{item},pv,{START + (day - 1) * 86_400 + second}\n"


def home_of(folder: Path) -> Home:
    return Home(folder / "home", "tiny")


def put(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / "in" / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def run(
    folder: Path, terms: Contract, source: Path | None = None, home: Home | None = None
) -> dict[str, tuple[Manifest, bool]]:
    """Take in the folder `in` (or `source`) and build every day that has come."""
    home = home or home_of(folder)
    ingest.accept(home, terms, str(source or folder / "in"), SEEN)
    built = {}
    for day in ("earlier", *terms.days()):
        with suppress(lake.Missing):
            built[day] = ingest.events(home, terms, day)
    return built


def rebuilt(built: dict[str, tuple[Manifest, bool]]) -> set[str]:
    return {day for day, (_, worked) in built.items() if worked}


def rows_of(home: Home, day: str) -> list[dict[str, Any]]:
    return pq.ParquetFile(home.events(day)).read().to_pylist()  # type: ignore[no-any-return]


def bytes_of(home: Home, kind: str = "events") -> dict[str, bytes]:
    return {str(p.relative_to(home.lake)): p.read_bytes() for p in sorted((home.lake / kind).rglob("*.parquet"))}
