"""`dtrn init` reads the dialects that public logs are written in: their separators, names, times, ratings and lists."""

from __future__ import annotations

import csv
import json
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import profile, trial
from models.contract import ContractError
from tests.drafts import NOW, drafted, quick, rows_of


def test_nested_json_with_ratings_is_an_exposure_log(tmp_path: Path) -> None:
    draws = random.Random(1)
    start = datetime(2025, 3, 3, tzinfo=UTC)
    lines = [
        {
            "viewer": {"id": f"v{draws.randrange(30)}"}, "movie": f"m{draws.randrange(50)}", "stars": draws.randint(1, 5),
            "at": (start + timedelta(minutes=n)).isoformat(),
        }
        for n in range(3000)
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found, _ = drafted(tmp_path / "log.jsonl", tmp_path)
    assert (found.columns.user, found.columns.item, found.columns.text) == ("/viewer/id", "movie", ("user", "item"))
    assert {n: t.label for n, t in found.tasks.items()} == {"stars": "stars >= 4"}


def test_reviews_at_midnights_are_dates_and_their_overall_a_rating(tmp_path: Path) -> None:
    """Amazon's reviews."""
    cells = '{{"reviewerID": "A{u}"', '"asin": "B{i}"', '"overall": {r}.0', '"unixReviewTime": {day}}}'
    source = rows_of(tmp_path / "reviews.json", "", *cells)
    found, _ = drafted(source, tmp_path)
    assert (found.columns.user, found.columns.item, found.time.kind, found.time.format) == (
        "reviewerID",
        "asin",
        "date",
        "epoch_s",
    )
    assert found.tasks["overall"].label == "overall >= 4"
    assert trial.attempt(found, str(source), NOW).days == {str(date(2023, 11, 15) + timedelta(days=n)): 60 for n in range(12)}


def test_times_of_half_a_day_are_moments(tmp_path: Path) -> None:
    source = tmp_path / "log.csv"
    start = datetime(2024, 5, 1, tzinfo=UTC)
    times = [f"{start + timedelta(minutes=97 * n):%m/%d/%Y %I:%M:%S %p}" for n in range(300)]
    source.write_text("user_id,item_id,time\n" + "".join(f"{n % 9},{n % 20},{at}\n" for n, at in enumerate(times)))
    found, _ = drafted(source, tmp_path)
    assert (found.time.kind, found.time.format) == ("timestamp", "%m/%d/%Y %I:%M:%S %p")
    assert trial.attempt(found, str(source), NOW).days["2024-05-01"] == 15, "every 97 minutes"


def test_an_id_that_looks_like_a_measure_is_one_by_its_name(tmp_path: Path) -> None:
    """Google Analytics' user_pseudo_id."""
    source = rows_of(tmp_path / "log.csv", "user_pseudo_id,item_id,ts", "{u}.{u}7", "{i}", "{t}")
    found, _ = drafted(source, tmp_path)
    assert (found.columns.user, found.columns.text) == ("user_pseudo_id", ("user",))


def test_columns_of_any_name_are_drafted_and_read(tmp_path: Path) -> None:
    """A quote in what is a label, in what is none, and in what is always the same of an item."""
    source = rows_of(
        tmp_path / "log.csv", "user_id,item_id,ts,who's online,guest's rating,shop's score,a \"b\" c",
        "{u}", "{i}", "{t}", "{yes}", "{r}", "{i}", "{no}",
    )  # fmt: skip
    source.write_text(source.read_text().replace('a "b" c', '"a ""b"" c"', 1))
    found, text = drafted(source, tmp_path)
    assert {name: task.label for name, task in found.tasks.items()} == {"guest_s_rating": "'guest''s rating' >= 4"}
    assert found.label_columns == ("guest's rating",)
    assert "when = \"'who''s online'\"" in text
    assert found.features["shop_s_score"].column == "shop's score"
    tried = trial.attempt(found, str(source), NOW)
    rated = sum(int(line.split(",")[4]) >= 4 for line in source.read_text().splitlines()[1:])
    assert (tried.rules, tried.positives) == ({}, {"guest_s_rating": rated})


def test_blanks_in_names_and_prose_make_no_list(tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(60)]
    draws = random.Random(9)
    source = rows_of(tmp_path / "log.csv", "user_id,item_id,ts", "{u}", "{i}", "{t}")
    with (tmp_path / "items.csv").open("w") as file:
        file.write("item_id,author,about\n")
        file.writelines(
            f"{n},{draws.choice(words)} {draws.choice(words)},{' '.join(draws.choices(words, k=20))}\n" for n in range(60)
        )
    found, _ = drafted(source, tmp_path)
    assert [found.features[name].separator for name in ("author", "about")] == [None, None]


def test_codes_of_what_happened_are_asked_about(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "log.csv", "user_id,sku_id,type,time", "{u}", "{i}", "{r}", "{t}")
    with pytest.raises(
        ValueError, match=r"(?s)which column says what happened\?.*--answer behaviour=type   values .*behaviour=none"
    ):
        drafted(source, tmp_path)
    assert drafted(source, tmp_path, "behaviour=none")[0].columns.behaviour is None
    assert drafted(source, tmp_path, "behaviour=type")[0].behaviours["action_1"].values == ("1",)


def test_a_folder_of_atomic_files_is_read_as_recbole_writes_them(tmp_path: Path) -> None:
    """Types behind the names of columns, a tab between them, lists by blanks, and suffixes of their own."""
    (folder := tmp_path / "films").mkdir()
    (folder / "empty.txt").touch()
    draws, rated = random.Random(5), 0
    with (folder / "films.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
        for n in range(900):
            rating = draws.randint(1, 5)
            rated += rating >= 4
            file.write(f"{draws.randrange(30)}\t{draws.randrange(40)}\t{rating}\t{1_741_000_000 + 400 * n}\n")
    genres = ["Drama", "Comedy", "War", "Crime", "Film-Noir", "Western", "Musical", "Thriller", "Children's", "Fantasy"]
    with (folder / "films.item").open("w") as file:
        file.write("item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n")
        file.writelines(
            f"{n}\t{'The Film ' * 150}no {n}\t{'V' if n == 7 else 1950 + n}\t{' '.join(draws.sample(genres, 3))}\n"
            for n in range(40)
        )
    (folder / "films.user").write_text("user_id:token\n" + "".join(f"{n}\n" for n in range(30)))
    assert (folder / "films.item").stat().st_size > (folder / "films.inter").stat().st_size
    contract, text = drafted(folder, tmp_path)
    assert contract.tasks["rating"].label == "'rating:float' >= 4"
    assert contract.label_columns == ("rating:float",)
    assert [behaviour.when for behaviour in contract.behaviours.values()] == ["'rating:float' >= 4", "'rating:float' < 4"]
    named, _ = drafted(folder, tmp_path, "labels=rating >= 3")
    assert named.tasks["rating"].label == "'rating:float' >= 3", "the name may stand without its type"
    assert (contract.features["class"].column, contract.features["class"].separator) == ("class:token_seq", " ")
    assert contract.item_table is not None
    assert contract.item_table.file == "films.item"
    assert "# a guess" in text
    assert contract.features.keys() == {"movie_title", "release_year", "class"}
    assert contract.features["release_year"].kind == "text", "one of 40 is no number, and its row would be refused"
    (folder / "empty.txt").unlink()
    found = trial.attempt(contract, str(folder), NOW)
    assert (found.valid, found.rules) == (900, {})
    assert found.positives == {"rating": rated}, "the label of every row is known at once"


@pytest.mark.parametrize("mark", [",", "\t", ";", "|", "::"])
def test_separators_and_headers_are_seen(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "log.csv"
    rows = [["a", "b c", "9"], ["b", "d, e", "10"], ["c", 'f"g', "11"]]

    def write(rows: list[list[str]]) -> None:
        with path.open("w", newline="") as file:
            if len(mark) > 1:  # csv writes none
                file.writelines(mark.join(row) + "\n" for row in rows)
            else:
                csv.writer(file, delimiter=mark).writerows(rows)

    write([["x", "y", "z"], *rows])
    assert (profile.sniff(path).delimiter, profile.sniff(path).header) == (mark, True)
    write(rows)
    assert (profile.sniff(path).delimiter, profile.sniff(path).header) == (mark, False)


@pytest.mark.parametrize("header", ["product_id,stars,ts", "user_id,minutes,ts"])
def test_a_column_that_has_another_name_is_not_taken_for_an_id_unasked(tmp_path: Path, header: str) -> None:
    rows = [f"{n % 30},{n % 40},{1_741_000_000 + 864 * n}" for n in range(600)]
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(ValueError, match=r"which column names the (user|item)\?"):
        drafted(tmp_path / "log.csv", tmp_path)


def test_an_answer_goes_before_every_guess(tmp_path: Path) -> None:
    source = rows_of(
        tmp_path / "log.csv", "user_id,item_id,shelf,event,kind,ts,seen_at", "{u}", "{i}", "{i}", "view", "{r}", "{t}", "{t}"
    )
    found, text = drafted(source, tmp_path, "item=shelf", "user=item_id", "time=seen_at", "behaviour=kind")
    assert (found.columns.item, found.columns.user, found.columns.behaviour) == ("shelf", "item_id", "kind")
    assert found.time.column == "seen_at"
    assert 'item = "shelf"                    # as answered; ' in text
    assert drafted(source, tmp_path, "item=item_id", "time=ts")[0].columns.item == "item_id", (
        "the guess itself is an answer too"
    )
    with pytest.raises(ValueError, match=r"time: 'shelf' does not read as a time; what does is ts, seen_at"):
        drafted(source, tmp_path, "time=shelf")
    with pytest.raises(ValueError, match=r"item: 'colour' is not a column that is left; those are item_id, shelf, event, kind"):
        drafted(source, tmp_path, "item=colour", "time=ts")


def test_a_list_is_nobodys_id(tmp_path: Path) -> None:
    rows = [{"user_id": n % 30, "items": [{"id": n % 41}], "sku": n % 50, "ts": 1_741_000_000 + 900 * n} for n in range(600)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert drafted(tmp_path / "log.jsonl", tmp_path, "item=sku")[0].columns.item == "sku"
    plain = [{**row, "items": [n % 9, n % 41]} for n, row in enumerate(rows)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    assert drafted(tmp_path / "log.jsonl", tmp_path)[0].columns.item == "sku"


def test_of_a_list_of_objects_the_first_is_a_rows_item(tmp_path: Path) -> None:
    """As Google Analytics exports events; those without an item have an empty list."""
    rows = [
        {
            "user": {"pseudo_id": f"u{n % 30}"}, "event_name": ("view_item", "purchase")[n % 5 == 0],
            "items": [{"item_id": f"s{n % 41}", "item_brand": f"b{n % 41 % 6}"}, {"item_id": "other"}] if n % 10 else [],
            "ts": 1_741_000_000 + 900 * n,
        }
        for n in range(600)
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, text = drafted(tmp_path / "log.jsonl", tmp_path)
    assert (found.columns.user, found.columns.item) == ("/user/pseudo_id", "/items/0/item_id")
    assert "# by its name, of each row's list the first entry alone; 41 different values in 540 rows" in text
    assert [feature.column for feature in found.item_features.values()] == ["/items/0/item_brand"]
    known = trial.attempt(found.model_copy(update={"training": quick(found)}), str(tmp_path / "log.jsonl"), NOW)
    assert (known.valid, {rule: broken.rows for rule, broken in known.rules.items()}) == (540, {"null_id": 60})


def test_ids_that_begin_with_a_zero_are_texts(tmp_path: Path) -> None:
    rows = [f"{n % 30},0{100 + n % 41},{n % 41 % 7:03},{1_741_000_000 + 900 * n}" for n in range(600)]
    (tmp_path / "log.csv").write_text("user_id,article_id,dept,ts\n" + "\n".join(rows) + "\n")
    found, text = drafted(tmp_path / "log.csv", tmp_path)
    assert found.columns.text == ("item",)
    assert "# some of these ids begin with a 0" in text
    assert found.features["dept"].kind == "text"
    assert "decimal" not in text


def test_numbers_with_a_decimal_comma_are_said_to_be_names(tmp_path: Path) -> None:
    rows = [f"{n % 30};{n % 41};{n % 41},{n % 41 % 10}5;{1_741_000_000 + 900 * n}" for n in range(600)]
    (tmp_path / "log.csv").write_text("user_id;item_id;Preis;ts\n" + "\n".join(rows) + "\n")
    found, text = drafted(tmp_path / "log.csv", tmp_path)
    assert found.features["preis"].kind == "text"
    assert "a comma is no decimal point here, so numbers written with one are names" in text


def test_items_that_never_come_again_are_said_to_be_none(tmp_path: Path) -> None:
    rows = [f"{n % 30},list {n},{1_741_000_000 + 90 * n}" for n in range(1200)]
    (tmp_path / "log.csv").write_text("user_id,item_list,ts\n" + "\n".join(rows) + "\n")
    drafted(tmp_path / "log.csv", tmp_path)
    said = " ".join((tmp_path / "told.txt").read_text().split())
    assert "! 'item_list' has another value in nearly every row (1,200 in 1,200)" in said


@pytest.mark.parametrize(
    ("declared", "zone", "why"), [("Europe/Vienna", "Europe/Vienna", "the column's own"), ("UTC", "UTC", "")]
)
def test_the_zone_of_a_parquet_column_is_taken_from_its_type(tmp_path: Path, declared: str, zone: str, why: str) -> None:
    start = datetime(2024, 5, 1, tzinfo=UTC)
    told = pa.array([start + timedelta(minutes=9 * n) for n in range(600)], pa.timestamp("us", declared))
    table = pa.table({"user_id": [n % 30 for n in range(600)], "item_id": [n % 41 for n in range(600)], "at": told})
    pq.write_table(table, tmp_path / "log.parquet")
    found, text = drafted(tmp_path / "log.parquet", tmp_path)
    assert found.time.zone == zone
    assert ("# the column's own" in text) == bool(why)


def test_a_draft_that_is_refused_is_in_nobodys_way(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "log.csv", "user_id,item_id,rating,day", "{u}", "{i}", "{r}", "2024-05-01")
    for zone, refused in (("Mars/Base", True), ("Europe/Paris", False)):
        if refused:
            with pytest.raises(ContractError, match=r"time\.zone: 'Mars/Base' is not a time zone"):
                drafted(source, tmp_path, f"zone={zone}")
            assert not (tmp_path / "drafted.toml").exists()
        else:
            assert drafted(source, tmp_path, f"zone={zone}")[0].time.zone == zone
