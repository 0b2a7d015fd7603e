"""Write the simulated shop (`assets.world`) as a log in a contract's own shape, one file a local day, and its truth aside.

An exposure log has one row an impression with its labels; an event log has one row for each thing that was done, at
the impression's moment. The truth, a Parquet file a day beside `simulation.json`, holds the probabilities that every
impression was drawn with: row for row that of an exposure log. Ranking by them gives the best AUC that any model can reach.

A day depends only on the days before it: the first n files of a longer simulation are those of a shorter one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assets import lake
from assets.past import BEHAVIOURS
from assets.world import Impressions, World
from models.contract import Contract
from models.sections import Source, parse_condition

MEANINGS = {**{name: name for name in BEHAVIOURS}, "view": "click"}
"""A contract's behaviour → the world's: in an event log a view is the visit to an item, which here is the click."""

FEATURES = ("category", "price_band", "segment", "position")
"""Side features that the world has, by our names."""

SECTIONS = ("shape", "source", "columns", "time", "item_features", "user_features", "context", "behaviours", "tasks")
"""What the simulator reads of a contract."""

BINS = 1 << 15


@dataclass(frozen=True)
class Truth:
    """What was simulated, of one day or of all. Per behaviour: rate of positives, mean intercept, best reachable AUC.

    auc: of the true probabilities against the labels drawn · expected_auc: against all labels that could have been drawn
    (each row a positive with weight p and a negative with weight 1 − p). None when one class is absent.
    """

    impressions: int
    requests: int
    rate: dict[str, float]
    intercept: dict[str, float]
    auc: dict[str, float | None]
    expected_auc: dict[str, float | None]


@dataclass(frozen=True)
class Simulated:
    """The files written (day → name), the truth of each day and of all; `recomputed` is False when all was there already."""

    files: dict[str, str]
    days: dict[str, Truth]
    total: Truth
    recomputed: bool


class Tally:
    """Sums that make a `Truth`, added up in bounded memory: histograms over the logit, 1/1024 wide."""

    def __init__(self) -> None:
        self.rows = self.requests = 0
        self.intercept = np.zeros(len(BEHAVIOURS))
        self.drawn = np.zeros((len(BEHAVIOURS), 2, BINS))  # negatives, positives
        self.soft = np.zeros((len(BEHAVIOURS), 2, BINS))

    def add(self, rows: Impressions, intercept: NDArray[np.float64]) -> None:
        self.rows += len(rows.user)
        self.requests += int((rows.position == 1).sum())
        self.intercept += intercept * len(rows.user)
        for index in range(len(BEHAVIOURS)):
            p, y = rows.probability[:, index], rows.label[:, index]
            place = np.clip((np.log(p / (1 - p)) + 16) * 1024, 0, BINS - 1).astype(np.int64)
            for histogram, weight in ((self.drawn, y), (self.soft, p)):
                histogram[index, 0] += np.bincount(place, 1 - weight, BINS)
                histogram[index, 1] += np.bincount(place, weight, BINS)

    def merge(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def truth(self) -> Truth:
        def named(values: Any) -> dict[str, Any]:
            return dict(zip(BEHAVIOURS, values, strict=True))

        rows = max(self.rows, 1)
        return Truth(
            impressions=self.rows,
            requests=self.requests,
            rate=named((self.drawn[:, 1].sum(1) / rows).tolist()),
            intercept=named((self.intercept / rows).tolist()),
            auc=named(map(_area, self.drawn)),
            expected_auc=named(map(_area, self.soft)),
        )


def _area(histogram: NDArray[np.float64]) -> float | None:
    """AUC of (negatives, positives) per bin, ties counted half."""
    negatives, positives = histogram
    if not negatives.sum() or not positives.sum():
        return None
    below = np.cumsum(negatives) - negatives / 2
    return float((positives * below).sum() / (negatives.sum() * positives.sum()))


def simulate(
    folder: Path,
    contract: Contract,
    *,
    truth: Path,
    users: int = 1_500,
    items: int = 3_000,
    impressions: int = 10_000,
    days: Sequence[str] | None = None,
    seed: int = 7,
    sign_conflict: float = 0.5,
    selection_conflict: float = 0.5,
) -> Simulated:
    """Write the log of `days` (default: the contract's calendar), about `impressions` rows a day, to `folder`.

    The conflicts are those of `assets.past`, each from 0 to 1. `truth` is another folder, for what no model may see. Nothing is
    done when the same call's files are there unchanged.
    Raises ValueError for a contract that asks for what the world has not, sizes below 1, or a folder with another log.
    """
    days = contract.days() if days is None else list(days)
    sizes = {"users": users, "items": items, "impressions": impressions, "days": len(days)}
    if min(sizes.values()) < 1:
        raise ValueError(f"a simulation needs at least 1 of each; came {sizes}")
    if days != sorted(set(days)):
        raise ValueError(f"days must be distinct and in order, since each builds on those before it; came {days}")
    if truth.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{truth}: this lies inside the log's folder {folder} and would be read with it; give another folder")
    _needs(contract)
    conflicts = {"sign_conflict": sign_conflict, "selection_conflict": selection_conflict}
    world = World(users, items, seed, contract.day_start(days[0]), **conflicts)
    files = {day: f"day={day}.{contract.source.format}" for day in days}
    there = {p.name for p in folder.iterdir() if not p.name.startswith(".")} if folder.is_dir() else set()
    if others := sorted(there - set(files.values())):
        raise ValueError(f"{folder}: holds {others[0]}, which is not of this simulation; empty the folder or name another")

    call = {
        "arguments": {"users": users, "items": items, "impressions": impressions, "days": days, "seed": seed} | conflicts,
        "contract": contract.digest(*SECTIONS),
        "code": lake.code_hash("assets/simulator.py", "assets/world.py", "assets/past.py"),
    }
    record = truth / "simulation.json"
    if record.is_file():
        past = json.loads(record.read_text())
        if past["call"] == call and past["content"] == _contents(folder, truth, files):
            return Simulated(files, {d: Truth(**t) for d, t in past["days"].items()}, Truth(**past["total"]), recomputed=False)

    total, told = Tally(), {}
    for day in days:
        tally = Tally()
        with (
            _writer(folder / files[day], contract.source) as log,
            _writer(truth / f"day={day}.parquet", Source(format="parquet")) as aside,
        ):
            opens, closes = contract.day_start(day), contract.day_end(day)
            for rows in world.day(date.fromisoformat(day).toordinal(), opens, closes, impressions):
                log(_log_table(world, rows, contract))
                aside(_truth_table(world, rows))
                tally.add(rows, world.intercept)
        told[day] = tally.truth()
        total.merge(tally)
    done = Simulated(files, told, total.truth(), recomputed=True)
    lake.write_json(record, {"call": call, "content": _contents(folder, truth, files), **asdict(done)})
    return done


def asked(truth: Path) -> dict[str, Any]:
    """Sizes, seed and conflicts of the simulation whose truth lies there, as `simulate` takes them; {} when there is none."""
    record = truth / "simulation.json"
    arguments = json.loads(record.read_text())["call"]["arguments"] if record.is_file() else {}
    return {name: value for name, value in arguments.items() if name != "days"}


def _needs(contract: Contract) -> None:
    """Refuse what the world cannot fill, naming the key and what would be right."""
    lacking = [f"{n} (features are {', '.join(FEATURES)})" for n in contract.features if n not in FEATURES]
    lacking += [f"behaviour {n} (behaviours are {', '.join(MEANINGS)})" for n in contract.behaviours if n not in MEANINGS]
    lacking += [f"{n} of another kind than id" for n, f in contract.features.items() if f.kind != "id" or f.separator]
    lacking += [f"column {c} as 'it happened'" for c in contract.label_columns if c not in _labels(contract)]
    if lacking:
        raise ValueError(f"contract {contract.name}: the simulator has no {'; no '.join(lacking)}")
    if contract.time.kind not in ("epoch_s", "epoch_ms"):
        raise ValueError(f"contract {contract.name}: time.kind '{contract.time.kind}' is not simulated; 'epoch_ms' is")


def _labels(contract: Contract) -> dict[str, int]:
    """Label column of an exposure log → the world's behaviour, for conditions that only ask whether it happened."""
    named = [(n, b.when) for n, b in contract.behaviours.items()] + [(n, t.label) for n, t in contract.tasks.items()]
    asked = [(parse_condition(condition), MEANINGS[n]) for n, condition in named if condition and n in MEANINGS]
    return {column: BEHAVIOURS.index(meaning) for (column, *test), meaning in asked if test == [">", 0.0]}


def _log_table(world: World, rows: Impressions, contract: Contract) -> pa.Table:
    """The rows as the contract's source columns: impressions, or one row for each behaviour that happened."""
    columns: dict[str, Any] = {}
    if contract.shape == "events":
        names = list(contract.behaviours)
        happened = rows.label[:, [BEHAVIOURS.index(MEANINGS[n]) for n in names]] > 0
        which, what = np.nonzero(happened)
        rows = rows.take(which)
        values = pa.array([contract.behaviours[n].values[0] for n in names])
        columns[str(contract.columns.behaviour)] = values.take(pa.array(what))
    for column, behaviour in _labels(contract).items():
        columns[column] = rows.label[:, behaviour]
    columns[contract.columns.user] = rows.user + 1
    columns[contract.columns.item] = world.item_id[rows.item]
    columns[contract.time.column] = rows.time if contract.time.kind == "epoch_ms" else rows.time // 1000
    features = {
        "category": world.item_category[rows.item] + 1,
        "price_band": world.item_price[rows.item],
        "segment": world.segment[rows.user] + 1,
        "position": rows.position,
    }
    columns.update({f.column: features[name].astype(np.int64) for name, f in contract.features.items()})
    empty = pa.nulls(len(rows.user))
    return pa.table({name: columns.get(name, empty) for name in contract.source.columns or contract.source_columns})


def _truth_table(world: World, rows: Impressions) -> pa.Table:
    """user, item and time of each impression, and the probability of each behaviour."""
    keys = {"user": rows.user + 1, "item": world.item_id[rows.item], "time": rows.time}
    return pa.table(keys | {name: rows.probability[:, index] for index, name in enumerate(BEHAVIOURS)})


@contextmanager
def _writer(target: Path, source: Source) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends a table to `target`, which takes its place when all is written."""
    with lake.replacing(target) as path, ExitStack() as stack:
        writer: Any = None

        def append(table: pa.Table) -> None:
            nonlocal writer
            if writer is None:
                writer = stack.enter_context(_open(path, table.schema, source))
            writer.write_table(table)

        yield append


def _open(path: Path, schema: pa.Schema, source: Source) -> Any:
    if source.format == "parquet":
        return pq.ParquetWriter(path, schema)
    options = pa.csv.WriteOptions(include_header=source.header, delimiter=source.delimiter, quoting_style="none")
    return pa.csv.CSVWriter(path, schema, write_options=options)


def _contents(folder: Path, truth: Path, files: dict[str, str]) -> dict[str, list[str]]:
    """Content hashes of each day's log and truth."""
    pairs = {day: (folder / name, truth / f"day={day}.parquet") for day, name in files.items()}
    return {day: [lake.content_hash(path) for path in pair] for day, pair in pairs.items()}
