"""The day for early stopping is held out: nothing of it, and of no later day, is in what the model was fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from assets import histories, lake, samples, training
from models import artifact
from models.home import Home
from models.keys import key_numbers
from tests import logs

TERMS = logs.contract(
    logs.EXPOSURES,
    item_features={"price": {"column": "price", "kind": "number", "bins": 4}},
    tasks={"click": {"label": "clicked"}},
    behaviours={"view": {"when": "clicked", "length": 4}},
    training={"candidates": ["mmoe"], "references": [], "window_days": 4, "epochs": 1, "width": 4, "batch_samples": 64},
)
JUDGED = "2026-04-01"


def impressions(day: str, first_item: int, prices: list[float]) -> list[dict[str, Any]]:
    start = TERMS.day_start(day)
    return [
        {"user": n % 7, "item": first_item + n, "time": start + 1000 * n, "price": price, "position": n % 3,
         "clicked": float(n % 2), "stars": 1.0}
        for n, price in enumerate(prices)
    ]  # fmt: skip


def test_vocabulary_and_bins_are_those_of_the_days_before_the_one_held_out(tmp_path: Path) -> None:
    home, days = Home(tmp_path, TERMS.name), TERMS.training_days(JUDGED)
    random = np.random.default_rng(5)
    prices = {day: (random.integers(1, 40, 30) * 10.0 ** (3 * (day >= days[-1]))).tolist() for day in TERMS.days()}
    for place, day in enumerate(TERMS.days()):
        logs.write_events(home, TERMS, day, impressions(day, 1000 * place, prices[day]))
    for day in TERMS.days():
        histories.build(home, TERMS, day)
        samples.build(home, TERMS, day)
    manifest, _ = training.train(home, TERMS, "mmoe", JUDGED, say=lambda _: None)
    assert days == ["2026-03-28", "2026-03-29", "2026-03-30", "2026-03-31"]
    assert manifest.detail["held_out"] == ["2026-03-31"]
    assert manifest.counts == {"training": 90, "validation": 30}
    tables = artifact.load(home.model("mmoe", JUDGED)).vocabulary.tables
    # Of the days before the window the last clicks of a user may stand in a history of its first day.
    fitted = {int(i) for i in tables["item"]}
    before = {1000 * place + n for place, day in enumerate(TERMS.days()) if day < days[-1] for n in range(30)}
    assert {1000 * place + n for place in (1, 2, 3) for n in range(30)} <= fitted <= before
    edges = key_numbers(tables["price"])
    assert edges.max() < 40
    seen = sorted([p for day in days[:-1] for p in prices[day]])
    assert len(edges) == 3
    for share, edge in zip((0.25, 0.5, 0.75), edges, strict=True):
        assert abs(np.mean(np.array(seen) < edge) - share) < 0.15
    assert lake.require(home, "mmoe", JUDGED).inputs.keys() == {
        *(f"samples/{day}" for day in days), *(f"histories/{day}" for day in TERMS.history_days(days[0], days[-1]))
    }  # fmt: skip


def test_as_many_days_are_held_out_as_are_judged_together(tmp_path: Path) -> None:
    terms = TERMS.model_copy(update={"training": TERMS.training.model_copy(update={"judged_days": 2})})
    home = Home(tmp_path, terms.name)
    for place, day in enumerate(terms.days()):
        logs.write_events(home, terms, day, impressions(day, 1000 * place, [1.0] * (30 + place)))
    for day in terms.days():
        histories.build(home, terms, day)
        samples.build(home, terms, day)
    manifest, _ = training.train(home, terms, "mmoe", JUDGED, say=lambda _: None)
    first = terms.days().index("2026-03-27")
    assert manifest.detail["days"] == ["2026-03-27", "2026-03-28", "2026-03-29", "2026-03-30"]
    assert manifest.detail["held_out"] == ["2026-03-29", "2026-03-30"]
    assert manifest.counts == {"training": 60 + 2 * first + 1, "validation": 60 + 2 * first + 5}
    known = {int(i) for i in artifact.load(home.model("mmoe", JUDGED)).vocabulary.tables["item"]}
    assert not {1000 * (first + n) + 40 for n in (2, 3)} & known
    assert max(known) < 1000 * (first + 2)


def test_a_day_of_an_outage_after_the_one_held_out_is_not_learned_from(tmp_path: Path) -> None:
    home = Home(tmp_path, TERMS.name)
    for place, day in enumerate(TERMS.days()):
        logs.write_events(home, TERMS, day, impressions(day, 1000 * place, [1.0] * (1 if day == "2026-03-31" else 30)))
    for day in TERMS.days():
        histories.build(home, TERMS, day)
        samples.build(home, TERMS, day)
    manifest, _ = training.train(home, TERMS, "mmoe", JUDGED, say=lambda _: None)
    assert manifest.detail["held_out"] == ["2026-03-30"]
    assert manifest.counts == {"training": 60, "validation": 30}
