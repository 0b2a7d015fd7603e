"""What a sample is told of its candidate's place in the histories: counted one event at a time here."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from models.batches import COUNTS, GAPS, Loader
from models.config import Recipe
from models.embeddings import Fields, Shape
from models.requests import Requests, Sequences

SECOND = 1000
YEAR = 31_557_600 * SECOND
ITEM, WORD, OTHER, SHOP = 0, 1, 2, 3  # columns: an item, a list of two entries, one feature


def history(random: np.random.Generator, events: int) -> Requests:
    """One request of six samples; views from 120 years ago to this second, carts of today alone, no buys."""
    counts = (events, 3, 0)
    now = 200 * YEAR
    ages = [np.exp(random.uniform(0, math.log(120 * YEAR), events)), random.integers(1, 900, 3), np.empty(0)]
    ages[0][0] = 120 * YEAR
    tokens: list[Any] = [
        np.stack([random.integers(low, 5, n) for low in (-1, 0, 0, 0)], axis=1).astype(np.int32) for n in counts
    ]
    sequences = Sequences.from_events([np.zeros(n, np.int64) for n in counts], tokens, [now - a.astype(np.int64) for a in ages])
    start, end = sequences.span(np.zeros(1, np.int64), np.array([now]), np.zeros(1, np.int64), (1000, 1000, 1000))
    item = np.stack([random.integers(low, 5, 6) for low in (-1, 0, 0, 0)], axis=1).astype(np.int32)
    item[0] = tokens[0][0]
    none = np.empty((6, 0), np.int32)
    label = np.zeros((6, 1), np.int8)
    return Requests(np.ones((1, 1), np.int32), np.array([now]), np.array([0, 6]), item, none, label, start, end, sequences)


def expected(
    requests: Requests, sample: int, action: int, columns: tuple[int, ...] | None, without: list[tuple[int, ...]]
) -> tuple[int, int]:
    """How many events (of those that share a known entry of these columns with the candidate, and none of those of `without`),
    how long ago the last one."""
    own = requests.item[sample]
    rows, times = requests.sequences.tokens[action], requests.sequences.times[action]
    ages = []
    for row, time in zip(rows, times, strict=True):
        shares = [{int(own[c]) for c in of if own[c] != 0} & {int(row[c]) for c in of} for of in (columns or (), *without)]
        if columns is None or (shares[0] and not any(shares[1:])):
            ages.append((int(requests.time[0]) - int(time)) / SECOND)
    count = min(7, math.floor(math.log2(len(ages))) + 1) if ages else 0
    return count, 0 if not ages or min(ages) < 1 else min(31, math.floor(math.log2(min(ages))) + 1)


@pytest.mark.parametrize("events", [1, 40, 400])
@pytest.mark.parametrize(
    ("slots", "fields"),
    [
        ((1, 2, 1), [(ITEM,), (WORD, OTHER), (SHOP,)]),
        ((1, 1, 2), [(ITEM,), (WORD,), (OTHER, SHOP)]),
        (None, [(ITEM,), (WORD,), (OTHER,), (SHOP,)]),
        ((), []),
    ],
)
def test_a_batch_tells_what_a_count_of_each_history_event_by_event_tells(
    events: int, slots: tuple[int, ...] | None, fields: list[tuple[int, ...]]
) -> None:
    for seed in range(8):
        requests = history(np.random.default_rng([events, seed]), events)
        (batch,) = Loader(requests, slots).batches(100)
        kinds: list[tuple[tuple[int, ...] | None, list[tuple[int, ...]]]] = [(None, [])] if fields else []
        kinds += [(columns, []) for columns in fields]
        kinds += [(columns, fields[:place]) for place, columns in enumerate(fields) if place]
        assert batch.match_BAK2.shape == (6, 3, len(kinds), 2)
        for sample in range(6):
            for action in range(3):
                for kind, (columns, without) in enumerate(kinds):
                    count, gap = expected(requests, sample, action, columns, without)
                    begin = (action * len(kinds) + kind) * (COUNTS + GAPS)
                    told = batch.match_BAK2[sample, action, kind].tolist()
                    assert told == [begin + count, begin + COUNTS + gap], (seed, sample, action, kind)


def test_the_histories_here_reach_the_last_bucket_of_counts_and_of_gaps() -> None:
    many, old = (history(np.random.default_rng([n, 0]), n) for n in (400, 1))
    assert expected(many, 0, 0, None, [])[0] == COUNTS - 1
    assert expected(old, 0, 0, None, [])[1] == GAPS - 1


@pytest.mark.parametrize("slots", [(1, 2, 1), (1, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("events", [1, 3, 90])
def test_a_pooled_history_is_the_mean_of_its_tokens_each_field_looked_up_a_lists_entries_averaged(
    events: int, slots: tuple[int, ...]
) -> None:
    requests = history(np.random.default_rng([events, 5]), events)
    torch.manual_seed(1)
    shape = Shape((2,), (5,) * len(slots), (), tasks=1, actions=3, length=1000, slots=(1, *slots))
    fields = Fields(Recipe(bottom="pooled", width=4), shape).double()
    (batch,) = Loader(requests).batches(100)
    *_, means = fields.pooled(batch)
    assert means.shape == (1, 3, 4)
    ends = list(itertools.accumulate(slots))
    for action in range(3):
        total = torch.zeros(4).double()
        for row in requests.sequences.tokens[action]:
            for table, end, count in zip(fields.item, ends, slots, strict=True):
                assert isinstance(table, torch.nn.Embedding)
                total += table.weight[[int(entry) for entry in row[end - count : end] if entry > 0] or [0]].mean(0)
        torch.testing.assert_close(means[0, action], total / max(len(requests.sequences.tokens[action]), 1))
