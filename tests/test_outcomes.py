"""Outcomes against loops over the definition, on random rankings and logs crowded onto few users, items and moments."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from assets import lake, outcomes, predictions
from models.contract import Contract
from models.home import Home
from models.requests import MASKED
from tests import inbox, logs

HOUR = 3_600_000
DAY = "2026-03-29"
Row = dict[str, Any]


def rows(home: Home) -> list[Row]:
    found: list[Row] = pq.read_table(home.outcomes(DAY), partitioning=None).to_pylist()
    return found


def store(home: Home, terms: Contract, log: list[Row], until: str = "2026-04-02", since: str = "2026-03-27") -> None:
    for day in terms.days():
        if since <= day <= until:
            logs.write_events(home, terms, day, [r for r in log if str(terms.day_of(r["time"])) == day])


def masked(click: int, buy: int) -> dict[str, int]:
    """`buy` is given `click` in these contracts."""
    return {"click": click, "buy": buy if click == 1 else MASKED}


def expected_events(terms: Contract, log: list[Row], user: int, item: int, time: int) -> dict[str, int]:
    step = {"millisecond": 1, "second": 1000, "day": 1}[terms.time.resolution]
    start = time - time % step if terms.time.resolution != "day" else terms.day_start(terms.day_of(time))
    hours = {"click": 24, "buy": 6}
    behaviour = {"click": "view", "buy": "buy"}
    return masked(
        *(
            int(
                any(
                    (r["user"], r["item"], r["behaviour"]) == (user, item, behaviour[task])
                    and start <= r["time"] <= start + hours[task] * HOUR
                    for r in log
                )
            )
            for task in ("click", "buy")
        )
    )


def expected_exposures(told: list[Row], log: list[Row], user: int, item: int, time: int) -> dict[str, int]:
    """Walk the impressions of the pair in order; each finds the newest ranking that is not after it."""
    terms = logs.contract(logs.EXPOSURES)
    floor = {t["time"] // 1000 * 1000 for t in told if t["user"] == user and item in t["item"]}
    own = None
    for shown in sorted(r["time"] for r in log if (r["user"], r["item"]) == (user, item)):
        asked = max((m for m in floor if m <= shown), default=None)
        if asked == time // 1000 * 1000 and str(terms.day_of(shown)) == DAY:
            own = shown
            break
    if own is None:
        return {"click": MASKED, "buy": MASKED}
    met = [r for r in log if (r["user"], r["item"], r["time"]) == (user, item, own)]
    return masked(int(any((r["clicked"] or 0) > 0 for r in met)), int(any((r["stars"] or 0) >= 4 for r in met)))


@st.composite
def world(draw: Any, base: dict[str, Any]) -> tuple[Contract, list[Row], list[Row]]:
    """(contract, what was ranked on DAY, what happened on it and the days around it)."""
    terms = logs.contract(base)
    start, end = terms.day_start(DAY), terms.day_end(DAY)
    told = [
        inbox.line(
            terms,
            f"r{n}",
            min(start + draw(st.integers(0, 4)) * 6 * HOUR + draw(st.integers(0, 2)) * 500, end - 1),
            draw(st.integers(1, 2)),
            draw(st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True)),
        )
        for n in range(draw(st.integers(1, 4)))
    ]
    log = []
    for _ in range(draw(st.integers(0, 25))):
        moment = start + draw(st.integers(-2, 10)) * 6 * HOUR + draw(st.sampled_from([0, 0, 1000]))
        if terms.time.resolution == "day":
            moment = terms.day_start(terms.day_of(moment))
        row: Row = {"user": draw(st.integers(1, 2)), "item": draw(st.integers(1, 3)), "time": moment, "category": 1}
        if terms.shape == "events":
            row["behaviour"] = draw(st.sampled_from(["view", "buy"]))
        else:
            row |= {
                "position": 1,
                "clicked": draw(st.sampled_from([0, 1, 1, None])),
                "stars": draw(st.sampled_from([3, 4, 5, None])),
            }
        log.append(row)
    return terms, told, log


@pytest.mark.parametrize("base", [logs.EVENTS, logs.DATES, logs.EXPOSURES], ids=["events", "dates", "exposures"])
def test_labels_are_what_the_definition_says(base: dict[str, Any]) -> None:
    # Not shrunk: a world is small as it is, and minutes would go by before the failure is told.
    @settings(
        max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(world(base))
    def agree(drawn: tuple[Contract, list[Row], list[Row]]) -> None:
        terms, told, log = drawn
        with tempfile.TemporaryDirectory() as folder:
            home = Home(Path(folder), terms.name)
            inbox.write(home, "1-1", told)
            store(home, terms, log, until="2026-03-31", since=DAY)
            predictions.land(home, terms, DAY)
            manifest, _ = outcomes.join(home, terms, DAY)
            found = rows(home)
            assert manifest.detail["mature"]
            assert len(found) == sum(len(t["item"]) for t in told)
            for row in found:
                key = (row["user"], row["item"], row["time"])
                expected = expected_events(terms, log, *key) if terms.shape == "events" else expected_exposures(told, log, *key)
                assert {t: row[f"label_{t}"] for t in terms.tasks} == expected, key

    agree()


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Home, Contract, list[Row]]:
    """Two models, twelve rankings of three items; every third item is viewed, some viewed ones bought."""
    terms = logs.contract(logs.EVENTS)
    home = Home(tmp_path, terms.name)
    start = terms.day_start(DAY)
    told = [
        inbox.line(terms, f"r{n:02}", start + n * HOUR, n, [1, 2, 3], model=f"dtrn-tiny:{n % 2}",
                   probability={"click": [0.1 + n / 50, 0.6 - n / 40, 0.3], "buy": [0.01, 0.2 + n / 100, 0.05]})
        for n in range(12)
    ]  # fmt: skip
    log = [
        {"user": n, "item": 1 + n % 3, "time": start + (n + 1) * HOUR, "category": 1, "behaviour": kind}
        for n in range(12)
        for kind in (["view", "buy"] if n % 4 < 2 else ["view"])
    ]
    inbox.write(home, "1-1", told)
    predictions.land(home, terms, DAY)
    return home, terms, log


def test_served_numbers_are_those_of_scikit_learn_per_model(shop: tuple[Home, Contract, list[Row]]) -> None:
    home, terms, log = shop
    store(home, terms, log)
    manifest, _ = outcomes.join(home, terms, DAY)
    assert set(manifest.detail["served"]) == {"dtrn-tiny:0", "dtrn-tiny:1"}
    found = rows(home)
    for model, tasks in manifest.detail["served"].items():
        for task, measured in tasks.items():
            kept = [r for r in found if r["model"] == model and r[f"label_{task}"] != MASKED]
            label, probability = [r[f"label_{task}"] for r in kept], [r[f"p_{task}"] for r in kept]
            assert measured["positives"] + measured["negatives"] == len(kept) == (18 if task == "click" else 6)
            assert measured["positives"] == sum(label) > 0
            assert measured["auc"] == pytest.approx(roc_auc_score(label, probability))
            assert measured["logloss"] == pytest.approx(log_loss(label, probability, labels=[0, 1]))


def test_an_immature_day_waits_masked_and_is_joined_when_its_last_label_is_in(shop: tuple[Home, Contract, list[Row]]) -> None:
    home, terms, log = shop
    store(home, terms, log, until=DAY)
    manifest, built = outcomes.join(home, terms, DAY)
    assert built
    assert (manifest.detail["mature"], manifest.detail["waits_for"], manifest.detail["served"]) == (False, ["2026-03-30"], {})
    assert {r["label_click"] for r in rows(home)} == {r["label_buy"] for r in rows(home)} == {MASKED}
    assert outcomes.join(home, terms, DAY)[1] is False
    store(home, terms, log)
    manifest, built = outcomes.join(home, terms, DAY)
    assert (built, manifest.detail["mature"], manifest.counts["positives_click"]) == (True, True, 12)
    before = home.outcomes(DAY).read_bytes()
    assert outcomes.join(home, terms, DAY)[1] is False
    home.outcomes(DAY).unlink()
    assert outcomes.join(home, terms, DAY)[1] is True
    assert home.outcomes(DAY).read_bytes() == before


def test_a_late_event_changes_the_outcome_and_a_blocked_day_is_refused(shop: tuple[Home, Contract, list[Row]]) -> None:
    home, terms, log = shop
    store(home, terms, log)
    outcomes.join(home, terms, DAY)
    late = {"user": 0, "item": 2, "time": terms.day_start(DAY) + 24 * HOUR, "category": 1, "behaviour": "view"}
    store(home, terms, [*log, late])  # user 0 asked at midnight: 24 hours later still counts
    manifest, built = outcomes.join(home, terms, DAY)
    assert (built, manifest.counts["positives_click"]) == (True, 13)
    logs.write_events(home, terms, "2026-03-30", [], blocked="2 of 3 rows are bad")
    with pytest.raises(lake.Blocked, match="2 of 3 rows are bad"):
        outcomes.join(home, terms, DAY)


def test_items_never_shown_have_no_outcome_and_no_invented_number(tmp_path: Path) -> None:
    terms = logs.contract(logs.EXPOSURES)
    home = Home(tmp_path, terms.name)
    inbox.write(home, "1-1", [inbox.line(terms, "r", terms.day_start(DAY), 1, [1, 2])])
    store(home, terms, [])
    predictions.land(home, terms, DAY)
    served = outcomes.join(home, terms, DAY)[0].detail["served"]
    click = served["dtrn-tiny:1"]["click"]
    assert (click.pop("positives"), click.pop("negatives")) == (0, 0)
    assert set(click.values()) == {None}


def test_a_served_auc_has_the_interval_of_a_bootstrap_over_users() -> None:
    terms, random = logs.contract(logs.EVENTS), np.random.default_rng(4)
    user = random.integers(0, 60, 900)
    likes, trusted = (
        random.random(60),
        random.normal(0, 0.2, 60),
    )  # so that a user's rows are alike, and tell less than as many users
    click = (random.random(900) < 0.6 * likes[user]).astype(np.int8)
    p = np.clip(0.4 + 0.1 * click + random.normal(0, 0.1, 900) + trusted[user], 0, 1)
    buy = np.where(np.arange(900) < 20, click, MASKED)
    columns = {
        "model": ["dtrn-tiny:1"] * 900,
        "user": user * 7,
        "label_click": click,
        "p_click": p,
        "label_buy": buy,
        "p_buy": p,
    }
    served = outcomes.measure(terms, pa.table(columns))["dtrn-tiny:1"]
    drawn = []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(user == u) for u in random.choice(60, 60)])
        drawn.append(roc_auc_score(click[rows], p[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert served["click"]["auc"] == pytest.approx(roc_auc_score(click, p))
    assert served["click"]["auc_low"] == pytest.approx(low, abs=0.012)
    assert served["click"]["auc_high"] == pytest.approx(high, abs=0.012)
    by_row = [roc_auc_score(click[rows], p[rows]) for rows in random.integers(0, 900, (500, 900))]
    assert np.ptp(np.quantile(by_row, [0.025, 0.975])) < 0.7 * (high - low), "rows alone would promise too much"
    assert (served["buy"]["auc_low"], served["buy"]["auc_high"]) == (None, None), "twenty rows tell nothing"


def test_without_predictions_it_says_what_is_missing(tmp_path: Path) -> None:
    terms = logs.contract(logs.EVENTS)
    with pytest.raises(lake.Missing, match=f"predictions of {DAY} is needed"):
        outcomes.join(Home(tmp_path, terms.name), terms, DAY)
