"""A contract tried on the first rows of a log, in a home of its own that is deleted: what would be valid, learned and spent."""

from __future__ import annotations

import shutil
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets import histories, ingest, lake, parsing, samples, sides
from models.contract import Contract
from models.home import EARLIER_DAY, UNKNOWN_DAY, Home

ROWS = 100_000
TRAINED = 20_000
"""Samples that the training speed is measured on."""


@dataclass(frozen=True)
class Broken:
    """Rows that break a rule: how many, and the first of them."""

    rows: int
    file: str
    line: int | None
    detail: str
    raw: str


@dataclass(frozen=True)
class Trial:
    """What the first rows came to.

    left_out: rows that the contract leaves out, not in rows_in · share: of the log's bytes that were read · days: rows
    by day · samples, positives by task: of the days whose labels are
    known in these rows · speed: of each candidate, samples a second, None where there was too little to train on.
    """

    rows_in: int
    valid: int
    left_out: int
    share: float
    rules: dict[str, Broken]
    days: dict[str, int]
    sides: dict[str, tuple[int, int]]
    samples: int
    positives: dict[str, int]
    speed: dict[str, float]
    why_not: str


def attempt(contract: Contract, source: str, now: datetime) -> Trial:
    """Read, sample and train a little. Raises ValueError when the log cannot be read at all."""
    with TemporaryDirectory() as name, _cut(contract, source, Path(name) / "log") as (log, share, named):
        home = Home(Path(name) / "home", contract.name)
        accepted = ingest.accept(home, contract, str(log), now)
        days = sorted({day for a in accepted for day in a.split.valid})
        spoken_of = sorted({day for a in accepted for day in a.split.days})  # with those that have bad rows alone
        for day in spoken_of:
            _unblocked(home, ingest.events(home, contract, day)[0])
        calendar = [day for day in days if day != EARLIER_DAY]
        for day in contract.days(last=max(map(datetime.fromisoformat, calendar)).date()) if calendar else []:
            _unblocked(home, ingest.events(home, contract, day)[0])
        for day in days:
            histories.build(home, contract, day)
        made = [samples.build(home, contract, day)[0] for day in calendar]
        mature = [m for m in made if m.detail["mature"]] or made
        speed, why_not = _speed(home, contract, [m.partition for m in mature], calendar)
        return Trial(
            rows_in=sum(a.split.rows_in for a in accepted),
            valid=sum(a.split.rows_valid for a in accepted),
            left_out=sum(a.split.rows_left_out for a in accepted),
            share=share,
            rules=_rules(home, spoken_of, named),
            days={day: sum(a.split.valid.get(day, 0) for a in accepted) for day in days},
            sides={e: (told.used, told.rows_in) for e in sides.of(contract) if (told := sides.read(home, e))},
            samples=sum(m.counts["samples"] for m in mature),
            positives={t: sum(m.counts[f"positives_{t}"] for m in mature) for t in contract.tasks},
            speed=speed,
            why_not=why_not,
        )


def _unblocked(home: Home, manifest: lake.Manifest) -> None:
    """A trial looks past the limits: what breaks them is what it is there to show."""
    if manifest.blocked:
        lake.write_json(home.manifest("events", manifest.partition), {**vars(manifest), "blocked": None})


@contextmanager
def _cut(contract: Contract, source: str, folder: Path) -> Iterator[tuple[Path, float, dict[str, str]]]:
    """A folder with the log's first rows and its side tables, the share of its bytes that those rows are, and copy → file."""
    folder.mkdir()
    paths, _ = parsing.named(source, contract)
    for entity, side in sides.of(contract).items():
        for path in parsing.beside(source, f"{entity}_table", side, contract):
            base = Path(source).expanduser() if Path(source).expanduser().is_dir() else paths[0].parent
            target = folder / path.relative_to(base.absolute())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    left, read, named = ROWS, 0.0, {}
    suffix = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet"}[contract.source.format]
    for number, path in enumerate(paths):
        if left <= 0:
            break
        target = folder / f"first-rows-{number:06}{suffix}"
        named[target.name] = path.name
        if suffix == ".parquet":
            copied, share = _first_rows(path, target, left)
        else:
            copied, share = _first_lines(path, target, left, header=suffix == ".csv" and contract.source.header)
        left -= copied
        read += share * path.stat().st_size
    yield folder, read / max(sum(p.stat().st_size for p in paths), 1), named


def _first_lines(path: Path, target: Path, count: int, *, header: bool) -> tuple[int, float]:
    """(rows copied, share of the file's bytes that they are), a line of names beside them where there is one."""
    with path.open("rb") as raw:
        magic = raw.read(4)
    packed = next((name for start, name in parsing.PACKED.items() if magic.startswith(start)), None)
    copied = 0
    try:
        with parsing.unpacking(path, packed) as (file, raw), target.open("wb") as out:
            for line in islice(file, count + header):
                copied += 1
                out.write(line)
            read = raw.tell() / max(path.stat().st_size, 1)
            more = bool(file.read(1))
    except (EOFError, OSError, zlib.error):  # cut off or damaged: the ingest of the file as it is says so
        target.unlink(missing_ok=True)
        shutil.copy(path, target)
        return count, 1.0
    copied = max(copied - header, 0)
    return copied, read if more else 1.0


def _first_rows(path: Path, target: Path, count: int) -> tuple[int, float]:
    try:
        file = pq.ParquetFile(path)
        batch = next(file.iter_batches(count), None)
    except (pa.ArrowException, OSError):
        shutil.copy(path, target)
        return 0, 1.0
    table = file.schema_arrow.empty_table() if batch is None else pa.Table.from_batches([batch])
    pq.write_table(table, target)
    return len(table), len(table) / max(file.metadata.num_rows, 1)


def _rules(home: Home, days: list[str], named: dict[str, str]) -> dict[str, Broken]:
    found: dict[str, Broken] = {}
    counts = Counter[str]()
    for day in (*days, UNKNOWN_DAY):
        for row in pq.read_table(home.quarantine(day), partitioning=None).to_pylist() if home.quarantine(day).is_file() else []:
            counts[row["rule"]] += 1
            place = row["line"] if row["line"] is not None else row["row"]
            file = named.get(Path(row["file"]).name, row["file"])
            found.setdefault(row["rule"], Broken(0, file, place, row["detail"] or "", row["raw"] or ""))
    return {rule: replace(b, rows=counts[rule]) for rule, b in sorted(found.items(), key=lambda f: -counts[f[0]])}


def _speed(home: Home, contract: Contract, sampled: list[str], calendar: list[str]) -> tuple[dict[str, float], str]:
    """Samples a second of each candidate over a small epoch; and why there is none."""
    from models import config, training, window

    if not sampled:
        return {}, "no day has a sample"
    for day in contract.history_days(sampled[0], sampled[-1]):
        if day not in calendar:
            histories.build(home, contract, day)
    requests = window.read_requests(home, contract, sampled)
    sizes = requests.offsets[1:]
    some = requests.take(np.arange(int((sizes <= TRAINED).sum()) or 1))
    short = contract.model_copy(update={"training": contract.training.model_copy(update={"epochs": 2, "patience": 2})})
    speed: dict[str, float] = {}
    for name in contract.training.candidates:
        ended: list[float] = []  # the first epoch warms up; the second is timed, with the scoring after it
        place, recipe = home.checkpoint(name, "trial"), config.named(name, contract.training.width)
        try:
            training.train(recipe, short, some, some, checkpoint=place, report=lambda _, to=ended: to.append(time.monotonic()))  # type: ignore[misc]
        except ValueError as error:
            return {}, str(error)
        speed[name] = len(some) / (ended[1] - ended[0])
    return speed, ""
