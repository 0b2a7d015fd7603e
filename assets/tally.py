"""A day of events in a few numbers, kept in its manifest: later days are compared with them, and no row is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from assets import validation
from models.contract import Contract

REQUIRED = ("user", "time", "item", "behaviour")
"""Never null: a row without one of them is in the quarantine."""


def measure(con: Backend, path: Path, contract: Contract) -> dict[str, Any]:
    """{"newest": epoch ms or None, "columns": {name: {…}}} of the events partition at `path`, in one pass of the engine.

    Per column those of `nulls` (rows), `distinct` (approximate: HyperLogLog), `low` and `high` that mean something for it:
    nulls where it may be null, the others where it is a whole number, and no range where a number stands for a text.
    """
    rows = con.read_parquet(path, hive_partitioning=False)
    wanted: dict[tuple[str, str], ir.Scalar] = {}
    texts = contract.text_columns
    hashed = {column for name in texts for column in _columns(contract, name)}
    for name, kind in validation.kept(contract).items():
        if name in texts.values():
            continue
        column = rows[name]
        if name not in REQUIRED:
            wanted[name, "nulls"] = column.isnull().sum()
        if kind.is_integer() and name != "time":
            wanted[name, "distinct"] = column.approx_nunique()
            if name not in hashed:
                wanted |= {(name, "low"): column.min(), (name, "high"): column.max()}
    told = rows.aggregate(newest=rows.time.max(), **{f"{name} {what}": value for (name, what), value in wanted.items()})
    [found] = told.to_pyarrow().to_pylist()
    columns: dict[str, dict[str, int | None]] = {}
    for name, what in wanted:
        value = found[f"{name} {what}"]
        columns.setdefault(name, {})[what] = 0 if value is None and what == "nulls" else value
    return {"newest": found["newest"], "columns": columns}


def _columns(contract: Contract, name: str) -> list[str]:
    return validation.columns_of(name, contract.features[name]) if name in contract.features else [name]
