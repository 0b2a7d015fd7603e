"""What earlier days say of an id, against a count of all samples, one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from models import baselines
from models.contract import Contract
from models.requests import MASKED, Requests
from models.statistics import BINS, REACH, STEP, Statistics, days_of
from models.vocabulary import Vocabulary
from tests import logs
from tests.shops import shop

DAYS = ("2026-03-26", "2026-03-27", "2026-03-29", "2026-03-30")  # a day without a sample, and one of 23 hours
ZONE = {"zone": "Europe/Berlin"}


def terms(hours: float) -> Contract:
    tasks = {
        "click": {"behaviours": ["view"], "horizon_hours": hours},
        "buy": {"behaviours": ["buy"], "horizon_hours": 1, "given": "click"},
    }
    return logs.contract(logs.EVENTS, time={**logs.EVENTS["time"], **ZONE}, tasks=tasks)


def parts(contract: Contract) -> list[Requests]:
    return [shop(contract, day, seed=seed, requests=40) for seed, day in enumerate(DAYS)]


def day_of(contract: Contract, requests: Requests) -> list[date]:
    return [contract.day_of(int(t)) for t in requests.time]


def expected(contract: Contract, seen: list[Requests], kind: str, key: int, asked: date, horizon_days: int) -> list[float]:
    """By task the log of the smoothed rate over that of all ids, of the samples whose labels `asked` finds known."""
    own, every = [[0, 0], [0, 0]], [[1, 2], [1, 2]]
    for requests in seen:
        days = day_of(contract, requests)
        for sample, request in enumerate(requests.request):
            if days[request] + timedelta(days=1 + horizon_days) > asked:
                continue
            sample_key = requests.item[sample, 0] if kind == "item" else requests.user[request, 0]
            for task, label in enumerate(requests.label[sample]):
                if label != MASKED:
                    for tally in (every[task], own[task]) if sample_key == key else (every[task],):
                        tally[0] += int(label == 1)
                        tally[1] += 1
    base = [positive / known for positive, known in every]
    return [math.log((p + 20 * b) / ((n + 20) * b)) for (p, n), b in zip(own, base, strict=True)]


@pytest.mark.parametrize(("hours", "horizon_days"), [(1, 1), (24, 1), (25, 2)])
@pytest.mark.parametrize("kind", ["item", "user"])
def test_it_is_what_a_count_of_the_known_labels_says(hours: float, horizon_days: int, kind: str) -> None:
    contract = terms(hours)
    seen = parts(contract)
    statistics = Statistics.fit(contract, seen)[kind]
    asked = shop(contract, "2026-04-02", seed=9, requests=10)
    told_at_all = 0
    for requests in [*seen, asked]:
        days = days_of(contract, requests.time)
        assert [date.fromordinal(d) for d in days] == day_of(contract, requests)
        keys = requests.item[:, 0] if kind == "item" else requests.user[requests.request, 0]
        values = statistics.values(keys, days[requests.request])
        bins = statistics.rows(keys, days[requests.request]) - BINS * np.arange(2) - REACH
        for sample in range(0, len(requests), 17):
            wanted = expected(
                contract, seen, kind, int(keys[sample]), date.fromordinal(days[requests.request[sample]]), horizon_days
            )
            assert values[sample] == pytest.approx(wanted, abs=1e-12)
            assert bins[sample] == pytest.approx(np.clip(STEP * np.array(wanted), -REACH, REACH), abs=0.5)
            told_at_all += any(wanted)
    assert told_at_all > 20


def test_an_id_far_from_the_rate_of_all_stays_in_its_tasks_rows() -> None:
    """An item that is always clicked, or never, of many samples where hardly any is: further from 0 than there are bins."""
    contract = terms(1)
    (seen, *_) = parts(contract)
    label = np.zeros_like(seen.label)
    loved = seen.item[:, 0] == seen.item[0, 0]
    label[loved] = 1
    many = [replace(seen, label=0 * label, item=np.full_like(seen.item, 2000 + n)) for n in range(400)]
    many.append(replace(seen, label=label))
    told = Statistics.fit(contract, many)["item"]
    asked = np.unique(np.concatenate([part.item[:, 0] for part in many]))
    day = np.full(len(asked), date(2026, 4, 30).toordinal())
    assert (STEP * told.values(asked, day)).max() > REACH + 1
    rows = told.rows(asked, day)
    assert (rows // BINS == np.arange(2)).all()
    assert rows.max() == 2 * BINS - 1


def test_a_label_that_is_not_yet_known_says_nothing_whatever_it_is() -> None:
    contract = terms(24)
    seen = parts(contract)
    random = np.random.default_rng(3)

    def rewritten(requests: Requests) -> Requests:
        label: Any = random.choice([-1, 0, 1], requests.label.shape).astype(np.int8)
        return replace(requests, label=label, item=random.permutation(requests.item), user=random.permutation(requests.user))

    asked = seen[2]
    days = days_of(contract, asked.time)
    before = Statistics.fit(contract, seen)["item"].rows(asked.item[:, 0], days[asked.request])
    later = Statistics.fit(contract, [*seen[:2], *map(rewritten, seen[2:])])["item"]
    assert np.array_equal(later.rows(asked.item[:, 0], days[asked.request]), before)
    earlier = Statistics.fit(contract, [seen[0], rewritten(seen[1]), *seen[2:]])["item"]  # known just now
    assert not np.array_equal(earlier.rows(asked.item[:, 0], days[asked.request]), before)


def test_what_an_artifact_keeps_says_the_same_of_later_days_and_nothing_of_earlier_ones() -> None:
    contract = terms(24)
    whole = Statistics.fit(contract, parts(contract))
    kept = Statistics.read(Statistics.kept(whole))
    newest = date(2026, 4, 1).toordinal()  # when the last day's labels are known
    for kind, statistics in whole.items():
        keys = np.append(statistics.keys, [10**15, -1])
        for day in (newest, newest + 1, newest + 400):
            days = np.full(len(keys), day)
            assert np.array_equal(kept[kind].values(keys, days), statistics.values(keys, days))
            assert not kept[kind].values(keys, days)[-2:].any()
            assert kept[kind].values(keys, days)[:-2].any()
        assert not kept[kind].values(keys, np.full(len(keys), newest - 1)).any()
        assert len(kept[kind].days) == len(statistics.keys)


def test_of_no_sample_at_all_nothing_is_said() -> None:
    contract = terms(24)
    none = shop(contract, "2026-03-26", seed=1).take(np.empty(0, np.int64))
    for statistics in Statistics.read(Statistics.kept(Statistics.fit(contract, [none]))).values():
        assert statistics.values(np.array([1, 2]), np.array([1, 10**6])).tolist() == [[0, 0], [0, 0]]


def test_no_sample_is_told_a_label_of_its_own_day_by_a_model_or_by_the_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where labels are known at once, as in an exposure log, the day before is the last that may speak."""
    monkeypatch.setattr(Contract, "horizon_days", 0)
    contract = terms(1)
    seen = parts(contract)
    others = [replace(part, label=np.where(part.label == MASKED, MASKED, 1 - part.label)) for part in seen]
    flipped = {
        "before": Statistics.fit(contract, [*others[:1], *seen[1:]]),
        "own": Statistics.fit(contract, [seen[0], others[1], *seen[2:]]),
        "after": Statistics.fit(contract, [*seen[:2], *others[2:]]),
    }
    vocabulary = Vocabulary.fit(seen[1], contract, seen)
    assert vocabulary.statistics

    def told(statistics: dict[str, Statistics]) -> list[Any]:
        rows = replace(vocabulary, statistics=statistics).encode(seen[1]).told
        assert rows
        return [*rows, baselines._features(contract, statistics, seen[1])]

    true = told(vocabulary.statistics)
    for when, statistics in flipped.items():
        for here, there in zip(told(statistics), true, strict=True):
            assert np.array_equal(here, there, equal_nan=True) == (when != "before"), when
