"""Which days a command means: those of the log, and the newest that can be ingested or judged."""

from __future__ import annotations

from datetime import date, timedelta

from assets import ingest, lake, ledger, plausibility
from models.contract import Contract
from models.home import UNKNOWN_DAY, Home
from orchestration import jobs


def of_log(home: Home, contract: Contract) -> list[str]:
    """Every day of the calendar up to the last that the accepted files hold. Raises ValueError when there is none."""
    last = ingest.last_day(home, contract)
    if last is None and not ledger.active(home):
        raise ValueError(f"no file of the log was ingested into {home.base} yet; run ./dtrn ingest or ./dtrn backfill first")
    if last is None:
        raise ValueError(
            f"the log holds no good row from {contract.calendar.first_day} to {contract.calendar.last_day or 'now'}; "
            f"why each was refused stands in {home.quarantine(UNKNOWN_DAY)} and beside it"
        )
    return contract.days(last)


def to_judge(home: Home, contract: Contract) -> list[str]:
    """Every day of the log that can be judged, without those known to have no sample. Raises ValueError when there is none."""
    every = of_log(home, contract)
    if not (judged := jobs.judgeable(contract, every[-1])):
        raise ValueError(
            f"the log ends on {every[-1]}, too early to judge a day: it takes {contract.training.judged_days} to judge and two "
            "before, all with their labels known"
        )
    sampled = {day: lake.read(home, "samples", day) for day in judged}
    return [day for day, manifest in sampled.items() if manifest is None or manifest.counts["samples"]] or judged


def cut_off(home: Home, contract: Contract, day: str) -> str:
    """What came and what was expected of a day that has far fewer rows than the days before it; empty of any other."""
    manifest = lake.read(home, "events", day)
    if manifest is None or "tally" not in manifest.detail or contract.training.judged_days > 1:
        return ""
    found = plausibility.judge(home, contract, plausibility.Day.of(day, manifest.counts, manifest.detail))["volume"]
    few = found.wrong is not None and found.wrong.cause == plausibility.MISSING
    return f"{found.actual} came, and expected was {found.expected}" if few else ""


def apart(judged: list[str], count: int) -> list[str]:
    """Of days in a row the last, and those before it that are `count` and more apart.

    >>> apart(["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"], 2), apart(["2026-03-01", "2026-03-07"], 1)
    (['2026-03-02', '2026-03-04'], ['2026-03-01', '2026-03-07'])
    """
    kept: list[str] = []
    for day in reversed(judged):
        if not kept or date.fromisoformat(kept[0]) - date.fromisoformat(day) >= timedelta(days=count):
            kept.insert(0, day)
    return kept


def base_day(home: Home, contract: Contract, day: str | None) -> str:
    """`day`, or the log's last. Raises ValueError when it is not one of the log's."""
    return _one_of(of_log(home, contract), day, "a day of the log")


def judged_day(home: Home, contract: Contract, day: str | None) -> str:
    """`day`, or the newest that can be judged. Raises ValueError when it cannot be."""
    return _one_of(to_judge(home, contract), day, "a day that can be judged")


def _one_of(days: list[str], day: str | None, what: str) -> str:
    if day is None:
        return days[-1]
    try:
        asked = str(date.fromisoformat(day))
    except ValueError:
        raise ValueError(f"'{day}' is not a day; YYYY-MM-DD is, for example {days[-1]}") from None
    if asked not in days:
        raise ValueError(f"{asked} is not {what}; those are {days[0]} to {days[-1]}")
    return asked
