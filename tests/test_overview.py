"""What a person reads of a day in Dagster: five lines out of the records, columns with their meaning, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import acceptance, columns, lake, overview, registry
from models.home import Home
from tests import logs

DAY = "2026-04-01"
QUIET: dict[str, Any] = {"model": "dtrn-tiny:a", "fields": {"hour": {}, "p_click": {}}, "drifted": []}


def record(home: Home, stage: str, **told: Any) -> None:
    lake.build(home, stage, DAY, home.partition(stage, DAY), lambda p: _written(p, told), inputs={}, code="", contract="")


def _written(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    path.write_text(str(told))
    return told


def lines(home: Home, drift: dict[str, Any]) -> dict[str, str]:
    """First cell → second cell of the table, which has two in every line."""
    rows = [line.strip("|").split("|") for line in overview.markdown(home, DAY, drift).splitlines()]
    assert all(len(cells) == 2 for cells in rows), rows
    return {a.strip(" *"): b.strip() for a, b in rows[2:]}


def test_a_day_without_records_says_so(tmp_path: Path) -> None:
    told = lines(Home(tmp_path, "tiny"), {"model": None, "fields": {}, "drifted": []})
    assert told == {
        "rows": "not ingested",
        "samples": "none yet",
        "champion": "none yet",
        "served": "nothing",
        "drift": "nothing to compare",
    }


def test_a_day_reads_from_its_records(tmp_path: Path) -> None:
    home = Home(tmp_path, "tiny")
    record(home, "events", counts={"rows_in": 1200, "rows_valid": 1190, "rows_quarantined": 10}, blocked="a | b\nc")
    record(
        home, "samples",
        counts={"samples": 4000, "sampled": 3000, "positives_click": 900, "positives_buy": 7},
        detail={"mature": False, "labels_until": DAY},
    )  # fmt: skip
    record(home, "predictions", counts={"requests": 300, "rows": 1500})
    registry.promote(
        home, judged_day="2026-03-31", name="dtrn", tag="dtrn-tiny:a", bento="b", against=None, who="", why="",
        when=datetime(2026, 4, 1, tzinfo=UTC),
    )  # fmt: skip
    told = lines(home, QUIET)
    assert told["rows"] == "1,200 in, 1,190 valid, 10 quarantined; **blocked**: a / b c"
    assert told["samples"] == f"4,000, of them 900 click, 7 buy; labels known until {DAY}"
    assert told["champion"] == "`dtrn-tiny:a`, since the verdict of 2026-03-31"
    assert told["served"] == "300 requests, 1,500 rows; what followed is not known yet"
    assert told["drift"] == "none of 2 fields"
    served = {"dtrn-tiny:a": {"click": {"auc": 0.71234}, "buy": {"auc": None}}}
    record(home, "outcomes", counts={}, detail={"mature": True, "served": served})
    told = lines(home, QUIET | {"drifted": ["hour"]})
    assert told["served"] == "300 requests, 1,500 rows; AUC as served: click 0.7123"
    assert told["drift"] == "1 of 2 fields: hour"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("user", "Who, by the log's own id"),
        ("label_buy", "Whether buy followed within its horizon: 1 yes, 0 no, -1 cannot be said"),
        ("p_click", "Probability of click that was answered"),
        ("history_length_view", "How many events of view the user's history held"),
        ("category", "Feature of the item"),
        ("weekday", "Circumstance of the request"),
        ("stars", "As the log has it"),
    ],
)
def test_a_column_has_its_files_type_and_a_meaning(name: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({name: pa.array([1], pa.int16())}), path)
    (told,) = columns.shown(logs.contract(logs.EVENTS), path)["dagster/column_schema"].schema.columns  # type: ignore[union-attr]
    assert (told.name, told.type, told.description) == (name, "int16", says)


def test_a_check_of_the_days_file_says_what_to_do_and_a_block_says_it_itself() -> None:
    told = acceptance._said(acceptance.schema, {DAY: ([], ["no column user"])})
    assert told.startswith(f"{DAY}: expected [], found ['no column user']. ")
    assert "run ./dtrn ingest for the day again" in told
    block = "a.csv: 3 of 9 rows are bad; deliver the file again"
    assert acceptance._said(acceptance.bad_rows_within_limit, {DAY: ("within the limit", block)}).endswith(block)
