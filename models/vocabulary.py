"""Raw keys → embedding rows. Each artifact holds its own sorted tables; row 0 is 'unknown' and is trained by id dropout.

A measure has no key of its own kind to remember: its table holds the edges of bins, and its row is the bin that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract import Contract
from models.requests import NULL_KEY, Ints, Requests, Sequences
from models.statistics import Statistics, days_of

Rows = NDArray[np.int32]

LARGE = 1 << 15
"""Keys and table of a search that is faster in the keys' order: a table past the cache is then walked, not jumped about in."""


@dataclass(frozen=True)
class Vocabulary:
    """Sorted distinct keys of each field; key i is row i + 1.

    Fields are named by the contract's `user_fields`, `item_fields`, `context_fields`, the column order of the arrays in
    `Requests`; a list has several columns of one field. The tables of the fields in `measures` are ascending edges: what lies
    below edge 0 is row 1. `items` and `users` remember the last features seen with each item (user), for requests that name
    only the id: (keys of the field 'item', Fi - 1) and (keys of the field 'user', Fu - 1). `statistics`: of 'item' and 'user',
    or none.
    """

    contract: Contract
    tables: dict[str, Ints]
    items: Ints
    users: Ints
    statistics: dict[str, Statistics]

    @classmethod
    def fit(cls, requests: Requests, contract: Contract, counted: Sequence[Requests] = ()) -> Vocabulary:
        """Every key of the training requests and of the histories that those requests read, no later ones.

        With statistics of the samples in `counted`, where there are some.
        """
        seen, when = [], []
        for action, tokens in enumerate(requests.sequences.tokens):
            # A request's end is strictly before it, so the union of the spans holds nothing from after the window.
            mark = np.zeros(len(tokens) + 1, np.int64)
            np.add.at(mark, requests.start[:, action], 1)
            np.add.at(mark, requests.end[:, action], -1)
            read = np.cumsum(mark[:-1]) > 0
            seen.append(tokens[read])
            when.append(requests.sequences.times[action][read])
        items = np.concatenate([*seen, requests.item])
        tables = {}
        for fields, columns in (
            (contract.user_fields, requests.user),
            (contract.item_fields, items),
            (contract.context_fields, requests.context),
        ):
            for field in dict.fromkeys(fields):
                keys = columns[:, [place for place, name in enumerate(fields) if name == field]]
                keys = keys[keys != NULL_KEY]
                measure = contract.kind(field) == "number"
                tables[field] = _edges(keys, contract.features[field].bins) if measure else _distinct(keys)
        return cls(
            contract,
            tables,
            _last_features(tables["item"], items, [*when, requests.time[requests.request]]),
            _last_features(tables["user"], requests.user, [requests.time]),
            Statistics.fit(contract, counted) if counted else {},
        )

    @cached_property
    def measures(self) -> frozenset[str]:
        return frozenset(name for name in self.contract.features if self.contract.kind(name) == "number")

    def sizes(self, fields: tuple[str, ...]) -> list[int]:
        """Embedding rows per field, 'unknown' included."""
        return [len(self.tables[f]) + (2 if f in self.measures else 1) for f in fields]

    def rows(self, field: str, keys: Ints) -> Rows:
        """Row of each key; 0 where the key is not in the table, or missing."""
        table = self.tables[field]
        if field in self.measures:
            bins = np.searchsorted(table, keys, side="right") + 1
            return np.where(keys == NULL_KEY, 0, bins).astype(np.int32)
        if not len(table):
            return np.zeros(keys.shape, np.int32)
        if min(len(table), keys.size) < LARGE:
            return _found(table, keys)
        order = np.argsort(keys, axis=None)
        out = np.empty(keys.size, np.int32)
        out[order] = _found(table, keys.ravel()[order])
        return out.reshape(keys.shape)

    def encode(self, requests: Requests) -> Requests:
        """The same requests with rows (int32) for keys in user, item, context and tokens, and what statistics tell of them.

        An item that is not in the table gets a negative number of its own (`stranger`): no row of an embedding, but a
        candidate can still be told from another and found again in a history.
        """
        sequences = requests.sequences
        return replace(
            requests,
            user=self._columns(self.contract.user_fields, requests.user),
            item=self._items(requests.item),
            context=self._columns(self.contract.context_fields, requests.context),
            told=self._told(requests) if self.statistics else None,
            sequences=Sequences(
                sequences.users,
                sequences.offsets,
                [self._items(tokens) for tokens in sequences.tokens],
                sequences.times,
            ),
        )

    def item_features(self, items: Ints) -> Ints:
        """(len, Fi - 1): the features last seen with these items, NULL_KEY where the item is unknown."""
        return self._features("item", self.items, items)

    def user_features(self, users: Ints) -> Ints:
        """(len, Fu - 1): as `item_features`, for users."""
        return self._features("user", self.users, users)

    def _features(self, field: str, features: Ints, keys: Ints) -> Ints:
        rows = self.rows(field, keys)
        out = np.full((len(keys), features.shape[1]), NULL_KEY, np.int64)
        out[rows > 0] = features[rows[rows > 0] - 1]
        return out

    def _told(self, requests: Requests) -> tuple[Rows, Rows]:
        day = days_of(self.contract, requests.time)
        user, item = self.statistics["user"], self.statistics["item"]
        return user.rows(requests.user[:, 0], day), item.rows(requests.item[:, 0], day[requests.request])

    def _items(self, keys: NDArray[Any]) -> Rows:
        rows = self._columns(self.contract.item_fields, keys)
        unknown = rows[:, 0] == 0
        rows[unknown, 0] = stranger(keys[unknown, 0])
        return rows

    def _columns(self, fields: tuple[str, ...], keys: NDArray[Any]) -> Rows:
        out = np.empty(keys.shape, np.int32)
        for place, field in enumerate(fields):
            out[:, place] = self.rows(field, keys[:, place])
        return out


def stranger(keys: Ints) -> Rows:
    """What stands for an item without a row: -1 … -2³¹, by multiplicative hashing (Knuth, TAOCP 3, 6.4).

    Two items of one history are taken for each other once in 2³¹ pairs.
    """
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (-1 - (mixed >> np.uint64(33)).astype(np.int64)).astype(np.int32)


def _edges(keys: Ints, bins: int) -> Ints:
    """Ascending edges that cut these keys into at most `bins` bins of about as many; each edge is one of the keys."""
    if not len(keys):
        return keys
    ordered = np.sort(keys)
    edges = np.unique(ordered[np.arange(1, bins) * len(keys) // bins])
    return np.asarray(edges[edges > ordered[0]], np.int64)


def _found(table: Ints, keys: Ints) -> Rows:
    """1 + the place of each key in `table`, which has some; 0 where it is not in it."""
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[place] == keys, place + 1, 0).astype(np.int32)


def _distinct(keys: NDArray[Any]) -> Ints:
    """As np.unique, which hashes whole numbers since numpy 2.3: on a million distinct keys sorting is nine times faster."""
    ordered = np.sort(keys, axis=None)
    return np.asarray(ordered[_ends(ordered)], np.int64)


def _ends(ordered: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the last of each run of equal keys stands."""
    return np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]


def _last_features(table: Ints, rows: NDArray[Any], times: list[Ints]) -> Ints:
    """For each key of `table`, all that are in `rows`: the features of its newest row there (key first, then features).

    `times`: of the rows, in parts; of rows of one moment the last counts.
    """
    out = np.full((len(table), rows.shape[1] - 1), NULL_KEY, np.int64)
    if not out.size:
        return out
    order = np.lexsort((np.concatenate(times), rows[:, 0]))
    last = order[_ends(rows[order, 0])]
    out[np.searchsorted(table, rows[last, 0])] = rows[last, 1:]  # NULL_KEY, the least, is overwritten by the key at place 0
    return out
