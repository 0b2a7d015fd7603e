"""What a log file of unknown make holds: its format, and of each column what the first rows show. No opinion on what it means.

The rows come through the same reader as those of a real ingest (`assets.parsing`), so what is seen here is what will be read.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from assets import lake, parsing
from assets.reading import WHOLE, fields, json_fields, written
from models.sections import Source

ROWS = 100_000
FIRST_LINES = 1000
MOST_NEIGHBOURS = 20
DELIMITERS = (",", "\t", ";", "|", "\x01", " ", "::")
NAMELESS = "column_{}"


@dataclass(frozen=True)
class Column:
    """Of the rows seen: how many hold something and how many differ; the shares of whole numbers, of numbers, of repeats."""

    name: str
    filled: int
    distinct: int
    whole: float
    number: float
    follows: float
    common: dict[str, int]


@dataclass(frozen=True)
class Profile:
    """One kind of file: how it is written, the first `ROWS` rows as texts (null where nothing is written), what they show."""

    files: list[Path]
    source: Source
    rows: pd.DataFrame
    columns: dict[str, Column]
    whole: bool

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


def logs(source: str) -> list[list[Path]]:
    """The files that `source` names, those of like columns together, RecBole's interactions or the kind with most bytes first.

    Raises ValueError when there is none that could be a log.
    """
    path = Path(source).expanduser()
    found = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else sorted(path.parent.glob(path.name))
    known = tuple(suffix for suffixes in parsing.SUFFIXES.values() for suffix in suffixes)
    files = [p.absolute() for p in found if p.is_file() and (p == path or parsing.unpacked_name(p).endswith(known))]
    if not files:
        raise ValueError(f"no log to look at in {source!r}; give a file, a folder or a glob of CSV, JSON lines or Parquet")
    kinds: dict[Any, list[Path]] = {}
    for file in files:
        try:
            guess = sniff(file)
            names = _columns(file, guess)
            kinds.setdefault(
                (guess.format, guess.delimiter, _like(names, kinds) if guess.format == "jsonl" else names), []
            ).append(file)
        except ValueError:  # an empty file, say: of no use to the draft, and ingest has a rule for it
            if file is files[-1] and not kinds:
                raise
    return sorted(
        kinds.values(),
        key=lambda kind: (not parsing.unpacked_name(kind[0]).endswith(parsing.ATOMIC), -sum(p.stat().st_size for p in kind)),
    )


def _like(keys: tuple[str, ...], kinds: Collection[tuple[str, str, tuple[str, ...]]]) -> tuple[str, ...]:
    """The keys of the JSON lines that these are of one kind with: of one log a day has a key that another has not."""
    known = [names for form, _, names in kinds if form == "jsonl"]
    return next((names for names in known if len({*names} & {*keys}) >= 0.5 * len({*names} | {*keys})), keys)


def neighbours(log: Profile, entities: dict[str, re.Pattern[str]]) -> list[Path]:
    """Files beside the log, or one folder up, that could be its side tables: their first lines alone are looked at.

    They have a column of the same name as one of the log's ids, or are called after what it names. `entities`: column of an
    id → words for what it names.
    """
    folder = log.files[0].parent
    known = (*(suffix for suffixes in parsing.SUFFIXES.values() for suffix in suffixes), *parsing.TABLES)
    readable = [place for place in (folder, folder.parent) if os.access(place, os.R_OK | os.X_OK)]
    there = [p for place in readable for p in sorted(place.iterdir()) if p.is_file() and p not in log.files]
    found: list[Path] = []
    for path in (p for p in there if parsing.unpacked_name(p).endswith(known)):
        if len(found) == MOST_NEIGHBOURS:
            break
        try:
            names = _columns(path, sniff(path))
        except (ValueError, OSError):
            continue  # somebody else's file, and none that the draft was asked about
        named = log.source.header  # a column that has its name of us is not of the same name
        if any((named and column in names) or words.search(path.stem.lower()) for column, words in entities.items()):
            found.append(path)
    return found


def sniff(path: Path) -> Source:
    """How a file is written. Raises ValueError when it is empty or not text."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return Source(format="parquet")
    lines = first_lines(path)
    if not lines:
        raise ValueError(f"{parsing.shown(path)}: holds no line")
    if lines[0].lstrip().startswith("{"):
        return Source(format="jsonl")
    delimiter = max(DELIMITERS, key=lambda mark: _agreement(lines, mark))
    rows = [row for row in _cut(lines, delimiter) if row]
    if not rows:
        raise ValueError(f"{parsing.shown(path)}: none of its first lines can be cut into fields; is it a log?")
    if _is_header(rows):
        return Source(format="csv", delimiter=delimiter)
    return Source(
        format="csv", delimiter=delimiter, header=False, columns=tuple(NAMELESS.format(n + 1) for n in range(len(rows[0])))
    )


def first_lines(path: Path, count: int = FIRST_LINES) -> list[str]:
    """The first lines that hold anything. Raises ValueError for what is no text."""
    try:
        opened = parsing.rows(path, Source(format="csv", header=False), (), path.parent)
        lines = (text for block in opened.blocks for text in block["text"].to_pylist())
        return list(islice(lines, count))
    except parsing.Refused as refused:
        raise ValueError(f"{parsing.shown(path)}: {refused}") from None


def _cut(lines: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    """The fields of each line, none of one that cannot be cut (a carriage return within, a field of more than 128 kB)."""
    for line in lines:
        try:
            yield parsing.cut(line, delimiter)
        except csv.Error:
            yield []


def _agreement(lines: Sequence[str], delimiter: str) -> tuple[float, int, bool]:
    """Share of lines with the commonest number of fields, where that is more than one; then that number."""
    counts = Counter(map(len, _cut(lines, delimiter)))
    fields, times = counts.most_common(1)[0]
    return (times / len(lines) if fields > 1 else 0.0, fields, delimiter == ",")


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """The first row is one of names: all differ, none is a number; some column has numbers below, or none holds its name."""
    first, rest = rows[0], rows[1:]
    if len(set(first)) < len(first) or any(_is_number(cell) or not cell.strip() for cell in first):
        return False
    columns = [[row[n] for row in rest if len(row) == len(first)] for n in range(len(first))]
    return any(column and sum(map(_is_number, column)) > 0.9 * len(column) for column in columns) or all(
        name not in column for name, column in zip(first, columns, strict=True)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _columns(path: Path, source: Source) -> tuple[str, ...]:
    """The columns of a file: header, given names, JSON keys (nested ones as pointers), or the flat columns of Parquet."""
    if source.format == "parquet":
        try:
            with path.open("rb") as file:
                return tuple(pq.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{parsing.shown(path)}: not a whole Parquet file: {error}") from None
    if source.format == "csv":
        names = source.columns or tuple(name.strip() for name in next(_cut(first_lines(path, 1), source.delimiter)))
    else:
        names = _all_keys(first_lines(path))
    if not names or any("\0" in name for name in names):
        what = "holds NUL bytes in the names of its columns" if names else "holds no JSON object in its first lines"
        raise ValueError(f"{parsing.shown(path)}: {what}; is it a log?")
    return names


def _all_keys(lines: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for line in lines:
        try:
            value = json.loads(line)
            found |= dict.fromkeys(_keys(value) if isinstance(value, dict) else ())
        except (ValueError, RecursionError):
            continue  # a broken line has a rule of its own when it is read
    objects = {name for key in found if key.startswith("/") for name in _above(key)}
    return tuple(key for key in found if key not in objects)  # where an object is null now and then, its keys still are columns


def _above(pointer: str) -> Iterator[str]:
    """The names of the objects that a pointer goes through: its first part as a key, and each longer one as a pointer."""
    parts = pointer.split("/")[1:-1]
    yield from (parts[0].replace("~1", "/").replace("~0", "~"), *("/" + "/".join(parts[:n]) for n in range(2, len(parts) + 1)))


def _keys(value: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, inner in value.items():
        pointer = f"{above}/{key.replace('~', '~0').replace('/', '~1')}"
        if isinstance(inner, dict):
            yield from _keys(inner, pointer)
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield from _keys(inner[0], f"{pointer}/0")  # a contract can name an entry, not all of them
        elif inner != []:
            yield pointer if above else key


def profile(files: Sequence[Path]) -> Profile:
    """The first `ROWS` rows of files of one kind. Raises ValueError when they cannot be read."""
    source = sniff(files[0])
    told = files if source.format == "jsonl" else files[:1]
    names = tuple(dict.fromkeys(name for path in told for name in _columns(path, source)))
    tables, seen = [], 0
    with TemporaryDirectory() as scratch:
        for path in files:
            try:
                for block in parsing.rows(path, source, names, Path(scratch)).blocks:
                    tables.append(_texts(block.slice(0, ROWS - seen), source, names))
                    seen += tables[-1].num_rows
                    if seen >= ROWS:
                        break
            except parsing.Refused as refused:
                raise ValueError(f"{parsing.shown(path)}: {refused}") from None
            if seen >= ROWS:
                break
    rows = pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame()
    if not len(rows):
        raise ValueError(f"{files[0]}: none of its first lines has {len(names)} columns, as the first one has")
    return Profile(list(files), source, rows, {name: _column(rows[name]) for name in names}, seen < ROWS)


def _texts(block: pa.Table, source: Source, names: Sequence[str]) -> pa.Table:
    backend = lake.engine()
    backend.con.register("block", block)
    t = ibis.table(ibis.Schema.from_pyarrow(block.schema), name="block")
    if source.format != "parquet":
        t = t.mutate(fields=fields(t.text, source.delimiter) if source.format == "csv" else json_fields(t.text, names))
        t = t.filter(t.fields.length() == len(names))
        t = t.select(**{name: t.fields[n] for n, name in enumerate(names)})
    return backend.to_pyarrow(t.select(**{name: written(t[name].cast("string")) for name in names}))


def _column(values: pd.Series) -> Column:
    filled = values.dropna()
    numbers = pd.to_numeric(filled, errors="coerce")
    return Column(
        str(values.name),
        len(filled),
        int(filled.nunique()),
        float(filled.str.fullmatch(WHOLE.strip("^$")).mean()) if len(filled) else 0.0,
        float(numbers.notna().mean()) if len(filled) else 0.0,
        float((filled == filled.shift()).mean()) if len(filled) else 0.0,
        {str(k): int(v) for k, v in filled.value_counts().head(12).items()},
    )


TYPED = re.compile(r":(token|float)(_seq)?$")
"""What RecBole's atomic files write behind a column's name."""


def plain(name: str) -> str:
    """A column's name in lower case with single underscores, of a pointer all parts, without a type that stands behind it."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", TYPED.sub("", name))
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


Kind = Literal["id", "text", "number"]


def kind_of(column: Column) -> Kind:
    """What a column's values are: texts, measures (with a fraction), or whole numbers."""
    if column.whole >= 0.99:
        return "id"
    return "number" if column.number >= 0.99 else "text"
