"""Broken and odd Parquet files: types that are no ids or times, times beyond any calendar, footers cut off or wrong."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.broken_file import CSV, NUMBERS, Bad, File, refused
from tests.damaged_log import START


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
