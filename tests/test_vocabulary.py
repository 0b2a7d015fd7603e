"""Keys to rows, unknown ones to row 0; and the features that were last seen with an item."""

from __future__ import annotations

import numpy as np

from models.requests import NULL_KEY, Requests, Sequences
from models.vocabulary import Vocabulary
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
    assert coded.sequences.tokens[0].tolist() == [[1, 4], [3, 5], [0, 0]]


def test_an_item_is_remembered_with_the_features_it_had_last() -> None:
    vocabulary = Vocabulary.fit(requests(), TERMS)
    assert vocabulary.item_features(np.array([30, 20, 50, 99])).tolist() == [[2], [4], [6], [NULL_KEY]]
    assert vocabulary.user_features(np.array([7, 8])).tolist() == [[3], [NULL_KEY]]
