"""A contract over three Paris days, and what becomes of a file under it; for tests of what a row is worth."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from assets import ingest
from models.contract import Contract
from models.home import Home

SEEN = datetime(2024, 6, 1, tzinfo=UTC)
START = 1_704_063_600  # 2024-01-01 00:00 in Paris
DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")


def contract(**changes: Any) -> Contract:
    """Three Paris days of (user, item, category, behaviour, second); a change replaces a section's keys."""
    base: dict[str, Any] = {
        "name": "tiny",
        "shape": "events",
        "source": {"format": "csv", "header": False, "columns": ["u", "i", "c", "b", "t"]},
        "columns": {"user": "u", "item": "i", "behaviour": "b"},
        "time": {"column": "t", "kind": "epoch_s", "zone": "Europe/Paris"},
        "calendar": {"first_day": "2024-01-01", "last_day": "2024-01-03", "accept_from": "2023-12-31"},
        "item_features": {"category": "c"},
        "behaviours": {"view": {"values": ["pv"]}, "buy": {"values": ["buy", 3]}},
        "tasks": {"buy": {"behaviours": ["buy"], "horizon_hours": 24}},
        "validation": {"repeats": "duplicates", "max_bad_share": 1},
    }
    for section, keys in changes.items():
        base[section] = {**base.get(section, {}), **keys}
    return Contract.model_validate(base)


def quarantined(home: Home, *days: str) -> list[dict[str, Any]]:
    paths = [home.quarantine(day) for day in days]
    return [row for path in paths if path.is_file() for row in pq.ParquetFile(path).read().to_pylist()]


def events_of(home: Home, day: str) -> list[dict[str, Any]]:
    path = home.events(day)
    return pq.ParquetFile(path).read().to_pylist() if path.is_file() else []


def take_in(folder: Path, terms: Contract, data: bytes, name: str = "log.csv") -> tuple[Home, ingest.Accepted]:
    """A home below `folder` with one file of these bytes, the days that it has rows of built."""
    (folder / "in").mkdir(exist_ok=True)
    path = folder / "in" / name
    path.write_bytes(data)
    home = Home(folder / "home", terms.name)
    [accepted] = ingest.accept(home, terms, str(path), SEEN)
    for day in accepted.split.days:
        ingest.events(home, terms, day)
    return home, accepted
