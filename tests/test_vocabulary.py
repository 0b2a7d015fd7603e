"""Keys to rows, unknown ones to row 0; and the features that were last seen with an item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models import vocabulary as module
from models.requests import NULL_KEY, Requests, Sequences
from models.vocabulary import Vocabulary, stranger
from tests.logs import EVENTS, contract

TERMS = contract(
    EVENTS, user_features={"segment": "segment"}, context={}, behaviours={"view": {"values": ["view"]}},
    tasks={"click": {"behaviours": ["view"], "horizon_hours": 24}},
)  # fmt: skip


def requests() -> Requests:
    """Three requests of user 7 with items 30, 20, 30; the last history token (item 99) comes after every request."""
    sequences = Sequences.from_events(
        [np.array([7, 7, 7])], [np.array([[20, 5], [50, 6], [99, 9]])], [np.array([100, 150, 900])]
    )
    time = np.array([200, 300, 400])
    start, end = sequences.span(np.full(3, 7), time, np.zeros(3, np.int64), [2])
    item = np.array([[30, 1], [20, 4], [30, 2]])
    return Requests(
        np.array([[7, 3]] * 3),
        time,
        np.arange(4),
        item,
        np.empty((3, 0), np.int64),
        np.zeros((3, 1), np.int8),
        start,
        end,
        sequences,
    )


def test_rows_are_the_sorted_keys_of_training_and_of_the_histories_it_read() -> None:
    vocabulary = Vocabulary.fit(requests(), TERMS)
    assert vocabulary.tables["item"].tolist() == [20, 30, 50], "99 was seen by no request"
    assert vocabulary.tables["category"].tolist() == [1, 2, 4, 5, 6]
    assert vocabulary.rows("item", np.array([30, 31, 20, NULL_KEY])).tolist() == [2, 0, 1, 0]
    assert vocabulary.sizes(("item", "category")) == [4, 6]
    coded = vocabulary.encode(requests())
    assert coded.item.tolist() == [[2, 1], [1, 3], [2, 2]]
    assert coded.sequences.tokens[0].tolist() == [[1, 4], [3, 5], [stranger(np.array([99]))[0], 0]]


def test_items_without_a_row_stay_apart_and_the_same_in_candidates_and_histories() -> None:
    keys = np.concatenate([np.arange(-(2**63), -(2**63) + 1000), np.arange(1000), 2**31 * np.arange(1, 1000), [2**63 - 1]])
    rows = stranger(keys)
    assert rows.dtype == np.int32
    assert rows.max() < 0
    assert len(np.unique(rows)) == len(keys)
    raw = requests()
    item = raw.item.copy()
    item[0, 0] = 99
    coded = Vocabulary.fit(raw, TERMS).encode(replace(raw, item=item))
    assert coded.item[0, 0] == coded.sequences.tokens[0][2, 0] < 0


def test_an_item_is_remembered_with_the_features_it_had_last() -> None:
    vocabulary = Vocabulary.fit(requests(), TERMS)
    assert vocabulary.item_features(np.array([30, 20, 50, 99])).tolist() == [[2], [4], [6], [NULL_KEY]]
    assert vocabulary.user_features(np.array([7, 8])).tolist() == [[3], [NULL_KEY]]


@pytest.mark.parametrize("large", [1, 100, module.LARGE], ids=["always in order", "some", "never in order"])
def test_tables_rows_and_last_features_are_what_a_dictionary_says(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", large)
    random = np.random.default_rng(large)
    keys = random.integers(-(2**62), 2**62, 80)
    user = random.choice(keys, 300)
    tokens = np.stack([random.choice(np.append(keys[:70], NULL_KEY), 300), random.integers(0, 9, 300)], axis=1)
    moments = random.permutation(1000)  # no two at once, but a request's own items: 'last' is one row
    sequences = Sequences.from_events([user], [tokens], [moments[:300]])
    asked, time = random.choice(keys, 40), moments[300:340]
    start, end = sequences.span(asked, time, np.zeros(40, np.int64), [2])
    item = np.stack([random.choice(np.append(keys[20:], NULL_KEY), 120), random.integers(10, 19, 120)], axis=1)
    drawn = Requests(
        np.stack([asked, random.integers(0, 5, 40)], axis=1), time, np.arange(0, 121, 3), item, np.empty((120, 0), np.int64),
        np.zeros((120, 1), np.int8), start, end, sequences,
    )  # fmt: skip
    read = set().union(*(range(b, e) for b, e in zip(start[:, 0], end[:, 0], strict=True)))
    rows = [(int(sequences.times[0][place]), *sequences.tokens[0][place].tolist()) for place in read]
    rows += [(int(time[place // 3]), *row) for place, row in enumerate(item.tolist())]
    last = {key: feature for _, key, feature in sorted(rows, key=lambda row: row[0])}
    last.pop(NULL_KEY, None)
    fitted = Vocabulary.fit(drawn, TERMS)
    assert fitted.tables["item"].tolist() == sorted(last)
    assert fitted.tables["user"].tolist() == sorted(set(asked.tolist()))
    assert fitted.item_features(np.array(sorted(last)))[:, 0].tolist() == [last[key] for key in sorted(last)]
    seen = dict(zip(asked[np.argsort(time)].tolist(), drawn.user[np.argsort(time), 1].tolist(), strict=True))
    assert fitted.user_features(np.array(sorted(seen)))[:, 0].tolist() == [seen[key] for key in sorted(seen)]
    row = {key: place + 1 for place, key in enumerate(sorted(last))}
    mixed = random.choice(np.append(keys, [NULL_KEY, 5, np.iinfo(np.int64).max]), (150, 2))
    assert fitted.rows("item", mixed).tolist() == [[row.get(key, 0) for key in pair] for pair in mixed.tolist()]
