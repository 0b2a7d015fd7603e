"""A source file as numbered rows, block by block: bytes in, Arrow tables out, no opinion yet on what a row is worth.

Text (CSV, JSON lines) is cut at its physical line ends here and into fields in the engine (`assets.validation`). The one odd
choice is that no CSV reader is used: each of them loses the line number, or the raw text, of just those rows that are broken.
A block is about 16 MB whatever the file's size, and nothing loops over rows unless a block holds a bad byte.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.contract import Contract
from models.sections import Side, Source

BLOCK_BYTES = 16 << 20
BLOCK_ROWS = 1 << 18
LONGEST_LINE = 16 << 20
"""Of one line's commas alone the engine makes sixteen times its bytes."""
ATOMIC = ".inter"
"""RecBole's interactions, beside which lie its tables of items and users."""
TABLES = (".item", ".user")
SUFFIXES = {
    "csv": (".csv", ".tsv", ".txt", ".log", ".dat", ".data", ATOMIC),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq"),
}
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of the compressions that are undone."""
MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""Byte-order marks of text that is not UTF-8; that of UTF-32 begins like that of UTF-16."""
FAR_US = 2**61
"""Beyond any calendar (the year 75,039), and a moment that the engine can still move from zone to zone."""
FAR_DAYS = FAR_US // 86_400_000_000


class Refused(Exception):
    """A file none of whose rows can be used: the rule that it breaks, and what was found."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail


@dataclass
class Rows:
    """An open source file.

    columns: the names of its columns, in order · blocks: its rows, once.
    A text block has `number` (1-based physical line), `text` (the line), `damaged` (it had bytes that are not UTF-8, shown
    escaped in `text`) and `open` (the file ends within it, no newline). A Parquet block has `number` (0-based row) and the
    columns that are wanted. blank: empty lines passed over so far; they hold no row.
    """

    columns: tuple[str, ...] = ()
    blocks: Iterator[pa.Table] = field(default_factory=lambda: iter(()))
    blank: int = 0


def named(source: str, contract: Contract) -> tuple[list[Path], list[Path]]:
    """The files that `source` names (a file, a folder with all below it, or a glob), and those of a folder left aside.

    A folder yields the files with a suffix of the contract's format, plain or compressed, but for those of its side tables; a
    glob or a path what it names. Raises ValueError when there is none, saying what was looked for, and when one, or a folder
    on the way, may not be read: its rows would be missing without a word.
    """
    suffixes = SUFFIXES[contract.source.format]
    path = Path(source).expanduser()
    if path.is_file():
        return _readable([path.absolute()]), []
    if source and path.is_dir():
        _readable([p for p in (path, *path.rglob("*")) if p.is_dir()])
        found = sorted(p.absolute() for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
        elsewhere = {p for side in (contract.item_table, contract.user_table) if side for p in path.absolute().glob(side.file)}
        files = [p for p in found if unpacked_name(p).endswith(suffixes) and p not in elsewhere]
        looked = f"a folder without any file that ends in {', '.join(suffixes)} (or the same with .gz or .zst)"
        aside = [p for p in found if p not in {*files, *elsewhere}]
    else:
        files = sorted(Path(p).absolute() for p in glob.glob(str(path), recursive=True) if Path(p).is_file())  # noqa: PTH207 Path.glob takes no absolute pattern
        looked, aside = "no such file, and no file that it matches as a glob", []
    if not files:
        raise ValueError(
            f"no log to read at {source!r}: {looked}. Give a {contract.source.format} file, a folder of them or a glob "
            f"(LOG=…); the simulated log is written by `./dtrn simulate`"
        )
    return _readable(files), aside


def _readable(paths: list[Path]) -> list[Path]:
    for path in paths:
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            raise ValueError(f"{shown(path)} may not be read (permission denied). Let it be read, or move it away from the log")
    return paths


def shown(path: Path) -> str:
    """A path as text that can be stored: bytes of it that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def beside(source: str, part: str, side: Side, contract: Contract) -> list[Path]:
    """The files of a side table, looked for in the log's folder, by name. Raises ValueError when there is none."""
    path = Path(source).expanduser()
    folder = path if path.is_dir() else named(source, contract)[0][0].parent
    files = sorted(p.absolute() for p in folder.glob(side.file) if p.is_file())
    if not files:
        raise ValueError(
            f"{part}.file: no file '{side.file}' in {folder.absolute()}, where the log is. Put it there, or take [{part}] and "
            f"its features {list(side.features)} out of the contract"
        )
    return _readable(files)


def unpacked_name(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".zst")


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def rows(path: Path, source: Source, wanted: Sequence[str], scratch: Path) -> Rows:
    """Open a file for its columns `wanted`; `scratch` is a folder for the unpacked copy of a compressed Parquet.

    Raises Refused, here or while the blocks are read: empty_file, unreadable_file, missing_columns.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise Refused("empty_file", "the file has no bytes")
    packed = next((name for start, name in PACKED.items() if magic.startswith(start)), None)
    if source.format == "parquet":
        return _parquet_rows(_unpacked(path, packed, scratch) if packed else path, wanted)
    if magic == b"PAR1":
        raise Refused("unreadable_file", f"this is Parquet, and the contract says format '{source.format}'")
    return _text_rows(path, packed, source, wanted)


@contextmanager
def unpacking(path: Path, packed: str | None) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """(the file as it was before it was packed, the file itself: where it stands is how much of it was read)."""
    with path.open("rb") as raw:
        if packed == "gzip":
            with gzip.GzipFile(fileobj=raw) as file:
                yield file, raw  # type: ignore[misc]  # it reads as one
        elif packed == "zstd":
            with pa.CompressedInputStream(raw, "zstd") as stream:
                yield io.BufferedReader(stream), raw  # by itself it gives no lines
        else:
            yield raw, raw


# text


def _text_rows(path: Path, packed: str | None, source: Source, wanted: Sequence[str]) -> Rows:
    opened = Rows(source.columns if source.format == "csv" else tuple(wanted))
    lines = _line_blocks(path, packed)
    blocks = (_filled(block, opened) for block in lines)
    first = next((block for block in blocks if block.num_rows), None)
    if first is None:
        raise Refused("empty_file", "the file holds no line with anything in it")
    if source.header and source.format == "csv":
        opened.columns = _header(first["text"][0].as_py(), source, wanted)
        first = first.slice(1)
    opened.blocks = chain([first], blocks)
    return opened


def _filled(block: pa.Table, opened: Rows) -> pa.Table:
    """The block without its empty lines, which are counted."""
    filled = block.filter(pc.not_equal(block["text"], ""))
    opened.blank += block.num_rows - filled.num_rows
    return filled


def _header(line: str, source: Source, wanted: Sequence[str]) -> tuple[str, ...]:
    if "\r" in line:
        raise Refused("missing_columns", "the first line is no header: a carriage return stands within it")
    try:
        found = tuple(name.strip() for name in cut(line, source.delimiter))
    except csv.Error as error:
        raise Refused("missing_columns", f"the first line is no header: {error}") from error
    _complete(found, wanted)
    return found


def cut(line: str, delimiter: str) -> list[str]:
    """The fields of one line, as `reading.fields` has them. Raises csv.Error."""
    return line.split(delimiter) if len(delimiter) > 1 else next(csv.reader([line], delimiter=delimiter), [])


def _complete(found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a file that lacks a column that is read, or has it twice."""
    missing = [name for name in wanted if name not in found]
    twice = [name for name in wanted if list(found).count(name) > 1]
    if missing or twice:
        wrong = ", ".join([f"no column '{name}'" for name in missing] + [f"column '{name}' more than once" for name in twice])
        raise Refused("missing_columns", f"{wrong}; the file's columns are {', '.join(found)[:1000]}")


def _line_blocks(path: Path, packed: str | None) -> Iterator[pa.Table]:
    """Tables of (number, text, damaged, open), a line a row, its end (LF or CRLF) and a leading byte-order mark taken off.

    Where the first block has no LF, a CR ends a line, as on an old Mac; elsewhere a CR within a line is part of it.
    """
    number, carry, end = 1, b"", b""
    with unpacking(path, packed) as (file, _):
        for chunk in _chunks(file):
            data = carry + chunk
            end = end or (b"\r" if b"\r" in data and b"\n" not in data else b"\n")
            cut = data.rfind(end) + 1
            carry = data[cut:]
            if max(len(carry), data.find(end)) > LONGEST_LINE:
                where = number if data.find(end) > LONGEST_LINE else number + data.count(end)
                raise Refused("unreadable_file", f"line {where} is longer than {LONGEST_LINE >> 20} MB: this is no log of rows")
            if cut:
                yield (table := _lines(data[:cut], number, end))
                number += table.num_rows
    if carry:
        yield _lines(carry, number, end)


def _chunks(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    mark = b"\xef\xbb\xbf"
    try:
        start = file.read(max(map(len, MARKS)))
        if code := next((name for first, name in MARKS.items() if start.startswith(first)), None):
            raise Refused("unreadable_file", f"this is {code} text; UTF-8 is read (iconv -f {code} -t UTF-8 makes it that)")
        start = start.removeprefix(mark)
        while chunk := file.read(BLOCK_BYTES):
            yield start + chunk
            start = b""
        if start:
            yield start
    except (EOFError, OSError, zlib.error) as error:  # compressed and cut off or damaged; a disk that fails reads the same
        raise Refused("unreadable_file", f"reading stops: {error}") from error


def _lines(data: bytes, number: int, end: bytes) -> pa.Table:
    unended = not data.endswith(end)
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord(end)) + 1
    offsets = np.concatenate([[0], ends, [len(data)] if unended else []]).astype(np.int64)
    count = len(offsets) - 1
    text = pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data))
    damaged = np.zeros(count, bool)
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:  # a byte that is not UTF-8 somewhere in this block: find its lines one by one
        text, damaged = _escaped(data, offsets)
    still_open = np.zeros(count, bool)
    still_open[-1] = unended
    ended = pc.utf8_rtrim(text.cast(pa.string()), "\r\n")
    return pa.table({"number": np.arange(number, number + count), "text": ended, "damaged": damaged, "open": still_open})


def _escaped(data: bytes, offsets: NDArray[np.int64]) -> tuple[pa.Array, NDArray[np.bool_]]:
    lines = [data[start:end] for start, end in pairwise(offsets.tolist())]
    damaged = np.zeros(len(lines), bool)
    texts = []
    for place, line in enumerate(lines):
        texts.append(line.decode("utf-8", "backslashreplace"))
        damaged[place] = texts[-1].encode() != line
    return pa.array(texts, pa.large_string()), damaged


# Parquet


def _unpacked(path: Path, packed: str, scratch: Path) -> Path:
    target = scratch / "unpacked.parquet"
    try:
        with unpacking(path, packed) as (source, _), target.open("wb") as file:
            shutil.copyfileobj(source, file, BLOCK_BYTES)
    except (EOFError, OSError, zlib.error) as error:
        raise Refused("unreadable_file", f"unpacking stops: {error}") from error
    return target


def _parquet_rows(path: Path, wanted: Sequence[str]) -> Rows:
    try:
        with path.open("rb") as raw:  # by its descriptor: a path that is not UTF-8 cannot be told
            names = pq.ParquetFile(raw).schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise Refused("unreadable_file", f"not a whole Parquet file: {error}") from error
    _complete(names, wanted)
    return Rows(tuple(wanted), _parquet_blocks(path, list(wanted)))


def _parquet_blocks(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    number = 0
    try:
        with path.open("rb") as raw:
            for batch in pq.ParquetFile(raw).iter_batches(BLOCK_ROWS, columns=columns):
                table = pa.table([_plain(c) for c in batch.select(columns).columns], columns)
                table.validate(full=True)
                yield table.append_column("number", pa.array(np.arange(number, number + batch.num_rows)))
                number += batch.num_rows
    except (pa.ArrowException, OSError, OverflowError) as error:  # the last: a date in a list that no calendar has
        raise Refused("unreadable_file", f"reading stops after row {number}: {error}") from error


def _plain(column: pa.Array) -> pa.Array:
    """Numbers, times and booleans as they are, lists as JSON; anything else (bytes, dictionaries) as the text it shows."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column  # 64 bits of them end with the year 2262
    if pa.types.is_timestamp(kind):
        return _near(column, FAR_US // {"s": 1_000_000, "ms": 1000, "us": 1}[kind.unit], pa.int64())
    if pa.types.is_date(kind):
        return _near(column.cast(pa.date32()), FAR_DAYS, pa.int32())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.string())
    return pa.array([_told(value) for value in column.to_pylist()], pa.string())


def _near(column: pa.Array, most: int, counted: pa.DataType) -> pa.Array:
    """Moments or days, those too far off for the engine to calculate with brought to `most` units before or after 1970."""
    counts = column.cast(counted)
    extremes = pc.min_max(counts)
    if not extremes["min"].is_valid or -most <= extremes["min"].as_py() <= extremes["max"].as_py() <= most:
        return column
    return (
        pc.max_element_wise(pc.min_element_wise(counts, most, skip_nulls=False), -most, skip_nulls=False)
        .cast(counted)
        .cast(column.type)
    )


def _told(value: Any) -> str | None:
    if isinstance(value, list | dict):
        return json.dumps(value, default=_told)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if value is None else str(value)
