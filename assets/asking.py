"""Samples as the messages that a client would send: keys turned back into what the log wrote, for parity and replay.

So both go through the door as everybody does, the keys of texts and measures included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ibis.backends.duckdb import Backend

from assets import lake, reading
from models.contract import Contract
from models.home import EARLIER_DAY, Home
from models.keys import key_numbers, text_key
from models.requests import NULL_KEY, Ints

Message = dict[str, Any]


class Asking:
    """Messages in the words of one log. `texts`: field of kind text → key → what was written, over the days' events."""

    def __init__(self, contract: Contract, texts: dict[str, dict[int, str]]) -> None:
        self.contract = contract
        self.texts = texts

    @classmethod
    def of_days(cls, home: Home, contract: Contract, days: Sequence[str]) -> Asking:
        """Knows every text that the events of these days (those that are there) and of the time before the calendar hold."""
        files = [home.events(day) for day in (EARLIER_DAY, *days) if home.events(day).is_file()]
        backend = lake.engine()
        return cls(contract, {field: _texts(backend, contract, field, files) for field in contract.text_columns})

    def rank(self, user: Ints, time: int, item: Ints, context: Ints) -> Message:
        """POST /rank of one request as it stands in the samples: user (Fu,), time epoch ms, item (B, Fi), context (B, Fc)."""
        contract, derived = self.contract, len(self.contract.context.derived)
        return {
            "user_id": self._value("user", user[0]),
            "item_ids": [self._value("item", key) for key in item[:, 0]],
            "item_features": self._columns(contract.item_columns[1:], item[:, 1:], contract.item_features),
            "user_features": {
                n: v[0] for n, v in self._columns(contract.user_columns[1:], user[None, 1:], contract.user_features).items()
            },
            "context": self._columns(contract.context_columns[derived:], context[:, derived:], contract.context.columns),
            "time": time,
        }

    def event(self, user: int, token: Ints, behaviour: str, time: int) -> Message:
        """One of POST /events: an action on an item, `token` (Fi,) its key and those of its features."""
        features = self._columns(self.contract.item_columns[1:], token[None, 1:], self.contract.item_features)
        return {
            "user_id": self._value("user", user),
            "item_id": self._value("item", token[0]),
            "behaviour": behaviour,
            "time": time,
            "item_features": {name: values[0] for name, values in features.items()},
        }

    def _columns(self, columns: tuple[str, ...], keys: Ints, names: Sequence[str] | dict[str, Any]) -> dict[str, list[Any]]:
        """Feature → the value of each row of `keys` (N, columns)."""
        found: dict[str, list[Any]] = {}
        for name in names:
            begin, feature = columns.index(name), self.contract.features[name]
            if feature.separator is None:
                found[name] = [self._value(name, key) for key in keys[:, begin]]
            else:
                own = keys[:, begin : begin + feature.slots]
                found[name] = [[self._value(name, key) for key in row if key != NULL_KEY] for row in own]
        return found

    def _value(self, field: str, key: Any) -> int | float | str | None:
        if key == NULL_KEY:
            return None
        kind = self.contract.kind(field)
        if kind == "text":
            return self.texts[field][int(key)]
        return float(key_numbers(np.array([key]))[0]) if kind == "number" else int(key)


def _texts(backend: Backend, contract: Contract, field: str, files: Sequence[Any]) -> dict[int, str]:
    if not files:
        return {}
    column = backend.read_parquet(files, hive_partitioning=False)[contract.text_columns[field]]
    separator = contract.features[field].separator if field in contract.features else None
    written = reading.entries(column, separator).unnest() if separator else column
    texts = written.name("text").as_table().distinct().to_pyarrow().column("text").to_pylist()
    return {text_key(text): text for text in texts if text is not None}
