"""Broken files made by hand, each with what must become of every line of it; `python -m tests.corpus` prints the counts.

What is expected is written beside the bytes, line by line, and knows nothing of the reader. A good row carries a number of
its own as its item, so that the events say which lines they came from.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets import ingest
from models.home import Home
from tests.damaged_log import DAYS, SEEN, START, contract, events_of, quarantined

COLUMNS = ("u", "i", "c", "b", "t")
EVERY_DAY = ("unknown", "earlier", *DAYS)
Rows = Counter[tuple[int, int]]
"""(item, user) of each valid row."""
NUMBERS = count(1)


@dataclass(frozen=True)
class Dialect:
    """One way of writing rows as text."""

    name: str
    source: dict[str, Any]
    mark: str | None = None
    """What stands between fields; None: JSON lines."""
    header: bool = False

    def written(self, fields: tuple[str, ...]) -> bytes:
        if self.mark is None:
            return json.dumps(dict(zip(COLUMNS, fields, strict=True)), ensure_ascii=False).encode()
        return self.mark.join(fields).encode()

    def good(self, number: int) -> bytes:
        return self.written(("1", str(number), "3", "pv", str(START + number)))

    @property
    def head(self) -> list[Line]:
        return [Line(self.mark.join(COLUMNS).encode(), skipped=True)] if self.header and self.mark else []


CSV = Dialect("csv", {"header": False}, ",")
HEADED = Dialect("csv with header", {"header": True, "columns": ()}, ",", header=True)
TSV = Dialect("tsv", {"header": False, "delimiter": "\t"}, "\t")
JSONL = Dialect("json lines", {"format": "jsonl", "columns": ()})
TEXTS = (CSV, HEADED, TSV, JSONL)
CELLS = (CSV, HEADED, TSV)


@dataclass(frozen=True)
class Line:
    """A physical line: its bytes, how it ends, the rule that it breaks, and what the detail must say (a regular expression)."""

    data: bytes
    rule: str | None = None
    says: str = ""
    end: bytes = b"\n"
    item: int = 0
    user: int = 1
    skipped: bool = False
    """No row: blank, or a header."""

    @property
    def raw(self) -> str:
        return self.data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")[:4000]


@dataclass(frozen=True)
class Bad:
    """A row that must be quarantined: its place, rule, raw text, and what its detail must say."""

    place: int | None
    rule: str
    raw: str | None
    says: str = ""


@dataclass(frozen=True)
class File:
    """A file, the contract to read it under, and what must come of it: items of the valid rows, and the bad rows."""

    name: str
    data: bytes
    valid: Rows
    bad: list[Bad]
    changes: dict[str, Any] = field(default_factory=dict)
    file: str = "log.csv"

    @property
    def rows(self) -> int:
        return sum(self.valid.values()) + len(self.bad)


def good(d: Dialect, number: int, end: bytes = b"\n") -> Line:
    """A good row; `number` only tells the rows of one file apart for the reader of this page."""
    item = next(NUMBERS)
    return Line(d.good(item), end=end, item=item)


def file(name: str, d: Dialect, lines: list[Line], *, before: bytes = b"", end: bytes | None = None, **changes: Any) -> File:
    """The file of these lines; `end` is put at the end of each."""
    lines = [*d.head, *lines]
    data = before + b"".join(line.data + (line.end if end is None else end) for line in lines)
    bad = [Bad(n, x.rule, x.raw, x.says) for n, x in enumerate(lines, 1) if x.rule]
    valid = Counter((x.item, x.user) for x in lines if not x.rule and not x.skipped)
    source = {"source": {**d.source, **changes.pop("source", {})}}
    return File(f"{name} ({d.name})", data, valid, bad, {**source, **changes})


def refused(name: str, data: bytes, rule: str, says: str, d: Dialect | None = None, **more: Any) -> File:
    """A file of which no row can be used: one quarantined row stands for it."""
    own = {"changes": {"source": d.source}} if d else {}
    return File(name, data, Counter(), [Bad(None, rule, None, says)], **own, **more)


# line ends


def line_ends() -> Iterator[File]:
    for d in TEXTS:
        yield file("LF and CRLF mixed", d, [good(d, 1), good(d, 2, b"\r\n"), good(d, 3), good(d, 4, b"\r\n")])
        yield file(
            "CR LF with blank lines", d, [good(d, 1), Line(b"", skipped=True), good(d, 2), Line(b"", skipped=True)], end=b"\r\n"
        )
        yield file("CR CR LF", d, [good(d, 1), good(d, 2)], end=b"\r\r\n")
        yield file("CR only, as an old Mac writes", d, [good(d, 1), good(d, 2), Line(b"x", _shape(d)), good(d, 3)], end=b"\r")
        yield (
            file("CR only, the last line open", d, [good(d, 1), good(d, 2, b"")], end=None)
            if False
            else file("no end of the last line", d, [good(d, 1), good(d, 2, b"")])
        )
        yield file(
            "cut off within the last line",
            d,
            [good(d, 1), Line(d.good(2)[:9], "truncated_line", "the file ends within", end=b"")],
        )
        joined = Line(d.good(1) + b"\r" + d.good(2), _shape(d), "carriage return")
        yield file("a lone CR among LF", d, [good(d, 3), joined, good(d, 4)])
        yield file("only blank lines and one row", d, [Line(b"", skipped=True), Line(b"", skipped=True), good(d, 1)])


def _shape(d: Dialect) -> str:
    """The rule of a line that does not have the shape of a row."""
    return "not_json" if d.mark is None else "wrong_number_of_columns"


# quotes


def quotes() -> Iterator[File]:
    for d in CELLS:
        m = (d.mark or "").encode()
        wrong = "wrong_number_of_columns"
        never = m.join([b"1", b'"2', b"3", b"pv", b"1"])
        yield file("a quote that never closes", d, [good(d, 1), Line(never, wrong, "quoted field"), good(d, 2), good(d, 3)])
        first = Line(m.join([b"1", b"9", b'"3']), wrong, "over several lines|several lines")
        second = Line(m.join([b'"', b"pv", b"1704063600"]), wrong, "several lines")
        yield file("a quoted field over two lines", d, [good(d, 1), first, second, good(d, 2)])
        yield file(
            "text after a closing quote", d, [good(d, 1), Line(m.join([b"1", b'"2"x', b"3", b"pv", b"1"]), wrong, "quote")]
        )
        inner = Line(m.join([b"1", b'2"2', b"3", b"pv", str(START).encode()]), "not_a_number", "i: '2\"2'")
        yield file("a quote inside a field", d, [good(d, 1), inner])
        item = next(NUMBERS)
        fine = m.join([b"1", f'"{item}"'.encode(), b'"3"', b'"pv"', str(START).encode()])
        yield file("sound quotes", d, [good(d, 1), Line(fine, item=item)])


# marks and characters


def characters() -> Iterator[File]:
    for d in TEXTS:
        yield file("a byte-order mark", d, [good(d, 1), good(d, 2)], before=b"\xef\xbb\xbf")
        again = Line("\ufeff".encode() + d.good(2), "not_json" if d.mark is None else "not_a_number")
        yield file("a byte-order mark in the middle", d, [good(d, 1), again, good(d, 3)])
        nul = d.good(2).replace(b"2", b"2\0", 1)
        yield file(
            "NUL within a field", d, [good(d, 1), Line(nul, "not_json" if d.mark is None else "not_a_number"), good(d, 3)]
        )
        yield file("a hole of NULs", d, [good(d, 1), Line(b"\0" * 900, _shape(d)), good(d, 3)])
        latin = d.good(2).replace(b"pv", b"p\xe9")
        yield file("Latin-1", d, [good(d, 1), Line(latin, "not_json" if d.mark is None else "bad_utf8"), good(d, 3)])
        text = b"".join(line.data + line.end for line in [*d.head, good(d, 1), good(d, 2)]).decode()
        for code, told in (("utf-16", "UTF-16"), ("utf-32", "UTF-32")):
            data = text.encode(code)
            yield refused(f"{told} ({d.name})", data, "unreadable_file", f"{told}.*iconv -f {told} ", d)
            yield refused(f"{told}, gzipped ({d.name})", gzip.compress(data), "unreadable_file", f"{told}.*iconv", d)
        big = "\ufeff".encode("utf-32-be") + text.encode("utf-32-be")
        yield refused(f"UTF-32, big end first ({d.name})", big, "unreadable_file", "UTF-32", d)


# headers


def headers() -> Iterator[File]:
    for d in CELLS:
        head = Line((d.mark or "").join(COLUMNS).encode(), "not_a_number", "header|u: 'u'")
        yield file("a header in the middle", d, [good(d, 1), head, good(d, 2), head, good(d, 3)])
    yield File("only a header", b"u,i,c,b,t\n", Counter(), [], {"source": HEADED.source})
    yield File("only a header, no line end", b"u,i,c,b,t", Counter(), [], {"source": HEADED.source})
    yield refused("no header where one is said", CSV.good(1) + b"\n" + CSV.good(2), "missing_columns", "no column 'u'", HEADED)
    yield refused("a header of quotes", b'"u,i,c,b,t\n1,2,3,pv,1\n', "missing_columns", "no column", HEADED)
    yield refused("a header with NULs", b"u\0,i,c,b,t\n1,2,3,pv,1\n", "missing_columns", "no column 'u'", HEADED)


# sizes


def sizes() -> Iterator[File]:
    for d in (CSV, JSONL):
        long = Line(b"x" * 10_000_000, _shape(d))
        yield file("a line of 10 MB", d, [good(d, 1), long, good(d, 2)])
    commas = Line(b"," * 10_000_000, "wrong_number_of_columns", "10000001 columns, 5 expected")
    over = b"," * (17 << 20)
    yield refused(
        "a line over the limit", CSV.good(1) + b"\n" + over + b"\n", "unreadable_file", "line 2 is longer than 16 MB", CSV
    )
    yield file("10 MB of commas", CSV, [good(CSV, 1), commas, good(CSV, 2)])
    marks = Line(b'"' * 10_000_001, "wrong_number_of_columns", "quoted")
    yield file("10 MB of quotes", CSV, [good(CSV, 1), marks, good(CSV, 2)])
    deep = Line(b"[" * 2_000_000, "not_json")
    yield file("2 MB of brackets", JSONL, [good(JSONL, 1), deep, good(JSONL, 2)])
    deeper = Line(b'{"u":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "not_a_number")
    yield file("200,000 brackets that close", JSONL, [good(JSONL, 1), deeper, good(JSONL, 2)])
    nines = CSV.written(("9" * 10_000_000, "2", "3", "pv", str(START)))
    yield file("a number of 10 MB", CSV, [good(CSV, 1), Line(nines, "not_a_number"), good(CSV, 2)])


# compression


def packed() -> Iterator[File]:
    def zstd(data: bytes) -> bytes:
        return bytes(pa.Codec("zstd").compress(data).to_pybytes())

    whole = b"".join(CSV.good(n) + b"\n" for n in range(10_000, 15_000))
    head, tail = whole[: len(whole) // 2], whole[len(whole) // 2 :]
    all_rows = Counter((n, 1) for n in range(10_000, 15_000))
    for name, pack in (("gzip", gzip.compress), ("zstd", zstd)):
        done = pack(whole)
        yield File(f"{name}", done, all_rows, [], {"source": CSV.source})
        yield File(f"{name}, two members", pack(head) + pack(tail), all_rows, [], {"source": CSV.source})
        for cut in (5, len(done) // 2, len(done) - 9, len(done) - 1):
            yield refused(f"{name} cut off at {cut}", done[:cut], "unreadable_file", "reading stops", CSV)
        yield refused(f"{name}, then garbage", done + b"garbage!" * 9, "unreadable_file", "reading stops", CSV)
        yield refused(f"{name} of nothing", pack(b""), "empty_file", "no line", CSV)
    done = bytearray(gzip.compress(whole))  # zstd as Arrow and many tools write it has no checksum that would tell
    done[len(done) // 2 : len(done) // 2 + 20] = b"\xaa" * 20
    yield refused("gzip damaged inside", bytes(done), "unreadable_file", "reading stops", CSV)
    yield File("gzip, then zeros", gzip.compress(whole) + b"\0" * 512, all_rows, [], {"source": CSV.source})
    yield refused("an empty file", b"", "empty_file", "no bytes", CSV)
    yield refused("a file of blank lines", b"\n\r\n\n", "empty_file", "no line", CSV)
    yield refused("a file of one CR", b"\r", "empty_file", "no line", CSV)
    yield refused("Parquet named csv", b"PAR1" + b"x" * 99, "unreadable_file", "this is Parquet", CSV)


# values


IDS = {
    "1,000": None, "-5": -5, "+7": 7, "007": 7, "1.000": 1, "-0": 0, " 9 ": 9, "9223372036854775807": 2**63 - 1,
    "-9223372036854775807": -(2**63) + 1, "-9223372036854775808": None, "9223372036854775808": None, "١٢": None, "１２": None,
    "1\u200f": None, "\u200f1": None, "1\u3000": None, "Infinity": None, "NaN": None, "inf": None, "1e5": None, "0x10": None,
    "1_000": None, "- 1": None, "1.5": None, "NA": None, "99999999999999999999": None, "😀": None,
}  # fmt: skip
"""An id as a file has it, and the number that it is; None: none."""


def values() -> Iterator[File]:
    for d in TEXTS:
        lines = []
        for text, user in IDS.items():
            item = next(NUMBERS)
            shown = f'"{text}"' if d.mark else text
            data = d.written((shown, str(item), "3", "pv", str(START)))
            lines.append(
                Line(data, "not_a_number" if user is None else None, "u: '.*is not a 64-bit number", item=item, user=user or 0)
            )
        yield file("ids of every kind", d, lines)
        swapped = [d.written((str(n), "1", "pv", "3", str(START))) for n in range(3)]
        told = [Line(data, "not_a_number", "c: 'pv' is not a 64-bit number") for data in swapped]
        yield file("columns swapped so that types break", d, told)
    for name, data, rule in (
        ("an array", b'[1, 2, 3, "pv", 1704063600]', "not_json"),
        ("a nested id", b'{"u": {"a": 1}, "i": 1, "c": 3, "b": "pv", "t": 1704063600}', "not_a_number"),
        ("an id in an array", b'{"u": [1], "i": 1, "c": 3, "b": "pv", "t": 1704063600}', "not_a_number"),
        ("a huge number", b'{"u": 1e400, "i": 1, "c": 3, "b": "pv", "t": 1704063600}', "not_a_number"),
        ("NaN", b'{"u": NaN, "i": 1, "c": 3, "b": "pv", "t": 1704063600}', "not_a_number"),
        ("a lone surrogate", b'{"u": "\\ud800", "i": 1, "c": 3, "b": "pv", "t": 1704063600}', "not_json"),
        ("an escaped NUL", b'{"u": "\\u0000", "i": 1, "c": 3, "b": "pv", "t": 1704063600}', "not_a_number"),
        ("no user", b'{"i": 1, "c": 3, "b": "pv", "t": 1704063600}', "null_id"),
        ("two objects", b'{"u": 1}{"u": 2}', "not_json"),
        ("Python, not JSON", b"{'u': 1}", "not_json"),
    ):
        yield file(f"JSON: {name}", JSONL, [good(JSONL, 1), Line(data, rule)])
    item = next(NUMBERS)
    twice = b'{"u": 1, "u": 2, "i": %d, "c": 3, "b": "p\\u0076", "t": "%d"}' % (item, START)
    yield file("JSON: a key twice, the first counts", JSONL, [Line(twice, item=item)])


# Parquet


def _written(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


PARQUET: dict[str, Any] = {"format": "parquet", "columns": ()}


def parquets() -> Iterator[File]:
    def table(**columns: Any) -> pa.Table:
        n = len(next(iter(columns.values()))) if columns else 2
        own = {"u": [1] * n, "i": [next(NUMBERS) for _ in range(n)], "c": [3] * n, "b": ["pv"] * n, "t": [START] * n}
        return pa.table(own | columns)

    def made(
        name: str, rules: list[str | None], kind: str = "epoch_s", users: tuple[int, ...] = (1, 1), **columns: Any
    ) -> File:
        """The shown text of a Parquet row is held loosely: that of its user and item."""
        rows = table(**columns)
        items = rows["i"].to_pylist()
        valid = Counter((i, u) for i, u, rule in zip(items, users, rules, strict=True) if rule is None)
        bad = [Bad(n, rule, None) for n, rule in enumerate(rules) if rule]
        return File(f"Parquet: {name}", _written(rows), valid, bad, {"source": PARQUET, "time": {"kind": kind}}, "log.parquet")

    wrong, late, never = "not_a_number", "time_out_of_span", "unreadable_time"
    yield made("decimals", [None, None], users=(1, 2), u=pa.array([1, 2]).cast(pa.decimal128(38, 2)))
    yield made("a dictionary", [None, None], users=(4, 5), u=pa.array(["4", "5"]).dictionary_encode())
    yield made("half floats", [None, None], c=pa.array([1.0, 2.0]).cast(pa.float16()))
    yield made("texts as bytes", [None, None], b=pa.array([b"pv", b"buy"]))
    yield made("structs", [wrong, wrong], u=[{"a": 1}, {"a": 2}])
    yield made("maps", [wrong, wrong], c=pa.array([[("a", 1)], [("b", 2)]], pa.map_(pa.string(), pa.int64())))
    yield made("a null column", ["null_id"] * 2, u=pa.nulls(2))
    yield made("unsigned past the end", [None, wrong], users=(2**63 - 1, 0), u=pa.array([2**63 - 1, 2**63], pa.uint64()))
    yield made("the ends of 64 bits", [wrong, None], users=(0, -(2**63) + 1), u=pa.array([-(2**63), -(2**63) + 1]))
    yield made("floats that are none", [wrong, wrong], c=pa.array([float("nan"), float("inf")]))
    yield made("durations", [wrong, wrong], c=pa.array([1, 2], pa.duration("ns")))
    yield made("columns swapped so that types break", [wrong, wrong], c=["pv", "pv"], b=[3, 3])
    for unit, second in (("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)):
        for zone in (None, "UTC", "Asia/Tokyo", "+05:30"):
            near = pa.array([(START + 7200) * second, None], pa.timestamp(unit, zone))
            yield made(f"timestamps in {unit}, zone {zone}", [None, never], "timestamp", t=near)
        if unit in ("ms", "us"):
            for zone in (None, "UTC"):
                far = pa.array([2**62, -(2**63) + 1], pa.timestamp(unit, zone))
                yield made(f"timestamps in {unit} beyond any calendar, zone {zone}", [late, late], "timestamp", t=far)
    yield made("dates beyond any calendar", [late, late], "date", t=pa.array([2**31 - 1, -(2**31)], pa.date32()))
    yield made(
        "dates beyond any calendar as moments", [late, late], "timestamp", t=pa.array([2**31 - 1, -(2**31)], pa.date32())
    )

    whole, more = _written(table()), {"file": "log.parquet", "changes": {"source": PARQUET, "time": {"kind": "epoch_s"}}}
    for name, data, rule, says in (
        ("of zero bytes", b"", "empty_file", "no bytes"),
        ("cut off", whole[:-10], "unreadable_file", "not a whole Parquet file"),
        ("its first half", whole[: len(whole) // 2], "unreadable_file", "not a whole Parquet file"),
        ("a footer too long", whole[:-8] + b"\xff\xff\xff\x7fPAR1", "unreadable_file", "not a whole Parquet file"),
        ("a footer of length 0", whole[:-8] + b"\0\0\0\0PAR1", "unreadable_file", "not a whole Parquet file"),
        ("nothing but its mark", b"PAR1PAR1", "unreadable_file", "not a whole Parquet file"),
        ("encrypted", whole[:-4] + b"PARE", "unreadable_file", "not a whole Parquet file"),
        ("of another log", _written(pa.table({"x": [1]})), "missing_columns", "no column 'u'.*are x"),
        ("text", CSV.good(1), "unreadable_file", "not a whole Parquet file"),
        ("gzipped and cut off", gzip.compress(whole)[:-9], "unreadable_file", "unpacking stops"),
        ("a list of dates that no calendar has", _written(table(
            c=pa.array([[2**31 - 1], [1]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())))),
         "unreadable_file", "reading stops"),
    ):  # fmt: skip
        yield refused(f"Parquet: {name}", data, rule, says, **more)
    yield File("Parquet: no row", _written(table().slice(0, 0)), Counter(), [], **more)


GROUPS: tuple[Callable[[], Iterator[File]], ...] = (line_ends, quotes, characters, headers, sizes, packed, values, parquets)


@cache
def files() -> dict[str, File]:
    """Every file by its name."""
    return {made.name: made for group in GROUPS for made in group()}


@dataclass(frozen=True)
class Came:
    """What came of a file: the counts, the quarantined rows; and of all files of its contract, (item, user) of every event."""

    rows: int
    valid: int
    bad: list[dict[str, Any]]
    events: Rows


def ingested(folder: Path) -> dict[str, Came]:
    """All files taken in, those of one contract as one folder, by the real path: accept, events, quarantine."""
    groups: dict[str, list[File]] = {}
    for made in files().values():
        groups.setdefault(json.dumps(made.changes, sort_keys=True), []).append(made)
    found: dict[str, Came] = {}
    for place, group in enumerate(groups.values()):
        terms, source = contract(**group[0].changes), folder / f"in {place}"
        home = Home(folder / f"home {place}", terms.name)
        source.mkdir()
        for n, made in enumerate(group):
            (source / f"{n:03} {made.file}").write_bytes(made.data)
        accepted = {a.name: a for a in ingest.accept(home, terms, f"{source}/*", SEEN)}
        for day in {day for a in accepted.values() for day in a.split.days}:
            ingest.events(home, terms, day)
        rows = Counter((row["item"], row["user"]) for day in ("earlier", *DAYS) for row in events_of(home, day))
        bad = quarantined(home, *EVERY_DAY)
        for n, made in enumerate(group):
            name = str(source / f"{n:03} {made.file}")
            split = accepted[name].split
            found[made.name] = Came(split.rows_in, split.rows_valid, [r for r in bad if r["file"] == name], rows)
    return found


def table(came: dict[str, Came]) -> str:
    """A line a file: rows in, valid, quarantined by rule; and the sums."""
    rules = Counter[str]()
    lines = [f"{'file':64} {'rows in':>8} {'valid':>8} {'quarantined':>12}"]
    for name, one in came.items():
        own = Counter(row["rule"] for row in one.bad)
        rules.update(own)
        told = ", ".join(f"{rule} {n}" for rule, n in sorted(own.items()))
        lines.append(f"{name:64} {one.rows:>8,} {one.valid:>8,} {len(one.bad):>12,}  {told}")
    total = (sum(c.rows for c in came.values()), sum(c.valid for c in came.values()), sum(rules.values()))
    lines.append(f"{f'{len(came)} files':64} {total[0]:>8,} {total[1]:>8,} {total[2]:>12,}  {dict(sorted(rules.items()))}")
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(table(ingested(Path(scratch))))
