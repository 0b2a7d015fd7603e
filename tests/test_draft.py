"""`dtrn init` and `dtrn check`: the draft for a log says what the log is, and what it cannot tell is asked."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from assets import guessed_days, profile, roles, trial
from models.contract import Contract, load
from orchestration import newcomer
from tests.test_known_logs import FIXTURES, LOGS

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def drafted(source: Path, folder: Path, *answers: str) -> tuple[Contract, str]:
    """The contract that init writes for a log, answering no question but those given."""
    out = folder / "drafted.toml"
    out.unlink(missing_ok=True)
    with (folder / "told.txt").open("w") as told:
        newcomer.write_draft(str(source), out, answers, Console(file=told))
    return load(out), out.read_text()


def shop(
    path: Path, *, zone: str = "Asia/Shanghai", header: bool = True, days: int = 6, rows: int = 400, users: int = 40
) -> Path:
    """A CSV shop with a night: user, item, its category, what happened, when; nobody is about from two to five."""
    draws = random.Random(3)
    start = datetime(2025, 3, 3, tzinfo=ZoneInfo(zone))
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        if header:
            out.writerow(["customer_id", "sku", "dept", "action", "ts"])
        for day in range(days):
            for _ in range(rows):
                hour = draws.choice([0, 1, *range(5, 24)])
                at = start + timedelta(days=day, hours=hour, seconds=draws.randrange(3600))
                item = draws.randrange(60)
                what = draws.choices(["view", "addtocart", "purchase"], [16, 3, 1])[0]
                out.writerow([1000 + draws.randrange(users), 5000 + item, 10 + item % 7, what, round(at.timestamp())])
    return path


@pytest.mark.parametrize("name", LOGS)
def test_the_roles_in_public_logs_are_those_of_their_contracts(tmp_path: Path, name: str) -> None:
    answers = ["year=2014"] if name == "tmall" else []
    found, text = drafted(FIXTURES / name, tmp_path, *answers)
    known = load(name)
    assert (found.columns.user, found.columns.item, found.columns.behaviour) == (
        known.columns.user, known.columns.item, known.columns.behaviour,
    )  # fmt: skip
    assert (found.time.column, found.time.kind, found.time.format) == (known.time.column, known.time.kind, known.time.format)
    assert found.shape == known.shape
    if known.shape == "exposures":
        assert set(found.label_columns) == set(known.label_columns)
    else:
        raw = {str(v) for b in found.behaviours.values() for v in b.values}
        assert raw == {str(v) for b in known.behaviours.values() for v in b.values}
    for table in ("item_table", "user_table"):
        theirs, ours = getattr(found, table), getattr(known, table)
        assert (theirs.key if theirs else None) == (ours.key if ours else None)
    assert all("#" in line for line in text.splitlines() if line.startswith(("user =", "item =", "column =", "zone =")))


def test_a_shop_is_described_and_each_guess_has_its_evidence(tmp_path: Path) -> None:
    found, text = drafted(shop(tmp_path / "log.csv"), tmp_path)
    assert (found.columns.user, found.columns.item, found.columns.behaviour) == ("customer_id", "sku", "action")
    assert {n: b.values for n, b in found.behaviours.items()} == {
        "view": ("view",),
        "cart": ("addtocart",),
        "buy": ("purchase",),
    }
    assert {n: f.column for n, f in found.item_features.items()} == {"dept": "dept"}
    assert (found.time.kind, found.time.zone) == ("epoch_s", "Asia/Shanghai")
    assert [str(found.calendar.first_day), str(found.calendar.last_day)] == ["2025-03-03", "2025-03-08"]
    with (tmp_path / "log.csv").open() as file:
        views = sum(row["action"] == "view" for row in csv.DictReader(file))
    assert re.search(rf'values = \["view"\] +# {views:,} of the rows seen', text)
    assert "the same in 100% of the items" in text


@pytest.mark.parametrize(("zone", "expected"), [("Europe/Paris", "Europe/Paris"), ("America/New_York", "America/New_York")])
def test_the_zone_is_where_it_is_night_when_nobody_is_about(tmp_path: Path, zone: str, expected: str) -> None:
    found, _ = drafted(shop(tmp_path / "log.csv", zone=zone), tmp_path)
    assert found.time.zone == expected


def test_columns_without_names_are_asked_for_and_answered(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv", header=False)
    with pytest.raises(ValueError, match=r"(?s)which column names the user\?.*--answer user=column_1  "):
        drafted(source, tmp_path)
    with pytest.raises(ValueError, match=r"(?s)which column names the item\?.*--answer item=column_2  "):
        drafted(source, tmp_path, "user=column_1")
    found, text = drafted(source, tmp_path, "user=column_1", "item=column_2", "zone=Asia/Tokyo", "name=mine")
    assert (found.name, found.source.header, found.columns.item, found.time.zone) == ("mine", False, "column_2", "Asia/Tokyo")
    assert 'zone = "Asia/Tokyo"' in text


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["user"], "--answer user: 'key=value' is expected"),
        (["colour=red"], "--answer colour=…: nothing asks for that here; asked for are"),
    ],
)
def test_an_answer_that_nobody_asked_for_is_refused(tmp_path: Path, answers: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drafted(shop(tmp_path / "log.csv"), tmp_path, *answers)


def test_a_contract_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("precious")
    with pytest.raises(ValueError, match="is there already"):
        newcomer.write_draft(str(tmp_path), tmp_path / "mine.toml", [], Console(quiet=True))
    assert (tmp_path / "mine.toml").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.csv", "", "the file has no bytes"),
        ("log.csv", "user,item,what\n1,2,view\n3,4,buy\n", "no column of log.csv reads as a time; its columns are user"),
        ("notes.md", "hello", "no log to look at"),
    ],
)
def test_what_is_no_log_is_said(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        drafted(tmp_path / "in", tmp_path)


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


def feed(folder: Path, days: int = 3) -> tuple[Path, int]:
    """JSON lines of impressions whose labels are nested keys, on `days` days; and how many of them were clicked."""
    draws = random.Random(2)
    start, clicks = datetime(2025, 3, 3, tzinfo=UTC), 0
    with (folder / "log.jsonl").open("w") as file:
        for n in range(days * 480):
            clicked = draws.random() < 0.2
            clicks += clicked
            said = {
                "clicked": clicked,
                "shared": True if n % 7 == 0 else None,
                "dwell_ms": draws.randrange(9000) if clicked else 0,
            }
            row = {"reader": {"id": f"v{draws.randrange(30)}"}, "article": f"a{draws.randrange(50)}", "feedback": said}
            file.write(json.dumps({**row, "at": (start + timedelta(minutes=3 * n)).isoformat()}) + "\n")
    return folder / "log.jsonl", clicks


def test_labels_that_are_nested_are_read_as_labels(tmp_path: Path) -> None:
    source, clicks = feed(tmp_path)
    contract, text = drafted(source, tmp_path)
    assert {n: t.label for n, t in contract.tasks.items()} == {"clicked": "/feedback/clicked", "shared": "/feedback/shared"}
    assert "# 14.31% of the rows seen; nothing is written in 85.69%, which is read as no" in text
    assert "no zone is written" not in text, "the times have an offset"
    contract = contract.model_copy(update={"training": contract.training.model_copy(update={"candidates": ("mmoe",)})})
    assert "#   /feedback/dwell_ms: changes from row to row" in text, "what follows from the feedback is no input"
    found = trial.attempt(contract, str(source), NOW)
    assert (found.valid, found.samples, found.positives) == (1440, 1440, {"clicked": clicks, "shared": 206})


def test_every_kind_of_feedback_is_a_task_and_of_what_is_not_known_it_is_said(tmp_path: Path) -> None:
    draws = random.Random(4)
    start = datetime(2025, 3, 3, tzinfo=UTC)
    names = ["opened", "wishlisted", "swiped_away", "is_hidden", "sponsored", "is_returning", "zapped"]
    with (tmp_path / "feed.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["visitor", "sku", "when", *names])
        for n in range(1000):
            told = [int(n % (place + 2) == 0) for place in range(5)]
            when = (start + timedelta(minutes=3 * n)).isoformat()
            user = draws.randrange(30)  # of whom half come back, and 15 zap once
            out.writerow([f"v{user}", f"s{draws.randrange(40)}", when, *told, user % 2, int(n % 67 == 0)])
    contract, text = drafted(tmp_path / "feed.csv", tmp_path)
    assert {n: t.label for n, t in contract.tasks.items()} == {
        "opened": "opened", "wishlisted": "wishlisted", "swiped_away": "swiped_away", "hidden": "is_hidden",
    }  # fmt: skip
    assert contract.serving.weights == {"opened": 1, "wishlisted": 1, "swiped_away": -1, "hidden": -1}
    assert contract.user_fields[1:] == ("is_returning",), "it sounds like feedback and is the same for all rows of a user"
    assert "#   zapped: yes in 1.50% of the rows seen" in text, "what hardly ever happens is no feature of who has it not"
    assert (
        '#   sponsored: yes in 16.70% of the rows seen; if it is feedback: [behaviours.sponsored] when = "sponsored" and '
        '[tasks.sponsored] label = "sponsored"; if known before: [context.columns]' in text
    )


@pytest.mark.parametrize(("place", "file"), [(".", "../goods.csv"), ("logs", "goods.csv")])
def test_a_side_table_beside_the_log_or_one_folder_up_is_found(tmp_path: Path, place: str, file: str) -> None:
    (tmp_path / "logs").mkdir()
    source = shop(tmp_path / "logs" / "log.csv")
    lines = [f"{5000 + n},{'red' if n % 3 else 'blue'}" for n in range(60)]
    (tmp_path / place / "goods.csv").write_text("sku,colour\n" + "\n".join(lines) + "\n")
    (tmp_path / place / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / place / "items.csv").write_bytes(b"\0\0\n")
    contract, text = drafted(source, tmp_path)
    assert contract.item_table is not None
    assert (contract.item_table.file, contract.item_table.key, contract.item_table.features) == (file, "sku", ("colour",))
    assert "its 'sku' holds 100% of the items seen in the log" in text
    found = trial.attempt(contract, str(source), NOW)
    assert found.valid == 2400


def rows_of(path: Path, header: str, *cells: str, mark: str = ",", days: int = 12, rows: int = 60) -> Path:
    """A log of these columns: each cell a format of user, item, one of 1 to 5, epoch seconds, and whether that is above 4."""
    draws = random.Random(8)
    with path.open("w") as file:
        file.write(header + "\n" if header else "")
        for day in range(days):
            for n in range(rows):
                told = {"u": draws.randrange(40), "i": draws.randrange(60), "r": draws.randint(1, 5)}
                told |= {
                    "t": 1_700_006_400 + day * 86_400 + 1200 * n,
                    "day": 1_700_006_400 + day * 86_400,
                    "no": told["r"] <= 4,
                }
                told |= {"yes": int(told["r"] > 4), "no": int(told["no"])}
                file.write(mark.join(cell.format(**told) for cell in cells) + "\n")
    return path


def test_ratings_without_a_header_are_labels_where_that_is_said(tmp_path: Path) -> None:
    """MovieLens' ratings.dat: '::' between the fields, no names."""
    source = rows_of(tmp_path / "ratings.dat", "", "{u}", "{i}", "{r}", "{t}", mark="::")
    (tmp_path / "other.csv").write_text("1,2\n3,4\n5,6\n")
    ids = "user=column_1", "item=column_2"
    found, text = drafted(source, tmp_path, *ids)
    assert (found.shape, found.source.delimiter, found.item_table) == ("events", "::", None)
    assert '--answer "labels=column_3 >= …"' in text
    found, _ = drafted(source, tmp_path, *ids, "labels=column_3 >= 4, column_3 >= 2.5")
    assert {name: task.label for name, task in found.tasks.items()} == {
        "column_3": "column_3 >= 4",
        "column_3_2": "column_3 >= 2.5",
    }
    assert trial.attempt(found, str(source), NOW).valid == 720
    with pytest.raises(ValueError, match=r"labels: 'stars >= 4' is neither a column that is left .* those are column_3$"):
        drafted(source, tmp_path, *ids, "labels=stars >= 4")


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


def test_a_click_and_its_opposite_are_one_label(tmp_path: Path) -> None:
    """Taobao's ad log: a page id that is always the same is no item."""
    source = rows_of(
        tmp_path / "log.csv", "user,adgroup_id,pid,nonclk,clk,time_stamp", "{u}", "{i}", "9", "{no}", "{yes}", "{t}"
    )
    found, _ = drafted(source, tmp_path)
    assert (found.columns.item, list(found.tasks)) == ("adgroup_id", ["clk"])


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


def test_what_sounds_unwanted_is_taken_off_the_score(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv")
    source.write_text(source.read_text().replace("addtocart", "like").replace("purchase", "skip"))
    contract, _ = drafted(source, tmp_path)
    assert contract.serving.weights == {"view": 1, "like": 1, "skip": -1}
    assert contract.behaviours["like"].values == ("like",)


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
        file.write("item_id:token\tmovie_title:token_seq\tclass:token_seq\n")
        file.writelines(f"{n}\t{'The Film ' * 150}no {n}\t{' '.join(draws.sample(genres, 3))}\n" for n in range(40))
    (folder / "films.user").write_text("user_id:token\n" + "".join(f"{n}\n" for n in range(30)))
    assert (folder / "films.item").stat().st_size > (folder / "films.inter").stat().st_size
    contract, text = drafted(folder, tmp_path)
    assert contract.tasks["rating"].label == "'rating:float' >= 4"
    assert contract.label_columns == ("rating:float",)
    assert (contract.features["class"].column, contract.features["class"].separator) == ("class:token_seq", " ")
    assert contract.item_table is not None
    assert contract.item_table.file == "films.item"
    assert "# a guess" in text
    assert contract.features.keys() == {"movie_title", "class"}
    (folder / "empty.txt").unlink()
    found = trial.attempt(contract, str(folder), NOW)
    assert (found.valid, found.rules) == (900, {})
    assert found.positives == {"rating": rated}, "the label of every row is known at once"


@pytest.mark.parametrize(
    ("days", "rows", "first", "window", "judged"),
    [
        (10, 20, 0, 8, 1),
        (150, 20, 0, 131, 18),
        (320, 50, 0, 291, 28),
        (70, 2000, 0, 50, 3),
        (20, 9000, 0, 14, 1),
        (1200, 1, 834, 300, 28),
    ],
)
def test_a_thin_log_is_learned_from_for_longer_and_a_long_one_from_its_end(
    tmp_path: Path, days: int, rows: int, first: int, window: int, judged: int
) -> None:
    """From 100,000 rows where 14 to 300 days hold them, of 366 days at most; what stands before is history. By 6,000 rows."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    with (tmp_path / "log.csv").open("w") as file:
        file.write("user_id,item_id,ts\n")
        for day in range(days):
            at = int((start + timedelta(days=day, hours=12)).timestamp())
            file.writelines(f"{n},{n % 7},{at + n}\n" for n in range(rows))
    contract, _ = drafted(tmp_path / "log.csv", tmp_path, "zone=UTC")
    assert (contract.training.window_days, contract.training.judged_days) == (window, judged)
    assert contract.calendar.first_day == (start + timedelta(days=first)).date()
    assert contract.calendar.last_day == (start + timedelta(days=days - 1)).date()
    assert contract.calendar.accept_from == (start.date() if first else None)


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


# check


def test_a_check_counts_what_is_valid_and_what_is_not(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv", days=4)
    contract, _ = drafted(source, tmp_path)
    with source.open("a") as file:
        file.write("1,2,3,view,never\n1,2,3,lick,1741000000\n")
    contract = contract.model_copy(update={"training": contract.training.model_copy(update={"candidates": ("mmoe",)})})
    found = trial.attempt(contract, str(source), NOW)
    assert (found.rows_in, found.valid, found.share) == (1602, 1600, 1.0)
    assert {rule: (b.rows, b.line, b.raw) for rule, b in found.rules.items()} == {
        "unknown_behaviour": (1, 1603, "1,2,3,lick,1741000000"),
        "unreadable_time": (1, 1602, "1,2,3,view,never"),
    }
    assert found.days == dict.fromkeys(["2025-03-03", "2025-03-04", "2025-03-05", "2025-03-06"], 400)
    assert set(found.speed) == {"mmoe"}
    assert found.samples > 3 * 300
    assert not (tmp_path / "home").exists()


def test_a_check_reads_the_first_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "ROWS", 500)
    source = shop(tmp_path / "log.csv", days=4)
    contract, _ = drafted(source, tmp_path)
    found = trial.attempt(contract, str(source), NOW)
    assert found.rows_in == 499, "the header is one of the lines"
    assert found.share == pytest.approx(500 / 1601, rel=0.05)


def test_a_check_names_the_file_and_the_days_that_are_unusual(tmp_path: Path) -> None:
    (folder := tmp_path / "logs").mkdir()
    header, *rows = shop(tmp_path / "all.csv", days=5).read_text().splitlines()
    rows = rows[:400] + rows[400:402] + rows[800:]
    (folder / "a.csv").write_text("\n".join([header, *rows[:500]]) + "\n")
    (folder / "b.csv").write_text("\n".join([header, *rows[500:], "1,2,3,view,never"]) + "\n")
    contract, _ = drafted(folder, tmp_path)
    contract = contract.model_copy(update={"training": contract.training.model_copy(update={"candidates": ("mmoe",)})})
    told = Console(record=True, width=200)
    newcomer.tell_trial(contract, "mine.toml", str(folder), told)
    text = told.export_text()
    assert f"first in line {len(rows) - 500 + 2} of b.csv: ts: 'never'" in text
    assert re.findall(r"checks.unusual_days = \[(.*)\]", text) == ["2025-03-04"]
    assert "2025-03-04 has 2 rows, the median day 400" in text


@pytest.mark.parametrize(
    ("volumes", "odd", "there", "told", "limits"),
    [
        ([400] * 7 + [20, 40, 60, 80, 100], 5, 12, "400 rows, 20 to 100", "smallest = 0.05, largest = 3"),
        ([80] * 7 + [400, 300, 320, 380, 260], 5, 12, "80 rows, 260 to 400", "smallest = 0.3, largest = 5"),
        ([400] * 7 + [20, 0, 60, 80, 100], 4, 11, "400 rows, 0 to 100", "smallest = 0, largest = 3"),
    ],
)
def test_a_log_of_many_unusual_days_is_told_how_wide_its_limits_would_be(
    tmp_path: Path, volumes: list[int], odd: int, there: int, told: str, limits: str
) -> None:
    source = tmp_path / "log.csv"
    header, *rows = shop(source, days=12).read_text().splitlines()
    kept = [row for day, count in enumerate(volumes) for row in rows[400 * day : 400 * day + count]]
    source.write_text("\n".join([header, *kept]) + "\n")
    contract, _ = drafted(source, tmp_path)
    terms = contract.training.model_copy(update={"candidates": ("mmoe",)})
    out = Console(record=True, width=200)
    newcomer.tell_trial(contract.model_copy(update={"training": terms}), "mine.toml", str(source), out)
    text = out.export_text()
    assert f"{odd} of {there} days are far from the median day's {told}" in text
    assert f"begin with checks.volume = {{ {limits} }}" in text
    assert "unusual_days" not in text
    wide = tmp_path / "wide.toml"
    wide.write_text((tmp_path / "drafted.toml").read_text() + f"\n[checks]\nvolume = {{ {limits} }}\n")
    assert load(wide).checks.volume.largest >= 3


def test_a_log_of_one_user_says_what_cannot_be_learned(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv", users=1, rows=60)
    contract, _ = drafted(source, tmp_path)
    told = Console(record=True, width=200)
    assert newcomer.tell_trial(contract, "mine.toml", str(source), told) in (True, False)
    assert "samples" in told.export_text()


def test_draft_is_a_contract_for_hours_and_zone(tmp_path: Path) -> None:
    seen = profile.profile([shop(tmp_path / "log.csv")])
    [moment] = roles.moments(seen.columns["ts"], seen.rows["ts"])
    counts = guessed_days.hours(seen, moment, None)
    with (tmp_path / "log.csv").open() as file:
        expected = {int(row["ts"]) // 3600 for row in csv.DictReader(file)}
    assert set(counts.index) == expected
    assert int(counts.sum()) == 2400
