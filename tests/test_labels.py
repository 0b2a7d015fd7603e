"""`dtrn init` says which columns are feedback, takes those that are named, and has histories tell of what they leave out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from assets import trial
from models.sections import in_condition
from tests.drafts import NOW, drafted, quick, rows_of


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


def test_ratings_without_a_header_are_labels_where_that_is_said(tmp_path: Path) -> None:
    """MovieLens' ratings.dat: '::' between the fields, no names."""
    source = rows_of(tmp_path / "ratings.dat", "", "{u}", "{i}", "{r}", "{t}", mark="::")
    # Somebody's numbers, which are in no column of the same name: neither file has names.
    (tmp_path / "other.csv").write_text("".join(f"{n},{n * n % 7}\n" for n in range(60)))
    ids = "user=column_1", "item=column_2"
    found, text = drafted(source, tmp_path, *ids)
    assert (found.shape, found.source.delimiter, found.item_table) == ("events", "::", None)
    assert '--answer "labels=column_3 >= …"' in text
    assert (
        "! nothing in the log is known to be feedback, so every row is an event. column_3 (5 values, 1 to 5) may be a rating; "
        'if it is, delete this draft and draft again with --answer "labels=column_3 >= …"'
        in " ".join((tmp_path / "told.txt").read_text().split())
    )
    found, text = drafted(source, tmp_path, *ids, "labels=column_3 >= 4, column_3 >= 2.5")
    assert {name: behaviour.when for name, behaviour in found.behaviours.items()} == {
        "column_3": "column_3 >= 4",
        "low_column_3": "column_3 < 4",
        "column_3_2": "column_3 >= 2.5",
        "low_column_3_2": "column_3 < 2.5",
    }
    stars = [int(line.split("::")[2]) for line in source.read_text().splitlines()]
    assert f'when = "column_3 >= 4"            # as answered; {sum(s >= 4 for s in stars) / 720:.2%} of the rows seen' in text
    assert {name: task.label for name, task in found.tasks.items()} == {
        "column_3": "column_3 >= 4",
        "column_3_2": "column_3 >= 2.5",
    }
    assert trial.attempt(found, str(source), NOW).valid == 720
    with pytest.raises(ValueError, match=r"labels: 'stars >= 4' is neither a column that is left .* those are column_3$"):
        drafted(source, tmp_path, *ids, "labels=stars >= 4")


def test_a_click_and_its_opposite_are_one_label(tmp_path: Path) -> None:
    """Taobao's ad log: a page id that is always the same is no item."""
    source = rows_of(
        tmp_path / "log.csv", "user,adgroup_id,pid,nonclk,clk,time_stamp", "{u}", "{i}", "9", "{no}", "{yes}", "{t}"
    )
    found, _ = drafted(source, tmp_path)
    assert (found.columns.item, list(found.tasks)) == ("adgroup_id", ["clk"])


def stars(path: Path, column: str = "stars", value: Callable[[int], str] = str) -> Path:
    """600 rows of 31 users and 41 items on six days; the column holds `value` of 1 to 5 in turn."""
    rows = [f"{n % 31},{(7 * n) % 41},{value(1 + n % 5)},{1_741_000_000 + 864 * n}" for n in range(600)]
    path.write_text("\n".join([f"user_id,item_id,{column},ts", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("label", "holds", "low"),
    [
        ("stars >= 4", {4, 5}, "stars < 4"),
        ("stars > 3.5", {4, 5}, "stars <= 3.5"),
        ("stars >= 4.0", {4, 5}, "stars < 4.0"),
        ("stars <= 2", {1, 2}, None),
        ("stars < 2", {1}, None),
        ("stars == 5", {5}, None),
        ("stars != 5", {1, 2, 3, 4}, None),
        ("'stars' >= 2", {2, 3, 4, 5}, "stars < 2"),
    ],
)
def test_of_a_label_that_is_named_its_share_is_told_and_what_a_grade_leaves_out_is_a_behaviour(
    tmp_path: Path, label: str, holds: set[int], low: str | None
) -> None:
    """In a sixth of the rows nothing is written, which is no grade and no low one."""
    values = iter(range(600))
    source = stars(tmp_path / "log.csv", value=lambda n: "" if next(values) % 6 == 0 else str(n))
    found, text = drafted(source, tmp_path, f"labels={label}")
    grades = [1 + n % 5 for n in range(600) if n % 6]
    assert f"# as answered; {sum(g in holds for g in grades) / 600:.2%} of the rows seen" in text
    assert found.behaviours["stars"].when == found.tasks["stars"].label
    assert [b.when for name, b in found.behaviours.items() if name != "stars"] == ([low] if low else [])
    known = trial.attempt(found.model_copy(update={"training": quick(found)}), str(source), NOW)
    assert known.positives == {"stars": sum(g in holds for g in grades)}


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("TRUE", "FALSE"), ("true", ""), ("1.0", "0.0")])
def test_what_says_yes_or_no_leaves_nothing_low(tmp_path: Path, yes: str, no: str) -> None:
    source = stars(tmp_path / "log.csv", "click_10", lambda n: yes if n > 3 else no)
    answers = ["labels=click_10"] if yes != "TRUE" else ["labels=click_10 >= 1"]
    found, text = drafted(source, tmp_path, *answers)
    assert list(found.behaviours) == ["click_10"]
    assert "# as answered; 40.00% of the rows seen" in text


def test_two_labels_of_which_one_is_the_others_low_side_are_two_behaviours(tmp_path: Path) -> None:
    found, _ = drafted(stars(tmp_path / "log.csv"), tmp_path, "labels=stars >= 4, stars < 4")
    assert {name: b.when for name, b in found.behaviours.items()} == {"stars": "stars >= 4", "stars_2": "stars < 4"}


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("оценка", ["label", "low_label"]),
        ("rating_" + "x" * 50, ["rating_" + "x" * 29 + "_2", "low_rating_" + "x" * 25 + "_2"]),
        ("rating_" + "x" * 30, ["rating_" + "x" * 30, "low_rating_" + "x" * 25 + "_2"]),
        ("5 stars", ["label_5_stars", "low_label_5_stars"]),
        ("mean", ["mean_2", "low_mean_2"]),
        ("score", ["score", "low_score"]),
        ("is_", ["is", "low_is"]),
    ],
)
def test_a_label_may_come_from_a_column_of_any_name(tmp_path: Path, column: str, names: list[str]) -> None:
    source = stars(tmp_path / "log.csv", column)
    found, _ = drafted(source, tmp_path, f"labels={in_condition(column)} >= 4")
    assert list(found.behaviours) == names
    assert list(found.tasks) == names[:1]
    known = trial.attempt(found.model_copy(update={"training": quick(found)}), str(source), NOW)
    assert (known.valid, known.positives) == (600, {names[0]: 240})


def test_a_scale_of_large_numbers_is_written_out(tmp_path: Path) -> None:
    found, _ = drafted(stars(tmp_path / "log.csv", "score", lambda n: str(2_000_000 * n)), tmp_path)
    assert found.tasks["score"].label == "score >= 8000000"


def test_grades_with_a_word_among_them_are_told_of_by_all_their_numbers(tmp_path: Path) -> None:
    values = iter(range(600))
    source = stars(tmp_path / "log.csv", "grade", lambda _: "?" if (n := next(values)) == 77 else str(1 + n % 18))
    drafted(source, tmp_path)
    said = " ".join((tmp_path / "told.txt").read_text().split())
    assert "grade (19 values, 1 to 18) may be a rating" in said


def test_what_is_skipped_is_not_all_that_a_history_tells(tmp_path: Path) -> None:
    """One label, of what is unwanted: what was not skipped is history too. Of two labels the other one is that."""
    for header, cells, behaviours in (
        ("skipped", ("{no}",), {"skipped": "skipped", "not_skipped": "skipped == 0"}),
        ("skipped,liked", ("{no}", "{yes}"), {"skipped": "skipped", "liked": "liked"}),
    ):
        source = rows_of(tmp_path / "log.csv", f"user_id,item_id,{header},ts", "{u}", "{i}", *cells, "{t}")
        found, _ = drafted(source, tmp_path)
        assert {name: b.when for name, b in found.behaviours.items()} == behaviours
        assert found.serving.weights["skipped"] == -1
        assert trial.attempt(found.model_copy(update={"training": quick(found)}), str(source), NOW).valid == 720


def test_labels_that_can_teach_nothing_are_refused_and_low_ones_taken_off_the_score(tmp_path: Path) -> None:
    source = stars(tmp_path / "log.csv")
    for label, held in (("stars >= 80", "none"), ("stars >= 1", "all")):
        with pytest.raises(ValueError, match=rf"labels: '{label}' holds in {held} of the 600 rows seen.* 5 numbers, 1 to 5"):
            drafted(source, tmp_path, f"labels={label}")
    found, text = drafted(source, tmp_path, "labels=stars >= 4, stars <= 2")
    assert found.serving.weights == {"stars": 1, "stars_2": -1}
    assert "# a low value: taken off the score" in text
