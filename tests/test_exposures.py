"""The drawn exposure log is what its formula says; and the two ways of training on it differ in what they claim, no more."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import exposures, quality
from benchmarks.ours import network_of, shape_of, train_on
from models.batches import Loader
from models.metrics import auc
from models.requests import Requests
from models.vocabulary import Vocabulary
from tests.shops import enliven

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def drawn() -> exposures.Drawn:
    return exposures.draw(3000, 200, 7)


@pytest.fixture(scope="module")
def rows(drawn: exposures.Drawn) -> tuple[Requests, Vocabulary]:
    vocabulary = Vocabulary.fit(drawn.requests, exposures.CONTRACT)
    return vocabulary.encode(drawn.requests), vocabulary


# the log


def test_a_label_is_drawn_with_the_probability_that_its_formula_gives(drawn: exposures.Drawn) -> None:
    requests, p = drawn.requests, drawn.probability
    assert p.shape == requests.label.shape == (len(requests), 3)
    expected = np.array(list(exposures.RATES.values()))
    assert (np.abs(p.mean(0) - expected) < 0.6 * expected).all()
    spread = np.sqrt((p * (1 - p)).sum(0))
    assert (np.abs(requests.label.sum(0) - p.sum(0)) < 4 * spread).all()
    assert all(auc(requests.label[:, t], p[:, t]) > 0.65 for t in range(3))
    # Two impressions of one item in one request differ in their position alone, and it fades all logits alike.
    request, logit = requests.request, np.log(p / (1 - p))
    pairs: dict[tuple[int, int], list[int]] = {}
    for sample, (where, item) in enumerate(zip(request.tolist(), requests.item[:, 0].tolist(), strict=True)):
        pairs.setdefault((where, item), []).append(sample)
    twice = [samples for samples in pairs.values() if len(samples) > 1]
    assert len(twice) > 20
    for first, second, *_ in twice:
        further = requests.context[second, 1] - requests.context[first, 1]
        assert logit[first] - logit[second] == pytest.approx(exposures.FADING * further)


def test_without_a_history_the_item_and_the_position_say_all_and_with_one_it_counts(drawn: exposures.Drawn) -> None:
    requests, p = drawn.requests, drawn.probability
    logit = np.log(p / (1 - p)) + exposures.FADING * requests.context[:, 1:]
    for task, behaviour in enumerate(exposures.FOLLOWS):
        action = list(exposures.ACTIONS).index(behaviour)
        empty = (requests.end == requests.start)[requests.request, action]
        spread = {True: [0.0], False: [0.0]}
        for item in np.unique(requests.item):
            for without, spreads in spread.items():
                own = logit[(requests.item[:, 0] == item) & (empty == without), task]
                spreads.append(float(np.ptp(own)) if len(own) else 0.0)
        assert max(spread[True]) < 1e-9
        assert 1 < max(spread[False]) <= 2 * exposures.STRENGTH
        assert empty.sum() > 100 or behaviour == "view"


def test_histories_end_before_the_request_and_are_long_tailed(drawn: exposures.Drawn) -> None:
    requests = drawn.requests
    sequences = requests.sequences
    for request in range(0, len(requests.time), 7):
        place = int(np.searchsorted(sequences.users, requests.user[request, 0]))
        assert sequences.users[place] == requests.user[request, 0]
        for action, times in enumerate(sequences.times):
            own = slice(sequences.offsets[action][place], sequences.offsets[action][place + 1])
            before = int((times[own] < requests.time[request]).sum())
            assert requests.end[request, action] - own.start == before
            assert requests.end[request, action] - requests.start[request, action] == min(before, exposures.LENGTH)
    views = (requests.end - requests.start)[:, 0]
    assert views.max() == exposures.LENGTH
    assert np.median(views) < views.mean()


def test_a_seed_draws_one_log_and_what_is_saved_is_read_back(drawn: exposures.Drawn, tmp_path: Path) -> None:
    exposures.save(drawn.requests, tmp_path / "log")
    same(exposures.load(tmp_path / "log"), drawn.requests)
    same(exposures.draw(3000, 200, 7).requests, drawn.requests)
    assert not np.array_equal(exposures.draw(3000, 200, 8).requests.item[:100], drawn.requests.item[:100])


def same(one: Requests, other: Requests) -> None:
    for field in fields(Requests):
        if field.name not in ("sequences", "told"):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name
    for name in ("offsets", "tokens", "times"):
        pairs = zip(getattr(one.sequences, name), getattr(other.sequences, name), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    assert np.array_equal(one.sequences.users, other.sequences.users)


# the two ways of training


def test_samples_one_by_one_are_the_same_samples(rows: tuple[Requests, Vocabulary]) -> None:
    requests, vocabulary = rows
    network = network_of("dtrn", shape_of(exposures.CONTRACT, vocabulary, 300), 2)
    enliven(network)
    network.eval()
    part = requests.take(np.arange(30))
    alone = quality.one_by_one(part)
    assert len(alone.time) == len(alone) == len(part)
    with torch.no_grad():
        torch.testing.assert_close(network(next(iter(Loader(alone)))), network(next(iter(Loader(part)))), atol=1e-4, rtol=1e-4)


def test_what_is_held_out_comes_later_and_nothing_is_lost(drawn: exposures.Drawn) -> None:
    seen, held_out = quality.split(drawn.requests, 0.2)
    assert seen.time.max() <= held_out.time.min()
    assert len(held_out.time) == round(0.2 * len(drawn.requests.time))
    assert len(seen) + len(held_out) == len(drawn.requests)


def test_padding_stays_below_the_events_themselves() -> None:
    """Padded to the longest of the batch, three tokens in four would be no events: histories are long-tailed."""
    requests = exposures.draw(4_000, 500, 1).requests
    (batch,) = Loader(Vocabulary.fit(requests, exposures.CONTRACT).encode(requests), ()).batches(10**6)
    lengths = requests.end - requests.start
    events, histories = int(lengths.sum()), int((lengths > 0).sum())
    assert histories * int(lengths.max()) > 3 * events
    assert events <= len(batch.token_QF) < 1.5 * events
    assert sum(int(bucket.present_NL.sum()) for bucket in batch.buckets) == events
    assert sum(len(bucket.present_NL) for bucket in batch.buckets) == histories


def test_neither_way_is_trained_on_what_it_is_scored_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[bool] = []

    def watched(model: str, way: Any, seen: Any, held_out: Any, **named: Any) -> list[float]:
        cut.append(bool(seen.time.max() <= held_out.time.min()))
        return [0.5, 0.5, 0.5]

    monkeypatch.setattr(quality, "reached", watched)
    quality.compare(["mmoe"], [1, 2], samples=1000, items=50, rows=100)
    assert cut == [True] * 4


@pytest.mark.parametrize("steps", [1, 3])
def test_the_plain_optimiser_is_adam_over_every_row(rows: tuple[Requests, Vocabulary], steps: int) -> None:
    """A step written out (Kingma & Ba, 2015) on the item table: rows that the batches leave out decay and no more."""
    requests, vocabulary = rows
    network = network_of("mmoe", shape_of(exposures.CONTRACT, vocabulary, 300), 2)
    weight = network.bottom.fields.item[0].weight
    rate, decay = 0.01, 0.02
    optimiser = quality.adam_over_all(network, learning_rate=rate, embedding_decay=decay)
    expected, m, v = (x.detach().double() for x in (weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)))
    untouched = expected[-1].clone()
    for step, batch in zip(range(1, steps + 1), Loader(requests).batches(50), strict=False):
        train_on(network, optimiser, iter([batch]))
        gradient = weight.grad.double()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected *= 1 - decay
        expected -= rate * (m / (1 - 0.9**step)) / (torch.sqrt(v / (1 - 0.999**step)) + 1e-8)
    torch.testing.assert_close(weight.detach().double(), expected, atol=1e-6, rtol=1e-4)
    assert torch.allclose(weight[-1].double(), untouched * (1 - decay) ** steps)
