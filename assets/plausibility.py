"""Whether a day looks like the days before it: five comparisons of the numbers that the manifests keep.

A log can be readable to the last row and wrong all the same: half a day's file, a join that lost a column, ids counted
anew. What fails with the contract's severity `error` blocks the day in its manifest, as too many bad rows do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from statistics import mean, median
from typing import Any

from scipy.special import bdtrc

from assets import lake
from models.contract import Contract
from models.home import EARLIER_DAY, Home

CHANCE = 1e-3
MISSING = "look for a file that is missing or cut off"
SHOWN = 3
"""Days that are shown of many with the same to be said of them."""


@dataclass(frozen=True)
class Day:
    """A day in numbers: rows that came, those of an unknown behaviour, events, and `tally.measure`."""

    name: str
    rows_in: int
    unknown: int
    events: int
    newest: int | None
    columns: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, day: str, counts: dict[str, int], detail: dict[str, Any]) -> Day:
        """From the counts and the detail of a manifest that holds a `tally`."""
        return cls(day, counts["rows_in"], detail["by_rule"].get("unknown_behaviour", 0), counts["events"], **detail["tally"])


@dataclass(frozen=True)
class Wrong:
    """Why a day does not pass, and what may be the cause. As text: that and what to do."""

    day: str
    came: str
    expected: str
    cause: str
    check: str

    def __str__(self) -> str:
        return (
            f"{self.day}: {self.came} came, and expected was {self.expected}; {self.cause}, or when the day is right add it to "
            f"checks.unusual_days or widen checks.{self.check} in the contract, then {lake.remedy('events', self.day)} again"
        )


@dataclass(frozen=True)
class Finding:
    """What a check says of one day; wrong is None when the day passes."""

    expected: str
    actual: str
    wrong: Wrong | None = None


Check = Callable[[Contract, Day, Sequence[Day]], Finding]


def volume(contract: Contract, day: Day, trailing: Sequence[Day]) -> Finding:
    """Rows of the day lie between the smallest and the largest multiple of the trailing days' median."""
    terms, actual = contract.checks.volume, f"{day.events:,} rows"
    if told := _too_few(contract, trailing):
        return Finding(told, actual)
    usual = median(d.events for d in trailing)
    expected = (
        f"{terms.smallest * usual:,.0f} to {terms.largest * usual:,.0f} rows ({terms.smallest:g} to {terms.largest:g} times "
        f"{usual:,.0f}, the median of {_days(trailing)} before it)"
    )
    if terms.smallest * usual <= day.events <= terms.largest * usual:
        return Finding(expected, actual)
    cause = MISSING if day.events < usual else "look for rows that were delivered twice"
    return Finding(expected, actual, Wrong(day.name, actual, expected, cause, "volume"))


def freshness(contract: Contract, day: Day, trailing: Sequence[Day]) -> Finding:
    """Events reach to within a few hours of the day's end; on a log of day resolution there is one at all.

    Held against the day's own end and not against the clock: a day that never came is refused by ingest, and a closed
    log does not grow stale.
    """
    hours = contract.checks.freshness.silent_hours
    by_day = contract.time.resolution == "day"
    expected = "an event" if by_day else f"an event within {hours:g} hours of the day's end"
    if day.newest is None:
        actual, wrong = "no event", by_day or hours < 24
    elif by_day:
        actual, wrong = "an event", False
    else:
        silent = (contract.day_end(day.name) - day.newest) / 3_600_000
        actual, wrong = f"the newest event {silent:.1f} hours before the day's end", silent > hours
    cause = "look for a file that is missing or was delivered before the day was over"
    return Finding(expected, actual, Wrong(day.name, actual, expected, cause, "freshness") if wrong else None)


def unknown_behaviours(contract: Contract, day: Day, trailing: Sequence[Day]) -> Finding:
    """Few rows are quarantined for a behaviour that the contract does not know."""
    if contract.shape != "events":
        return Finding("not compared: an exposure log has no behaviour column", "no behaviours")
    limit = contract.checks.unknown_behaviours.share
    share = day.unknown / day.rows_in if day.rows_in else 0.0
    expected, actual = f"at most {limit:.2%} of the rows", f"{day.unknown:,} of {day.rows_in:,} rows ({share:.2%})"
    if share <= limit:
        return Finding(expected, actual)
    cause = f"see the rule 'unknown_behaviour' in quarantine/day={day.name} and name new values under behaviours"
    came = f"{actual} with a behaviour that the contract does not know"
    return Finding(expected, actual, Wrong(day.name, came, expected, cause, "unknown_behaviours"))


def null_rates(contract: Contract, day: Day, trailing: Sequence[Day]) -> Finding:
    """No column's share of nulls lies further above its mean of the trailing days than the contract allows.

    Nor than chance explains: on a day of few rows as many nulls may come though the share is the highest allowed. A column
    fails where a binomial draw at that share would give so many less than once in a thousand.
    """
    if told := _too_few(contract, trailing):
        return Finding(told, "not compared")
    shares = {name: c["nulls"] / max(day.events, 1) for name, c in day.columns.items() if "nulls" in c}
    before = {name: [d.columns[name]["nulls"] / d.events for d in trailing if _has(d, name, "nulls")] for name in shares}
    limits = {name: mean(found) + contract.checks.null_rates.rise for name, found in before.items() if found}
    expected = "; ".join(f"{name} at most {min(limit, 1):.1%} null" for name, limit in limits.items()) or "no such column"
    actual = "; ".join(f"{name} {shares[name]:.1%} null" for name in limits) or "no such column"
    wrong = [
        name
        for name, limit in limits.items()
        if shares[name] > limit and _chance(day.columns[name]["nulls"], day.events, limit) < CHANCE
    ]
    if not wrong:
        return Finding(expected, actual)
    came = " and ".join(f"{name} null in {shares[name]:.1%} of the rows" for name in wrong)
    wanted = " and ".join(f"at most {limits[name]:.1%}" for name in wrong) + f" (the mean of {_days(trailing)} before + "
    wanted += f"{contract.checks.null_rates.rise:.1%})"
    cause = "look for a column that was renamed, moved or not filled where the log is made"
    return Finding(expected, actual, Wrong(day.name, came, wanted, cause, "null_rates"))


def id_ranges(contract: Contract, day: Day, trailing: Sequence[Day]) -> Finding:
    """Ids and features stay in the magnitude of the trailing days, and as different from one another as they were there.

    Lenient to growth: ids that are counted on, and a day with more or fewer rows, pass. Of a hashed text only the number
    of different ones is compared.
    """
    if told := _too_few(contract, trailing):
        return Finding(told, "not compared")
    if not day.events:
        return Finding("not compared: the day has no event", "no ids")
    found = [(name, *told) for name in day.columns for told in (*_range(contract, name, day, trailing),
                                                                *_distinct(contract, name, day, trailing))]  # fmt: skip
    expected = "; ".join(f"{name} {limit}" for name, limit, _, _ in found)
    actual = "; ".join(f"{name} {came}" for name, _, came, _ in found)
    wrong = [(f"{name} {came}", f"{name} {limit}") for name, limit, came, holds in found if not holds]
    if not wrong:
        return Finding(expected, actual)
    came, wanted = (" and ".join(part) for part in zip(*wrong, strict=True))
    cause = "look for ids of another kind, numbered anew or in another column's place"
    return Finding(expected, actual, Wrong(day.name, came, wanted, cause, "id_ranges"))


def _chance(nulls: int, rows: int, share: float) -> float:
    """The probability of `nulls` or more of `rows`, each null with probability `share`."""
    return float(bdtrc(nulls - 1, rows, share)) if nulls else 1.0


Compared = list[tuple[str, str, bool]]
"""What was expected, what came, whether it holds; empty where nothing is compared."""


def _range(contract: Contract, name: str, day: Day, trailing: Sequence[Day]) -> Compared:
    before = [d.columns[name] for d in trailing if _has(d, name, "low")]
    if not before or not _has(day, name, "low"):
        return []
    low, high, factor = day.columns[name]["low"], day.columns[name]["high"], contract.checks.id_ranges.factor
    sizes = [_size(c["low"], c["high"]) for c in before]
    least, most = min(sizes) / factor, max(sizes) * factor
    signed = any(c["low"] < 0 for c in before)
    limit = f"as large as {least:,.0f} to {most:,.0f}" + ("" if signed else " and never negative")
    return [(limit, f"from {low:,} to {high:,}", least <= _size(low, high) <= most and (signed or low >= 0))]


def _size(low: int, high: int) -> int:
    return max(abs(low), abs(high), 1)


def _distinct(contract: Contract, name: str, day: Day, trailing: Sequence[Day]) -> Compared:
    """Different ones: as many as usual, or as many more or fewer as there are rows with one, and a factor beyond both.

    A day without any is not compared: that is for `null_rates` to say, and the last entries of a list are rare.
    """
    before = [d for d in trailing if _filled(d, name)]
    if not before or not (filled := _filled(day, name)):
        return []
    factor, count = contract.checks.id_ranges.distinct, day.columns[name]["distinct"]
    usual, rows = median(d.columns[name]["distinct"] for d in before), filled / median(_filled(d, name) for d in before)
    least, most = usual * min(rows, 1) / factor, usual * max(rows, 1) * factor
    return [(f"with {least:,.0f} to {most:,.0f} different", f"with about {count:,} different", least <= count <= most)]


def _filled(day: Day, name: str) -> int:
    """Rows with a value in a column whose different values were counted."""
    return day.events - day.columns[name].get("nulls", 0) if _has(day, name, "distinct") else 0


def _has(day: Day, name: str, what: str) -> bool:
    return day.columns.get(name, {}).get(what) is not None


def _too_few(contract: Contract, trailing: Sequence[Day]) -> str | None:
    terms = contract.checks
    if len(trailing) >= terms.fewest_days:
        return None
    return (
        f"not compared: {len(trailing)} of the {terms.days} days before it are there, hold rows and may be read; "
        f"{terms.fewest_days} are needed"
    )


def _days(trailing: Sequence[Day]) -> str:
    return f"{len(trailing)} day" + "s" * (len(trailing) > 1)


def told(wrong: Sequence[Wrong]) -> str:
    """What one check found on several days: the first of them, and once for all what to do."""
    if len(wrong) == 1:
        return str(wrong[0])
    first = "; ".join(f"{w.day}: {w.came} came, and expected was {w.expected}" for w in wrong[:SHOWN])
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    causes = ", ".join(list(dict.fromkeys(w.cause.replace(w.day, "…") for w in wrong))[:SHOWN])
    return (
        f"{len(wrong)} days. {first}{more}. {causes[0].upper()}{causes[1:]}, or when the days are right add them to "
        f"checks.unusual_days or widen checks.{wrong[0].check} in the contract, then {lake.remedy('events', wrong[-1].day)}: "
        "every day is held against the contract again"
    )


CHECKS: dict[str, Check] = {
    "volume": volume,
    "freshness": freshness,
    "unknown_behaviours": unknown_behaviours,
    "null_rates": null_rates,
    "id_ranges": id_ranges,
}
"""By the name of their section in the contract's `checks`."""


def judge(home: Home, contract: Contract, day: Day) -> dict[str, Finding]:
    """What each check says of a day, beside the days before it as their manifests are now."""
    first = date.fromisoformat(day.name)
    if first in contract.checks.unusual_days:
        return dict.fromkeys(CHECKS, Finding("anything: the day is among checks.unusual_days", f"{day.events:,} rows"))
    trailing = []
    for back in range(contract.checks.days, 0, -1):
        before = first - timedelta(days=back)
        manifest = lake.read(home, "events", str(before)) if before not in contract.checks.unusual_days else None
        if manifest and not manifest.blocked and "tally" in manifest.detail and manifest.counts["events"]:
            trailing.append(Day.of(str(before), manifest.counts, manifest.detail))
    return {name: check(contract, day, trailing) for name, check in CHECKS.items()}


def severity(contract: Contract, check: str) -> str:
    """`warn` or `error`: what the contract says of a check in `CHECKS`."""
    found: str = getattr(contract.checks, check).severity
    return found


def blocked(home: Home, contract: Contract, day: str, counts: dict[str, int], detail: dict[str, Any]) -> str | None:
    """Why a day may not be read, for what its manifest tells: what ingest refused, and what fails with severity error."""
    reasons = [detail["refused"]]
    if day != EARLIER_DAY:
        found = judge(home, contract, Day.of(day, counts, detail))
        reasons += [str(f.wrong) for name, f in found.items() if f.wrong and severity(contract, name) == "error"]
    return " | ".join(filter(None, reasons)) or None


def settle(home: Home, contract: Contract) -> dict[str, str | None]:
    """Judge every day anew, in order, and mend the manifests; day → reason (None: free again) of those that changed.

    A day's block follows from its own numbers, its neighbours' and the contract, and the latter two may have changed
    since it was made. Reads manifests alone.
    """
    changed = {}
    for day in lake.partitions(home, "events"):
        manifest = lake.read(home, "events", day)
        if manifest is None or "tally" not in manifest.detail:
            continue
        reason = blocked(home, contract, day, manifest.counts, manifest.detail)
        if reason != manifest.blocked:
            lake.write_json(home.manifest("events", day), asdict(replace(manifest, blocked=reason)))
            changed[day] = reason
    return changed
