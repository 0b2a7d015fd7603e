"""The inbox lands whole: every told item one row of its local day, told twice or cut off or not."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets import lake, predictions
from assets.project import Project
from models.contract import load
from models.home import Home
from models.requests import NULL_KEY
from tests import inbox, logs

DAY, NEXT = "2026-03-29", "2026-03-30"  # the clock goes forward on DAY: 23 hours
TERMS = logs.contract(logs.EXPOSURES, user_features={"segment": "segment"})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, TERMS.name)


def rows(home: Home, day: str = DAY) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(home.predictions(day), partitioning=None).to_pylist()
    return found


def oracle(lines: list[dict[str, Any]], day: str) -> list[dict[str, Any]]:
    """The definition, by loops over the lines in the order that they were logged."""
    out, seen = [], set()
    for told in sorted(lines, key=lambda x: x["logged"]):
        if told["request_id"] in seen or str(TERMS.day_of(told["time"])) != day:
            continue
        seen.add(told["request_id"])
        order = sorted(range(len(told["item"])), key=lambda i: (-told["score"][i], i))
        for place, item in enumerate(told["item"]):
            out.append(
                {n: told[n] for n in ("request_id", "time", "model", "user", "unknown_user", "unknown_items")}
                | {"item": item, "place": place, "rank": order.index(place) + 1, "score": told["score"][place]}
                | {"category": told["item_features"][place][0], "segment": told["user_features"][0]}
                | {"hour": told["context"][place][0], "position": told["context"][place][1]}
                | {"p_click": told["probability"]["click"][place], "p_buy": told["probability"]["buy"][place]}
                | {"history_length_view": told["history_length"]["view"], "history_length_buy": told["history_length"]["buy"]}
            )
    return sorted(out, key=lambda r: (r["time"], r["request_id"], r["place"]))


def lines() -> list[dict[str, Any]]:
    start, end = TERMS.day_start(DAY), TERMS.day_end(DAY)
    assert end - start == 23 * 3_600_000
    return [
        inbox.line(TERMS, "b", start, 1, [4, 9, 2], score=[0.5, 0.7, 0.5]),
        inbox.line(TERMS, "a", start, 2, [9], unknown_user=True, unknown_items=1, user_features=[NULL_KEY]),
        inbox.line(TERMS, "c", end - 1, 1, [4, 4], history_length={"view": 4, "buy": 2}),
        inbox.line(TERMS, "early", start - 1, 1, [4]),
        inbox.line(TERMS, "late", end, 1, [4], model="dtrn-tiny:2"),
        inbox.line(TERMS, "wide", start + 7, 3, list(range(1000))),
    ]


def test_rows_are_the_told_items_of_the_local_day(home: Home) -> None:
    told = lines()
    inbox.write(home, "1-1", told[:3])
    inbox.write(home, "2-2", told[3:])
    manifest, built = predictions.land(home, TERMS, DAY)
    assert built
    assert rows(home) == oracle(told, DAY)
    assert manifest.counts == {"requests": 4, "items": 1006, "rows": 1006, "duplicates": 0, "left_out": 0}
    predictions.land(home, TERMS, NEXT)
    assert [r["model"] for r in rows(home, NEXT)] == ["dtrn-tiny:2"]


def test_a_request_told_twice_counts_once_and_the_first_telling_stands(home: Home) -> None:
    told = lines()
    again = dict(told[0], item=[8], score=[1.0], item_features=[[1]], context=[[0, 0]], logged=told[0]["logged"] + 1)
    again["probability"] = {"click": [0.9], "buy": [0.9]}
    inbox.write(home, "1-1", [again, told[1], told[1]])
    inbox.write(home, "2-2", [told[0]])
    manifest, _ = predictions.land(home, TERMS, DAY)
    assert manifest.counts["duplicates"] == 2
    assert rows(home) == oracle([told[0], told[1]], DAY)


def test_a_killed_service_leaves_a_cut_line_that_is_counted_and_nothing_else(home: Home) -> None:
    told = lines()
    whole = json.dumps(told[5])
    for cut in (1, 40, len(whole) // 2, len(whole) - 1):
        inbox.write(home, "1-1", told[:2], tail=whole[:cut])
        inbox.write(home, "2-2", told[2:3])
        manifest, _ = predictions.land(home, TERMS, DAY)
        assert (manifest.counts["left_out"], rows(home)) == (1, oracle(told[:3], DAY))


@pytest.mark.parametrize(
    "change",
    [{"time": "noon"}, {"score": [0.1]}, {"user": None}, {"probability": {"click": [0.1, 0.2, 0.3]}}, {"context": [[1, 2]]}],
)
def test_a_line_of_another_format_is_left_out_not_guessed(home: Home, change: dict[str, Any]) -> None:
    told = lines()
    inbox.write(home, "1-1", [told[0] | change, told[1]])
    manifest, _ = predictions.land(home, TERMS, DAY)
    assert manifest.counts["left_out"] == 1
    assert rows(home) == oracle([told[1]], DAY)


def test_a_rerun_is_identical_in_bytes_and_lines_of_another_day_are_no_work(home: Home) -> None:
    told = lines()
    inbox.write(home, "1-1", told[:4])
    predictions.land(home, TERMS, DAY)
    before = home.predictions(DAY).read_bytes()
    inbox.write(home, "1-1", [])
    inbox.write(home, "3-3", [told[1], told[0]])  # other files, another order
    inbox.write(home, "4-4", [told[2], told[4]])
    assert predictions.land(home, TERMS, DAY)[1] is False
    home.predictions(DAY).unlink()
    assert predictions.land(home, TERMS, DAY)[1] is True
    assert home.predictions(DAY).read_bytes() == before
    inbox.write(home, "5-5", [inbox.line(TERMS, "new", told[0]["time"], 5, [1])])
    assert predictions.land(home, TERMS, DAY)[1] is True


def test_a_day_without_lines_is_an_empty_partition_of_the_same_columns(home: Home) -> None:
    manifest, _ = predictions.land(home, TERMS, DAY)
    assert (manifest.counts["rows"], rows(home)) == (0, [])
    empty = pq.read_schema(home.predictions(DAY))
    inbox.write(home, "1-1", lines())
    predictions.land(home, TERMS, DAY)
    assert pq.read_schema(home.predictions(DAY)) == empty
    inbox.write(home, "1-1", [], tail='{"requ')
    assert predictions.land(home, TERMS, DAY)[0].counts["left_out"] == 1


@pytest.mark.parametrize("name", ["p_click", "history_length_view", *predictions.OWN])
def test_a_contract_has_no_field_that_would_hide_a_column(name: str) -> None:
    with pytest.raises(ValueError, match=rf"\['{name}'\] used twice or reserved"):
        logs.contract(logs.EXPOSURES, user_features={name: "level"})


def test_the_check_sees_rows_that_are_not_there(tmp_path: Path) -> None:
    terms = load("simulated")
    home, day = Home(tmp_path, "simulated"), "2026-03-05"
    told = inbox.line(terms, "a", terms.day_start(day), 1, [1, 2])
    inbox.write(home, "1-1", [told, dict(told, request_id="b")])
    project = Project(contract="simulated", root=str(tmp_path))
    days = dg.DailyPartitionsDefinition("2026-03-02")
    asset = predictions.predictions.map_asset_specs(lambda s: s.replace_attributes(partitions_def=days))

    def check() -> Any:
        result = dg.materialize([asset, predictions.rows_accounted_for], partition_key=day, resources={"project": project})
        return result.get_asset_check_evaluations()[0]

    assert check().passed
    manifest = lake.require(home, "predictions", day)
    table = pq.read_table(home.predictions(day), partitioning=None)
    assert predictions.accounted(home, day) == ((4, 2), (4, 2))
    pq.write_table(table.slice(0, 3), home.predictions(day))
    assert predictions.accounted(home, day) == ((4, 2), (3, 2))
    assert manifest.counts["rows"] == len(table) == 4
