"""One source file, read once: its good rows by local day, its bad ones with their reasons, and the counts of both.

The result is a folder that takes its place whole or not at all. Memory is bounded by a block while the file is read and
by a day while duplicates are looked for; the engine spills the rest to disk.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from assets import lake, parquet, parsing, reading, validation
from assets.validation import LEFT_OUT, Layout
from models.contract import Contract
from models.home import UNKNOWN_DAY, Home

BAD = {"number": "int64", "day": "string", "rule": "string", "detail": "string", "raw": "string"}


@dataclass(frozen=True)
class Split:
    """The counts of one source file.

    contract, code: digests of what it was split under · valid: good rows by day · bad: rules by day (`unknown` for rows
    without one), rows by rule · pieces: content hash of each day's piece · examples: rule → what the first row that broke it
    showed · blank: empty lines, which hold no row · rows_left_out: by the contract, not counted in `rows_in` ·
    refused: why none of the file's rows can be used, None when they can.
    """

    contract: str
    code: str
    valid: dict[str, int] = field(default_factory=dict)
    bad: dict[str, dict[str, int]] = field(default_factory=dict)
    pieces: dict[str, str] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    blank: int = 0
    rows_left_out: int = 0
    refused: str | None = None

    @property
    def rows_valid(self) -> int:
        return sum(self.valid.values())

    @property
    def rows_quarantined(self) -> int:
        return sum(sum(rules.values()) for rules in self.bad.values())

    @property
    def rows_in(self) -> int:
        """A file that could not be read at all counts as one row."""
        return self.rows_valid + self.rows_quarantined

    @property
    def rows_read(self) -> int:
        """All of the file, those that are left out with them."""
        return self.rows_in + self.rows_left_out

    def bad_rows(self, day: str) -> int:
        return sum(self.bad.get(day, {}).values())

    @property
    def days(self) -> set[str]:
        """The days that the file has rows of, good or bad."""
        return (set(self.valid) | set(self.bad)) - {UNKNOWN_DAY}


def terms(contract: Contract, first_seen: datetime | None = None) -> str:
    """Digest of what the contract says about reading a file, and with `first_seen`, of where an open calendar ends for it."""
    data = contract.model_dump(mode="json", include={"source", "columns", "time", "calendar"})
    if not contract.columns.left_out:
        del data["columns"]["left_out"]  # so that files which are not there any more need not be read again for it
    values = {name: [str(v) for v in b.values] for name, b in contract.behaviours.items()}
    open_end = str(_newest(contract, first_seen)) if first_seen and not contract.calendar.last_day else None
    features = {name: feature.model_dump() for name, feature in contract.log_features.items()}
    told = [contract.shape, data, values, features, contract.label_columns, contract.validation.repeats, open_end]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _newest(contract: Contract, first_seen: datetime) -> date:
    return first_seen.astimezone(contract.zone).date() + timedelta(days=1)


def code() -> str:
    return validation.code() + lake.code_hash("assets/splitting.py", "assets/parquet.py")


def read(home: Home, file: str) -> Split | None:
    """The split of a file, None when there is none."""
    path = home.split(file) / "split.json"
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else None


@lru_cache(maxsize=10_000)
def _read(path: Path, written: int) -> Split:
    """Read once for each time it was written: a range of days asks for every file's split again with every day."""
    return Split(**json.loads(path.read_text()))


def _whole(folder: Path, done: Split) -> bool:
    return all((folder / f"day={day}.parquet").is_file() for day in done.valid) and (folder / "bad.parquet").is_file()


def split(home: Home, contract: Contract, path: Path, file: str, first_seen: datetime) -> tuple[Split, bool]:
    """Split a file by day unless that was done under the same contract and code; (its counts, whether work was done)."""
    told = Split(terms(contract, first_seen), code())
    before = read(home, file)
    if before and (before.contract, before.code) == (told.contract, told.code) and _whole(home.split(file), before):
        return before, False
    span = reading.Span.of(contract, _newest(contract, first_seen))
    with lake.replacing(home.split(file)) as folder, spilling(home) as (con, scratch):
        folder.mkdir()
        rows, blank, refused = 0, 0, None
        try:
            rows, blank = stage(con, Layout.of_log(contract), path, span, scratch)
        except parsing.Refused as refusal:
            rows, refused = 1, str(refusal)
            _refuse(refusal, scratch)
        for day in _staged_days(scratch):
            _settle_day(con, contract, day, folder, scratch)
        _gather_bad(con, folder, scratch)
        done = replace(_counted(con, told, folder), blank=blank, rows_left_out=_left_out(con, scratch), refused=refused)
        assert done.rows_read == rows, f"{path}: {rows} rows came in, and {done.rows_read} are accounted for"
        lake.write_json(folder / "split.json", asdict(done))
    return done, True


@contextmanager
def spilling(home: Home) -> Iterator[tuple[Backend, Path]]:
    """An engine that spills to disk past 1.5 GB, and a folder for its scratch files; both are gone afterwards."""
    with lake.scratch(home, "spill") as folder:
        con = lake.engine()
        con.raw_sql("SET memory_limit='1500MB'")
        con.raw_sql(f"SET temp_directory={_quoted(folder / 'spill')}")
        try:
            yield con, folder
        finally:
            con.disconnect()


def _quoted(path: Path) -> str:
    """A path as a SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


def stage(con: Backend, layout: Layout, path: Path, span: reading.Span, scratch: Path) -> tuple[int, int]:
    """Read and judge every block into `scratch/rows/<block>/part=<a day, or all, bad, left_out>/`; (rows, blank lines).

    Raises parsing.Refused for a file of which no row can be used, whatever was staged of it by then.
    """
    total, sql = 0, ""
    opened = parsing.rows(path, layout.source, layout.wanted, scratch)
    (scratch / "rows").mkdir()
    for count, block in enumerate(opened.blocks):
        con.con.register("block", block)
        if not sql:  # compiled once, which Ibis' own to_parquet cannot: it takes longer than a small block
            rows = validation.judged(block, opened.columns, layout, span)
            part = rows.day if layout.timed else ibis.literal("all")
            aside = ibis.ifelse(rows.rule == LEFT_OUT, LEFT_OUT, "bad")
            sql = con.compile(rows.mutate(part=ibis.ifelse(rows.rule.isnull(), part, aside)))
        target = _quoted(scratch / "rows" / str(count))
        con.raw_sql(f"COPY ({sql}) TO {target} (FORMAT parquet, PARTITION_BY part, COMPRESSION zstd)")
        total += block.num_rows
    return total, opened.blank


def _staged_days(scratch: Path) -> list[str]:
    return sorted({p.name.removeprefix("part=") for p in (scratch / "rows").glob("*/part=*")} - {"bad", LEFT_OUT})


def _left_out(con: Backend, scratch: Path) -> int:
    files = sorted(scratch.glob(f"rows/*/part={LEFT_OUT}/*.parquet"))
    return int(con.read_parquet(files, hive_partitioning=False).count().execute()) if files else 0


def _settle_day(con: Backend, contract: Contract, day: str, folder: Path, scratch: Path) -> None:
    """Write a day's piece; where repeats are not real, all but the first of identical rows go to the bad ones."""
    kept = Layout.of_log(contract).kept()
    columns = list(kept)
    rows = con.read_parquet(sorted(scratch.glob(f"rows/*/part={day}/*.parquet")), hive_partitioning=False)
    if contract.validation.repeats == "duplicates":
        earlier = ibis.row_number().over(ibis.window(group_by=columns, order_by="number"))
        first = ibis._.number.min().over(ibis.window(group_by=columns))
        again = rows.mutate(earlier=earlier, first=first).filter(ibis._.earlier > 0)
        said = ibis.literal("the same as row " if contract.source.format == "parquet" else "the same as line ")
        again = again.mutate(rule=ibis.literal(validation.DUPLICATE), detail=said + again.first.cast("string"))
        target = scratch / "duplicates" / f"{day}.parquet"
        target.parent.mkdir(exist_ok=True)
        con.to_parquet(again.select(*BAD), target)
        repeated = con.read_parquet(target)
        if repeated.count().execute():
            rows = rows.anti_join(repeated, "number")
    parquet.write(con, rows.order_by("number"), validation.arrow_schema(kept), folder / f"day={day}.parquet")


def _refuse(refusal: parsing.Refused, scratch: Path) -> None:
    """One row for a file of which none can be used; what was staged of it before is dropped."""
    shutil.rmtree(scratch / "rows", ignore_errors=True)
    row = {"number": None, "day": None, "rule": refusal.rule, "detail": refusal.detail, "raw": None}
    target = scratch / "rows" / "0" / "part=bad"
    target.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], schema=ibis.schema(BAD).to_pyarrow()), target / "data_0.parquet")


def _gather_bad(con: Backend, folder: Path, scratch: Path) -> None:
    parts = sorted([*scratch.glob("rows/*/part=bad/*.parquet"), *scratch.glob("duplicates/*.parquet")])
    bad = con.read_parquet(parts, hive_partitioning=False).order_by("number") if parts else None
    parquet.write(con, bad, ibis.schema(BAD).to_pyarrow(), folder / "bad.parquet")


def _counted(con: Backend, told: Split, folder: Path) -> Split:
    pieces = {p.stem.removeprefix("day="): p for p in sorted(folder.glob("day=*.parquet"))}
    valid = {day: int(con.read_parquet(piece).count().execute()) for day, piece in pieces.items()}
    bad: dict[str, dict[str, int]] = {}
    rows = con.read_parquet(folder / "bad.parquet")
    counts = rows.group_by(day=rows.day.fill_null(UNKNOWN_DAY), rule=rows.rule).agg(n=rows.count()).order_by("day", "rule")
    for row in counts.to_pyarrow().to_pylist():
        bad.setdefault(row["day"], {})[row["rule"]] = row["n"]
    first = rows.group_by("rule").agg(detail=rows.detail.fill_null("").argmin(rows.number.fill_null(0))).order_by("rule")
    examples = {row["rule"]: row["detail"] for row in first.to_pyarrow().to_pylist()}
    hashes = {day: lake.content_hash(piece) for day, piece in pieces.items()}
    return Split(told.contract, told.code, valid, bad, hashes, examples)
