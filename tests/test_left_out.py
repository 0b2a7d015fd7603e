"""Rows that are no events of an item, as searches and logins: passed over and counted, and drafted so."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from assets import ingest
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
    assert (split.rows_in, split.rows_valid, split.rows_quarantined, split.left_out) == (63, 60, 3, 5)
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
        assert (accepted.split.rows_in, accepted.split.rows_valid, accepted.split.left_out) == (1, 1, 2)


def test_a_contract_that_leaves_more_out_reads_the_file_again(folder: Path) -> None:
    put(folder, "a.csv", row(1) + f"1,2,search,{START}\n" * 2)
    home = home_of(folder)
    first = ingest.accept(home, tiny_log.contract(folder), str(folder / "in"), SEEN)[0]
    again = ingest.accept(home, contract(folder), str(folder / "in"), SEEN)[0]
    assert (first.split.left_out, again.split.left_out, again.fresh) == (0, 2, True)


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


def app(path: Path, itemless: dict[str, int], items: int = 900) -> Path:
    """What an application writes: events of items, and of each name in `itemless` so many that name none."""
    draws = random.Random(4)
    names = draws.choices(["view", "cart", "purchase"], [16, 3, 1], k=items)
    lines = [{"event": name, "user": draws.randrange(40), "item": draws.randrange(60)} for name in names]
    lines += [{"event": name, "user": draws.randrange(40)} for name, count in itemless.items() for _ in range(count)]
    draws.shuffle(lines)
    step = 6 * 86_400 // len(lines)
    path.write_text("".join(json.dumps({**line, "at": START + step * n}) + "\n" for n, line in enumerate(lines)))
    return path


def test_what_names_no_item_is_drafted_to_be_left_out(tmp_path: Path) -> None:
    source = app(tmp_path / "log.jsonl", {"login": 300, 'se"arch': 400, "pageview": 100})
    with source.open("a") as file:
        file.writelines(json.dumps({"event": "view", "user": 1, "at": START}) + "\n" for _ in range(9))
    found, text = drafted(source, tmp_path)
    assert set(found.columns.left_out) == {"login", 'se"arch', "pageview"}
    assert "800 of the rows seen: most name no item" in text
    assert set(found.behaviours) == {"view", "cart", "buy"}, "of a view an item is missing now and then"
    assert "!" not in (tmp_path / "told.txt").read_text(), "pages that show no item are no mistake"
    out = io.StringIO()
    terms = found.model_copy(update={"training": quick(found)})
    assert newcomer.tell_trial(terms, "mine.toml", str(source), Console(file=out, width=200))
    said = out.getvalue()
    assert "first 1,709 rows, about 100% of the log\n  800 left out, as columns.left_out says\n  900 valid" in said
    assert "9 would be quarantined (0.99%)" in said


def test_days_are_judged_by_the_rows_that_are_kept(tmp_path: Path) -> None:
    few, _ = drafted(app(tmp_path / "few.jsonl", {"login": 0}, items=12_000), tmp_path)
    many, text = drafted(app(tmp_path / "many.jsonl", {"login": 36_000}, items=12_000), tmp_path)
    assert many.columns.left_out == ("login",)
    assert many.training.window_days == few.training.window_days
    assert "# about 8,000 rows" in text, "a quarter of 48,000 in six days, of four days"


def test_a_purchase_that_names_no_item_is_said(tmp_path: Path) -> None:
    source = app(tmp_path / "log.jsonl", {"checkout": 50, "login": 10})
    found, _ = drafted(source, tmp_path)
    assert set(found.columns.left_out) == {"checkout", "login"}
    told = (tmp_path / "told.txt").read_text()
    assert "! most rows of 'buy' name no 'item', so they are left out" in " ".join(told.split())


def test_every_value_of_what_happened_is_drafted(tmp_path: Path) -> None:
    draws, source = random.Random(2), tmp_path / "log.csv"
    rows = [f"{draws.randrange(40)},{draws.randrange(60)},act_{draws.randrange(25):02},{START + 300 * n}" for n in range(2000)]
    source.write_text("\n".join(["user,item,action", *rows]).replace("action", "action,time", 1) + "\n")
    found, _ = drafted(source, tmp_path)
    assert {value for b in found.behaviours.values() for value in b.values} == {f"act_{n:02}" for n in range(25)}


def test_a_log_in_which_nothing_names_an_item_is_not_emptied(tmp_path: Path) -> None:
    source = app(tmp_path / "log.jsonl", {"view": 9000, "cart": 2000, "purchase": 900})
    found, _ = drafted(source, tmp_path)
    assert found.columns.left_out == ()
