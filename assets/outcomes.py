"""Predictions + what really happened → outcomes: served AUC, log loss and calibration, per day and model.

Event log: task k happened if one of its behaviours is told for the user and item in [t, t + horizon], t the request's time.
Exposure log: a ranked item was not always shown, and the log tells when it was, not by which request. So an impression
belongs to the last request at or before it that ranked this item for this user, on the same local day; of several, the first
counts. A replayed request has its impression's very time, so it meets its own. An item never shown has no outcome: masked.
What is masked in the samples (tasks conditional on another, a horizon that outlasts its days) is masked here. Times are
compared at the log's own resolution. Until the day is mature every label is masked: the partition says what it waits for.
"""

from functools import reduce
from pathlib import Path
from typing import Any

import dagster as dg
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assets import columns, lake
from assets.histories import holds, write
from assets.project import Project, explained
from models import judgement
from models.contract import Contract
from models.home import Home
from models.judgement import Measure
from models.requests import MASKED

CODE = ("assets/outcomes.py", "assets/histories.py", "assets/samples.py", "models/judgement.py", "models/metrics.py")
SECTIONS = ("shape", "time", "calendar", "behaviours", "tasks")
Measured = dict[str, dict[str, Measure]]


def join(home: Home, contract: Contract, day: str) -> tuple[lake.Manifest, bool]:
    """The outcomes partition of one day; (manifest, whether work was done).

    The rows and columns of the day's predictions, and `label_<task>` int8: 0, 1 or MASKED. Detail: mature, waits_for (days of
    events that are not in yet) and served {model: {task: `judgement.Measure`}}, empty until mature.
    Raises lake.Missing without predictions, lake.Blocked when an events partition may not be read.
    """
    needed = contract.label_days(day)
    waits_for = [d for d in needed if lake.read(home, "events", d) is None]
    inputs = {"predictions": lake.require(home, "predictions", day).content}
    inputs |= {"waits_for": ", ".join(waits_for)} if waits_for else {d: lake.require(home, "events", d).content for d in needed}

    def make(path: Path) -> dict[str, Any]:
        table = pq.read_table(home.predictions(day), partitioning=None)
        happened = {t: np.full(len(table), MASKED, np.int8) for t in contract.task_names}
        if not waits_for and len(table):
            happened = _masked(contract, _happened(home, contract, day, needed))
        for task, column in happened.items():
            table = table.append_column(f"label_{task}", pa.array(column, pa.int8()))
        write(table, path)
        counts = {"rows": len(table)} | {f"positives_{t}": int((column == 1).sum()) for t, column in happened.items()}
        detail = {"mature": not waits_for, "waits_for": waits_for, "served": {} if waits_for else measure(contract, table)}
        return {"counts": counts, "detail": detail}

    return lake.build(
        home, "outcomes", day, home.outcomes(day), make,
        inputs=inputs, code=lake.code_hash(*CODE), contract=contract.digest(*SECTIONS),
    )  # fmt: skip


def measure(contract: Contract, table: pa.Table) -> Measured:
    """What each model's outcomes say of it, by task; intervals over users as in a verdict."""
    models, users = (table.column(name).to_numpy(zero_copy_only=False) for name in ("model", "user"))
    served: Measured = {}
    for model in sorted(set(models)):
        mine, served[model] = models == model, {}
        for task in contract.task_names:
            label, probability = (table.column(f"{n}_{task}").to_numpy()[mine] for n in ("label", "p"))
            served[model][task] = judgement.measure(label, users[mine], probability, seed=0)
    return served


def _happened(home: Home, contract: Contract, day: str, days: list[str]) -> dict[str, NDArray[np.int8]]:
    """Each task's label, by itself, in the order of the predictions partition."""
    backend = lake.engine()
    predictions = backend.read_parquet(home.predictions(day)).select("request_id", "place", "user", "item", "time")
    step = {"millisecond": 1, "second": 1000}.get(contract.time.resolution)
    # An event of a coarse clock is told at the start of its second (or day): so is the request that it is held against.
    moment = predictions.time // step * step if step else ibis.literal(contract.day_start(day), "int64")
    predictions = predictions.mutate(moment=moment.cast("int64"))
    asked = predictions.select("user", "item", "moment").distinct()
    events = reduce(ibis.union, [backend.read_parquet(home.events(d)) for d in days])
    labels = _followed(contract, day, asked, events) if contract.shape == "events" else _shown(contract, day, asked, events)
    names = [f"label_{t}" for t in contract.task_names]
    found = predictions.left_join(labels, ["user", "item", "moment"]).order_by(["time", "request_id", "place"]).select(*names)
    table = found.mutate(**{n: found[n].fill_null(MASKED).cast("int8") for n in names}).to_pyarrow()
    return {t: table.column(f"label_{t}").to_numpy() for t in contract.task_names}


def _followed(contract: Contract, day: str, asked: Any, events: Any) -> Any:
    """Event log: whether one of the task's behaviours is in [moment, moment + horizon]."""
    later = events.select("user", "item", "behaviour", happened="time")
    pairs = asked.left_join(later, ["user", "item"])
    labels = {
        f"label_{name}": (
            pairs.behaviour.isin(task.behaviours)
            & (pairs.happened >= pairs.moment)
            & (pairs.happened <= pairs.moment + contract.wait_ms(task.horizon_hours, day))
        )
        .any()
        .fill_null(False)
        .cast("int8")
        for name, task in contract.tasks.items()
    }
    followed = pairs.group_by(["user", "item", "moment"]).aggregate(**labels)
    return followed.mutate(**_known(contract, day, followed, followed.moment))


def _shown(contract: Contract, day: str, asked: Any, events: Any) -> Any:
    """Exposure log: the label columns of the first impression in [moment, next request for the pair), on the same day."""
    following = asked.moment.lead().over(group_by=["user", "item"], order_by="moment")
    asked = asked.mutate(until=following.fill_null(contract.day_end(day)))
    labels = {f"label_{n}": holds(events, t.label).cast("int8") for n, t in contract.tasks.items() if t.label}
    impressions = events.select("user", "item", shown="time", **labels)
    impressions = impressions.mutate(**_known(contract, day, impressions, impressions.shown))
    met = asked.inner_join(impressions, ["user", "item"])
    met = met.filter(met.shown >= met.moment, met.shown < met.until)
    first = met.mutate(first=met.shown.min().over(group_by=["user", "item", "moment"]))
    first = first.filter(first.shown == first.first)
    # Two impressions of one pair at one moment are one outcome: it happened if either says so.
    return first.group_by(["user", "item", "moment"]).aggregate(**{n: first[n].max() for n in labels})


def _known(contract: Contract, day: str, labels: Any, moment: Any) -> dict[str, Any]:
    """The columns `label_<task>` of `labels`, null where they cannot be known in time, as in the samples."""
    return {
        f"label_{name}": (moment < contract.known_before(task.horizon_hours, day)).ifelse(labels[f"label_{name}"], ibis.null())
        for name, task in contract.tasks.items()
    }


def _masked(contract: Contract, labels: dict[str, NDArray[np.int8]]) -> dict[str, NDArray[np.int8]]:
    """The label of a conditional task only where each task that it is conditional on happened."""
    out = dict(labels)
    for name in contract.tasks:
        given = contract.tasks[name].given
        while given is not None:
            out[name] = np.where(labels[given] == 1, out[name], np.int8(MASKED))
            given = contract.tasks[given].given
    return out


@dg.asset(deps=["predictions", "events"], kinds={"duckdb", "parquet"}, description="What followed each served ranking.")
def outcomes(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[None]:
    home, contract = project.home, project.terms
    with explained():
        joined = [join(home, contract, day) for day in context.partition_keys]
    waiting = [
        f"{m.partition} waits for events of {', '.join(m.detail['waits_for'])}" for m, _ in joined if not m.detail["mature"]
    ]
    return dg.MaterializeResult(
        metadata={
            "recomputed": sum(done for _, done in joined),
            **{name: sum(m.counts[name] for m, _ in joined) for name in joined[0][0].counts},
            **columns.shown(contract, home.outcomes(context.partition_keys[-1])),
            "waiting": "; ".join(waiting) or "nothing: every day is mature",
            "served": dg.MetadataValue.md("\n\n".join(_table(m) for m, _ in joined)),
        }
    )


def _table(manifest: lake.Manifest) -> str:
    columns = ("day", "model", "task", "AUC", "interval", "log loss", "ECE", "positives", "negatives")
    rows = [
        (
            *(manifest.partition, model, task, _told(m["auc"]), _interval(m)),
            *map(_told, (m["logloss"], m["ece"], m["positives"], m["negatives"])),
        )
        for model, tasks in manifest.detail["served"].items()
        for task, m in tasks.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ("---",) * len(columns), *rows))


def _interval(measured: Measure) -> str:
    low, high = measured["auc_low"], measured["auc_high"]
    return "too few to tell" if low is None else f"{_told(low)} to {_told(high)}"


def _told(value: float | int | None) -> str:
    return "not defined" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
