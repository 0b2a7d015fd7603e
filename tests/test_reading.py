"""Values as people and exports write them: fields, times in zones, Parquet types."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import lake, reading
from models.contract import Contract, ContractError
from tests.damaged_log import START, contract, events_of, quarantined, take_in

# times


def _execute(value: ibis.Value) -> Any:
    found = lake.engine().execute(value)
    return list(found) if hasattr(found, "__len__") and not isinstance(found, str) else found


def paris(*when: int, fold: int = 0) -> int:
    return round(datetime(*when, tzinfo=ZoneInfo("Europe/Paris"), fold=fold).timestamp() * 1000)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (None, "2024-01-02 03:04:05", paris(2024, 1, 2, 3, 4, 5)),
        (None, "2024-01-02T03:04:05.250", paris(2024, 1, 2, 3, 4, 5) + 250),
        (None, "2024-01-02T03:04", paris(2024, 1, 2, 3, 4)),
        (None, "2024-01-02T03:04:05Z", paris(2024, 1, 2, 4, 4, 5)),
        (None, "2024-01-02 03:04:05-05:00", paris(2024, 1, 2, 9, 4, 5)),
        (None, "2024-01-02T03:04:05+0530", paris(2024, 1, 1, 22, 34, 5)),
        (None, "2024-01-02T03:04:05+02", paris(2024, 1, 2, 2, 4, 5)),
        (None, "2024-01-02", paris(2024, 1, 2)),
        (None, "2024-03-31 02:30:00", paris(2024, 3, 31, 3, 30)),  # the clocks skip it
        (None, "2024-10-27 02:30:00", paris(2024, 10, 27, 2, 30, fold=1)),  # the clocks pass it twice
        (None, "2024-02-30 00:00:00", None),
        (None, "2024-01-02-05:00", None),
        (None, "infinity", None),
        (None, "1704063600", None),
        (None, "2024-01-02 25:00:00", None),
        ("%d/%m/%Y %H:%M", "02/01/2024 03:04", paris(2024, 1, 2, 3, 4)),
        ("%d/%m/%Y %H:%M", "2024-01-02 03:04", None),
        ("%Y-%m-%d %H:%M:%S %z", "2024-01-02 03:04:05 +0000", paris(2024, 1, 2, 4, 4, 5)),
    ],
)
def test_timestamps(form: str | None, text: str, expected: int | None) -> None:
    terms = contract(time={"kind": "timestamp", "format": form})
    found = _execute(reading.moment(ibis.literal(text), terms, reading.Span.of(terms, date(2024, 1, 3))))
    assert (None if found is None or found != found else int(found)) == expected


@pytest.mark.parametrize("mark", [",", ";", "\t", "|", "^", "]", "\\", " "])
def test_any_delimiter(mark: str) -> None:
    text = mark.join(["a", f'"b{mark}""c"', "", 'd"e'])
    assert _execute(reading.fields(ibis.literal(text), mark)) == ["a", f'b{mark}"c', "", 'd"e']
    assert _execute(reading.fields(ibis.literal(mark.join(["a", "", "b", ""])), mark)) == ["a", "", "b", ""]
    assert _execute(reading.fields(ibis.literal(f'a{mark}"b'), mark)) == []


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(ContractError, match=r"tiny: time\.format: '%Y-%Q' is not a strptime format"):
        reading.check_format(contract(time={"kind": "timestamp", "format": "%Y-%Q"}))


CLOCK_CHANGES = {
    "Europe/Paris": "2024-03-30",
    "America/Havana": "2024-11-02",  # midnight comes twice
    "America/Sao_Paulo": "2018-11-02",  # midnight never comes
    "Asia/Shanghai": "2024-01-01",  # none
}


@pytest.mark.parametrize(("zone", "first"), CLOCK_CHANGES.items())
def test_the_local_day_is_the_contracts_over_clock_changes(zone: str, first: str) -> None:
    day = date.fromisoformat(first)
    terms = contract(time={"zone": zone}, calendar={"first_day": day, "last_day": day + timedelta(days=3), "accept_from": None})
    span = reading.Span.of(terms, day)
    times = [start + step for start in span.starts for step in (-1, 0, 1, 1_800_000, 43_200_000, 86_399_999)]
    expected = [str(terms.day_of(t)) if span.starts[0] <= t < span.starts[-1] else None for t in times]
    table = ibis.memtable({"time": times})
    assert lake.engine().to_pyarrow(table.select(day=span.day(table.time)))["day"].to_pylist() == expected


def test_a_date_is_its_local_midnight(tmp_path: Path) -> None:
    terms = contract(
        time={"kind": "date", "format": "%Y%m%d", "zone": "America/Sao_Paulo"},
        calendar={"first_day": "2018-11-03", "last_day": "2018-11-05", "accept_from": None},
    )
    data = "".join(f"1,2,3,pv,{day}\n" for day in ("20181103", "20181104", "20181105", "20181106", "2018-11-03", "20181102"))
    home, _ = take_in(tmp_path, terms, data.encode())
    for day in ("2018-11-03", "2018-11-04", "2018-11-05"):
        [row] = events_of(home, day)
        assert row["time"] == terms.day_start(day)
    assert [(r["line"], r["rule"]) for r in quarantined(home, "unknown")] == [
        (4, "time_out_of_span"), (5, "unreadable_time"), (6, "time_out_of_span")]  # fmt: skip


def test_an_open_calendar_ends_with_the_day_after_the_file_was_seen(tmp_path: Path) -> None:
    terms = contract(calendar={"last_day": None})
    near, far = (round(datetime(2024, 6, d, 12, tzinfo=UTC).timestamp()) for d in (2, 3))
    _, accepted = take_in(tmp_path, terms, f"1,2,3,pv,{near}\n1,2,3,pv,{far}\n".encode())
    assert accepted.split.valid == {"2024-06-02": 1}
    assert accepted.split.bad == {"unknown": {"time_out_of_span": 1}}


# Parquet


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def exposures(**changes: Any) -> Contract:
    """As `contract`, a Parquet log of impressions with two labels."""
    data = contract().model_dump(mode="json") | {
        "shape": "exposures",
        "source": {"format": "parquet"},
        "columns": {"user": "u", "item": "i"},
        "behaviours": {"click": {"when": "is_click"}},
        "tasks": {"click": {"label": "is_click"}, "like": {"label": "rating >= 4"}},
    }
    for section, keys in changes.items():
        data[section] = {**data[section], **keys}
    return Contract.model_validate(data)


@pytest.mark.parametrize("packed", [False, True])
def test_parquet_rows_are_judged_by_their_values(tmp_path: Path, packed: bool) -> None:
    table = pa.table(
        {
            "u": pa.array([1, None, 2, 3, 3, 2**63 + 5], pa.uint64()),
            "i": pa.array([1.0, 2.0, 2.5, 3.0, 3.0, 1.0]),
            "c": pa.array(["7", "8", "9", None, None, "x"]).dictionary_encode(),
            "is_click": [True, False, True, True, True, None],
            "rating": pa.array(["4.5", "1", "1", "nan", "3e0", ""]),
            "t": [START] * 6,
            "ignored": [[1]] * 6,
        }
    )
    data = parquet(table)
    home, accepted = take_in(tmp_path, exposures(), gzip.compress(data) if packed else data, "log.parquet")
    assert events_of(home, "2024-01-01") == [
        {"user": 1, "time": START * 1000, "item": 1, "category": 7, "is_click": 1.0, "rating": 4.5},
        {"user": 3, "time": START * 1000, "item": 3, "category": None, "is_click": 1.0, "rating": 3.0},
    ]
    found = quarantined(home, "2024-01-01", "unknown")
    assert [(r["line"], r["row"], r["rule"]) for r in found] == [
        (None, 1, "null_id"), (None, 2, "not_a_number"), (None, 3, "not_a_number"), (None, 5, "not_a_number")]  # fmt: skip
    assert found[2]["detail"] == "rating: 'nan' is not a 64-bit number"
    assert found[2]["raw"] == f"u=3, i=3.0, t={START}, c=null, is_click=true, rating=nan"
    assert accepted.split.rows_in == 6


@pytest.mark.parametrize(
    ("kind", "column", "expected"),
    [
        ("timestamp", pa.array([datetime(2024, 1, 2, 3)], pa.timestamp("us")), paris(2024, 1, 2, 3)),
        ("timestamp", pa.array([datetime(2024, 1, 2, 3)], pa.timestamp("ms", "UTC")), paris(2024, 1, 2, 4)),
        ("timestamp", pa.array([datetime(2024, 1, 2, 3)], pa.timestamp("ns", "Asia/Tokyo")), paris(2024, 1, 2, 4)),
        ("date", pa.array([date(2024, 1, 2)]), paris(2024, 1, 2)),
        ("epoch_ms", pa.array([paris(2024, 1, 2, 3) + 7]), paris(2024, 1, 2, 3) + 7),
        ("epoch_ms", pa.array([datetime(2024, 1, 2, 3)]), None),
    ],
)
def test_parquet_times(tmp_path: Path, kind: str, column: pa.Array, expected: int | None) -> None:
    table = pa.table({"u": [1], "i": [2], "c": [3], "is_click": [1], "rating": [1.0], "t": column})
    home, accepted = take_in(tmp_path, exposures(time={"kind": kind}), parquet(table), "log.parquet")
    if expected is None:
        assert accepted.split.bad == {"unknown": {"unreadable_time": 1}}
    else:
        assert pq.ParquetFile(home.events("2024-01-02")).read()["time"].to_pylist() == [expected]


@pytest.mark.parametrize("data", [b"PAR1 cut off", b"text", parquet(pa.table({"u": [1]}))])
def test_a_parquet_that_cannot_be_read_is_said(tmp_path: Path, data: bytes) -> None:
    home, _ = take_in(tmp_path, exposures(), data, "log.parquet")
    [row] = quarantined(home, "unknown")
    assert row["rule"] == ("missing_columns" if len(data) > 20 else "unreadable_file")


def test_a_parquet_page_that_is_damaged_refuses_the_file(tmp_path: Path) -> None:
    count = 50_000
    data = bytearray(parquet(pa.table({n: list(range(count)) for n in ("u", "i", "c", "is_click", "rating", "t")})))
    data[len(data) // 2 : len(data) // 2 + 4000] = b"\xff" * 4000
    home, accepted = take_in(tmp_path, exposures(), bytes(data), "log.parquet")
    assert accepted.split.bad == {"unknown": {"unreadable_file": 1}}
    assert "reading stops" in quarantined(home, "unknown")[0]["detail"]
