"""Events → samples: who could have been shown what at which moment, and what followed.

Event log: a base row is the first event of a (user, item, day), at time t; a task is positive if one of its behaviours
occurs for the pair in [t, t + horizon], the base event included. Negatives take the positive's user, time and request, and
an item of the day that the user did not touch that day. Exposure log: a sample is an impression, with its label columns.
A label whose horizon outlasts the days that are waited for, where the clocks go forward, is masked (`Contract.known_before`).
The histories are not here: `models.window` finds each sample's place in them.
"""

from collections.abc import Sequence
from datetime import date
from functools import reduce
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assets import columns, lake
from assets.histories import filled, holds, keyed, write
from assets.project import Project, explained
from models.contract import Contract
from models.home import EARLIER_DAY, Home
from models.moment import derived_context
from models.requests import MASKED

CODE = ("assets/samples.py", "assets/histories.py")
SECTIONS = (
    "shape",
    "time",
    "calendar",
    "columns",
    "item_features",
    "user_features",
    "context",
    "behaviours",
    "tasks",
    "samples",
)
Columns = dict[str, NDArray[Any]]


def build(home: Home, contract: Contract, day: str) -> tuple[lake.Manifest, bool]:
    """The samples partition of one day; (manifest, whether work was done). `detail["mature"]` says whether labels are final.

    Raises lake.Missing or lake.Blocked when the events it reads may not be read.
    """
    needed = contract.label_days(day)
    present = needed[: next((n for n, d in enumerate(needed) if lake.read(home, "events", d) is None), len(needed))]
    inputs = {f"events/{d}": lake.require(home, "events", d).content for d in present or [day]}

    def make(path: Path) -> dict[str, Any]:
        backend = lake.engine()
        tables = [backend.read_parquet(home.events(d)) for d in present]
        rows = _base_rows(contract, day, tables) if contract.shape == "events" else _impressions(contract, tables[0])
        rows = keyed(contract, rows)
        columns = {name: column.to_numpy() for name, column in zip(rows.column_names, rows.columns, strict=True)}
        columns["sampled"] = np.zeros(len(rows), bool)
        if contract.shape == "events":
            columns = _with_negatives(contract, day, columns)
        table = pa.table(_finished(contract, day, columns))
        order: list[Any] = [(n, "ascending") for n in ("user", "time", "item", "sampled", *table.column_names)]
        table = table.sort_by(list(dict(order).items()))
        write(table, path)
        positives = {f"positives_{t}": int((table.column(f"label_{t}").to_numpy() == 1).sum()) for t in contract.tasks}
        counts = {"samples": len(table), "sampled": int(columns["sampled"].sum()), **positives}
        return {"counts": counts, "detail": {"mature": present == needed, "labels_until": present[-1]}}

    return lake.build(
        home, "samples", day, home.samples(day), make,
        inputs=inputs, code=lake.code_hash(*CODE), contract=contract.digest(*SECTIONS),
    )  # fmt: skip


def mature_days(home: Home, contract: Contract, days: Sequence[str]) -> list[str]:
    """Those of `days` whose samples are there, readable and final."""
    manifests = {day: lake.read(home, "samples", day) for day in days}
    return [day for day, m in manifests.items() if m and not m.blocked and m.detail["mature"]]


def held_out(home: Home, days: Sequence[str], most: int) -> list[str]:
    """The days of a training window to stop early on: the last that are no outage, `most` of them, at most half of those.

    An outage has less than a tenth of the median day's samples: one would stop on noise. Raises lake.Missing.
    """
    counts = {day: lake.require(home, "samples", day).counts["samples"] for day in days}
    usual = median(counts.values())
    fit = [day for day, count in counts.items() if count and count >= usual / 10]
    return sorted(fit)[-max(1, min(most, len(fit) // 2)) :] or [days[-1]]


def fitted(days: Sequence[str], held_out: Sequence[str]) -> list[str]:
    """The days of a training window that a model is fitted on: those before `held_out`, or where there are none the others.

    >>> fitted(["01", "02", "03", "04"], ["02", "04"]), fitted(["01", "02"], ["01"])
    (['01'], ['02'])
    """
    return [day for day in days if day < held_out[0]] or [day for day in days if day not in held_out]


def newest(home: Home, days: Sequence[str]) -> str:
    """The last of `days` that has a sample, else the last. Raises lake.Missing."""
    return max((day for day in days if lake.require(home, "samples", day).counts["samples"]), default=days[-1])


def window_inputs(home: Home, contract: Contract, days: Sequence[str]) -> dict[str, str]:
    """Content hash of every partition that reading the samples of `days` reads.

    Raises lake.Missing or lake.Blocked for one that may not be read, also when only its events are blocked by now, and
    lake.Missing for samples whose labels are not final.
    """
    inputs = {}
    for day in days:
        manifest = lake.require(home, "samples", day)
        if not manifest.detail["mature"]:
            raise lake.Missing(
                f"samples of {day} are not mature: labels are known until {manifest.detail['labels_until']}, and needed until "
                f"{contract.label_days(day)[-1]}; ingest and sample the days in between first"
            )
        for source in contract.label_days(day):
            lake.require(home, "events", source)
        inputs[f"samples/{day}"] = lake.require_current(home, "samples", day).content
    for day in contract.history_days(days[0], days[-1]):
        lake.require(home, "events", day)
        inputs[f"histories/{day}"] = lake.require_current(home, "histories", day).content
    if lake.read(home, "histories", EARLIER_DAY):
        lake.require(home, "events", EARLIER_DAY)
        inputs[f"histories/{EARLIER_DAY}"] = lake.require_current(home, "histories", EARLIER_DAY).content
    return inputs


def _impressions(contract: Contract, events: Any) -> pa.Table:
    labels = {f"label_{n}": holds(events, t.label).cast("int8") for n, t in contract.tasks.items() if t.label}
    return _carried(contract, events).mutate(**labels).select(*_names(contract), *labels).to_pyarrow()


def _base_rows(contract: Contract, day: str, tables: list[Any]) -> pa.Table:
    first = ibis.row_number().over(group_by=["user", "item"], order_by=["time", "behaviour", *_feature_columns(contract)])
    base = _carried(contract, tables[0]).mutate(place=first)
    base = base.filter(base.place == 0).select(*_names(contract))
    later = reduce(ibis.union, tables).select("user", "item", "behaviour", happened="time")
    pairs = base.select("user", "item", "time").left_join(later, ["user", "item"])
    labels = {
        f"label_{name}": (
            pairs.behaviour.isin(task.behaviours)
            & (pairs.happened >= pairs.time)
            & (pairs.happened <= pairs.time + contract.wait_ms(task.horizon_hours, day))
        )
        .any()
        .cast("int8")
        for name, task in contract.tasks.items()
    }
    labelled = pairs.group_by(["user", "item"]).aggregate(**labels)
    joined = base.inner_join(labelled, ["user", "item"]).select(*_names(contract), *labels)
    return joined.order_by(["user", "time", "item"]).to_pyarrow()


def _names(contract: Contract) -> list[str]:
    return ["user", "time", "item", *_feature_columns(contract)]


def _feature_columns(contract: Contract) -> list[str]:
    derived = len(contract.context.derived)
    return [*contract.item_columns[1:], *contract.user_columns[1:], *contract.context_columns[derived:]]


def _carried(contract: Contract, events: Any) -> Any:
    return events.mutate(**{n: filled(events[n]) for n in _feature_columns(contract)})


def _with_negatives(contract: Contract, day: str, base: Columns) -> Columns:
    """Append drawn negatives: per positive `contract.samples.negatives` distinct items of the day, uniformly."""
    # The base rows are this day's distinct (user, item) pairs, so they also are what each user touched.
    items, first, item = np.unique(base["item"], return_index=True, return_inverse=True)
    user = np.unique(base["user"], return_inverse=True)[1]
    request = np.unique(np.stack([user, base["time"]]), axis=1, return_inverse=True)[1].ravel()
    touched = np.unique(user.astype(np.int64) * len(items) + item)
    positive = np.repeat(np.arange(len(item)), contract.samples.negatives)
    random = np.random.default_rng([contract.samples.seed, date.fromisoformat(day).toordinal()])
    drawn = random.integers(len(items), size=len(positive)) if len(items) else np.empty(0, np.int64)
    for _ in range(50):
        bad = _collides(user[positive], request[positive], drawn, touched, len(items))
        if not bad.any():
            break
        drawn[bad] = random.integers(len(items), size=int(bad.sum()))
    # A user who touched nearly all of the day's items keeps fewer negatives, never a wrong one.
    good = ~_collides(user[positive], request[positive], drawn, touched, len(items))
    positive, drawn = positive[good], drawn[good]
    negatives = {name: column[positive] for name, column in base.items()}
    for name in contract.item_columns:
        negatives[name] = base[name][first[drawn]]
    for name in contract.tasks:
        negatives[f"label_{name}"] = np.zeros(len(drawn), np.int8)
    negatives["sampled"] = np.ones(len(drawn), bool)
    return {name: np.concatenate([base[name], negatives[name]]) for name in base}


def _collides(user: Any, request: Any, item: Any, touched: Any, items: int) -> NDArray[np.bool_]:
    """Draws that the user touched that day, or that the same request holds already."""
    twice = np.ones(len(item), bool)
    twice[np.unique(request.astype(np.int64) * items + item, return_index=True)[1]] = False
    return twice | np.isin(user.astype(np.int64) * items + item, touched)


def _finished(contract: Contract, day: str, columns: Columns) -> Columns:
    """Derived context added, columns in their order; masked: labels that are conditional, or not known in time."""
    derived = derived_context(contract, columns["time"])
    columns = columns | {n: derived[:, place] for place, n in enumerate(contract.context.derived)}
    labels = {
        name: np.where(
            columns["time"] < contract.known_before(task.horizon_hours, day),
            columns[f"label_{name}"].astype(np.int8),
            np.int8(MASKED),
        )
        for name, task in contract.tasks.items()
    }
    for name in contract.tasks:
        given = contract.tasks[name].given
        while given is not None:
            labels[name] = np.where(columns[f"label_{given}"] == 1, labels[name], np.int8(MASKED))
            given = contract.tasks[given].given
    names = ["user", "time", *contract.item_columns, *contract.user_columns[1:], *contract.context_columns, "sampled"]
    return {n: columns[n] for n in names} | {f"label_{n}": column for n, column in labels.items()}


@dg.asset(deps=["events"], kinds={"duckdb", "parquet"}, description="Who could have been shown what, and what followed.")
def samples(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
    home, contract = project.home, project.terms
    with explained():
        days = dict.fromkeys([*lake.to_renew(home, "samples"), *context.partition_keys])
        built = [build(home, contract, day) for day in days]
    names = built[0][0].counts
    return dg.MaterializeResult(
        metadata={
            "recomputed": sum(done for _, done in built),
            "mature": sum(bool(m.detail["mature"]) for m, _ in built),
            **{name: sum(m.counts[name] for m, _ in built) for name in names},
            **columns.shown(contract, home.samples(context.partition_keys[-1])),
        }
    )
