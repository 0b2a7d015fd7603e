"""Log files become one sorted partition of events a local day, and what is wrong with them a quarantine beside it.

A file is accepted once, by its content, and split by day once. A day is the merge of what all accepted files hold of it:
identical rows of different files are told twice (the largest number of them within one file counts), so a redelivery is
harmless and a late file merges into its old day. Too many bad rows block the day, in its manifest, for every reader.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import ibis
import pyarrow as pa

from assets import (
    columns,
    lake,
    ledger,
    limits,
    parquet,
    parsing,
    plausibility,
    reading,
    sides,
    splitting,
    tally,
    validation,
)
from assets.lake import Manifest
from assets.project import Project, explained
from assets.splitting import Split
from assets.validation import Layout
from models.contract import Contract
from models.home import EARLIER_DAY, UNKNOWN_DAY, Home

QUARANTINE = {
    "file": "string",
    "file_hash": "string",
    "line": "int64",
    "row": "int64",
    "rule": "string",
    "detail": "string",
    "raw": "string",
}

SHOWN = 50
"""File names in an asset's metadata."""


@dataclass(frozen=True)
class Accepted:
    """A source file whose content is in the ledger: SHA-256, path when first seen, counts, and whether it was split now."""

    file: str
    name: str
    split: Split
    fresh: bool


def accept(home: Home, contract: Contract, source: str, seen: datetime) -> list[Accepted]:
    """Take in what `source` names (file, folder, glob), split new files by day; one entry per distinct content.

    `seen` is now (aware). Files that cannot be read are accepted too, as one quarantined row each. A file over the limit
    of bad rows is withdrawn when its path holds other content now, or when it had no good row and is no longer named.
    Raises ValueError when `source` names no file, ContractError when the time's format cannot be used.
    """
    reading.check_format(contract)
    paths, _ = parsing.named(source, contract)
    found: dict[str, Accepted] = {}
    for path in paths:
        file = lake.content_hash(path)
        if file not in found:
            entry = ledger.accept(home, file, parsing.shown(path), seen)
            split, fresh = splitting.split(home, contract, path, file, entry.first_seen)
            found[file] = Accepted(file, entry.name, split, fresh)
    sides.build(home, contract, source)
    _withdraw_replaced(home, contract, {parsing.shown(p) for p in paths}, set(found), seen)
    _settle_unknown(home, contract)
    return list(found.values())


def _withdraw_replaced(home: Home, contract: Contract, names: set[str], files: set[str], seen: datetime) -> None:
    for entry in ledger.active(home):
        split = splitting.read(home, entry.file)
        if entry.file in files or split is None or not limits.over_limit(split, contract):
            continue
        if entry.name in names:
            ledger.withdraw(home, entry.file, "over the limit of bad rows, and delivered anew under the same name", seen)
        elif not split.rows_valid:
            ledger.withdraw(home, entry.file, "without a good row, and no longer among the source files", seen)


def totals(home: Home, contract: Contract, source: str) -> dict[str, int]:
    """rows_in, rows_valid, rows_quarantined, rows_left_out over the distinct files that `source` names; all accepted before."""
    splits = []
    for file in {lake.content_hash(path): path for path in parsing.named(source, contract)[0]}:
        split = splitting.read(home, file)
        if split is None:
            raise ValueError(
                f"{source}: a file there was not ingested yet; run ./dtrn ingest first (in the UI: materialise log_files)"
            )
        splits.append(split)
    return _added(splits)


def _added(splits: list[Split]) -> dict[str, int]:
    names = ("rows_in", "rows_valid", "rows_quarantined", "rows_left_out")
    return {name: sum(getattr(split, name) for split in splits) for name in names}


def last_day(home: Home, contract: Contract) -> date | None:
    """The newest day of the calendar that an accepted file has a good row of; None when there is none."""
    days = [day for _, split in _splits(home, contract) for day in split.valid if day != EARLIER_DAY]
    return min(filter(None, (date.fromisoformat(max(days)), contract.calendar.last_day))) if days else None


def _splits(home: Home, contract: Contract) -> list[tuple[ledger.Entry, Split]]:
    """Every file that counts with its split. Raises ValueError when one was split under other terms than the contract's."""
    found = []
    for entry in ledger.active(home):
        split = splitting.read(home, entry.file)
        if split is None or split.contract != splitting.terms(contract, entry.first_seen):
            stale = "not split by day yet" if split is None else "split under another contract"
            raise ValueError(
                f"{entry.name}: {stale}; run ./dtrn ingest (in the UI: materialise log_files) with this file "
                f"(sha256 {entry.file[:10]}…) among its source, so that it is read again"
            )
        found.append((entry, split))
    return found


# one day


def events(home: Home, contract: Contract, day: str) -> tuple[Manifest, bool]:
    """Bring the partition of one day (or `earlier`) and its quarantine up to date; (its manifest, whether work was done).

    Raises lake.Missing for a day after the last that any file has a row of: it has not come yet, and read as an empty day it
    would end the waiting for other days' labels. Raises ValueError when an accepted file was split under another contract.
    """
    files = [(entry, split) for entry, split in _splits(home, contract) if limits.concerns(split, day)]
    last, waits = last_day(home, contract), None
    if not files and day != EARLIER_DAY and (last is None or date.fromisoformat(day) > last):
        waits = (
            f"no file has a row of {day} or of a later day: it has not come yet. Put its file where the log is, "
            f"then {lake.remedy('events', day)} again"
        )
        if lake.read(home, "events", day) is None:
            raise lake.Missing(waits)
    inputs = _inputs(home, contract, files, day)

    def make(target: Path) -> dict[str, Any]:
        bad = _write_quarantine(home, contract, day)
        valid = sum(split.valid.get(day, 0) for _, split in files)
        rows = _merge(home, contract, day, [entry.file for entry, split in files if day in split.valid], target)
        counts = {"rows_in": valid + bad, "rows_valid": valid, "rows_quarantined": bad, "merged": valid - rows, "events": rows}
        by_rule = Counter[str]()
        for _, split in files:
            by_rule.update(split.bad.get(day, {}))
        with splitting.spilling(home) as (con, _):
            numbers = tally.measure(con, target, contract)
        refused = limits.blocked(files, day, contract) or waits
        detail = {"by_rule": dict(sorted(by_rule.items())), "tally": numbers, "refused": refused}
        return {
            "counts": counts,
            "detail": detail,
            "blocked": plausibility.blocked(home, contract, day, counts, detail),
        }

    modules = ("ingest", "limits", "lake", "sides", "tally")
    code = lake.code_hash(*(f"assets/{module}.py" for module in modules)) + splitting.code()
    terms = splitting.terms(contract) + contract.digest("validation", "item_table", "user_table")
    manifest, worked = lake.build(home, "events", day, home.events(day), make, inputs=inputs, code=code, contract=terms)
    if not home.quarantine(day).is_file():
        _write_quarantine(home, contract, day)
    return manifest, worked


def _inputs(home: Home, contract: Contract, files: list[tuple[ledger.Entry, Split]], day: str) -> dict[str, str]:
    return sides.contents(home, contract) | {
        e.file: f"{s.pieces.get(day, 'no rows')} {s.bad_rows(day)} {s.bad_rows(UNKNOWN_DAY)}/{s.rows_read}" for e, s in files
    }


def to_renew(home: Home, contract: Contract) -> list[str]:
    """Days that are there and that the accepted files tell otherwise by now: a late file, one withdrawn, another side table."""
    splits = _splits(home, contract)
    there = ((day, lake.read(home, "events", day)) for day in lake.partitions(home, "events"))
    return [
        day
        for day, m in there
        if m and m.inputs != _inputs(home, contract, [f for f in splits if limits.concerns(f[1], day)], day)
    ]


def _merge(home: Home, contract: Contract, day: str, files: list[str], target: Path) -> int:
    """Write the day's events, sorted by all their columns; the number of rows."""
    own, kept = list(Layout.of_log(contract).kept()), validation.kept(contract)
    with splitting.spilling(home) as (con, _):
        rows = None
        if files:
            told = con.read_parquet([home.split(file) / f"day={day}.parquet" for file in files], filename=True)
            by_file = told.group_by([*own, "filename"]).agg(times=told.count())
            most = by_file.group_by(own).agg(times=by_file.times.max())
            rows = most.mutate(copy=ibis.range(0, most.times).unnest())
            for entity, table in sides.tables(home, contract).items():
                rows = rows.left_join(con.read_parquet(table), entity, rname="told_{name}")
            rows = rows.select(*kept).order_by(list(kept))
        return parquet.write(con, rows, validation.arrow_schema(kept), target)


def _settle_unknown(home: Home, contract: Contract) -> None:
    """The rows without a day, with a manifest: who was killed before writing them must see that they are due."""
    splits = [(entry, splitting.read(home, entry.file)) for entry in ledger.active(home)]
    inputs = {e.file: f"{s.contract} {s.code}" for e, s in splits if s and s.bad_rows(UNKNOWN_DAY)} | sides.contents(
        home, contract
    )
    lake.build(
        home, "quarantine", UNKNOWN_DAY, home.quarantine(UNKNOWN_DAY),
        lambda target: {"counts": {"rows": _quarantined(home, contract, UNKNOWN_DAY, target)}},
        inputs=inputs, code=lake.code_hash("assets/ingest.py", "assets/parquet.py"), contract=contract.digest("source"),
    )  # fmt: skip


def _write_quarantine(home: Home, contract: Contract, day: str) -> int:
    with lake.replacing(home.quarantine(day)) as target:
        return _quarantined(home, contract, day, target)


def _quarantined(home: Home, contract: Contract, day: str, target: Path) -> int:
    """Write a day's bad rows of all files that count, ordered by file and place in it; the number of rows."""
    place, other = ("row", "line") if contract.source.format == "parquet" else ("line", "row")
    splits = [(entry, splitting.read(home, entry.file)) for entry in ledger.active(home)]
    files = {str(home.split(e.file) / "bad.parquet"): (e.name, e.file) for e, split in splits if split and split.bad_rows(day)}
    if day == UNKNOWN_DAY:
        files |= sides.bad(home, contract)
    with splitting.spilling(home) as (con, _):
        rows = None
        if files:
            told = [{"filename": path, "file": name, "file_hash": file} for path, (name, file) in files.items()]
            con.con.register("names", pa.Table.from_pylist(told))
            names, bad = con.table("names"), con.read_parquet(list(files), filename=True)
            bad = bad.filter(bad.day.isnull() if day == UNKNOWN_DAY else bad.day == day).join(names, "filename")
            rows = bad.mutate(**{place: bad.number, other: ibis.null("int64")}).order_by("file", "file_hash", place)
        return parquet.write(con, rows, ibis.schema(QUARANTINE).to_pyarrow(), target)


@dg.asset(description="Source files, taken in once by content and split by local day")
def log_files(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[None]:
    with explained():
        accepted = accept(project.home, project.terms, project.source, datetime.now(UTC))
        _, aside = parsing.named(project.source, project.terms)
        tables = {entity: sides.read(project.home, entity) for entity in sides.of(project.terms)}
    by_rule = Counter[str]()
    for one in accepted:
        for rules in one.split.bad.values():
            by_rule.update(rules)
        line = f"{one.name}: {one.split.rows_in} rows, {one.split.rows_quarantined} bad"
        line += f", {one.split.rows_left_out} left out" if one.split.rows_left_out else ""
        context.log.info(line + ("" if one.fresh else ", known already"))
    counts = _added([a.split for a in accepted])
    told: dict[str, Any] = {
        "files": [a.name for a in accepted],
        "left_aside": [parsing.shown(p) for p in aside],
        "by_rule": dict(by_rule),
        **{f"{entity}_table": asdict(table) for entity, table in tables.items() if table},
    }
    blank = sum(a.split.blank for a in accepted)
    return dg.MaterializeResult(metadata={**told, **counts, "blank_lines": blank, "recomputed": sum(a.fresh for a in accepted)})


@dg.asset(
    name="events", deps=[log_files], description="The good rows of a local day, sorted; the bad ones are in its quarantine"
)
def events_asset(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[None]:
    counts, done = Counter[str](), 0
    with explained():
        days = list(dict.fromkeys([EARLIER_DAY, *to_renew(project.home, project.terms), *context.partition_keys]))
        for day in days:
            manifest, worked = events(project.home, project.terms, day)
            counts.update(manifest.counts)
            done += worked
        changed = plausibility.settle(project.home, project.terms)
    now = {day: lake.read(project.home, "events", day) for day in [*days, *changed]}
    blocks = {day: manifest.blocked for day, manifest in now.items() if manifest and manifest.blocked}
    for day, reason in blocks.items():
        context.log.warning(f"{day} is blocked: {reason}")
    last = columns.shown(project.terms, project.home.events(context.partition_keys[-1]))
    return dg.MaterializeResult(metadata={**counts, "blocked": blocks, "recomputed": done, **last})
