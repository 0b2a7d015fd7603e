"""Asset checks on events: what was written is read again, and held against what must be true of it.

Each check looks at the days of its own run. That a day is blocked is decided in its manifest, where every reader asks;
`bad_rows_within_limit`, and the plausibility checks whose severity is `error`, make it show, and stop the run that found it.
"""

from collections.abc import Callable
from typing import Any

import dagster as dg
import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from assets import lake, ledger, plausibility, validation
from assets.project import Project, explained
from assets.validation import Layout
from models.contract import Contract
from models.days import span
from models.home import EARLIER_DAY, Home

REMEDY = (
    "The file of the day is not what ingest wrote of the log. Delete it and run ./dtrn ingest for the day again (in the UI: "
    "materialise log_files and events of the day); "
    "if that gives the same, it is a fault of this program"
)
Outcome = dict[str, tuple[Any, Any]]
"""Day → (expected, actual); a check holds when they are equal on each day."""
Check = Callable[[Home, Contract, list[str]], Outcome]


def schema(home: Home, contract: Contract, days: list[str]) -> Outcome:
    """Each partition is what the contract says: columns, types, nothing missing, times within the day."""
    con = lake.engine()
    return {
        day: ([], validation.schema_failures(con.read_parquet(home.events(day), hive_partitioning=False), contract, day))
        for day in days
    }


def no_duplicates(home: Home, contract: Contract, days: list[str]) -> Outcome:
    """Rows that are there again: none, or where repeats are real, as many as within the one file that has most of them."""
    con = lake.engine()
    kept = list(Layout.of_log(contract).kept())
    found: Outcome = {}
    for day in days:
        copies = con.read_parquet(home.events(day), hive_partitioning=False).group_by(kept).agg(copies=ibis._.count())
        real = contract.validation.repeats == "real"
        allowed = _sum(_told(con, home, contract, day).most - 1) if real else 0
        found[day] = (allowed, _sum(copies.copies - 1))
    return found


def rows_accounted_for(home: Home, contract: Contract, days: list[str]) -> Outcome:
    """Rows that the files hold of a day = events + told by several files + quarantined, counted in the Parquet of both."""
    con = lake.engine()
    found: Outcome = {}
    for day in days:
        told = _told(con, home, contract, day)
        bad = con.read_parquet([home.split(e.file) / "bad.parquet" for e in ledger.active(home)])
        came = _sum(told.copies) + _sum((bad.day == day).cast("int64"))
        written = [int(pq.read_metadata(path).num_rows) for path in (home.events(day), home.quarantine(day))]
        found[day] = (came, sum(written) + _sum(told.copies - told.most))
    return found


def bad_rows_within_limit(home: Home, contract: Contract, days: list[str]) -> Outcome:
    """No file has more bad rows on a day, or without one, than the contract allows."""
    manifests = {day: lake.read(home, "events", day) for day in days}
    refused = {day: manifest.detail.get("refused") if manifest else None for day, manifest in manifests.items()}
    return {day: ("within the limit", reason or "within the limit") for day, reason in refused.items()}


def _told(con: Backend, home: Home, contract: Contract, day: str) -> ir.Table:
    """The distinct good rows that the files tell of a day: `copies` in all of them, `most` in one of them."""
    kept = list(Layout.of_log(contract).kept())
    pieces = [path for e in ledger.active(home) if (path := home.split(e.file) / f"day={day}.parquet").is_file()]
    # No row of the day's own columns; a memtable would keep the connection alive until the process ends.
    none = con.read_parquet(home.events(day), hive_partitioning=False).mutate(filename=ibis.null("string")).limit(0)
    rows = con.read_parquet(pieces, filename=True) if pieces else none
    by_file = rows.group_by([*kept, "filename"]).agg(copies=ibis._.count())
    return by_file.group_by(kept).agg(most=ibis._.copies.max(), copies=ibis._.copies.sum())


def _sum(column: ir.IntegerColumn) -> int:
    return int(column.sum().fill_null(0).execute())


def _result(context: dg.AssetCheckExecutionContext, project: Project, check: Check) -> dg.AssetCheckResult:
    days = [EARLIER_DAY, *context.op_execution_context.partition_keys]
    with explained():
        found = check(project.home, project.terms, days)
    wrong = {day: pair for day, pair in found.items() if pair[0] != pair[1]}
    shown = wrong or found
    return dg.AssetCheckResult(
        passed=not wrong,
        description=_said(check, wrong) if wrong else None,
        metadata={
            "expected": {d: p[0] for d, p in shown.items()},
            "actual": {d: p[1] for d, p in shown.items()},
            "days": len(found),
        },
    )


def _said(check: Check, wrong: Outcome) -> str:
    """Each finding once, with the days that have it."""
    days: dict[tuple[str, str], list[str]] = {}
    for day, (expected, actual) in wrong.items():
        days.setdefault((str(expected), str(actual)), []).append(day)
    lines = [f"{_days(found)}: expected {expected}, found {actual}" for (expected, actual), found in days.items()]
    if (more := len(lines) - plausibility.SHOWN) > 0:
        lines[plausibility.SHOWN :] = [f"and {more} more"]
    told = "\n".join(lines)
    # A block says what to do itself, since every reader of the day is told it.
    return told if check is bad_rows_within_limit else f"{told}. {REMEDY}"


def _days(days: list[str]) -> str:
    return span(days) + (f" ({len(days)} days)" if len(days) > 1 else "")


@dg.asset_check(asset="events", name="schema", description=schema.__doc__)
def schema_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _result(context, project, schema)


@dg.asset_check(asset="events", name="no_duplicates", description=no_duplicates.__doc__)
def no_duplicates_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _result(context, project, no_duplicates)


@dg.asset_check(asset="events", name="rows_accounted_for", description=rows_accounted_for.__doc__)
def rows_accounted_for_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _result(context, project, rows_accounted_for)


@dg.asset_check(asset="events", name="bad_rows_within_limit", blocking=True, description=bad_rows_within_limit.__doc__)
def bad_rows_within_limit_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _result(context, project, bad_rows_within_limit)


def plausible(home: Home, contract: Contract, check: str, days: list[str]) -> dict[str, plausibility.Finding]:
    """What one of `plausibility.CHECKS` says of days that were ingested. Raises lake.Missing for one that was not."""
    found = {}
    for day in days:
        manifest = lake.read(home, "events", day)
        if manifest is None or "tally" not in manifest.detail:
            raise lake.Missing(f"events of {day} were not measured; {lake.remedy('events', day)} first")
        found[day] = plausibility.judge(home, contract, plausibility.Day.of(day, manifest.counts, manifest.detail))[check]
    return found


def _plausible(context: dg.AssetCheckExecutionContext, project: Project, check: str) -> dg.AssetCheckResult:
    terms, days = project.terms, list(context.op_execution_context.partition_keys)
    with explained():
        found = plausible(project.home, terms, check, days)
    wrong = {day: finding for day, finding in found.items() if finding.wrong}
    shown = wrong or found
    error = plausibility.severity(terms, check) == "error"
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        description=plausibility.told([f.wrong for f in wrong.values() if f.wrong]) if wrong else None,
        metadata={
            "expected": {day: finding.expected for day, finding in shown.items()},
            "actual": {day: finding.actual for day, finding in shown.items()},
            "days": len(found),
        },
    )


@dg.asset_check(asset="events", name="volume", blocking=True, description=plausibility.volume.__doc__)
def volume_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _plausible(context, project, "volume")


@dg.asset_check(asset="events", name="freshness", blocking=True, description=plausibility.freshness.__doc__)
def freshness_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _plausible(context, project, "freshness")


@dg.asset_check(asset="events", name="unknown_behaviours", blocking=True, description=plausibility.unknown_behaviours.__doc__)
def unknown_behaviours_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _plausible(context, project, "unknown_behaviours")


@dg.asset_check(asset="events", name="null_rates", blocking=True, description=plausibility.null_rates.__doc__)
def null_rates_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _plausible(context, project, "null_rates")


@dg.asset_check(asset="events", name="id_ranges", blocking=True, description=plausibility.id_ranges.__doc__)
def id_ranges_check(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    return _plausible(context, project, "id_ranges")
