"""Histories and samples against a brute-force reading of the definitions, on random logs of every kind of clock."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets import histories, lake, samples
from models.contract import Contract
from models.home import Home
from models.requests import NULL_KEY
from models.window import read_requests
from tests import logs

HOUR = 3_600_000
Row = dict[str, Any]


@st.composite
def random_log(draw: Any, base: dict[str, Any]) -> tuple[Contract, list[Row]]:
    """A contract and up to 40 rows, crowded onto few users, items and moments so that ties are common."""
    terms = logs.contract(base, calendar={"first_day": "2026-03-27", "last_day": "2026-03-31"})
    start, end = terms.day_start("2026-03-27"), terms.day_end("2026-03-31")
    step = {"millisecond": 1, "second": 1000, "day": 1}[terms.time.resolution]
    rows = []
    for _ in range(draw(st.integers(0, 40))):
        moment = draw(st.integers(start, end - 1)) // (6 * HOUR) * (6 * HOUR) + draw(st.integers(0, 2)) * step
        moment = min(max(moment, start), end - 1)
        if terms.time.resolution == "day":
            moment = terms.day_start(terms.day_of(moment))
        item = draw(st.integers(1, 6))
        row: Row = {"user": draw(st.integers(1, 3)), "item": item, "time": moment, "category": None if item == 6 else item % 2}
        if terms.shape == "events":
            row["behaviour"] = draw(st.sampled_from(["view", "view", "buy"]))
        else:
            row |= {
                "position": draw(st.integers(0, 3)),
                "clicked": draw(st.sampled_from([0.0, 1.0, None])),
                "stars": draw(st.sampled_from([1.0, 4.0, 5.0])),
            }
        rows.append(row)
    return terms, rows


def ingest(home: Home, terms: Contract, rows: list[Row]) -> list[str]:
    days = terms.days()
    by_day = defaultdict(list)
    for row in rows:
        by_day[str(terms.day_of(row["time"]))].append(row)
    for day in days:
        logs.write_events(home, terms, day, by_day[day])
    for day in days:
        histories.build(home, terms, day)
        samples.build(home, terms, day)
    return days


def happened(terms: Contract, row: Row, name: str) -> int | None:
    """When the action `name` of a row is known, None when the row is no such action."""
    if terms.shape == "events":
        return row["time"] if row["behaviour"] == name else None
    if name == "view":
        return row["time"] if row["clicked"] == 1 else None
    return row["time"] + 30 * HOUR if row["stars"] >= 4 else None


def history(terms: Contract, rows: list[Row], user: int, time: int, action: str) -> list[tuple[int, int, int]]:
    """(time, item, category) of the user's last actions strictly before `time`, from the definition."""
    since = terms.history_start(terms.day_of(time))
    known = [(happened(terms, r, action), r) for r in rows if r["user"] == user]
    found = sorted(
        (t, r["item"], NULL_KEY if r["category"] is None else r["category"])
        for t, r in known
        if t is not None and since <= t < time
    )
    return found[-terms.behaviours[action].length :]


def read_back(terms: Contract, home: Home, days: list[str]) -> list[dict[str, Any]]:
    requests = read_requests(home, terms, days)
    out = []
    for row, request in enumerate(requests.request):
        past = {}
        for a, action in enumerate(terms.actions):
            span = slice(requests.start[request, a], requests.end[request, a])
            tokens, times = requests.sequences.tokens[a][span], requests.sequences.times[a][span]
            past[action] = [(int(t), *map(int, k)) for t, k in zip(times, tokens, strict=True)]
        out.append(
            {
                "user": int(requests.user[request, 0]),
                "time": int(requests.time[request]),
                "item": int(requests.item[row, 0]),
                "category": int(requests.item[row, 1]),
                "context": tuple(map(int, requests.context[row])),
                "label": tuple(map(int, requests.label[row])),
                "history": past,
            }
        )
    return out


SLOW = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
)


@pytest.mark.parametrize("base", [logs.EVENTS, logs.DATES, logs.EXPOSURES], ids=["events", "dates", "exposures"])
@SLOW
@given(data=st.data())
def test_every_sample_has_the_history_and_labels_of_the_definition(
    base: dict[str, Any], data: Any, tmp_path_factory: Any
) -> None:
    terms, rows = data.draw(random_log(base))
    home = Home(tmp_path_factory.mktemp("home"), terms.name)
    days = ingest(home, terms, rows)
    got = read_back(terms, home, days)
    for sample in got:
        for action in terms.actions:
            assert sample["history"][action] == history(terms, rows, sample["user"], sample["time"], action)
    if terms.shape == "exposures":
        expected = sorted(_impression(terms, r) for r in rows)
        assert sorted(_key(s) for s in got) == expected
    else:
        _check_event_samples(terms, rows, got)


def _impression(terms: Contract, row: Row) -> tuple[Any, ...]:
    click = int(row["clicked"] == 1)
    buy = int(row["stars"] >= 4) if click else -1
    category = NULL_KEY if row["category"] is None else row["category"]
    return (row["user"], row["time"], row["item"], category, (_hour(terms, row["time"]), row["position"]), (click, buy))


def _key(sample: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sample[n] for n in ("user", "time", "item", "category", "context", "label"))


def _hour(terms: Contract, time: int) -> int:
    from datetime import datetime

    return datetime.fromtimestamp(time / 1000, terms.zone).hour


def _check_event_samples(terms: Contract, rows: list[Row], got: list[dict[str, Any]]) -> None:
    first: dict[tuple[int, int, str], int] = {}
    for row in rows:
        key = (row["user"], row["item"], str(terms.day_of(row["time"])))
        first[key] = min(first.get(key, row["time"]), row["time"])
    base = {}
    for (user, item, _), time in first.items():
        clicked = any(
            r["user"] == user and r["item"] == item and r["behaviour"] == "view" and time <= r["time"] <= time + 24 * HOUR
            for r in rows
        )
        bought = any(
            r["user"] == user and r["item"] == item and r["behaviour"] == "buy" and time <= r["time"] <= time + 6 * HOUR
            for r in rows
        )
        base[user, time, item] = (int(clicked), int(bought) if clicked else -1)
    positives = [s for s in got if (s["user"], s["time"], s["item"]) in base]
    negatives = [s for s in got if (s["user"], s["time"], s["item"]) not in base]
    assert sorted((s["user"], s["time"], s["item"], s["label"]) for s in positives) == sorted((*k, v) for k, v in base.items())
    per_request: dict[tuple[int, int], int] = defaultdict(int)
    for user, time, _ in base:
        per_request[user, time] += 1
    drawn: dict[tuple[int, int], list[int]] = defaultdict(list)
    for s in negatives:
        assert s["label"] == (0, -1)
        drawn[s["user"], s["time"]].append(s["item"])
    for (user, time), count in per_request.items():
        day = terms.day_of(time)
        pool = {r["item"] for r in rows if terms.day_of(r["time"]) == day}
        touched = {r["item"] for r in rows if r["user"] == user and terms.day_of(r["time"]) == day}
        items = drawn.pop((user, time), [])
        assert len(set(items)) == len(items)
        assert set(items) <= pool - touched
        assert len(items) == min(2 * count, len(pool - touched))
    assert not drawn, "a negative without a positive's time and user"


def test_immature_samples_wait_and_say_until_when(tmp_path: Path) -> None:
    terms = logs.contract(logs.EVENTS)
    home = Home(tmp_path, terms.name)
    noon = terms.day_start("2026-03-27") + 12 * HOUR
    row = {"user": 1, "item": 2, "time": noon, "behaviour": "view", "category": 0}
    logs.write_events(home, terms, "2026-03-27", [row])
    histories.build(home, terms, "2026-03-27")
    manifest, _ = samples.build(home, terms, "2026-03-27")
    assert manifest.detail["mature"] is False
    with pytest.raises(
        lake.Missing, match=r"2026-03-27 are not mature: labels are known until 2026-03-27, and needed until 2026-03-28"
    ):
        samples.window_inputs(home, terms, ["2026-03-27"])
    later = row | {"time": noon + 5 * HOUR + 20 * HOUR, "behaviour": "buy"}
    logs.write_events(home, terms, "2026-03-28", [later])
    manifest, done = samples.build(home, terms, "2026-03-27")
    assert done
    assert manifest.detail["mature"] is True
    assert samples.mature_days(home, terms, ["2026-03-27", "2026-03-28"]) == ["2026-03-27"]


def test_a_rerun_does_nothing_and_a_changed_value_with_equal_counts_rebuilds(tmp_path: Path) -> None:
    terms = logs.contract(logs.EVENTS)
    home = Home(tmp_path, terms.name)
    noon = terms.day_start("2026-03-27") + 12 * HOUR
    rows = [{"user": u, "item": i, "time": noon, "behaviour": "view", "category": 0} for u, i in ((1, 2), (3, 4), (3, 5))]
    logs.write_events(home, terms, "2026-03-27", rows)
    before, _ = samples.build(home, terms, "2026-03-27")
    bytes_before = home.samples("2026-03-27").read_bytes()
    assert samples.build(home, terms, "2026-03-27") == (before, False)
    home.samples("2026-03-27").write_bytes(b"damaged")
    assert samples.build(home, terms, "2026-03-27") == (before, True)
    assert home.samples("2026-03-27").read_bytes() == bytes_before
    rows[0]["item"], rows[1]["item"] = rows[1]["item"], rows[0]["item"]
    logs.write_events(home, terms, "2026-03-27", rows)
    after, done = samples.build(home, terms, "2026-03-27")
    assert done
    assert (after.counts, after.content != before.content) == (before.counts, True)


def test_a_blocked_day_is_refused_by_its_readers_also_in_a_later_run(tmp_path: Path) -> None:
    terms = logs.contract(
        logs.EXPOSURES, tasks={"click": {"label": "clicked"}}, behaviours={"view": {"when": "clicked", "length": 4}}
    )
    home = Home(tmp_path, terms.name)
    ingest(home, terms, [])
    days = terms.days()
    assert samples.window_inputs(home, terms, days)
    logs.write_events(home, terms, days[2], [], blocked="3 of 4 rows are bad")
    for build in (histories.build, samples.build):
        with pytest.raises(lake.Blocked, match=f"events of {days[2]} is blocked: 3 of 4 rows are bad"):
            build(home, terms, days[2])
    # What was made of the day before it was blocked is refused too, by every window that holds it.
    for window in ([days[2]], days[3:5]):
        with pytest.raises(lake.Blocked, match=days[2]):
            samples.window_inputs(home, terms, window)
    assert samples.window_inputs(home, terms, [days[6]])  # three days of history: the blocked day is out of its reach


def test_a_conditional_label_follows_the_whole_chain_of_conditions() -> None:
    terms = logs.contract(
        logs.EXPOSURES,
        tasks={"a": {"label": "clicked"}, "b": {"label": "clicked", "given": "a"}, "c": {"label": "clicked", "given": "b"}},
    )
    columns: dict[str, Any] = {n: np.zeros(4, np.int64) for n in ("user", "time", "item", "category", "position", "sampled")}
    columns |= {f"label_{t}": np.array(v) for t, v in {"a": [0, 1, 1, 0], "b": [1, 0, 1, 1], "c": [1, 1, 1, 0]}.items()}
    out = samples._finished(terms, "2026-03-30", columns)
    assert [out[f"label_{t}"].tolist() for t in "abc"] == [[0, 1, 1, 0], [-1, 0, 1, -1], [-1, -1, 1, -1]]


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        ([10, 9, 11], 1, [2]),
        ([10, 9, 0], 1, [1]),
        ([40, 40, 1], 1, [1]),
        ([40, 40, 4], 1, [2]),
        ([40, 40, 3], 1, [1]),
        ([40, 40, 20], 1, [2]),
        ([0, 0, 0], 1, [2]),
        ([40, 30, 20, 40], 2, [2, 3]),
        ([40, 30, 1, 40, 25], 2, [3, 4]),
        ([40, 30, 40, 1, 40], 2, [2, 4]),
        ([40, 30, 20, 40], 9, [2, 3]),
        ([40, 30], 9, [1]),
        ([0, 0, 40, 40], 2, [3]),
        ([1, 0, 20, 30, 0, 25], 28, [5]),
    ],
)
def test_the_days_held_out_are_the_last_that_are_no_outage(
    tmp_path: Path, rows: list[int], most: int, expected: list[int]
) -> None:
    terms, home = logs.contract(logs.EXPOSURES), Home(tmp_path, "shown")
    days = terms.days()[: len(rows)]
    for day in terms.days():
        count = rows[days.index(day)] if day in days else 0
        told = [
            {"user": n, "item": 1, "time": terms.day_start(day) + n, "category": 1, "position": 0, "clicked": 0.0, "stars": 1.0}
            for n in range(count)
        ]
        logs.write_events(home, terms, day, told)
    for day in days:
        samples.build(home, terms, day)
    assert samples.held_out(home, days, most) == [days[n] for n in expected]
    assert samples.newest(home, days) == max((day for day, count in zip(days, rows, strict=True) if count), default=days[-1])
