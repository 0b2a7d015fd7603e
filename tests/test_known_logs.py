"""The contracts of public logs, each on twenty invented rows in that log's documented layout, against a plain reading."""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest

from assets import histories, ingest, samples
from models.contract import Contract, load
from models.home import Home
from models.keys import number_keys, text_key
from models.requests import NULL_KEY

FIXTURES = Path(__file__).parent / "fixtures"
SEEN = datetime(2026, 11, 1, tzinfo=UTC)
LOGS = {"tmall": "user_log*.csv", "retailrocket": "events.csv", "rees46": "2019-Oct.csv", "kuairand": "log_standard*.csv"}
ZONES = {"tmall": "Asia/Shanghai", "kuairand": "Asia/Shanghai"}


def taken_in(folder: Path, name: str) -> tuple[Home, Contract, list[str]]:
    """The fixture ingested under the shipped contract, and the days that it has rows of."""
    contract, home = load(name), Home(folder, name)
    [accepted] = ingest.accept(home, contract, str(FIXTURES / name / LOGS[name]), SEEN)
    assert (accepted.split.rows_in, accepted.split.rows_valid) == (20, 20), accepted.split.bad
    days = sorted(accepted.split.valid)
    for day in days:
        ingest.events(home, contract, day)
    return home, contract, days


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(path).read().to_pylist()


def read(name: str, file: str) -> list[dict[str, str]]:
    [path] = (FIXTURES / name).glob(file)
    with path.open(newline="") as text:
        return list(csv.DictReader(text))


def whole(text: str) -> int | None:
    return int(text) if text else None


def expected_tmall(row: dict[str, str]) -> dict[str, Any]:
    info = {r["user_id"]: r for r in read("tmall", "user_info*.csv")}[row["user_id"]]
    stamp = row["time_stamp"].zfill(4)
    midnight = datetime(2014, int(stamp[:2]), int(stamp[2:]), tzinfo=ZoneInfo("Asia/Shanghai"))
    return {
        "time": round(midnight.timestamp() * 1000),
        "user": int(row["user_id"]),
        "item": int(row["item_id"]),
        "behaviour": {"0": "click", "1": "cart", "2": "buy", "3": "favourite"}[row["action_type"]],
        "category": whole(row["cat_id"]),
        "seller": whole(row["seller_id"]),
        "brand": whole(row["brand_id"]),
        "age_range": whole(info["age_range"]),
        "gender": whole(info["gender"]),
    }


def expected_retailrocket(row: dict[str, str]) -> dict[str, Any]:
    return {
        "time": int(row["timestamp"]),
        "user": int(row["visitorid"]),
        "item": int(row["itemid"]),
        "behaviour": {"view": "view", "addtocart": "cart", "transaction": "buy"}[row["event"]],
    }


def expected_rees46(row: dict[str, str]) -> dict[str, Any]:
    moment = datetime.strptime(row["event_time"], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    return {
        "time": round(moment.timestamp() * 1000),
        "user": int(row["user_id"]),
        "item": int(row["product_id"]),
        "behaviour": {"view": "view", "cart": "cart", "remove_from_cart": "remove", "purchase": "buy"}[row["event_type"]],
        "category": int(row["category_id"]),
        "category_code": text_key(row["category_code"]) if row["category_code"] else None,
        "category_code_text": row["category_code"] or None,
        "brand": text_key(row["brand"]) if row["brand"] else None,
        "brand_text": row["brand"] or None,
        "price": float(row["price"]),
    }


def expected_kuairand(row: dict[str, str]) -> dict[str, Any]:
    video = {r["video_id"]: r for r in read("kuairand", "video_features*.csv")}[row["video_id"]]
    user = {r["user_id"]: r for r in read("kuairand", "user_features*.csv")}[row["user_id"]]
    tags = [int(tag) for tag in video["tag"].split(",") if tag]
    labels = ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "long_view")
    return {
        "time": int(row["time_ms"]),
        "user": int(row["user_id"]),
        "item": int(row["video_id"]),
        "author": int(video["author_id"]),
        "music": whole(video["music_id"]),
        "duration": float(video["video_duration"]) if video["video_duration"] else None,
        **{name: tags[n] if n < len(tags) else None for n, name in enumerate(("tags", "tags_2", "tags_3"))},
        "activity": text_key(user["user_active_degree"]),
        "activity_text": user["user_active_degree"],
        "registered": float(user["register_days"]),
        "tab": int(row["tab"]),
        **{label: float(row[label]) for label in labels},
    }


EXPECTED = {
    "tmall": expected_tmall,
    "retailrocket": expected_retailrocket,
    "rees46": expected_rees46,
    "kuairand": expected_kuairand,
}


@pytest.mark.parametrize("name", LOGS)
def test_every_row_becomes_the_event_that_it_tells(tmp_path: Path, name: str) -> None:
    home, contract, days = taken_in(tmp_path, name)
    zone = ZoneInfo(ZONES.get(name, "UTC"))
    by_day = defaultdict(list)
    for row in read(name, LOGS[name]):
        event = EXPECTED[name](row)
        by_day[str(datetime.fromtimestamp(event["time"] / 1000, zone).date())].append(event)
    assert days == sorted(by_day)
    for day in days:

        def key(row: dict[str, Any]) -> str:
            return str(sorted((k, str(v)) for k, v in row.items()))

        found = [{k: v for k, v in row.items() if k in by_day[day][0]} for row in rows_of(home.events(day))]
        assert sorted(found, key=key) == sorted(by_day[day], key=key)
    assert contract.calendar.first_day <= date.fromisoformat(days[0])


@pytest.mark.parametrize("name", LOGS)
def test_features_reach_histories_and_samples_as_keys(tmp_path: Path, name: str) -> None:
    home, contract, days = taken_in(tmp_path, name)
    histories.build(home, contract, days[0])
    told = [EXPECTED[name](row) for row in read(name, LOGS[name])]
    features = {column: n for n, column in enumerate(contract.item_columns[1:])}
    for row in rows_of(home.histories(days[0])):
        event = next(e for e in told if (e["user"], e["time"], e["item"]) == (row["user"], row["time"], row["item"]))
        for column in features:
            value = event[column]
            if contract.features.get(column) and contract.kind(column) == "number":
                value = None if value is None else int(number_keys(np.array([value]))[0])
            assert row[column] == (NULL_KEY if value is None else value), column


def test_a_log_of_days_is_all_ties_within_one(tmp_path: Path) -> None:
    home, contract, _ = taken_in(tmp_path, "tmall")
    samples.build(home, contract, "2014-08-29")
    rows = {r["item"]: r for r in rows_of(home.samples("2014-08-29")) if r["user"] == 101 and not r["sampled"]}
    assert rows[9002]["label_click"] == 1
    assert rows[9002]["label_buy"] == 0
    assert rows[9003]["label_buy"] == 1
    assert sum(r["item"] == 9002 for r in rows_of(home.events("2014-08-29"))) == 2, "a repeat is a second click"
