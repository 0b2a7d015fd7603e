"""From a value as a log or a person writes it to the 64-bit key that everything further on works with, and what it may be.

Whole numbers are their own keys. A text's key is 63 bits of its MD5 (an identifier here, no secret): two of ten million texts
share one with a chance of one in 180,000. A measure's key is the integer in whose order floats are ordered, so that bins can
be searched in it and nothing is lost. The engine has the same rule for texts in `assets.reading`; a test holds them together.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.requests import NULL_KEY, Ints

BLANKS = " \t\n\r\v\f"
NULLS = ("", "\\N", "NULL", "null")
"""How exports of databases write a missing value."""


def text_key(text: str) -> int:
    """The key of a text, blanks around it left aside; NULL_KEY for one that says 'missing'."""
    text = text.strip(BLANKS)
    if text in NULLS:
        return int(NULL_KEY)
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little") >> 1


def number_keys(values: NDArray[np.float64]) -> Ints:
    """Keys in the order of `values`, NULL_KEY for nan; `key_numbers` turns them back."""
    bits = (np.asarray(values, np.float64) + 0.0).view(np.int64)  # + 0.0: -0.0 is 0.0
    keys = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
    return np.where(np.isnan(values), NULL_KEY, keys)


def key_numbers(keys: Ints) -> NDArray[np.float64]:
    """The measures whose keys these are, nan for NULL_KEY."""
    bits = keys ^ ((keys >> 63) & np.int64(2**63 - 1))
    values = np.ascontiguousarray(bits).view(np.float64)
    return np.where(keys == NULL_KEY, np.nan, values)


def key(value: Any, kind: str) -> int:
    """The key of one value of a field of this kind (`id`, `text`, `number`); None is NULL_KEY. Raises ValueError in words."""
    if value is None:
        return int(NULL_KEY)
    if kind == "text":
        if isinstance(value, str):
            return text_key(value)
        raise ValueError(f"{value!r} is not a text, and this field is one in the log")
    if isinstance(value, bool) or not isinstance(value, int if kind == "id" else int | float):
        raise ValueError(f"{value!r} is not a {'whole ' * (kind == 'id')}number, and this field is one in the log")
    if kind == "number":
        return int(number_keys(np.array([value], np.float64))[0])
    if not -(2**63) < value < 2**63:
        raise ValueError(f"{value} does not fit 64 bits")
    return value
