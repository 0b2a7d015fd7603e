"""Popularity and the counted features against their definitions, written out row by row."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from models import baselines
from models.baselines import LightGBM, Popularity, _features, count_features, feature_names, load
from models.contract import Contract
from models.requests import NULL_KEY, Requests, Sequences, group
from models.statistics import Statistics
from tests import logs, shops

HOUR = 3_600_000


def random_requests(terms: Contract, seed: int, samples: int = 300) -> Requests:
    """Requests over two days of a small crowded world, with histories that reach both sides of every request."""
    random = np.random.default_rng(seed)
    start, end = terms.day_start("2026-03-30"), terms.day_end("2026-03-31")
    users: list[Any] = [random.integers(0, 6, 200) for _ in terms.actions]
    tokens: list[Any] = [
        np.stack([random.integers(0, 9, 200), random.choice([0, 1, NULL_KEY], 200)], axis=1) for _ in terms.actions
    ]
    times: list[Any] = [random.integers(start - 120 * HOUR, end, 200) for _ in terms.actions]
    sequences = Sequences.from_events(users, tokens, times)
    user, time = random.integers(0, 8, samples), start + random.integers(0, 40, samples) * HOUR
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    offsets = group(user, time)
    first = offsets[:-1]
    since = np.array([terms.history_start(terms.day_of(int(t))) for t in time[first]])
    begin, stop = sequences.span(user[first], time[first], since, terms.lengths)
    return Requests(
        user[first][:, None], time[first], offsets,
        np.stack([random.integers(0, 10, samples), random.choice([0, 1, NULL_KEY], samples)], axis=1),
        random.integers(0, 5, (samples, len(terms.context_fields))),
        random.choice([-1, 0, 0, 1], (samples, len(terms.tasks))).astype(np.int8), begin, stop, sequences,
    )  # fmt: skip


def test_popularity_is_the_smoothed_rate_of_the_definition(tmp_path: Path) -> None:
    terms = logs.contract(logs.EVENTS)
    requests = random_requests(terms, 1)
    Popularity.fit(terms, requests).save(tmp_path / "p")
    model = load(tmp_path / "p")
    asked = random_requests(terms, 2)
    scores = model.score(asked)
    for row in range(len(asked)):
        for task in range(2):
            known = requests.label[:, task] >= 0
            base = (requests.label[known, task] == 1).mean()
            mine = known & (requests.item[:, 0] == asked.item[row, 0])
            expected = ((requests.label[mine, task] == 1).sum() + 20 * base) / (mine.sum() + 20)
            assert scores[row, task] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("chunk", [7, baselines.CHUNK])
def test_counted_features_are_those_of_a_loop_over_the_history(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "CHUNK", chunk)
    terms = logs.contract(logs.EVENTS)
    asked = random_requests(terms, 3, 120)
    names = feature_names(terms)
    x = count_features(terms, asked)
    assert x.shape == (120, len(names))
    sequences = asked.sequences
    for row, request in enumerate(asked.request):
        got = dict(zip(names, x[row], strict=True))
        midnight = terms.day_start(terms.day_of(int(asked.time[request])))
        for a, action in enumerate(terms.actions):
            span = range(asked.start[request, a], asked.end[request, a])
            past = [(*map(int, sequences.tokens[a][n]), int(sequences.times[a][n])) for n in span]
            _agrees(got, f"{action}_count", f"{action}_recency", past, int(asked.time[request]))
            item, category = map(int, asked.item[row])
            like = [p for p in past if p[1] == category != NULL_KEY]
            kinds = {
                "same_item": [p for p in past if p[0] == item],
                "same_category": like,
                "first_same_category": [p for p in like if p[0] != item],
            }
            for kind, same in kinds.items():
                _agrees(got, f"{action}_{kind}_count", f"{action}_{kind}_recency", same, int(asked.time[request]))
            oldest = terms.history_start(terms.day_of(int(asked.time[request])))
            counted = (sequences.times[a] >= oldest) & (sequences.times[a] < midnight)
            everybody = ((sequences.tokens[a][:, 0] == asked.item[row, 0]) & counted).sum()
            assert got[f"{action}_item_popularity"] == everybody
        side = asked.item[row, 1]
        assert math.isnan(got["category"]) if side == NULL_KEY else got["category"] == side


def test_of_a_list_one_entry_in_common_is_enough() -> None:
    tags = {"column": "tags", "kind": "text", "separator": "|", "most": 2}
    terms = logs.contract(logs.EVENTS, item_features={"tags": tags, "category": "category"})
    random = np.random.default_rng(8)

    def drawn(rows: int) -> Any:
        return np.stack([random.integers(0, 9, rows), *(random.choice([0, 1, 2, 3, NULL_KEY], rows) for _ in range(3))], axis=1)

    asked = random_requests(logs.contract(logs.EVENTS), 3, 120)
    told = replace(asked.sequences, tokens=[drawn(len(rows)) for rows in asked.sequences.tokens])
    asked = replace(asked, item=drawn(len(asked)), sequences=told)
    names, x = feature_names(terms), count_features(terms, asked)
    assert x.shape == (120, len(names))
    for row, request in enumerate(asked.request):
        for a, action in enumerate(terms.actions):
            counts = dict.fromkeys(("same_item", "same_tags", "same_category", "first_same_tags", "first_same_category"), 0)
            for place in range(asked.start[request, a], asked.end[request, a]):
                own, other = (set(r[1:3].tolist()) - {NULL_KEY} for r in (asked.item[row], told.tokens[a][place]))
                item, category = (bool(asked.item[row, c] == told.tokens[a][place, c] != NULL_KEY) for c in (0, 3))
                common = bool(own & other)
                counts["same_item"] += item
                counts["same_tags"] += common
                counts["same_category"] += category
                counts["first_same_tags"] += common and not item
                counts["first_same_category"] += category and not common and not item
            assert {name: x[row, names.index(f"{action}_{name}_count")] for name in counts} == counts


def _agrees(got: dict[str, float], count: str, recency: str, past: list[tuple[int, ...]], now: int) -> None:
    assert got[count] == len(past)
    if past:
        assert got[recency] == pytest.approx(math.log1p((now - max(p[2] for p in past)) / HOUR), abs=1e-12)
    else:
        assert math.isnan(got[recency])


def test_lightgbm_learns_a_counted_signal_and_comes_back_the_same(tmp_path: Path) -> None:
    terms = logs.contract(logs.EVENTS)
    training, validation, asked = (random_requests(terms, seed, 3000) for seed in (4, 5, 6))
    for requests in (training, validation, asked):
        # The first task asks whether the user viewed the candidate's item; the second never happens.
        viewed = count_features(terms, requests)[:, feature_names(terms).index("view_same_item_count")] > 0
        requests.label[:, 0], requests.label[:, 1] = viewed, 0
    model = LightGBM.fit(terms, training, validation)
    model.save(tmp_path / "l")
    scores = model.score(asked)
    assert scores[asked.label[:, 0] == 1, 0].min() > scores[asked.label[:, 0] == 0, 0].max()
    assert (scores[:, 1] == 0).all(), "a task with one class keeps its base rate"
    assert np.array_equal(load(tmp_path / "l").score(asked), scores)
    assert np.array_equal(LightGBM.fit(terms, training, validation).score(asked), scores)


def test_nothing_to_train_on_is_said() -> None:
    terms = logs.contract(logs.EVENTS)
    empty = random_requests(terms, 1).take(np.empty(0, np.int64))
    with pytest.raises(ValueError, match="no training samples"):
        Popularity.fit(terms, empty)
    with pytest.raises(ValueError, match="no training samples"):
        LightGBM.fit(terms, empty, empty)


def test_lightgbm_reads_the_statistics_of_all_known_days_and_keeps_them(tmp_path: Path) -> None:
    contract = shops.terms()
    drawn = shops.shop(contract, "2026-03-27", seed=1, requests=600)
    late = np.arange(600) % 2 * 72 * shops.HOUR
    both = replace(drawn, time=drawn.time + late)  # half of them three days later, when what came of the others is known
    held_out, asked = (shops.shop(contract, day, seed=7, requests=100) for day in ("2026-03-31", "2026-04-20"))
    model = LightGBM.fit(contract, both, held_out)
    for kind, statistics in Statistics.fit(contract, [both, held_out]).items():
        assert np.array_equal(model.statistics[kind].sums, statistics.sums)
    before = model.score(asked)
    other = Statistics.fit(contract, [replace(both, label=1 - both.label.clip(0))])
    assert not np.array_equal(replace(model, statistics=other).score(asked), before)
    model.save(tmp_path / "kept")
    assert np.array_equal(LightGBM.load(tmp_path / "kept").score(asked), before)


def test_lightgbm_learns_and_stops_by_known_labels_alone_and_reads_its_users_statistics() -> None:
    contract = shops.terms()
    training, held_out, asked = (shops.shop(contract, day, seed=n, requests=400) for n, day in
                                 enumerate(("2026-03-27", "2026-03-31", "2026-04-20")))  # fmt: skip
    masked = [replace(part, label=part.label.copy()) for part in (training, held_out)]
    for part in masked:
        part.label[::2, 1] = -1
    model = LightGBM.fit(contract, masked[0], masked[1])
    statistics = Statistics.fit(contract, masked)
    x, x_held_out = (_by_definition(contract, statistics, part) for part in masked)
    expected = _by_definition(contract, statistics, asked)
    assert np.array_equal(_features(contract, statistics, asked), expected, equal_nan=True)
    own, stop = (part.label[:, 1] >= 0 for part in masked)
    data = lightgbm.Dataset(x[own], masked[0].label[own, 1])
    valid = lightgbm.Dataset(x_held_out[stop], masked[1].label[stop, 1], reference=data)
    terms = {
        "objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 50, "lambda_l2": 1.0,
        "seed": contract.training.seed, "deterministic": True, "force_row_wise": True, "verbosity": -1, "num_threads": 2,
    }  # fmt: skip
    stopping = lightgbm.early_stopping(20, verbose=False)
    oracle = lightgbm.train(terms, data, 300, valid_sets=[valid], callbacks=[stopping])
    assert oracle.best_iteration < 300
    assert np.array_equal(model.score(asked)[:, 1], oracle.predict(expected))


def _by_definition(contract: Contract, statistics: dict[str, Statistics], part: Requests) -> Any:
    """The counted features, and of the item and then of the user their statistics, a sample at a time."""
    rows = []
    for sample, request in enumerate(part.request):
        day = np.array([contract.day_of(int(part.time[request])).toordinal()])
        of_item = statistics["item"].values(part.item[sample : sample + 1, 0], day)[0]
        of_user = statistics["user"].values(part.user[request : request + 1, 0], day)[0]
        rows.append([*of_item, *of_user])
    return np.concatenate([count_features(contract, part), rows], axis=1)
