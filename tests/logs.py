"""Small logs for tests: contracts and event partitions written straight into a home, past ingest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets import lake
from models.contract import Contract
from models.home import Home

EVENTS: dict[str, Any] = {
    "name": "tiny",
    "shape": "events",
    "source": {"format": "csv"},
    "columns": {"user": "user", "item": "item", "behaviour": "behaviour"},
    "time": {"column": "time", "kind": "epoch_s", "zone": "Europe/Paris"},
    "calendar": {"first_day": "2026-03-27", "last_day": "2026-04-02"},  # holds the night when clocks go forward
    "item_features": {"category": "category"},
    "context": {"derived": ["hour", "weekday"]},
    "behaviours": {"view": {"values": ["view"], "length": 4}, "buy": {"values": ["buy"], "length": 2}},
    "tasks": {
        "click": {"behaviours": ["view"], "horizon_hours": 24},
        "buy": {"behaviours": ["buy"], "horizon_hours": 6, "given": "click"},
    },
    "histories": {"days": 3},
    "samples": {"negatives": 2},
}

EXPOSURES: dict[str, Any] = {
    **EVENTS,
    "name": "shown",
    "shape": "exposures",
    "columns": {"user": "user", "item": "item"},
    "context": {"derived": ["hour"], "columns": {"position": "position"}},
    "behaviours": {
        "view": {"when": "clicked", "length": 4},
        "buy": {"when": "stars >= 4", "length": 2, "horizon_hours": 30},
    },
    "tasks": {"click": {"label": "clicked"}, "buy": {"label": "stars >= 4", "horizon_hours": 30, "given": "click"}},
    "samples": {},
}

DATES: dict[str, Any] = {
    **EVENTS,
    "name": "dates",
    "time": {"column": "time", "kind": "date", "zone": "Europe/Paris"},
    "context": {"derived": ["weekday"]},
}


def contract(base: dict[str, Any], **changes: Any) -> Contract:
    return Contract.model_validate({**base, **changes})


def write_events(home: Home, terms: Contract, day: str, rows: list[dict[str, Any]], blocked: str | None = None) -> None:
    """One events partition with its manifest, as ingest would leave them."""
    names = (
        ["user", "time", "item"] + (["behaviour"] if terms.shape == "events" else []) + [*terms.features, *terms.label_columns]
    )
    kinds = {n: pa.string() if n == "behaviour" else pa.float64() if n in terms.label_columns else pa.int64() for n in names}
    ordered = sorted(rows, key=lambda r: [(r[n] is not None, r[n]) for n in names])
    table = pa.table({n: pa.array([r[n] for r in ordered], kinds[n]) for n in names})

    def make(path: Path) -> dict[str, Any]:
        pq.write_table(table, path)
        came = dict.fromkeys(("rows_in", "rows_valid", "events"), len(rows)) | {"rows_quarantined": 0, "merged": 0}
        return {"counts": came, "blocked": blocked}

    lake.build(
        home, "events", day, home.events(day), make, inputs={"rows": repr(rows), "blocked": str(blocked)}, code="", contract=""
    )
