"""Broken files of text: line ends, quotes, characters, headers, sizes, compression and values, in CSV, TSV and JSON lines."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from tests.broken_file import CELLS, COLUMNS, CSV, HEADED, JSONL, NUMBERS, TEXTS, Dialect, File, Line, file, good, refused
from tests.damaged_log import START

# line ends


def line_ends() -> Iterator[File]:
    for d in TEXTS:
        yield file("LF and CRLF mixed", d, [good(d, 1), good(d, 2, b"\r\n"), good(d, 3), good(d, 4, b"\r\n")])
        yield file(
            "CR LF with blank lines", d, [good(d, 1), Line(b"", skipped=True), good(d, 2), Line(b"", skipped=True)], end=b"\r\n"
        )
        yield file("CR CR LF", d, [good(d, 1), good(d, 2)], end=b"\r\r\n")
        yield file("CR only, as an old Mac writes", d, [good(d, 1), good(d, 2), Line(b"x", _shape(d)), good(d, 3)], end=b"\r")
        yield file("no end of the last line", d, [good(d, 1), good(d, 2, b"")])
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


GROUPS = (line_ends, quotes, characters, headers, sizes, packed, values)
