"""Days of 23, 23½, 24½ and 25 hours: every day is judged once, on one day of training more, and no label looks past it.

The oracle is zoneinfo's own arithmetic on local midnights, in both directions, in the south and where the clocks move by
half an hour or at midnight.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest

from assets import histories, outcomes, predictions, samples
from bentos import online
from models.contract import Contract
from models.home import Home
from models.requests import MASKED
from models.window import read_requests
from orchestration import jobs
from tests import inbox, logs

HOUR = 3_600_000
CHANGES = [
    ("Europe/Berlin", "2024-03-31", 23),
    ("Europe/Berlin", "2024-10-27", 25),
    ("Australia/Lord_Howe", "2024-10-06", 23.5),
    ("Australia/Lord_Howe", "2024-04-07", 24.5),
    ("Asia/Beirut", "2024-03-31", 23),  # at midnight: the day begins at one
    ("America/Sao_Paulo", "2017-10-15", 23),
]
Row = dict[str, Any]


def midnight(zone: str, day: date) -> int:
    """Epoch ms of the first moment of a local day, found by looking: the first half hour whose local date is that day."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone)).timestamp()
    steps = [noon - 1800 * n for n in range(40)]
    return round(min(s for s in steps if datetime.fromtimestamp(s, ZoneInfo(zone)).date() == day) * 1000)


def around(base: dict[str, Any], zone: str, change: str, **more: Any) -> Contract:
    """A contract of nine days with the change in their middle."""
    day = date.fromisoformat(change)
    calendar = {"first_day": day - timedelta(days=4), "last_day": day + timedelta(days=4)}
    return logs.contract(base, time={**base["time"], "zone": zone}, calendar=calendar, **more)


@pytest.mark.parametrize(("zone", "change", "hours"), CHANGES)
def test_days_begin_where_the_local_date_does(zone: str, change: str, hours: float) -> None:
    terms = around(logs.EVENTS, zone, change)
    for day in map(date.fromisoformat, terms.days()):
        assert terms.day_start(day) == midnight(zone, day)
    assert terms.day_end(change) - terms.day_start(change) == hours * HOUR


@pytest.mark.parametrize(("zone", "change", "hours"), CHANGES)
@pytest.mark.parametrize("base", [logs.EVENTS, logs.DATES, logs.EXPOSURES], ids=["events", "dates", "exposures"])
def test_every_day_that_comes_in_makes_one_more_day_judged_on_one_day_more_of_training(
    base: dict[str, Any], zone: str, change: str, hours: float
) -> None:
    terms = around(base, zone, change)
    behind = 2 if base is logs.EXPOSURES else 1  # a horizon of 30 hours, and of 24
    judged = [jobs.judgeable(terms, day) for day in terms.days()]
    assert [len(days) for days in judged] == [max(0, n - 2 * behind - 1) for n in range(9)]
    for day in judged[-1]:
        newest = date.fromisoformat(terms.training_days(day)[-1])
        assert newest == date.fromisoformat(day) - timedelta(days=behind + 1)
    for place, day in enumerate(terms.days()):
        assert jobs.ingested_with(terms, day) == (terms.days()[max(0, place - behind)], day)


def store(home: Home, terms: Contract, rows: list[Row], *sampled: str) -> None:
    """Events of the whole calendar, and the samples of these days."""
    by_day = defaultdict(list)
    for row in rows:
        by_day[str(terms.day_of(row["time"]))].append(row)
    for day in terms.days():
        logs.write_events(home, terms, day, by_day[day])
    for day in sampled:
        samples.build(home, terms, day)


def random_rows(terms: Contract, zone: str, count: int = 450, seed: int = 0) -> list[Row]:
    """Rows on whole half hours, within two hours of a midnight, or on midnights in a log of days."""
    random = np.random.default_rng(seed)
    days = [date.fromisoformat(day) for day in terms.days()]
    starts = [midnight(zone, day) for day in [*days, days[-1] + timedelta(days=1)]]
    rows = []
    for n in range(count):
        place = n % len(days)
        steps = int(random.integers(4))
        time = starts[place + 1] - (steps + 1) * HOUR // 2 if n % 2 else starts[place] + steps * HOUR // 2
        time = starts[place] if terms.time.resolution == "day" else time
        row: Row = {"user": int(random.integers(1, 6)), "item": int(random.integers(1, 9)), "time": time, "category": 1}
        if terms.shape == "events":
            row["behaviour"] = str(random.choice(["view", "buy"]))
        else:
            row |= {"position": 0, "clicked": float(random.integers(2)), "stars": float(random.integers(3, 6))}
        rows.append(row)
    if terms.shape == "exposures":  # so that a sample is found again by these three
        rows = list({(row["user"], row["item"], row["time"]): row for row in rows}.values())
    return rows


def label(terms: Contract, zone: str, rows: list[Row], pair: tuple[int, int], time: int, task: str) -> int:
    """By the definition: what followed within the horizon, and masked where it ends after the days that are waited for."""
    hours = int(terms.tasks[task].horizon_hours)
    day = datetime.fromtimestamp(time / 1000, ZoneInfo(zone)).date()
    until = time + hours * HOUR
    if terms.time.resolution == "day":
        until = midnight(zone, day + timedelta(days=hours // 24))
    waited_for = max(-(-int(t.horizon_hours) // 24) for t in terms.tasks.values())
    if until >= midnight(zone, day + timedelta(days=waited_for + 1)):
        return MASKED
    own = [r for r in rows if (r["user"], r["item"]) == pair]
    if terms.shape == "events":
        wanted = "view" if task == "click" else "buy"
        return int(any(r["behaviour"] == wanted and time <= r["time"] <= until for r in own))
    return int(any(r["time"] == time and (r["clicked"] if task == "click" else r["stars"] >= 4) for r in own))


SHOWN = {
    **logs.EXPOSURES,
    "behaviours": {
        "view": {"when": "clicked", "length": 4},
        "buy": {"when": "stars >= 4", "length": 9, "horizon_hours": 48},
    },
    "tasks": {"click": {"label": "clicked"}, "buy": {"label": "stars >= 4", "horizon_hours": 48}},
}
"""An exposure log whose labels take whole days, and so reach past two days of which one is short."""

BY_DATE = {**SHOWN, "time": logs.DATES["time"], "context": logs.DATES["context"]}
OWN_TASKS = {
    "click": {"behaviours": ["view"], "horizon_hours": 24},
    "buy": {"behaviours": ["buy"], "horizon_hours": 6},
}


@pytest.mark.parametrize(("zone", "change", "hours"), CHANGES[1:4])
@pytest.mark.parametrize("base", [logs.EVENTS, logs.DATES, SHOWN], ids=["events", "dates", "exposures"])
def test_labels_and_outcomes_take_the_whole_horizon_or_are_masked(
    base: dict[str, Any], zone: str, change: str, hours: float, tmp_path: Path
) -> None:
    terms = around(base, zone, change, tasks=OWN_TASKS if base is not SHOWN else SHOWN["tasks"])
    home = Home(tmp_path, terms.name)
    rows = random_rows(terms, zone)
    days = terms.days()[2:6]
    store(home, terms, rows, *days)
    masked = 0
    for day in days:
        table = pq.read_table(home.samples(day), partitioning=None).to_pylist()
        told = {(s["user"], s["time"], s["item"]): s for s in table if not s["sampled"]}
        inbox.write(home, day, [inbox.line(terms, f"r{n}", t, u, [i]) for n, (u, t, i) in enumerate(told)])
        predictions.land(home, terms, day)
        outcomes.join(home, terms, day)
        after = {(o["user"], o["time"], o["item"]): o for o in pq.read_table(home.outcomes(day), partitioning=None).to_pylist()}
        assert set(after) == set(told)
        for (user, time, item), sample in told.items():
            for task in terms.tasks:
                expected = label(terms, zone, rows, (user, item), time, task)
                assert sample[f"label_{task}"] == expected, (day, user, item, time, task)
                assert after[user, time, item][f"label_{task}"] == expected, (day, user, item, time, task)
                masked += expected == MASKED
        for drawn in (s for s in table if s["sampled"]):
            for task in terms.tasks:
                known = label(terms, zone, rows, (0, 0), drawn["time"], task) != MASKED
                assert drawn[f"label_{task}"] == (0 if known else MASKED)
    assert (masked > 0) == (hours < 24 and base is not logs.DATES)


@pytest.mark.parametrize(("zone", "change", "hours"), CHANGES[1:4])
@pytest.mark.parametrize("base", [logs.EVENTS, logs.DATES, SHOWN], ids=["events", "dates", "exposures"])
def test_no_label_that_is_trained_on_reaches_the_judged_day(
    base: dict[str, Any], zone: str, change: str, hours: float, tmp_path: Path
) -> None:
    terms = around(base, zone, change)
    judged = date.fromisoformat(change) + timedelta(days=2 if base is SHOWN else 1)
    start, rows = midnight(zone, judged), random_rows(terms, zone)
    other = [row for row in random_rows(terms, zone, seed=1) if row["time"] >= start]
    trained = terms.training_days(judged)[-2:]
    homes = [Home(tmp_path / name, terms.name) for name in ("before", "after")]
    store(homes[0], terms, rows, *trained)
    store(homes[1], terms, [row for row in rows if row["time"] < start] + other, *trained)
    for day in trained:
        assert homes[0].samples(day).read_bytes() == homes[1].samples(day).read_bytes()
    if terms.time.resolution == "day":
        return
    for sample in (s for day in trained for s in pq.read_table(homes[0].samples(day), partitioning=None).to_pylist()):
        for name, task in terms.tasks.items():
            assert sample[f"label_{name}"] == MASKED or sample["time"] + task.horizon_hours * HOUR < start


@pytest.mark.parametrize(("zone", "change", "hours"), CHANGES[1:4])
def test_on_a_log_of_days_an_action_is_known_so_many_days_later_offline_and_online(
    zone: str, change: str, hours: float, tmp_path: Path
) -> None:
    terms = around(BY_DATE, zone, change)
    home = Home(tmp_path, terms.name)
    rows = random_rows(terms, zone)
    store(home, terms, rows, *terms.days()[3:])
    for day in terms.days():
        histories.build(home, terms, day)
    snapshot, end = online.load(home, terms, date.fromisoformat(terms.days()[0]))
    service = online.OnlineHistories(terms, snapshot, end, None)
    days = terms.days()[3:]
    requests = read_requests(home, terms, days)
    compared = 0
    for place, (user, time) in enumerate(zip(requests.user[:, 0], requests.time, strict=True)):
        day = datetime.fromtimestamp(time / 1000, ZoneInfo(zone)).date()
        span = slice(requests.start[place, 1], requests.end[place, 1])
        found = list(
            zip(requests.sequences.times[1][span].tolist(), requests.sequences.tokens[1][span][:, 0].tolist(), strict=True)
        )
        known = []
        for row in rows:
            told = datetime.fromtimestamp(row["time"] / 1000, ZoneInfo(zone)).date() + timedelta(days=2)
            if row["user"] == user and row["stars"] >= 4 and day - timedelta(days=3) <= told < day:
                known.append((midnight(zone, told), row["item"]))
        assert found == sorted(known)[-9:]
        compared += len(found)
    assert compared > 50
    for day in map(date.fromisoformat, terms.days()[:-2]):
        event = online.Event(1, 1, "buy", midnight(zone, day), {})
        assert service.counts_from(event) == midnight(zone, day + timedelta(days=2))
