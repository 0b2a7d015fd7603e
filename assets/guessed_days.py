"""The days that an unknown log is of, and the zone that they are days in with the reason for it: counted over the whole log."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assets import lake, parsing, reading
from assets.guessed_time import Ask, Moment
from assets.profile import Profile
from assets.reading import fields, json_fields, written
from models.contract import Contract
from models.sections import Source

HOUR_MS = 3_600_000
ZONES = {
    -10: "Pacific/Honolulu", -8: "America/Los_Angeles", -7: "America/Denver", -6: "America/Chicago", -5: "America/New_York",
    -4: "America/Santiago", -3: "America/Sao_Paulo", 0: "UTC", 1: "Europe/Paris", 2: "Europe/Helsinki", 3: "Europe/Moscow",
    4: "Asia/Dubai", 5: "Asia/Karachi", 6: "Asia/Dhaka", 7: "Asia/Bangkok", 8: "Asia/Shanghai", 9: "Asia/Tokyo",
    10: "Australia/Sydney",
}  # fmt: skip
"""Hours ahead of UTC → a zone of many people there."""

QUIETEST = 3
"""Local hour at which people do least."""
ENOUGH = 1000
"""Rows from which on the hours of a day tell something."""
LONGEST = 366
"""Days of their own that a log gets: each costs a second or so, and nothing is learned from those of years ago."""
LEARNED = 100_000
"""Rows that a training window holds where the log has them in WINDOW (least, most) days: a model of few rows knows little."""
WINDOW = (14, 300)
JUDGED, PEOPLE = 6_000, 200
"""Rows and users that a verdict is of where MOST_JUDGED days, and an eighth of the log, hold them: few tell nothing."""
MOST_JUDGED = 28
ODD = 3
"""Days that are marked as unlike others; of more of them the log is like that."""


@dataclass(frozen=True)
class Days:
    """The days that a log is of, local to `zone`; rows `earlier` and `later` than these; least and most rows a day.

    a_day: rows a day, on average · window, judged: days to learn from, and to judge by · people: users of the newest days
    judged, where they were counted · checks: limits that fit the log where the usual ones do not, by the check's name.
    """

    zone: str
    why: str
    first: date
    last: date
    accept_from: date | None
    earlier: int
    later: int
    volume: tuple[int, int]
    total: int
    a_day: float
    window: int
    judged: int
    people: int | None
    checks: dict[str, str]


Aside = tuple[str, tuple[str, ...]] | None
"""Column and values of it whose rows are no events, and so make no day."""


def guess(seen: Profile, moment: Moment, user: str, ask: Ask, aside: Aside = None) -> Days:
    """The days of a log whose time is `moment`. Raises ValueError when no row has a readable one."""
    year = None
    if moment.format == "%m%d":
        year = int(ask("year", f"'{moment.column}' is written without a year; which one is it?", [("", moment.evidence)]))
    counts = hours(seen, moment, year, aside)
    if not len(counts):
        raise ValueError(f"no row of {', '.join(p.name for p in seen.files)} has a readable '{moment.column}'")
    zone, why = _zone(seen, counts, moment, ask)
    contract = _timed(seen.source, moment, year, "UTC" if _local(moment) else zone)  # as `hours` counted
    by_day: dict[date, int] = {}
    for hour, rows in zip(counts.index.tolist(), counts.tolist(), strict=True):
        day = contract.day_of(hour * HOUR_MS)
        by_day[day] = by_day.get(day, 0) + rows
    usual = float(np.median(sorted(by_day.values())[len(by_day) // 2 :]))
    first, last = _span(by_day, 0.02 * usual)
    first = max(first, last - timedelta(days=LONGEST - 1))
    before = {day: rows for day, rows in by_day.items() if day < first}
    volumes = [by_day.get(first + timedelta(days=n), 0) for n in range((last - first).days + 1)]
    a_day, (least, most) = max(float(np.mean(volumes)), 1), WINDOW
    most_judged = max(min(MOST_JUDGED, len(volumes) // 8), 1)
    judged = min(math.ceil(JUDGED / a_day), most_judged)
    many = a_day >= JUDGED or most_judged == 1
    people = [] if many else _people(seen, moment, user, year, contract, last, most_judged, aside)
    if people:  # as many as there are, where even all of them are fewer than wanted
        judged = next(n for n, users in enumerate(people, 1) if n >= judged and users >= min(PEOPLE, people[-1]))
    window = max(min(max(least, math.ceil(LEARNED / a_day)), most, len(volumes) - judged - 1), 2)
    return Days(
        zone,
        why,
        first,
        last,
        min(before, default=None),
        sum(before.values()),
        sum(rows for day, rows in by_day.items() if day > last),
        (min(volumes), max(volumes)),
        sum(by_day.values()),
        a_day,
        window,
        judged,
        people[judged - 1] if people else None,
        _limits(contract, counts, volumes, first),
    )


def _people(
    seen: Profile, moment: Moment, user: str, year: int | None, contract: Contract, last: date, most: int, aside: Aside
) -> list[int]:
    """Different users of the last day, of the last two, … of the last `most`."""
    newest = [str(last - timedelta(days=n)) for n in range(most)]
    found = _counted(seen, moment, year, aside, user, contract.day_start(newest[-1]) // HOUR_MS).dropna()
    day = found["hour"].map(lambda hour: str(contract.day_of(int(hour) * HOUR_MS)))
    users: set[str] = set()
    counts = []
    for name in newest:
        users |= set(found["user"][day == name])
        counts.append(len(users))
    return counts


def _limits(contract: Contract, counts: pd.Series, volumes: list[int], first: date) -> dict[str, str]:
    """Limits of the checks that compare volumes and ends of days, wide enough for this log where the usual would often fail."""
    terms, wide = contract.checks, {}
    usual = pd.Series(volumes).where(lambda rows: rows > 0).shift().rolling(terms.days, min_periods=terms.fewest_days).median()
    ratio = (pd.Series(volumes) / usual).dropna()
    if ((ratio < terms.volume.smallest) | (ratio > terms.volume.largest)).sum() > ODD:
        smallest = min(math.floor(100 * ratio.min()) / 100, terms.volume.smallest)
        wide["volume"] = f"{{ smallest = {smallest:g}, largest = {math.ceil(max(ratio.max(), terms.volume.largest))} }}"
    newest = {contract.day_of(hour * HOUR_MS): hour for hour in counts.index.tolist()}  # the minute is not known
    days = [first + timedelta(days=n) for n in range(len(volumes))]
    silent = [contract.day_end(day) / HOUR_MS - newest[day] if day in newest else 24 for day in days]
    if sum(hours > terms.freshness.silent_hours for hours in silent) > ODD and contract.time.resolution != "day":
        wide["freshness"] = f"{{ silent_hours = {min(math.ceil(max(silent)), 24)} }}"
    return wide


def _span(by_day: dict[date, int], least: float) -> tuple[date, date]:
    """First and last day with `least` rows, but for stretches that stand a month apart and hold next to nothing of the log."""
    runs: list[list[date]] = []
    for day in sorted(day for day, rows in by_day.items() if rows >= least):
        if not runs or day - runs[-1][-1] > timedelta(days=30):
            runs.append([])
        runs[-1].append(day)
    kept = [run for run in runs if sum(by_day[day] for day in run) >= 0.05 * sum(by_day.values())]
    return kept[0][0], kept[-1][-1]


def hours(seen: Profile, moment: Moment, year: int | None, aside: Aside = None) -> pd.Series:
    """Rows by hour since 1970 (UTC; a local time as if it were UTC), over the whole log, where its time can be read."""
    return _counted(seen, moment, year, aside).groupby("hour")["rows"].sum().astype(int)


def _counted(
    seen: Profile, moment: Moment, year: int | None, aside: Aside, user: str | None = None, since: int | None = None
) -> pd.DataFrame:
    """Rows by hour, and by user where that column is named, over the whole log where its time can be read; in pieces.

    since: the first hour that counts, since 1970.
    """
    contract, counts = _timed(seen.source, moment, year, "UTC"), []
    read = {"value": moment.column} | ({"user": user} if user else {}) | ({"what": aside[0]} if aside else {})
    columns, left_out = tuple(dict.fromkeys(read.values())), aside[1] if aside else ()
    with TemporaryDirectory() as scratch:
        for path in seen.files:
            opened = parsing.rows(path, seen.source, columns if seen.source.format != "csv" else (), Path(scratch))
            backend, sql = lake.engine(), ""
            for block in opened.blocks:
                backend.con.register("block", block)
                sql = sql or backend.compile(_by_hour(block, opened.columns, contract, read, left_out, since))
                counts.append(backend.con.execute(sql).df())
    found = pd.concat(counts)
    return found[found["hour"].notna()].astype({"hour": int})


def _by_hour(
    block: Any, names: Sequence[str], contract: Contract, read: dict[str, str], left_out: Sequence[str], since: int | None
) -> ir.Table:
    """Rows of a block by hour, and by user where `read` names that column, but for those that are left out."""
    columns = list(read.values())
    t = ibis.table(ibis.Schema.from_pyarrow(block.schema), name="block")
    source = contract.source
    if source.format == "csv":
        cut = fields(t.text, source.delimiter)
        found = [cut[list(names).index(column)] for column in columns]
    elif source.format == "jsonl":
        cut = json_fields(t.text, columns)
        found = [cut[n] for n in range(len(columns))]
    else:
        found = [t[column] for column in columns]
    t = t.select(dict(zip(read, found, strict=True)))
    # One step after another: an expression that is used twice is compiled twice.
    t = t.select({name: written(t[name] if name == "value" else t[name].cast("string")) for name in t.columns})
    if left_out:
        t = t.filter(t.what.isnull() | ~t.what.isin(left_out))
    if contract.time.kind == "date":
        hour = reading.day_number(t.value, contract) * 24
    else:
        hour = reading.moment(t.value, contract, reading.Span.of(contract, contract.calendar.first_day)) // HOUR_MS
    t = t.mutate(hour=hour)
    t = t if since is None else t.filter(t.hour >= since)
    return t.group_by([name for name in ("hour", "user") if name in t.columns]).agg(rows=ibis._.count())


def _timed(source: Source, moment: Moment, year: int | None, zone: str) -> Contract:
    """A contract of which only source and time matter."""
    time = {"column": moment.column, "kind": moment.kind, "format": moment.format, "zone": zone, "year": year}
    columns = source.columns or ("user", "item", moment.column)
    return Contract.model_validate({
        "name": "draft", "shape": "events", "source": source.model_dump(), "time": time,
        "columns": {"user": columns[0], "item": columns[0]}, "calendar": {"first_day": "2000-01-01"},
        "behaviours": {"any": {}}, "tasks": {"any": {"behaviours": ["any"], "horizon_hours": 24}},
    })  # fmt: skip


def _zone(seen: Profile, counts: pd.Series, moment: Moment, ask: Ask) -> tuple[str, str]:
    """A time zone and why: asked for, or guessed from the hour at which least happens."""
    if answer := ask("zone", "", [("", "")]):
        return answer, "as answered"
    if seen.source.format == "parquet" and (own := _of_type(seen, moment)):
        return own, "the column's own"
    if moment.kind == "date":
        return "UTC", "only days are known, so the zone changes nothing"
    if counts.sum() < ENOUGH:
        return "UTC", f"a guess: {counts.sum():,} rows are too few to tell"
    day = np.bincount(counts.index.to_numpy() % 24, counts.to_numpy(), minlength=24).astype(np.float64)
    around: NDArray[np.float64] = np.sum([np.roll(day, shift) for shift in (-2, -1, 0, 1, 2)], axis=0)
    quiet = int(np.argmin(around))
    if around.min() > 0.6 * around.mean():
        return "UTC", "a guess: no hour is quiet enough to tell; days would begin at another hour in another zone"
    ahead = (QUIETEST - quiet + 12) % 24 - 12
    busy = counts[counts >= 0.02 * counts.median()].index
    opens, ends = -int(busy[0]) % 24, -int(busy[-1] + 1) % 24
    cut = (opens + 12) % 24 - 12
    if _local(moment):
        return "UTC", f"no zone is written: read as they stand (least happens at {quiet}:00); name the log's own"
    if opens == ends and abs(cut - ahead) <= 3:
        why = f"a guess: the log begins and ends at {-cut % 24}:00 UTC, which is midnight there; name your own"
        return _named(cut, counts), why
    zone = _named(ahead, counts)
    return zone, f"a guess: least happens at {quiet}:00 UTC, which is {QUIETEST}:00 there; name your own"


def _of_type(seen: Profile, moment: Moment) -> str | None:
    """The zone that a Parquet column of moments is declared in; UTC says nothing of where people are."""
    declared = getattr(pq.read_schema(seen.files[0]).field(moment.column).type, "tz", None)
    return declared if declared and "/" in declared and not declared.startswith("Etc/") else None


def _local(moment: Moment) -> bool:
    """Whether times are written as clocks showed them, without a zone."""
    said = re.search(r"\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)'", moment.evidence) or re.search("UTC|%z", moment.format or "")
    return moment.kind == "date" or (moment.kind == "timestamp" and not said)


def _named(ahead: int, counts: pd.Series) -> str:
    """A zone that was so many hours ahead of UTC in the middle of the log: in summer another one than in winter."""
    middle = datetime.fromtimestamp(int(counts.index[len(counts) // 2]) * 3600, UTC)
    likely = [zone for zone in (ZONES.get(ahead), *ZONES.values()) if zone]
    fitting = [zone for zone in likely if middle.astimezone(ZoneInfo(zone)).utcoffset() == timedelta(hours=ahead)]
    return fitting[0] if fitting else f"Etc/GMT{-ahead:+d}"
