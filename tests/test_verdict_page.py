"""The verdict's page: it fetches nothing, runs nothing, and says in words who won, why and by how much."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets import evaluation, lake, verdict_charts, verdict_page
from models.home import Home
from tests.judged import FIRST, JUDGED, TERMS, copied


@pytest.fixture(scope="module")
def shown(trained: Home, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = copied(trained, tmp_path_factory.mktemp("verdict"))
    evaluation.evaluate(home, TERMS, JUDGED)
    return evaluation.read(home, JUDGED)


class _Reader(HTMLParser):
    """Notes what a page refers to, and whether each element that opens is closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.refers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [v or "" for k, v in attrs if k in ("href", "xlink:href", "src", "action", "data", "poster")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(verdict: dict[str, Any]) -> _Reader:
    reader = _Reader()
    reader.feed(verdict_page.render(verdict))
    assert reader.open == []
    return reader


def test_the_page_fetches_nothing_and_runs_nothing(shown: dict[str, Any]) -> None:
    page = verdict_page.render(shown)
    assert not re.search(r"https?:|//[a-z]|@import|url\(\s*['\"]?[^#'\")]", page)
    reader = read_page(shown)
    assert all(reference.startswith("#") for reference in reader.refers)
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(reader.tags)
    assert page == verdict_page.render(shown)


def test_the_page_leads_to_the_runs_and_is_made_again_when_they_or_the_words_change(trained: Home, tmp_path: Path) -> None:
    home = copied(trained, tmp_path)
    evaluation.evaluate(home, TERMS, JUDGED, run="0a1b2c3d-run")
    path = home.verdict_page(JUDGED)
    reader = _Reader()
    reader.feed(path.read_text())
    links = [reference for reference in reader.refers if not reference.startswith("#")]
    assert "http://127.0.0.1:3000/runs/0a1b2c3d-run" in links
    assert all(link.startswith("http://127.0.0.1:3000/") for link in links)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert not evaluation.evaluate(home, TERMS, JUDGED, run="another")[1]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    manifest = lake.require(home, "verdict", JUDGED)
    lake.write_json(home.manifest("verdict", JUDGED), asdict(manifest) | {"run": "another"})
    assert not evaluation.evaluate(home, TERMS, JUDGED)[1]
    assert "/runs/another" in path.read_text()


def test_the_page_says_in_words_what_an_auc_is(shown: dict[str, Any]) -> None:
    text = " ".join(read_page(shown).text.split())
    for task in ("click", "buy"):
        told = ", ".join(f"{model} {tasks[task]['auc']:.1%}" for model, tasks in shown["models"].items())
        assert f"one with {task} and one without, the one with it is ranked higher so often: {told}." in text


def test_the_page_says_who_why_and_how_much(shown: dict[str, Any]) -> None:
    text = " ".join(read_page(shown).text.split())
    assert "judged on Wednesday, 1 April 2026" in text
    for reason in shown["reasons"]:
        assert reason in text
    for tasks in shown["models"].values():
        for m in tasks.values():
            for key in ("auc", "auc_low", "auc_high", "gauc", "logloss", "ece"):
                assert f"{m[key]:.4f}" in text
    for rows in shown["comparisons"].values():
        for c in rows.values():
            assert f"{c['difference']:+.4f}".replace("-", "−") in text


def test_a_task_is_said_to_mean_what_the_contract_says_and_one_alone_has_no_mean(shown: dict[str, Any]) -> None:
    reader = read_page(shown)
    assert "click (view within 24 hours) ·" in " ".join(reader.text.split())
    assert "mean" in _labels(shown)
    only = json.loads(json.dumps(shown))
    only["meanings"]["click"] = "click"
    for told in (*only["models"].values(), *only["comparisons"].values(), *only["curves"].values()):
        del told["buy"]
    assert _labels(only) == ["click"]
    assert "(click)" not in read_page(only).text


def _labels(verdict: dict[str, Any]) -> list[str]:
    """The tasks that the picture of the differences to popularity names."""
    figure = verdict_charts.forest(verdict, "popularity")
    texts = [text.get_text() for text in figure.axes[0].texts]
    return [text for text in texts if not re.search(r"\d|judged", text)]


def test_what_is_written_in_the_verdict_is_text_and_never_markup(shown: dict[str, Any]) -> None:
    evil = '<script>alert("x")</script>&'
    verdict = json.loads(json.dumps(shown).replace('"buy"', json.dumps(evil)))
    verdict |= {"dataset": evil, "reasons": [evil, *shown["reasons"]]}
    verdict["champion"] = {"tag": evil, "name": evil, "judged_day": evil}
    reader = read_page(verdict)
    assert "script" not in reader.tags
    assert reader.text.count(evil) >= 6


@pytest.mark.parametrize(
    ("promote", "champion", "compared", "headline"),
    [
        (True, True, True, "{} beats the champion"),
        (True, False, False, "{} beats popularity"),
        (True, True, False, "{} beats popularity"),
        (False, True, True, "The champion stays"),
        (False, True, False, "The champion stays"),
        (False, False, False, "No champion yet"),
    ],
)
def test_the_headline_is_the_outcome(
    shown: dict[str, Any], promote: bool, champion: bool, compared: bool, headline: str
) -> None:
    name = shown["challenger"]["name"]
    models = shown["models"] | ({"champion": shown["models"][name]} if compared else {})
    reigning = {"tag": "dtrn-tiny:1", "name": "dtrn", "judged_day": FIRST} if champion else None
    assert verdict_page.headline(shown | {"promote": promote, "champion": reigning, "models": models}) == headline.format(name)


def test_calibration_of_drawn_negatives_is_said_to_be_relative_and_that_of_impressions_is_not(shown: dict[str, Any]) -> None:
    assert "relative to that sampling rate" in " ".join(read_page(shown).text.split())
    assert "sampling rate" not in read_page(shown | {"shape": "exposures"}).text


def test_a_day_without_positives_still_has_a_page(shown: dict[str, Any]) -> None:
    from models.judgement import judge

    labels, users = np.zeros((50, 2), np.int8), np.arange(50)
    scores = {"dtrn": np.full((50, 2), 0.25), "popularity": np.full((50, 2), 0.5)}
    judged = judge(labels, users, scores, tasks=TERMS.task_names, challenger="dtrn", seed=1)
    curves = evaluation.curves(labels, scores, TERMS.task_names)
    verdict = shown | dict(judged) | {"curves": curves, "challenger": {"name": "dtrn", "content": "0"}}
    text = " ".join(read_page(verdict).text.split())
    assert "No model is promoted: no task of this day can be judged." in text
    assert "not judged" in text
    assert "ROC of click" in evaluation.verdict_metadata(verdict)
