"""Logs of other makes: JSON lines, other separators, zstd, text ids, measures, lists and side tables."""

from __future__ import annotations

import gzip
import json
import struct
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets import ingest, lake, parsing, reading, sides
from bentos.fields import feature_keys
from models import keys
from models.contract import Contract
from models.home import Home
from models.requests import NULL_KEY
from models.vocabulary import Vocabulary, _edges
from tests import logs
from tests.damaged_log import DAYS, SEEN, START, contract, events_of, quarantined

NEWS: dict[str, Any] = {
    "name": "news",
    "shape": "events",
    "source": {"format": "jsonl"},
    "columns": {"user": "/user/id", "item": "article", "behaviour": "did", "text": ["user", "item"]},
    "time": {"column": "at", "kind": "timestamp", "zone": "Europe/Paris"},
    "calendar": {"first_day": "2024-01-01", "last_day": "2024-01-03"},
    "item_features": {
        "publisher": {"column": "publisher", "kind": "text"},
        "words": {"column": "words", "kind": "number", "bins": 4},
        "tags": {"column": "tags", "kind": "text", "separator": "|", "most": 2},
    },
    "user_features": {"age": {"column": "age", "kind": "number"}},
    "item_table": {
        "file": "articles*",
        "format": "csv",
        "delimiter": "\t",
        "key": "id",
        "features": ["publisher", "words", "tags"],
    },
    "user_table": {"file": "readers.csv", "format": "csv", "delimiter": ";", "key": "id", "features": ["age"]},
    "behaviours": {"read": {"values": ["read"]}, "share": {"values": ["share"]}},
    "tasks": {"share": {"behaviours": ["share"], "horizon_hours": 24}},
    "validation": {"repeats": "duplicates", "max_bad_share": 0.5},
}
ARTICLES = "id\tpublisher\twords\ttags\na/1\tTimes\t120.5\tx|y|z\na/2\t\t80\t\na/3\tPost\t\ty\n"
READERS = "id;age\nu-1;31\nu-2;\n"


def line(user: str | None, article: str, did: str = "read", at: str = "2024-01-01T10:00:00Z", **more: Any) -> str:
    return json.dumps({"user": {"id": user}, "article": article, "did": did, "at": at, **more})


def news(folder: Path, rows: list[str], articles: str = ARTICLES, name: str = "log.jsonl") -> tuple[Home, Contract]:
    """The news log with its side tables, ingested."""
    terms, home = Contract.model_validate(NEWS), Home(folder / "home", "news")
    source = folder / "in"
    source.mkdir(exist_ok=True)
    text = "".join(row + "\n" for row in rows).encode()
    (source / name).write_bytes(pa.Codec("zstd").compress(text).to_pybytes() if name.endswith(".zst") else text)
    (source / "articles.tsv.gz").write_bytes(gzip.compress(articles.encode()))
    (source / "readers.csv").write_text(READERS)
    for accepted in ingest.accept(home, terms, str(source), SEEN):
        for day in accepted.split.valid:
            ingest.events(home, terms, day)
    return home, terms


# keys


def test_a_text_has_one_key_in_the_engine_and_in_the_service() -> None:
    texts = ["u-1", " u-1\t", "é", "日本", "0", "\\N", "null", "", "a b", "\fx", "x" * 500]
    backend = lake.engine()
    backend.con.register("texts", pa.table({"text": texts}))
    table = backend.table("texts")
    found = table.select(key=reading.text_key(reading.written(table.text))).to_pyarrow().column("key").to_pylist()
    assert [NULL_KEY if key is None else key for key in found] == [keys.text_key(text) for text in texts]
    assert keys.text_key("u-1") == keys.text_key(" u-1\t") != keys.text_key("u-2")
    assert 0 <= keys.text_key("u-1") < 2**63


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=30))
def test_the_keys_of_measures_keep_their_order_and_come_back(values: list[float]) -> None:
    numbers = np.array(values)
    found = keys.number_keys(numbers)
    order = np.argsort(numbers, kind="stable")
    assert np.all(np.diff(found[order].astype(object)) >= 0)
    assert (keys.key_numbers(found) == numbers).all()
    for number, key in zip(values, found.tolist(), strict=True):
        bits = struct.unpack("<q", struct.pack("<d", number + 0.0))[0]  # IEEE 754: sign and magnitude
        assert key == (bits if bits >= 0 else -(2**63) - bits - 1)


def test_a_missing_measure_is_no_measure() -> None:
    assert keys.number_keys(np.array([np.nan])).tolist() == [NULL_KEY]
    assert np.isnan(keys.key_numbers(np.array([NULL_KEY])))[0]
    assert keys.number_keys(np.array([-0.0])) == keys.number_keys(np.array([0.0]))


def test_bins_hold_about_as_many_of_the_training_values_each() -> None:
    from tests.shops import shop, terms

    base = terms()
    told = base.model_copy(update={"item_features": Contract.model_validate(
        {**logs.EVENTS, "item_features": {"category": {"column": "category", "kind": "number", "bins": 4}}}
    ).item_features})  # fmt: skip
    requests = shop(base, "2026-03-30", seed=1)
    values = np.random.default_rng(0).lognormal(size=(len(requests), 1))
    requests.item[:, 1:] = keys.number_keys(values)
    for tokens in requests.sequences.tokens:
        tokens[:, 1] = NULL_KEY
    vocabulary = Vocabulary.fit(requests, told)
    rows = vocabulary.rows("category", requests.item[:, 1])
    assert vocabulary.sizes(("category",)) == [5]
    counts = np.bincount(rows, minlength=5)
    assert counts[0] == 0
    assert counts[1:].min() > 0.2 * len(rows)
    ordered = rows[np.argsort(values[:, 0])]
    assert (np.diff(ordered) >= 0).all(), "a larger measure never has a lower bin"
    outside = keys.number_keys(np.array([-5.0, 1e9, np.nan]))
    assert vocabulary.rows("category", outside).tolist() == [1, 4, 0]
    edges = vocabulary.tables["category"]
    assert vocabulary.rows("category", np.concatenate([edges - 1, edges])).tolist() == [1, 2, 3, 2, 3, 4], (
        "an edge opens its bin"
    )


def test_no_bin_is_kept_for_measures_below_all_that_were_seen() -> None:
    seen = keys.number_keys(np.array([0.0] * 6 + [1.0, 2.0, 3.0, 4.0]))
    assert keys.key_numbers(_edges(seen, 4)).tolist() == [2.0]


def test_an_entry_that_says_nothing_takes_no_place_in_a_list_that_is_asked_with() -> None:
    asked = feature_keys(Contract.model_validate(NEWS), "tags", [["x", None, "", "NULL", "y"], None], "item_features.tags[]")
    assert asked[:, :2].tolist() == [[keys.text_key("x"), keys.text_key("y")], [NULL_KEY, NULL_KEY]]


# formats


@pytest.mark.parametrize("name", ["log.jsonl", "log.ndjson.zst"])
def test_json_lines_with_text_ids_and_side_tables(tmp_path: Path, name: str) -> None:
    rows = [
        line("u-1", "a/1"),
        line("u-1", "a/2", "share", "2024-01-01T10:00:01.250Z", extra=[1, {"x": None}]),
        line("u-2", "a/9", at="2024-01-02T23:30:00Z"),
        line(None, "a/1"),
        '{"user": {"id": "u-1"}, "article": "a/1", "did": "read"',
        '["u-1", "a/1"]',
        line("u-1", "a/1", "lick"),
    ]
    home, _ = news(tmp_path, rows, name=name)
    first = events_of(home, "2024-01-01")
    told = {row["item_text"]: row for row in first}
    assert sorted(told) == ["a/1", "a/2"]
    assert told["a/1"]["user"] == keys.text_key("u-1")
    assert told["a/1"]["time"] == round(datetime(2024, 1, 1, 10, tzinfo=UTC).timestamp() * 1000)
    assert told["a/2"]["time"] - told["a/1"]["time"] == 1250
    assert (told["a/1"]["publisher"], told["a/1"]["publisher_text"]) == (keys.text_key("Times"), "Times")
    assert (told["a/1"]["words"], told["a/1"]["age"]) == (120.5, 31.0)
    assert (told["a/1"]["tags"], told["a/1"]["tags_2"]) == (keys.text_key("x"), keys.text_key("y"))
    assert (told["a/2"]["publisher"], told["a/2"]["tags"], told["a/2"]["tags_2"]) == (None, None, None)
    [late] = events_of(home, "2024-01-03")
    assert (late["item_text"], late["publisher"], late["words"], late["age"]) == ("a/9", None, None, None)
    assert [(r["line"], r["rule"]) for r in quarantined(home, "unknown", *DAYS)] == [
        (5, "not_json"), (6, "not_json"), (4, "null_id"), (7, "unknown_behaviour"),
    ]  # fmt: skip


def test_a_separator_of_several_characters_knows_no_quotes(tmp_path: Path) -> None:
    terms = contract(source={"delimiter": "::", "header": True, "columns": []}, columns={"text": ["item"]})
    (tmp_path / "log.dat").write_text(
        f'u::i::c::b::t\n1::The "Best": of::7::pv::{START}\n1::"::7::pv::{START + 1}\n1::x:7:pv:1\n'
    )
    home = Home(tmp_path / "home", "tiny")
    ingest.accept(home, terms, str(tmp_path / "log.dat"), SEEN)
    ingest.events(home, terms, DAYS[0])
    assert [row["item_text"] for row in events_of(home, DAYS[0])] == ['The "Best": of', '"']
    assert [r["rule"] for r in quarantined(home, "unknown", *DAYS)] == ["wrong_number_of_columns"]


@pytest.mark.parametrize("mark", ["\t", ";", "|"])
def test_other_separators(tmp_path: Path, mark: str) -> None:
    terms = contract(source={"delimiter": mark})
    path = tmp_path / "log.tsv"
    path.write_text("".join(mark.join(["1", str(n), "7", "pv", str(START + n)]) + "\n" for n in range(3)))
    home = Home(tmp_path / "home", "tiny")
    ingest.accept(home, terms, str(path), SEEN)
    ingest.events(home, terms, DAYS[0])
    assert [row["item"] for row in events_of(home, DAYS[0])] == [0, 1, 2]


@pytest.mark.parametrize(
    ("keys_of_time", "text", "expected"),
    [
        ({"kind": "epoch_us"}, "1704063600123456", 1704063600123),
        ({"kind": "epoch_s"}, "1704063600.75", 1704063600750),
        ({"kind": "epoch_s"}, "1704063600.0", 1704063600000),
        ({"kind": "date", "format": "%m%d", "year": 2024}, "102", 1704150000000),
        ({"kind": "date", "format": "%m%d", "year": 2024}, "0102", 1704150000000),
        ({"kind": "date", "format": "%m%d", "year": 2024}, "1302", None),
        ({"kind": "timestamp", "format": "%d.%m. %H:%M", "year": 2024}, "02.01. 00:30", 1704151800000),
        ({"kind": "timestamp", "format": "%m/%d/%Y %I:%M:%S %p"}, "01/01/2024 11:00:00 PM", 1704146400000),
        # A UTC midnight names a day, which in Paris begins at 23:00 UTC of the day before.
        ({"kind": "date", "format": "epoch_s"}, "1704153600", 1704150000000),
        ({"kind": "date", "format": "epoch_s"}, "1704153600.0", 1704150000000),
        ({"kind": "date", "format": "epoch_ms"}, "1704153600000", 1704150000000),
        ({"kind": "date", "format": "epoch_s"}, "2024-01-02", None),
    ],
)
def test_times_as_exports_write_them(keys_of_time: dict[str, Any], text: str, expected: int | None) -> None:
    terms = contract(time=keys_of_time)
    found = lake.engine().execute(reading.moment(ibis.literal(text), terms, reading.Span.of(terms, date(2024, 1, 3))))
    assert (None if found is None or found != found else int(found)) == expected


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ({"kind": "date", "format": "%m%d"}, r"time: year: '%m%d' has no year; say which one"),
        ({"kind": "date", "format": "%Y%m%d", "year": 2024}, r"time: year: is for a format without one"),
        ({"kind": "epoch_s", "format": "%Y"}, r"time: format: kind 'epoch_s' is a number and has none"),
        ({"kind": "timestamp", "format": "epoch_s"}, r"time: format: 'epoch_s' is that of a date; say kind = 'epoch_s'"),
    ],
)
def test_a_time_that_contradicts_itself_is_refused(tmp_path: Path, time: dict[str, Any], message: str) -> None:
    from models.contract import DATASETS, ContractError, load

    path = tmp_path / "t.toml"
    keys_told = "\n".join(f"{k} = {json.dumps(v)}" for k, v in time.items())
    path.write_text((DATASETS / "taobao.toml").read_text().replace('kind = "epoch_s"', keys_told))
    with pytest.raises(ContractError, match=message):
        load(path)


def test_lists_in_parquet_and_json_are_lists(tmp_path: Path) -> None:
    source = {"format": "parquet", "columns": [], "header": True}
    terms = contract(source=source, item_features={"category": {"column": "c", "separator": ",", "most": 3}})
    table = pa.table({"u": [1, 1], "i": [5, 6], "c": [[7, 8], None], "b": ["pv", "pv"], "t": [START, START + 1]})
    pq.write_table(table, tmp_path / "log.parquet")
    home = Home(tmp_path / "home", "tiny")
    ingest.accept(home, terms, str(tmp_path / "log.parquet"), SEEN)
    ingest.events(home, terms, DAYS[0])
    rows = events_of(home, DAYS[0])
    assert [[r["category"], r["category_2"], r["category_3"]] for r in rows] == [[7, 8, None], [None, None, None]]


def test_an_entry_that_is_no_number_breaks_the_row(tmp_path: Path) -> None:
    terms = contract(item_features={"category": {"column": "c", "separator": "|", "most": 3}})
    path = tmp_path / "log.csv"
    path.write_text(f"1,5,7|x,pv,{START}\n1,5,7||8,pv,{START}\n")
    home = Home(tmp_path / "home", "tiny")
    ingest.accept(home, terms, str(path), SEEN)
    ingest.events(home, terms, DAYS[0])
    [row] = events_of(home, DAYS[0])
    assert (row["category"], row["category_2"], row["category_3"]) == (7, 8, None)
    [bad] = quarantined(home, DAYS[0])
    assert (bad["rule"], bad["detail"]) == ("not_a_number", "c: '7|x' is not a 64-bit number")


def test_a_log_of_one_behaviour_needs_no_column_for_it(tmp_path: Path) -> None:
    changed = {
        "columns": {"user": "u", "item": "i"},
        "source": {"format": "csv", "header": False, "columns": ["u", "i", "c", "t"]},
        "behaviours": {"bought": {}},
        "tasks": {"bought": {"behaviours": ["bought"], "horizon_hours": 24}},
    }
    terms = Contract.model_validate({**contract().model_dump(mode="json"), **changed})
    path = tmp_path / "log.csv"
    path.write_text(f"1,5,7,{START}\n2,5,7,{START + 5}\n")
    home = Home(tmp_path / "home", "tiny")
    ingest.accept(home, terms, str(path), SEEN)
    ingest.events(home, terms, DAYS[0])
    assert [row["behaviour"] for row in events_of(home, DAYS[0])] == ["bought", "bought"]


# side tables


def test_the_last_row_of_a_key_counts_and_all_are_accounted_for(tmp_path: Path) -> None:
    articles = ARTICLES + "a/1\tTribune\t7\t\n\tnobody\t1\t\na/4\tPost\tmany\t\n"
    home, terms = news(tmp_path, [line("u-1", "a/1")], articles)
    [row] = events_of(home, "2024-01-01")
    assert (row["publisher_text"], row["words"]) == ("Tribune", 7.0)
    told = sides.read(home, "item")
    assert told is not None
    assert (told.rows_in, told.used, told.superseded, told.by_rule) == (6, 3, 1, {"null_id": 1, "not_a_number": 1})
    bad = quarantined(home, "unknown")
    assert [(r["rule"], r["line"], r["raw"]) for r in bad] == [
        ("null_id", 6, "\tnobody\t1\t"), ("not_a_number", 7, "a/4\tPost\tmany\t"),
    ]  # fmt: skip
    assert terms.name == "news"


def test_of_two_files_of_a_side_table_the_later_name_counts_wherever_its_row_stands(tmp_path: Path) -> None:
    news(tmp_path, [line("u-1", "a/1")])
    header, *rows = ARTICLES.splitlines()
    late = [header, "a/1\tTribune\t7\t"]  # on the second line, as the row of the first file is
    (tmp_path / "in" / "articles_2.tsv").write_text("\n".join([header, *rows[1:], "a/9\tNobody\t1\t", *rows[:1]]) + "\n")
    (tmp_path / "in" / "articles_3.tsv").write_text("\n".join(late) + "\n")
    home, _ = news(tmp_path, [line("u-1", "a/1")])
    assert events_of(home, "2024-01-01")[0]["publisher_text"] == "Tribune"
    told = sides.read(home, "item")
    assert told is not None
    assert (told.rows_in, told.used, told.superseded) == (8, 4, 4)


def test_a_side_table_with_more_bad_rows_than_the_contract_allows_is_refused(tmp_path: Path) -> None:
    share = Contract.model_validate(NEWS).validation.max_bad_share
    bad, good = "a/4\tPost\tmany\t\n", "".join(f"b/{n}\tPost\t{n}\t\n" for n in range(20))
    few = next(n for n in range(40) if n > share * (n + 20))
    with pytest.raises(ValueError, match=rf"item_table: {few} of {few + 20} rows of .* are bad"):
        news(tmp_path, [line("u-1", "b/1")], "id\tpublisher\twords\ttags\n" + good + bad * few)
    news(tmp_path, [line("u-1", "b/1")], "id\tpublisher\twords\ttags\n" + good + bad * (few - 1))


def test_a_changed_side_table_renews_the_days(tmp_path: Path) -> None:
    home, terms = news(tmp_path, [line("u-1", "a/1")])
    before = lake.require(home, "events", "2024-01-01").content
    home, _ = news(tmp_path, [line("u-1", "a/1")], ARTICLES.replace("Times", "Tribune"))
    assert ingest.to_renew(home, terms) == []
    assert lake.require(home, "events", "2024-01-01").content != before
    assert events_of(home, "2024-01-01")[0]["publisher_text"] == "Tribune"
    assert sides.build(home, terms, str(tmp_path / "in")) is False, "what is unchanged is not read again"


def test_a_side_table_that_is_not_there_or_broken_is_said(tmp_path: Path) -> None:
    home, terms = news(tmp_path, [line("u-1", "a/1")])
    (tmp_path / "in" / "articles.tsv.gz").write_bytes(gzip.compress(b"id\tpublisher\ttags\na/1\tTimes\tx\n"))
    with pytest.raises(ValueError, match=r"articles\.tsv\.gz \(item_table\): missing_columns: no column 'words'"):
        ingest.accept(home, terms, str(tmp_path / "in"), SEEN)
    (tmp_path / "in" / "articles.tsv.gz").unlink()
    with pytest.raises(ValueError, match=r"item_table\.file: no file 'articles\*' in .*, where the log is"):
        ingest.accept(home, terms, str(tmp_path / "in"), SEEN)


def test_side_tables_are_not_taken_for_the_log(tmp_path: Path) -> None:
    terms = Contract.model_validate({**NEWS, "source": {"format": "csv"}, "columns": {**NEWS["columns"], "user": "u"}})
    for name in ("articles.csv", "readers.csv", "log.csv"):
        (tmp_path / name).write_text("x\n")
    files, aside = parsing.named(str(tmp_path), terms)
    assert ([p.name for p in files], aside) == (["log.csv"], [])


# lists in a network


def test_a_list_is_the_mean_of_its_known_entries() -> None:
    from dataclasses import replace

    import torch

    from models.batches import Loader
    from models.config import RECIPES
    from models.embeddings import Fields, Shape
    from tests.shops import shop, terms

    base = terms()
    features = {"category": {"column": "category", "separator": "|", "most": 3}}
    told = Contract.model_validate({**base.model_dump(mode="json"), "item_features": features})
    requests = shop(base, "2026-03-30", seed=1)
    random = np.random.default_rng(0)

    def lists(items: Any) -> Any:
        entries = random.integers(1, 5, (len(items), 3))
        entries[random.random(entries.shape) < 0.4] = NULL_KEY
        return np.concatenate([items[:, :1], entries], axis=1)

    requests = replace(requests, item=lists(requests.item))
    sequences = replace(requests.sequences, tokens=[lists(tokens) for tokens in requests.sequences.tokens])
    requests = replace(requests, sequences=sequences)
    vocabulary = Vocabulary.fit(requests, told)
    shape = Shape.of(told, vocabulary)
    assert (shape.item, shape.slots) == (
        (*Shape.of(base, Vocabulary.fit(shop(base, "2026-03-30", seed=1), base)).item[:1], 5),
        (1, 1, 3, 1, 1),
    )
    fields = Fields(RECIPES["mmoe"], shape)
    batch = next(iter(Loader(vocabulary.encode(requests)).batches(64)))
    found, tokens = fields(batch)
    table = fields.item[1].weight
    for row, keys_of_item in zip(found[:, 2], vocabulary.encode(requests).item, strict=False):
        entries = [int(k) for k in keys_of_item[1:] if k > 0]
        expected = torch.stack([table[k] for k in entries]).mean(0) if entries else table[0]
        torch.testing.assert_close(row, expected)
    assert len(batch.token_QF) == len(tokens) > 0
    for row, (item, *features) in zip(tokens, batch.token_QF, strict=True):
        entries = [int(k) for k in features if k > 0]
        expected = torch.stack([table[k] for k in entries]).mean(0) if entries else table[0]
        torch.testing.assert_close(row, fields.item[0].weight[batch.items[item]] + expected)
