"""The prediction inbox → one partition a local day: every item that a running service ranked, with what the model saw.

The services append JSON lines rather than Parquet: a flushed line survives a killed process, a Parquet writer's buffer does
not. So the last line of a file may be cut off; it is left out and counted. A request id counts once, whichever file tells it.
One reading of the whole inbox serves any day; a day is rebuilt only when its own lines change.
"""

import hashlib
from pathlib import Path
from typing import Any

import dagster as dg
import ibis
import pyarrow.parquet as pq

from assets import columns, lake
from assets.histories import write
from assets.project import Project, explained
from models.contract import Contract
from models.home import Home

CODE = ("assets/predictions.py", "assets/histories.py")
SECTIONS = ("time", "columns", "item_features", "user_features", "context", "behaviours", "tasks")
LONGEST_LINE = 64 << 20
"""Bytes; a request of 1,000 items takes well under one MiB."""

OWN = ("request_id", "time", "model", "user", "item", "place", "rank", "score", "unknown_user", "unknown_items")
"""Columns that are neither a feature nor named after a task or an action."""


def land(home: Home, contract: Contract, day: str) -> tuple[lake.Manifest, bool]:
    """The predictions partition of local day `day`; (manifest, whether work was done).

    One row per (request, item): `OWN`, the item, user and context fields as raw keys, p_<task> and history_length_<action>.
    `place` is the item's position in the request, from 0; `rank` that in the ranking, from 1. Sorted by (time, request_id,
    place). Counts: requests, items (as the lines tell them), rows (as written), duplicates (lines of this day whose request was
    told before) and, of the whole inbox, left_out (lines cut off or of another format: they have no day).
    """
    lines, left_out = _lines(home, contract)
    if lines is not None:
        lines = lines.filter(lines.time >= contract.day_start(day), lines.time < contract.day_end(day))
        told = lines.select("request_id", "line", items=lines.item.length()).order_by("line").to_pyarrow().to_pylist()
    else:
        told = []
    digest = hashlib.sha256("\n".join(t["line"] for t in told).encode()).hexdigest()

    def make(path: Path) -> dict[str, Any]:
        table = (
            _rows(contract, lines).to_pyarrow()
            if lines is not None
            else ibis.schema(_schema(contract)).to_pyarrow().empty_table()
        )
        write(table, path)
        items = {t["request_id"]: t["items"] for t in told}
        counts = {
            "requests": len(items),
            "items": sum(items.values()),
            "rows": len(table),
            "duplicates": len(told) - len(items),
        }
        return {"counts": counts | {"left_out": left_out}}

    return lake.build(
        home, "predictions", day, home.predictions(day), make,
        inputs={"lines": digest, "left_out": str(left_out)}, code=lake.code_hash(*CODE), contract=contract.digest(*SECTIONS),
    )  # fmt: skip


def _schema(contract: Contract) -> dict[str, str]:
    own = dict.fromkeys(OWN, "int64") | {
        "request_id": "string",
        "model": "string",
        "score": "float64",
        "unknown_user": "boolean",
    }
    features = (*contract.item_columns[1:], *contract.user_columns[1:], *contract.context_columns)
    return (
        own
        | dict.fromkeys(features, "int64")
        | {f"p_{t}": "float64" for t in contract.task_names}
        | {f"history_length_{a}": "int64" for a in contract.actions}
    )


def _columns(contract: Contract) -> list[str]:
    features = (*contract.item_columns[1:], *contract.user_columns[1:], *contract.context_columns)
    measured = (*(f"p_{t}" for t in contract.task_names), *(f"history_length_{a}" for a in contract.actions))
    return [*OWN, *features, *measured]


def _lines(home: Home, contract: Contract) -> tuple[Any, int]:
    """(the inbox's whole lines as a table with the parsed fields and their text, None for an empty inbox; others, counted)."""
    files = [str(p) for p in sorted(home.prediction_inbox.glob("*.jsonl")) if p.stat().st_size]
    if not files:
        return None, 0
    struct = "STRUCT({})".format
    probability = struct(", ".join(f'"{t}" DOUBLE[]' for t in contract.task_names))
    history = struct(", ".join(f'"{a}" BIGINT' for a in contract.actions))
    fields = {
        "request_id": "VARCHAR", "time": "BIGINT", "logged": "BIGINT", "model": "VARCHAR", "user": "BIGINT",
        "user_features": "BIGINT[]", "item": "BIGINT[]", "item_features": "BIGINT[][]", "context": "BIGINT[][]",
        "score": "DOUBLE[]", "probability": probability, "history_length": history,
        "unknown_user": "BOOLEAN", "unknown_items": "BIGINT",
    }  # fmt: skip
    # What does not parse, a line cut off by a kill above all, comes back as a row of nulls.
    backend = lake.engine()
    parsed = backend.read_json(
        files, columns=fields, format="newline_delimited", ignore_errors=True, maximum_object_size=LONGEST_LINE
    )
    items = parsed.item.length()
    aligned = [parsed[name].length() == items for name in ("score", "item_features", "context")]
    aligned += [parsed.probability[task].length() == items for task in contract.task_names]
    aligned.append(parsed.user_features.length() == len(contract.user_columns) - 1)
    kept = [
        parsed[name].notnull() for name in ("request_id", "time", "logged", "model", "user", "unknown_user", "unknown_items")
    ]
    whole = ibis.and_(*kept, *aligned).fill_null(False)
    text = ibis.struct({n: parsed[n] for n in fields}).cast("json").cast("string")
    parsed = backend.create_table("inbox", parsed.mutate(whole=whole, line=text))
    left_out = int(parsed.filter(~parsed.whole).count().execute())
    return parsed.filter(parsed.whole), left_out


def _rows(contract: Contract, lines: Any) -> Any:
    """One row per (request, item) of whole lines, each request id once: the line that was logged first."""
    first = ibis.row_number().over(group_by="request_id", order_by=["logged", "line"])
    once = lines.mutate(telling=first).filter(lambda t: t.telling == 0)
    rows = once.mutate(place=ibis.range(0, once.item.length())).unnest("place")
    rows = rows.mutate(
        rank=ibis.row_number().over(group_by="request_id", order_by=[ibis.desc(rows.score[rows.place]), "place"]) + 1
    )
    per_item = {n: rows.item_features[rows.place][i] for i, n in enumerate(contract.item_columns[1:])}
    per_item |= {n: rows.context[rows.place][i] for i, n in enumerate(contract.context_columns)}
    per_item |= {f"p_{t}": rows.probability[t][rows.place] for t in contract.task_names}
    per_user = {n: rows.user_features[i] for i, n in enumerate(contract.user_columns[1:])}
    per_user |= {f"history_length_{a}": rows.history_length[a] for a in contract.actions}
    own = {n: rows[n] for n in OWN if n not in ("item", "score")}
    own |= {"item": rows.item[rows.place], "score": rows.score[rows.place]}
    out = rows.select(**own, **per_item, **per_user)
    schema = _schema(contract)
    return out.select(**{n: out[n].cast(schema[n]) for n in _columns(contract)}).order_by(["time", "request_id", "place"])


def accounted(home: Home, day: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """((rows, requests) that the day's lines told, those in its file as it lies on disk)."""
    counts = lake.require(home, "predictions", day).counts
    ids = pq.read_table(home.predictions(day), columns=["request_id"], partitioning=None).column("request_id")
    return (counts["items"], counts["requests"]), (len(ids), len(ids.unique()))


@dg.asset(kinds={"duckdb", "parquet"}, description="What the running services ranked, from their inbox, by local day.")
def predictions(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[None]:
    home, contract = project.home, project.terms
    with explained():
        landed = [land(home, contract, day) for day in context.partition_keys]
    totals = {name: sum(m.counts[name] for m, _ in landed) for name in ("requests", "rows", "duplicates")}
    left_out = max(m.counts["left_out"] for m, _ in landed)
    last = columns.shown(contract, home.predictions(context.partition_keys[-1]))
    return dg.MaterializeResult(
        metadata={"recomputed": sum(done for _, done in landed), **totals, "left_out": left_out, **last}
    )


@dg.asset_check(asset=predictions, description="Every item of every request that the inbox tells is one row on disk.")
def rows_accounted_for(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    found = [accounted(project.home, day) for day in context.partition_keys]
    expected, actual = ([sum(part) for part in zip(*side, strict=True)] for side in zip(*found, strict=True))
    metadata = dict(zip(("expected_rows", "expected_requests"), expected, strict=True))
    metadata |= dict(zip(("actual_rows", "actual_requests"), actual, strict=True))
    remedy = "the file of a day is not what the inbox tells; materialise predictions of it again"
    return dg.AssetCheckResult(passed=expected == actual, metadata=metadata, description=None if expected == actual else remedy)
