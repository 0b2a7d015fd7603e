"""Events → histories: per day, what each user did, by action, in the order that a sequence model reads it.

One small file a day, never rewritten when a window moves: `models.window` merges the days it needs. In an exposure log
an action is known only once its horizon has passed, so it enters the history at that moment and not at the impression.
"""

from datetime import date, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import dagster as dg
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets import columns, lake
from assets.project import Project, explained
from models.contract import Contract
from models.home import EARLIER_DAY, Home
from models.keys import number_keys
from models.requests import NULL_KEY
from models.sections import parse_condition

HALF_DAY_MS = 43_200_000
CODE = ("assets/histories.py",)
SECTIONS = ("shape", "time", "calendar", "columns", "item_features", "behaviours")


def build(home: Home, contract: Contract, day: str) -> tuple[lake.Manifest, bool]:
    """The histories partition of one day (or of `earlier`); (manifest, whether work was done).

    Raises lake.Missing or lake.Blocked when the events it reads may not be read.
    """
    days = _source_days(home, contract, day)
    inputs = {f"events/{d}": lake.require(home, "events", d).content for d in days}

    def make(path: Path) -> dict[str, Any]:
        backend = lake.engine()
        events = reduce(ibis.union, [backend.read_parquet(home.events(d)) for d in days])
        actions = _actions(contract, day, events)
        if day != EARLIER_DAY:
            actions = actions.filter(actions.time >= contract.day_start(day), actions.time < contract.day_end(day))
        else:
            actions = actions.filter(actions.time < contract.day_start(contract.calendar.first_day))
        table = actions.order_by(["action", "user", "time", *contract.item_columns]).to_pyarrow()
        write(keyed(contract, table), path)
        counts = table.column("action").value_counts().to_pylist()
        return {"counts": dict.fromkeys(contract.actions, 0) | {contract.actions[c["values"]]: c["counts"] for c in counts}}

    return lake.build(
        home, "histories", day, home.histories(day), make,
        inputs=inputs, code=lake.code_hash(*CODE), contract=contract.digest(*SECTIONS),
    )  # fmt: skip


def write(table: pa.Table, path: Path) -> None:
    """Parquet whose bytes depend on the rows alone: no metadata, and no column 'required' because a plan happened to know."""
    schema = pa.schema([pa.field(f.name, f.type) for f in table.schema])
    pq.write_table(table.cast(schema), path, compression="zstd", row_group_size=1 << 20)


def filled(column: Any) -> Any:
    """A feature column of `events` with no nulls, in an order in which they come first, as NULL_KEY does."""
    return column.fill_null(float("-inf") if column.type().is_floating() else NULL_KEY)


def keyed(contract: Contract, table: pa.Table) -> pa.Table:
    """The same with keys for the measures of `filled` features."""
    for place, name in enumerate(table.column_names):
        if name in contract.features and contract.kind(name) == "number":
            values = table.column(name).to_numpy()
            keys = number_keys(np.where(np.isneginf(values), np.nan, values))
            table = table.set_column(place, name, pa.array(keys))
    return table


def _source_days(home: Home, contract: Contract, day: str) -> list[str]:
    """The event partitions whose actions become known within `day`."""
    if day == EARLIER_DAY:
        return [EARLIER_DAY]
    delay = timedelta(hours=max(b.horizon_hours for b in contract.behaviours.values()))
    first = contract.day_of(contract.day_start(day) - round(delay.total_seconds() * 1000))
    days = contract.days(date.fromisoformat(day))
    reached = [d for d in days if d >= str(first)]
    before = [EARLIER_DAY] if first < contract.calendar.first_day and home.events(EARLIER_DAY).is_file() else []
    return before + reached


def _actions(contract: Contract, day: str, events: Any) -> Any:
    """One row an action: action index, user, time at which it is known, item and item features (NULL_KEY for null)."""
    kept = {n: filled(events[n]) for n in contract.item_columns[1:]}
    parts = []
    for index, (name, behaviour) in enumerate(contract.behaviours.items()):
        happened = events.behaviour == name if behaviour.when is None else holds(events, behaviour.when)
        known = _later(contract, day, events.time, behaviour.horizon_hours)
        parts.append(
            events.filter(happened).select(action=ibis.literal(index, "int8"), user="user", time=known, item="item", **kept)
        )
    return ibis.union(*parts)


def _later(contract: Contract, day: str, time: Any, hours: float) -> Any:
    """When what happened at `time`, and may be known by `day`, is known: after `hours`, as `Contract.wait_ms` has it."""
    if contract.time.resolution != "day" or not hours:
        return time + round(hours * 3_600_000)
    first, later = contract.calendar.accept_from or contract.calendar.first_day, int(hours // 24)
    last = contract.calendar.first_day if day == EARLIER_DAY else date.fromisoformat(day)
    starts = [contract.day_start(first + timedelta(days=n)) for n in range((last - first).days + later + 1)]
    place = (time - starts[0] + HALF_DAY_MS) // (2 * HALF_DAY_MS)  # times are midnights, and days nearly of 24 hours
    return ibis.literal(starts, type="array<int64>")[place + later]


def holds(events: Any, condition: str) -> Any:
    """A contract's condition as a boolean column of `events`; false where the column is null."""
    column, operator, number = parse_condition(condition)
    value = events[column]
    compare = {">=": value >= number, "<=": value <= number, "==": value == number, "!=": value != number,
               ">": value > number, "<": value < number}  # fmt: skip
    return compare[operator].fill_null(False)


@dg.asset(deps=["events"], kinds={"duckdb", "parquet"}, description="Per action, what each user did, ordered by (user, time).")
def histories(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
    home, contract = project.home, project.terms
    with explained():
        earlier = [EARLIER_DAY] if home.events(EARLIER_DAY).is_file() else []
        # A late file for an old day changes it long after its own run.
        days = dict.fromkeys([*earlier, *lake.to_renew(home, "histories"), *context.partition_keys])
        built = [build(home, contract, day) for day in days]
    last = columns.shown(contract, home.histories(context.partition_keys[-1]))
    return dg.MaterializeResult(metadata={"recomputed": sum(done for _, done in built), **_totals(built), **last})


def _totals(built: list[tuple[lake.Manifest, bool]]) -> dict[str, int]:
    names = dict.fromkeys(n for manifest, _ in built for n in manifest.counts)
    return {name: sum(manifest.counts.get(name, 0) for manifest, _ in built) for name in names}
