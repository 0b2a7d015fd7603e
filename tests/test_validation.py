"""Each rule, told apart on damaged files whose damage is known by construction; and the schema of the clean result."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets import parsing, validation
from tests.damaged_log import DAYS, START, contract, events_of, quarantined, take_in

# the corpus: every line carries what must become of it


@dataclass(frozen=True)
class Line:
    data: bytes
    rule: str | None
    event: tuple[Any, ...] = ()
    """(user, time, item, behaviour, category), for a line without a rule."""


numbers = st.integers(0, 3)


@st.composite
def good(draw: st.DrawFn) -> Line:
    user, item, category = draw(numbers), draw(st.integers(-(2**62), 2**62) | numbers), draw(st.none() | numbers)
    second = START + draw(st.integers(-86_400, 3 * 86_400 - 1))
    raw, behaviour = draw(st.sampled_from([("pv", "view"), ("buy", "buy"), ("3", "buy"), (" pv", "view")]))
    shown = [str(user), str(item), "" if category is None else str(category), raw, str(second)]
    place = draw(st.integers(0, 4))
    style = draw(st.sampled_from(["plain", "quoted", "spaced", "float"]))
    quarters = draw(st.sampled_from([0, 0, 1, 3]))
    if quarters:
        shown[4] += f".{25 * quarters}"
    if style == "quoted":
        shown[place] = f'"{shown[place]}"'
    elif style == "spaced":
        shown[place] = f" {shown[place]} "
    elif style == "float" and place in (0, 2) and shown[place]:
        shown[place] += ".0"
    return Line(",".join(shown).encode(), None, (user, second * 1000 + 250 * quarters, item, behaviour, category))


@st.composite
def damaged(draw: st.DrawFn) -> Line:
    fields = ["1", "2", "3", "pv", str(START + 5)]
    rule, place, value = draw(
        st.sampled_from(
            [
                ("wrong_number_of_columns", 4, "1,2"),
                ("wrong_number_of_columns", 0, '"1'),
                ("wrong_number_of_columns", 2, '"3" x'),
                ("bad_utf8", 2, "\udcff"),
                ("bad_utf8", 3, "p\udcc3v"),
                ("not_a_number", 0, "abc"),
                ("not_a_number", 0, "1\0"),
                ("not_a_number", 1, "1.5"),
                ("not_a_number", 2, "1e3"),
                ("not_a_number", 2, "9223372036854775808"),
                ("not_a_number", 0, "-9223372036854775808"),
                ("not_a_number", 1, '"2,2"'),
                ("not_a_number", 1, "1_0"),
                ("null_id", 0, ""),
                ("null_id", 1, " "),
                ("null_id", 1, '""'),
                ("null_id", 0, "NULL"),
                ("unknown_behaviour", 3, "zz"),
                ("unknown_behaviour", 3, ""),
                ("unknown_behaviour", 3, "PV"),
                ("unreadable_time", 4, "noon"),
                ("unreadable_time", 4, ""),
                ("unreadable_time", 4, "1704063600.5.5"),
                ("time_out_of_span", 4, str(START - 86_401)),
                ("time_out_of_span", 4, str(START + 3 * 86_400)),
                ("time_out_of_span", 4, "170406"),
                ("time_out_of_span", 4, "-9223372036854775807"),
            ]
        )
    )
    fields[place] = value
    return Line(",".join(fields).encode("utf-8", "surrogateescape"), rule)


BLANK = Line(b"", "blank")
lines = st.lists(st.one_of(good(), good(), damaged(), st.just(BLANK)), min_size=1, max_size=40)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=lines, again=st.lists(st.integers(0, 39), max_size=4), header=st.booleans(), end=st.sampled_from([b"\n", b"\r\n"]),
       ended=st.booleans(), mark=st.booleans(), packed=st.booleans())  # fmt: skip
def test_every_row_is_an_event_or_quarantined_by_its_rule(
    lines: list[Line], again: list[int], header: bool, end: bytes, ended: bool, mark: bool, packed: bool
) -> None:
    lines = lines + [lines[n] for n in again if n < len(lines)]
    terms = contract(source={"header": header})
    texts = [b'u,"i", c,b,t'] * header + [line.data for line in lines]
    data = b"\xef\xbb\xbf" * mark + end.join(texts) + end * ended
    events: Counter[tuple[Any, ...]] = Counter()
    bad: list[tuple[int, str, str]] = []
    for number, line in enumerate(lines, 2 if header else 1):
        if line is BLANK:
            continue
        rule, last = line.rule, number == len(texts) and not ended
        if rule is None and line.event in events:
            rule = "duplicate"
        elif rule and last:
            rule = "truncated_line"
        if rule is None:
            events[line.event] += 1
        else:
            bad.append((number, rule, line.data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")))
    with TemporaryDirectory() as folder:
        home, accepted = take_in(Path(folder), terms, gzip.compress(data) if packed else data)
        found = quarantined(home, "unknown", "earlier", *DAYS)
        if not events and not bad and not header:
            bad = [(None, "empty_file", None)]  # type: ignore[list-item]
        assert sorted((r["line"], r["rule"], r["raw"]) for r in found) == sorted(bad)
        assert all(r["detail"] and r["file"].endswith("log.csv") for r in found)
        split = accepted.split
        assert (split.rows_valid, split.rows_quarantined, split.rows_in) == (len(events), len(bad), len(events) + len(bad))
        landed = [events_of(home, day) for day in ("earlier", *DAYS)]
        assert Counter(tuple(row.values()) for rows in landed for row in rows) == events
        for day, rows in zip(("earlier", *DAYS), landed, strict=True):
            assert rows == sorted(rows, key=lambda r: [(v is None, v) for v in r.values()])
            when = {datetime.fromtimestamp(r["time"] / 1000, ZoneInfo("Europe/Paris")).date().isoformat() for r in rows}
            assert when <= {"2023-12-31" if day == "earlier" else day}


# whole files


@pytest.mark.parametrize(
    ("data", "header", "rule", "said"),
    [
        (b"", False, "empty_file", "no bytes"),
        (b"\n\r\n\n", False, "empty_file", "no line"),
        (b"\xef\xbb\xbf", True, "empty_file", "no line"),
        (gzip.compress(b""), False, "empty_file", "no line"),
        (b"u,i,b,t\n1,2,pv,1704063600\n", True, "missing_columns", "no column 'c'.*are u, i, b, t"),
        (b"u,i,c,c,b,t\n1,2,3,3,pv,1704063600\n", True, "missing_columns", "column 'c' more than once"),
        (gzip.compress(b"1,2,3,pv,1704063600\n" * 50_000)[:-900], False, "unreadable_file", "reading stops"),
        (b"PAR1....", False, "unreadable_file", "contract says format 'csv'"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_quarantined_row(
    tmp_path: Path, data: bytes, header: bool, rule: str, said: str
) -> None:
    home, accepted = take_in(tmp_path, contract(source={"header": header}), data)
    [row] = quarantined(home, "unknown", *DAYS)
    assert (row["rule"], row["line"], row["raw"]) == (rule, None, None)
    assert re.search(said, row["detail"])
    assert (accepted.split.rows_in, accepted.split.rows_quarantined) == (1, 1)


def test_a_header_alone_is_a_quiet_day(tmp_path: Path) -> None:
    home, accepted = take_in(tmp_path, contract(source={"header": True}), b"u,i,c,b,t\n")
    assert accepted.split.rows_in == 0
    assert quarantined(home, "unknown", *DAYS) == []


def test_columns_of_a_header_come_in_any_order_and_number(tmp_path: Path) -> None:
    terms = contract(source={"header": True, "delimiter": "|"})
    home, _ = take_in(tmp_path, terms, b"t|note|b|c|i|u\n1704063600|a,b \xc3\xa9|pv|3|2|1\n")
    assert events_of(home, "2024-01-01") == [{"user": 1, "time": START * 1000, "item": 2, "behaviour": "view", "category": 3}]


def test_a_quoted_field_over_two_lines_is_two_bad_lines_and_nothing_else_moves(tmp_path: Path) -> None:
    data = b'1,2,"3\n",pv,1704063600\n1,2,3,pv,1704063601\n'
    home, _ = take_in(tmp_path, contract(), data)
    assert [(r["line"], r["rule"]) for r in quarantined(home, "unknown")] == [
        (1, "wrong_number_of_columns"),
        (2, "wrong_number_of_columns"),
    ]
    assert pq.ParquetFile(home.events("2024-01-01")).metadata.num_rows == 1


def test_a_small_block_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\xef\xbb\xbf" + b"".join(b"%d,2,3,pv,%d\n" % (n, START + n) for n in range(300)) + b"x\n\n\xff\n1,2,3,pv,17"
    whole = quarantined(take_in(tmp_path, contract(), data)[0], "unknown")
    (tmp_path / "small").mkdir()
    monkeypatch.setattr(parsing, "BLOCK_BYTES", 997)
    home, accepted = take_in(tmp_path / "small", contract(), data)
    assert [(r["line"], r["rule"], r["raw"]) for r in quarantined(home, "unknown")] == [
        (r["line"], r["rule"], r["raw"]) for r in whole
    ]
    assert [r["line"] for r in whole] == [301, 303, 304]
    assert (accepted.split.rows_valid, accepted.split.blank) == (300, 1)


# the schema of the clean result


def clean(**columns: Any) -> ibis.Table:
    base = {"user": [1, 1], "time": [START * 1000] * 2, "item": [2, 2], "behaviour": ["view", "buy"], "category": [3, None]}
    return ibis.memtable(pa.table(base | columns))


def test_the_schema_holds_of_clean_rows() -> None:
    assert validation.schema_failures(clean(), contract(), "2024-01-01") == []
    before = [contract().day_start("2024-01-01") - 1] * 2
    assert validation.schema_failures(clean(time=before), contract(), "earlier") == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"time": [START * 1000, None]}, "time"),
        ({"user": [None, 1]}, "user"),
        ({"behaviour": ["view", "pv"]}, "behaviour"),
        ({"behaviour": ["view", None]}, "behaviour"),
        ({"item": [1.5, 2.0]}, "item"),
        ({"time": [START * 1000, START * 1000 - 1]}, "time"),
        ({"time": [START * 1000, START * 1000 + 86_400_000]}, "time"),
        ({"extra": [1, 2]}, "extra"),
    ],
)
def test_the_schema_fails_on_anything_else(columns: dict[str, Any], said: str) -> None:
    [failure, *_] = validation.schema_failures(clean(**columns), contract(), "2024-01-01")
    assert said in failure
