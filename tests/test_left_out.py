"""Rows that are no events of an item, as searches and logins: passed over and counted, and drafted so."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from assets import ingest, splitting
from models.contract import Contract, ContractError, load
from models.home import Home
from orchestration import newcomer
from tests import tiny_log
from tests.drafts import drafted, quick
from tests.tiny_log import DAY1, SEEN, START, TOML, home_of, put, row, rows_of, run

SEARCHED = 'behaviour = "b"\nleft_out = ["search", 7]'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


def contract(folder: Path, named: str = SEARCHED, **changes: str) -> Contract:
    path = folder / "tiny.toml"
    text = TOML.replace("REPEATS", "real").replace("LIMIT", "0.1").replace('behaviour = "b"', named)
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize("packed", [False, True])
def test_they_are_counted_and_are_neither_good_nor_bad(folder: Path, packed: bool) -> None:
    aside = [f"1,,search,{START}", "1,no number,search,never", "\xff,,7,", "2,9,search,1"]
    bad = [f"1,,search,{START},1", f"1,1,look,{START}", f"1,,pv,{START}"]
    good = [row(1, second=n).strip() for n in range(60)]
    lines = [*aside, *bad, *good]
    random.Random(1).shuffle(lines)
    text = ("\n".join([*lines, "3,,search,never"])).encode("latin-1")  # the last one without an end
    put(folder, "a.csv.gz" if packed else "a.csv", gzip.compress(text) if packed else text)
    home, terms = home_of(folder), contract(folder)
    [accepted] = ingest.accept(home, terms, str(folder / "in"), SEEN)
    split = accepted.split
    assert (split.rows_in, split.rows_valid, split.rows_quarantined, split.rows_left_out) == (63, 60, 3, 5)
    rules = Counter[str]()
    for day in split.bad.values():
        rules.update(day)
    assert rules == {"wrong_number_of_columns": 1, "unknown_behaviour": 1, "null_id": 1}
    assert ingest.totals(home, terms, str(folder / "in")) == {
        "rows_in": 63, "rows_valid": 60, "rows_quarantined": 3, "rows_left_out": 5,
    }  # fmt: skip
    built = run(folder, terms)
    assert len(rows_of(home, DAY1)) == 60
    assert built[DAY1][0].counts["rows_in"] == 63


def test_they_block_no_day_however_many_they_are(folder: Path) -> None:
    searches = f"1,,search,{START}\n" * 500
    put(folder, "a.csv", row(1) + searches)
    put(folder, "none.csv", searches)
    assert run(folder, contract(folder))[DAY1][0].blocked is None
    plain = run(folder, contract(folder, 'behaviour = "b"'))[DAY1][0].blocked
    assert plain is not None
    assert "500 of 501" in plain


@pytest.mark.parametrize(("searches", "blocked"), [(500, False), (5, True)])
def test_a_cut_line_among_them_counts_against_all_rows_of_its_file(folder: Path, searches: int, blocked: bool) -> None:
    put(folder, "a.csv", row(1))
    put(folder, "searches.csv", f"1,,search,{START}\n" * searches + "1,,sea")
    reason = run(folder, contract(folder))[DAY1][0].blocked
    assert (reason is not None) == blocked
    assert reason is None or f"1 of {searches + 1} rows are bad" in reason
    home = home_of(folder)
    counts = ingest.totals(home, contract(folder), str(folder / "in"))
    assert counts == {"rows_in": 2, "rows_valid": 1, "rows_quarantined": 1, "rows_left_out": searches}


def test_of_parquet_and_json_lines_they_are_passed_over_too(folder: Path) -> None:
    rows = [
        {"u": 1, "i": None, "b": "search", "t": START},
        {"u": 1, "i": 4, "b": "pv", "t": START},
        {"u": 1, "i": 5, "b": "7", "t": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "in" / "a.parquet")
    (folder / "lines").mkdir()
    (folder / "lines" / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for kind, place in (("parquet", "in"), ("jsonl", "lines")):
        terms = contract(
            folder, source=('format = "csv"\nheader = false\ncolumns = ["u", "i", "b", "t"]', f'format = "{kind}"')
        )
        home = Home(folder / f"home of {kind}", "tiny")
        [accepted] = ingest.accept(home, terms, str(folder / place), SEEN)
        assert (accepted.split.rows_in, accepted.split.rows_valid, accepted.split.rows_left_out) == (1, 1, 2)


def test_a_contract_that_leaves_more_out_reads_the_file_again(folder: Path) -> None:
    put(folder, "a.csv", row(1) + f"1,2,search,{START}\n" * 2)
    home = home_of(folder)
    first = ingest.accept(home, tiny_log.contract(folder), str(folder / "in"), SEEN)[0]
    again = ingest.accept(home, contract(folder), str(folder / "in"), SEEN)[0]
    assert (first.split.rows_left_out, again.split.rows_left_out, again.fresh) == (0, 2, True)


def test_a_contract_that_leaves_nothing_out_reads_no_file_again(folder: Path) -> None:
    """Files that are gone cannot be read again, so a contract is read as before there was such a key."""
    plain = tiny_log.contract(folder)
    told = plain.model_dump(mode="json", include={"source", "columns", "time", "calendar"})
    assert told["columns"].pop("left_out") == []
    values = {"view": ["pv"]}
    digest = hashlib.sha256(json.dumps(["events", told, values, {}, (), "real", None]).encode()).hexdigest()[:16]
    assert splitting.terms(plain) == digest != splitting.terms(contract(folder))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ('left_out = ["search"]', r"columns\.left_out: holds values of columns\.behaviour, and there is none"),
        ('behaviour = "b"\nleft_out = ["pv"]', r"behaviours\.view\.values: 'pv' already means 'left_out'"),
    ],
)
def test_what_it_cannot_mean_is_refused(folder: Path, named: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        contract(folder, named, values=('values = ["pv"]', "") if "behaviour" not in named else ("pv", "pv"))


# init and check


def app(path: Path, itemless: dict[str, int], items: int = 900, days: int = 6) -> Path:
    """What an application writes: events of items, and of each name in `itemless` so many that name none."""
    draws = random.Random(4)
    names = draws.choices(["view", "cart", "purchase"], [16, 3, 1], k=items)
    lines = [{"event": name, "user": draws.randrange(40), "item": draws.randrange(60)} for name in names]
    lines += [{"event": name, "user": draws.randrange(40)} for name, count in itemless.items() for _ in range(count)]
    draws.shuffle(lines)
    step = days * 86_400 // len(lines)
    path.write_text("".join(json.dumps({**line, "at": START + step * n}) + "\n" for n, line in enumerate(lines)))
    return path


def test_what_names_no_item_is_drafted_to_be_left_out(tmp_path: Path) -> None:
    source = app(tmp_path / "log.jsonl", {"login": 300, 'se"arch': 400, "pageview": 100})
    with source.open("a") as file:
        file.writelines(json.dumps({"event": "view", "user": 1, "at": START}) + "\n" for _ in range(9))
    found, text = drafted(source, tmp_path)
    assert set(found.columns.left_out) == {"login", 'se"arch', "pageview"}
    assert "800 of the rows seen, of which 0 name an item" in text
    assert set(found.behaviours) == {"view", "cart", "buy"}, "of a view an item is missing now and then"
    assert "!" not in (tmp_path / "told.txt").read_text(), "pages that show no item are no mistake"
    out = io.StringIO()
    terms = found.model_copy(update={"training": quick(found)})
    assert newcomer.tell_trial(terms, "mine.toml", str(source), Console(file=out, width=200))
    said = out.getvalue()
    assert "first 1,709 rows, about 100% of the log\n  800 left out, as columns.left_out says\n  900 valid" in said
    assert "9 would be quarantined (0.99%)" in said


def test_days_are_those_of_the_rows_that_are_kept(tmp_path: Path) -> None:
    source = app(tmp_path / "log.jsonl", {}, items=3000, days=60)
    few, _ = drafted(source, tmp_path)
    with source.open("a") as file:  # a crowd that only logs in, on these days and three more
        for n in range(63 * 400):
            file.write(json.dumps({"event": "login", "user": 10_000 + n % 3000, "at": START + 216 * n}) + "\n")
    many, text = drafted(source, tmp_path)
    assert many.columns.left_out == ("login",)
    assert many.calendar == few.calendar
    assert many.training == few.training
    assert few.training.judged_days == 7, "an eighth of the log: all days have the same forty users"
    assert "350 rows: a day alone has few people to judge a model by; the last 7 have 40 users" in text


@pytest.mark.parametrize(("count", "named", "aside"), [(9, 0, False), (10, 0, True), (100, 9, True), (100, 11, False)])
def test_a_value_is_left_out_whose_rows_hardly_ever_name_an_item(tmp_path: Path, count: int, named: int, aside: bool) -> None:
    source = app(tmp_path / "log.jsonl", {"like": count - named})
    with source.open("a") as file:
        for n in range(named):
            file.write(json.dumps({"event": "like", "user": 1, "item": n, "at": START}) + "\n")
    found, text = drafted(source, tmp_path)
    assert found.columns.left_out == (("like",) if aside else ())
    assert not aside or f"{count} of the rows seen, of which {named} name an item" in text


def test_a_purchase_that_names_no_item_is_said(tmp_path: Path) -> None:
    source = app(tmp_path / "log.jsonl", {"checkout": 50, "add_to_wishlist": 20, "login": 10})
    found, _ = drafted(source, tmp_path)
    assert set(found.columns.left_out) == {"checkout", "add_to_wishlist", "login"}
    told = " ".join((tmp_path / "told.txt").read_text().split())
    assert "! next to no row of 'add_to_wishlist' names an item in 'item'" in told, "purchases are in the log, wishes are not"


def actions(path: Path, kinds: int) -> Path:
    draws = random.Random(2)
    lines = [
        json.dumps(
            {"user": draws.randrange(40), "item": draws.randrange(60), "did": f"act\n{n % kinds}", "at": START + 300 * n}
        )
        for n in range(2000)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_value_of_what_happened_is_drafted_whatever_it_is_written_with(tmp_path: Path) -> None:
    found, _ = drafted(actions(tmp_path / "log.jsonl", 25), tmp_path, "behaviour=did")
    assert {value for b in found.behaviours.values() for value in b.values} == {f"act\n{n}" for n in range(25)}


def test_a_column_of_many_values_does_not_say_what_happened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="behaviour: 'did' has 31 different values, and what happened is one of at most 30"):
        drafted(actions(tmp_path / "log.jsonl", 31), tmp_path, "behaviour=did")


def test_a_log_in_which_nothing_names_an_item_is_not_emptied(tmp_path: Path) -> None:
    source = app(tmp_path / "log.jsonl", {"view": 9000, "cart": 2000, "purchase": 900})
    found, _ = drafted(source, tmp_path)
    assert found.columns.left_out == ()
