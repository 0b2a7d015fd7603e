"""`dtrn init`: the draft for a log says what the log is, and what it cannot tell is asked."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from rich.console import Console

from assets import acceptance, guessed_days, guessed_time, ingest, profile, trial
from models.checks import Checks
from models.contract import load
from models.home import Home
from orchestration import newcomer
from tests.drafts import NOW, drafted, shop
from tests.test_known_logs import FIXTURES, LOGS


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


@pytest.mark.parametrize(("written", "kind"), [("{}.00", "number"), ("{}.0", "id"), ("{}", "id"), ("{}.50", "number")])
def test_whole_amounts_with_their_cents_are_measures(tmp_path: Path, written: str, kind: str) -> None:
    header, *rows = shop(tmp_path / "log.csv").read_text().splitlines()
    told = [f"{row},{written.format(int(row.split(',')[1]) % 30)}" for row in rows]
    (tmp_path / "log.csv").write_text("\n".join([f"{header},fare", *told]) + "\n")
    found, _ = drafted(tmp_path / "log.csv", tmp_path)
    assert found.item_features["fare"].kind == kind
    named = (tmp_path / "log.csv").read_text().replace("fare", "fare_id", 1)
    (tmp_path / "log.csv").write_text(named)
    assert (drafted(tmp_path / "log.csv", tmp_path)[0].item_features["fare"].kind == "number") == ("50" in written)


@pytest.mark.parametrize("month", [3, 8])
@pytest.mark.parametrize("zone", ["Europe/Paris", "America/Los_Angeles", "Asia/Tokyo"])
def test_the_zone_is_that_of_the_season(tmp_path: Path, zone: str, month: int) -> None:
    source = shop(tmp_path / "log.csv", zone=zone)
    later = int((datetime(2025, month, 4, tzinfo=ZoneInfo(zone)) - datetime(2025, 3, 4, tzinfo=ZoneInfo(zone))).days) * 86_400
    shift = (
        datetime(2025, 3, 4, tzinfo=ZoneInfo(zone)).utcoffset() - datetime(2025, month, 4, tzinfo=ZoneInfo(zone)).utcoffset()
    )  # type: ignore[operator]
    header, *rows = source.read_text().splitlines()
    told = [f"{row.rsplit(',', 1)[0]},{int(row.rsplit(',', 1)[1]) + later + round(shift.total_seconds())}" for row in rows]
    source.write_text("\n".join([header, *told]) + "\n")
    found, _ = drafted(source, tmp_path)
    assert found.time.zone == zone
    assert str(found.calendar.first_day) == f"2025-0{month}-03"


@pytest.mark.parametrize(("zone", "expected"), [("Europe/Paris", "Europe/Paris"), ("America/New_York", "America/New_York")])
def test_the_zone_is_where_it_is_night_when_nobody_is_about(tmp_path: Path, zone: str, expected: str) -> None:
    found, _ = drafted(shop(tmp_path / "log.csv", zone=zone), tmp_path)
    assert found.time.zone == expected


def test_columns_without_names_are_asked_for_and_answered(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv", header=False)
    with pytest.raises(ValueError, match=r"(?s)which column names the user\?.*--answer user=column_1  "):
        drafted(source, tmp_path)
    found, text = drafted(source, tmp_path, "user=column_1")
    assert found.columns.item == "column_2"
    assert re.search(r'item = "column_2" +# of the columns left the only one with more than 20 values; 60 ', text)
    found, text = drafted(source, tmp_path, "user=column_1", "item=column_2", "zone=Asia/Tokyo", "name=mine")
    assert (found.name, found.source.header, found.columns.item, found.time.zone) == ("mine", False, "column_2", "Asia/Tokyo")
    assert 'zone = "Asia/Tokyo"' in text


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["user"], "--answer user: 'key=value' is expected"),
        (["colour=red"], "--answer colour=…: nothing ever asks for that; what can be answered is user, item"),
        (["year=2024"], "--answer year=…: nothing asks for that here; asked for are"),
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


def test_what_sounds_unwanted_is_taken_off_the_score(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv")
    source.write_text(source.read_text().replace("addtocart", "like").replace("purchase", "skip"))
    contract, _ = drafted(source, tmp_path)
    assert contract.serving.weights == {"view": 1, "like": 1, "skip": -1}
    assert contract.behaviours["like"].values == ("like",)


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
    assert contract.histories.days == min(min(days, 366), max(30, window))
    assert contract.calendar.first_day == (start + timedelta(days=first)).date()
    assert contract.calendar.last_day == (start + timedelta(days=days - 1)).date()
    assert contract.calendar.accept_from == (start.date() if first else None)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_of_a_thin_log_days_are_judged_together_until_they_have_two_hundred_users(tmp_path: Path, name: str) -> None:
    """240 days of 300 rows, 6,000 in 20 of them. Ten users a day, two of them those of the day before: 202 in 25 days."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    moments = [(day, n, start + timedelta(days=day, minutes=4 * n)) for day in range(240) for n in range(300)]
    rows = [{"user_id": f"u{8 * day + n % 10}", "item_id": f"i{n % 7}", "at": at.isoformat()} for day, n, at in moments]
    frame = pd.DataFrame(rows)
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    elif name.endswith("jsonl"):
        frame.to_json(tmp_path / name, orient="records", lines=True)
    else:
        frame.to_csv(tmp_path / name, index=False)
    contract, text = drafted(tmp_path / name, tmp_path)
    assert contract.training.judged_days == 25
    assert "; the last 25 have 202 users" in text


@pytest.mark.parametrize(("users", "rows", "judged"), [(40, 300, 20), (20, 7000, 1)])
def test_where_there_are_no_two_hundred_users_more_days_would_bring_none(
    tmp_path: Path, users: int, rows: int, judged: int
) -> None:
    """240 days of 300 rows by the same 40 users, and rows without one: 6,000 rows are all that is waited for."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    days = 240 if rows < 1000 else 12
    with (tmp_path / "log.csv").open("w") as file:
        file.write("user_id,item_id,at\n")
        for day in range(days):
            at = start + timedelta(days=day)
            file.writelines(f"{n % users},{n % 7},{at + timedelta(seconds=10 * n)}\n" for n in range(rows))
            file.write(f",{day},{at}\n")
    contract, text = drafted(tmp_path / "log.csv", tmp_path)
    assert contract.training.judged_days == judged
    assert (f"have {users} users" in text) == (judged > 1)


def test_limits_of_checks_are_drafted_where_days_would_fail_the_usual_ones_often(tmp_path: Path) -> None:
    """Days end at 17:09, which is 6.85 hours before midnight: on three of them that is odd, on four it is the log."""
    start = datetime(2024, 1, 1, tzinfo=UTC)

    def limits(early: int, column: str = "at") -> dict[str, Any]:
        with (tmp_path / "log.csv").open("w") as file:
            file.write(f"user_id,item_id,{column}\n")
            for day in range(14):
                for n in range(144):
                    at = start + timedelta(days=day, minutes=10 * n + 9)
                    if day >= early or at.hour < 17 or (at.hour == 17 and at.minute < 10):
                        file.write(f"{n % 30},{n % 7},{at:%Y-%m-%d}{f' {at:%H:%M}' if column == 'at' else ''}\n")
        contract, _ = drafted(tmp_path / "log.csv", tmp_path, "zone=UTC")
        return contract.checks.model_dump(exclude_unset=True)

    assert limits(3) == {}
    assert limits(4) == {"freshness": {"silent_hours": 7}}
    assert limits(14, "date") == {}, "a day is all that is known of them"


@pytest.mark.parametrize("column", ["date", "time"])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_days_that_are_written_without_a_zone_are_the_same_in_the_one_that_is_named(
    tmp_path: Path, column: str, zone: str
) -> None:
    start = datetime(2024, 3, 1, tzinfo=UTC)
    moments = [start + timedelta(hours=n / 10) for n in range(10 * 24 * 10)]
    written = [f"{m:%Y-%m-%d}" if column == "date" else f"{m:%Y-%m-%d %H:%M:%S}" for m in moments]
    (tmp_path / "log.csv").write_text(
        f"user_id,item_id,{column}\n" + "".join(f"{n % 40},{n % 50},{text}\n" for n, text in enumerate(written))
    )
    contract, _ = drafted(tmp_path / "log.csv", tmp_path, f"zone={zone}")
    assert (str(contract.calendar.first_day), str(contract.calendar.last_day)) == ("2024-03-01", "2024-03-10")


def test_no_day_of_an_uneven_log_is_an_alarm_under_the_limits_that_are_drafted_for_it(tmp_path: Path) -> None:
    draws = random.Random(5)
    start = datetime(2025, 3, 3, tzinfo=UTC)
    with (tmp_path / "log.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["user_id", "item_id", "rating", "ts"])
        for day in range(40):
            for n in range(0 if day == 23 else draws.choice([3, 12, 40, 90, 400])):
                at = start + timedelta(days=day, seconds=draws.randrange(86_400 if day % 3 else 40_000))
                out.writerow([n % 30, draws.randrange(50), draws.randint(1, 5), round(at.timestamp())])
    drafts, text = drafted(tmp_path / "log.csv", tmp_path, "zone=UTC")
    home = Home(tmp_path / "home", drafts.name)
    ingest.accept(home, drafts, str(tmp_path / "log.csv"), NOW)
    days = [str(day) for day in drafts.days(drafts.calendar.last_day)]
    for day in days:
        ingest.events(home, drafts, day)
    wrong = {}
    for terms, name in ((drafts, "drafted"), (drafts.model_copy(update={"checks": Checks()}), "usual")):
        found = {check: acceptance.plausible(home, terms, check, days).values() for check in ("volume", "freshness")}
        wrong[name] = {check: sum(f.wrong is not None for f in findings) for check, findings in found.items()}
    assert wrong["drafted"] == {"volume": 0, "freshness": 0}, text
    assert drafts.checks.freshness.silent_hours == 24, "one day has nobody"
    assert min(wrong["usual"].values()) > 3


def test_draft_is_a_contract_for_hours_and_zone(tmp_path: Path) -> None:
    seen = profile.profile([shop(tmp_path / "log.csv")])
    [moment] = guessed_time.moments(seen.columns["ts"], seen.rows["ts"])
    counts = guessed_days.hours(seen, moment, None)
    with (tmp_path / "log.csv").open() as file:
        expected = {int(row["ts"]) // 3600 for row in csv.DictReader(file)}
    assert set(counts.index) == expected
    assert int(counts.sum()) == 2400
