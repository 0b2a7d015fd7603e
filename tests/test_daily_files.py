"""A log of a file a day whose lines have not all the same keys is one log; what is no part of it is named."""

from __future__ import annotations

import csv
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.drafts import drafted, shop


def days(folder: Path, count: int = 8) -> None:
    """JSON lines a day; what a line holds besides, and in which order, is by chance, and now and then there is no user."""
    draws = random.Random(6)
    folder.mkdir()
    for day in range(count):
        lines = []
        for n in range(300):
            at = datetime(2025, 9, 7, tzinfo=UTC) + timedelta(days=day, minutes=4 * n)
            line: dict[str, Any] = {"event": draws.choice(["view", "cart", "purchase"]), "ts": at.isoformat()}
            line |= {"user": {"id": draws.randrange(50), "plan": "free"} if n % 90 else None, "item_id": draws.randrange(40)}
            for extra in draws.sample(["query", "quantity", "coupon"], draws.randrange(1 + day % 4)):
                line[extra] = draws.randrange(5)
            lines.append(line)
        draws.shuffle(lines)
        (folder / f"{day}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_every_day_is_read_whatever_keys_its_lines_have(tmp_path: Path) -> None:
    days(tmp_path / "log")
    found, text = drafted(tmp_path / "log", tmp_path, "zone=UTC")
    assert "8 file(s)" in text
    assert f"{8 * 300:,} rows with a readable time" in text
    assert (str(found.calendar.first_day), str(found.calendar.last_day)) == ("2025-09-07", "2025-09-14")
    assert (found.columns.user, found.columns.item) == ("/user/id", "item_id")
    assert "user" not in {feature.column for feature in found.features.values()}, "an object is no column where it has keys"
    assert {"/user/plan", "query", "quantity", "coupon"} <= {w.strip(":,") for w in text.replace('"', " ").split()}
    assert "no part of this draft" not in (tmp_path / "told.txt").read_text()


def test_files_of_something_else_are_named(tmp_path: Path) -> None:
    days(tmp_path / "log")
    (tmp_path / "log" / "items.jsonl").write_text(
        "".join(json.dumps({"item_id": n, "title": f"t{n}", "genre": n % 3}) + "\n" for n in range(40))
    )
    (tmp_path / "log" / "mails.jsonl").write_text('{"sent": 1, "to": "a"}\n' * 30)
    found, text = drafted(tmp_path / "log", tmp_path, "zone=UTC")
    assert "8 file(s)" in text
    assert found.item_table is not None
    assert found.item_table.file == "items.jsonl"
    assert "! 1 file(s) have other columns and are no part of this draft: mails.jsonl" in (tmp_path / "told.txt").read_text()


def test_amounts_with_a_decimal_comma_are_not_cut_at_it(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv")
    with source.open() as file:
        header, *rows = list(csv.reader(file))
    told = [[*row, f"{int(row[1]) % 12},{int(row[1]) % 5}0"] for row in rows]
    with source.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([[*header, "betrag"], *told])
    found, text = drafted(source, tmp_path)
    assert found.item_features["betrag"].separator is None
    assert "numbers written with one are names" in text
