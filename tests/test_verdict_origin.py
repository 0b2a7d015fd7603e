"""A verdict's page links the runs and partitions that it came from, and which run it was changes no content."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from assets import lake, verdict_origin
from models.home import Home

DAY, BEFORE, EARLY = "2026-04-02", "2026-04-01", "2026-03-31"
MODELS = {"dtrn": "run-a", "mmoe": "run-a", "popularity": "run-b", "lightgbm": ""}
VERDICT: dict[str, Any] = {
    "dataset": "shop",
    "judged_day": DAY,
    "judged_days": [DAY],
    "held_out": [BEFORE],
    "challenger": {"name": "dtrn"},
    "champion": {"tag": "dtrn-shop:x", "name": "mmoe", "judged_day": BEFORE},
    "validation": {"dtrn": 0.8, "mmoe": 0.9},
    "models": {"dtrn": {}, "champion": {}, "popularity": {}, "lightgbm": {}},
}


def made(home: Home, stage: str, day: str, run: str, text: str = "x", **told: Any) -> lake.Manifest:
    def make(path: Path) -> dict[str, Any]:
        path.write_text(text)
        return told

    return lake.build(home, stage, day, home.model(stage, day), make, inputs={}, code=text, contract="", run=run)[0]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The four models of DAY, the champion's of BEFORE, and its page."""
    home = Home(tmp_path, "shop")
    for name, run in MODELS.items():
        made(home, name, DAY, run, detail={"days": [EARLY, BEFORE]})
    made(home, "mmoe", BEFORE, "run-c")
    home.verdict_page(BEFORE).parent.mkdir()
    home.verdict_page(BEFORE).write_text("page")
    return home


def shown(home: Home, manifest: lake.Manifest, verdict: dict[str, Any] = VERDICT) -> dict[str, list[tuple[str, str]]]:
    return {what: [(x.text, x.url) for x in links] for what, links in verdict_origin.origin(home, verdict, manifest).items()}


def place(asset: str, day: str) -> str:
    return f"http://127.0.0.1:3000/assets/shop/{asset}?view=partitions&partition={day}"


def run(name: str) -> tuple[str, str]:
    return f"run {name}", f"http://127.0.0.1:3000/runs/{name}"


def test_runs_and_partitions_are_linked(home: Home) -> None:
    assert shown(home, made(home, "verdict", DAY, "run-v")) == {
        "This verdict": [(f"verdict {DAY}", place("verdict", DAY)), run("run-v")],
        "Challenger": [(f"dtrn {DAY}", place("dtrn", DAY)), run("run-a")],
        "Its rivals of the day": [
            (f"lightgbm {DAY}", place("lightgbm", DAY)),
            *[(f"mmoe {DAY}", place("mmoe", DAY)), run("run-a")],
            *[(f"popularity {DAY}", place("popularity", DAY)), run("run-b")],
        ],
        "Rows judged": [(DAY, place("samples", DAY))],
        "Champion": [
            *[(f"mmoe {BEFORE}", place("mmoe", BEFORE)), run("run-c")],
            (f"its own verdict of {BEFORE}", f"{BEFORE}.html"),
        ],
        "Rows trained on": [(EARLY, place("samples", EARLY))],
        "Rows that training stopped by": [(BEFORE, place("samples", BEFORE))],
    }


def test_without_a_champion_and_runs_only_partitions_are_linked(home: Home) -> None:
    told = shown(home, made(home, "verdict", DAY, ""), VERDICT | {"champion": None})
    assert "Champion" not in told
    assert told["This verdict"] == [(f"verdict {DAY}", place("verdict", DAY))]


def test_of_a_long_window_the_ends_are_linked(home: Home) -> None:
    days = [f"2026-03-{n:02}" for n in range(1, 31)]
    made(home, "dtrn", DAY, "run-a", "long", detail={"days": days})
    told = shown(home, made(home, "verdict", DAY, ""), VERDICT | {"held_out": days[-2:]})
    assert told["Rows trained on"] == [
        ("from 2026-03-01", place("samples", "2026-03-01")),
        ("to 2026-03-28 (28 days)", place("samples", "2026-03-28")),
    ]
    assert [text for text, _ in told["Rows that training stopped by"]] == days[-2:]


def test_another_run_of_the_same_is_no_reason_to_make_it_and_no_other_content(home: Home) -> None:
    first = made(home, "verdict", DAY, "run-v")
    assert made(home, "verdict", DAY, "run-w") == first
    elsewhere = made(Home(home.root / "other", "shop"), "verdict", DAY, "run-w")
    assert (elsewhere.run, elsewhere.content) == ("run-w", first.content)


def test_a_manifest_written_before_runs_were_noted_is_read(home: Home) -> None:
    path = home.manifest("dtrn", DAY)
    path.write_text(re.sub(r',\s*"run": "[^"]*"', "", path.read_text()))
    assert "run-a" not in path.read_text()
    manifest = lake.require(home, "dtrn", DAY)
    assert manifest.run == ""
