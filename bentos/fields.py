"""From the values in a message to the keys that they have in the log, by the contract's word on what each field holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bentos.messages import Refused
from models.contract import Contract
from models.keys import key
from models.requests import NULL_KEY, Ints


def id_keys(contract: Contract, entity: str, values: Sequence[int | str], where: str) -> Ints:
    """(N,) keys of ids of `entity` ('user' or 'item'), in the message at `where`. Raises Refused."""
    keys = _keys(values, contract.kind(entity), where)
    for place in np.flatnonzero(keys == NULL_KEY)[:1].tolist():
        said = f"{values[place]!r} is how the log writes a missing value; an id is needed"
        raise Refused(where.replace("[]", f"[{place}]"), said)
    return keys


def feature_keys(contract: Contract, name: str, values: Sequence[Any], where: str) -> Ints:
    """(N, columns) keys of feature `name` in the message at `where`. Raises Refused."""
    feature = contract.features[name]
    if feature.separator is None:
        return _keys(values, feature.kind, where)[:, None]
    out = np.full((len(values), feature.slots), NULL_KEY, np.int64)
    for row, entries in enumerate(values):
        here = where.replace("[]", f"[{row}]")
        if entries is not None and not isinstance(entries, list):
            raise Refused(here, f"{entries!r} is no list, and this field is one in the log")
        keys = _keys(entries or [], feature.kind, f"{here}[]")
        kept = keys[keys != NULL_KEY][: feature.slots]
        out[row, : len(kept)] = kept
    return out


def _keys(values: Sequence[Any], kind: str, where: str) -> Ints:
    """`[]` in `where` stands for the place among `values`."""
    if kind == "id" and all(type(value) is int for value in values):
        return np.array(values, np.int64)
    out = np.empty(len(values), np.int64)
    for place, value in enumerate(values):
        try:
            out[place] = key(value, kind)
        except ValueError as error:
            number = kind != "text" and isinstance(value, str) and value.strip().isdigit()
            hint = f"; send {int(value)}, without quotes" if number else ""
            raise Refused(where.replace("[]", f"[{place}]"), f"{error}{hint}") from None
    return out
