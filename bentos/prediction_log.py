"""The prediction log: one line a ranking, with all that the model saw and said, item-aligned and in the request's order.

JSON lines, not Parquet: a line that is flushed survives a killed process, while a Parquet file in the making is lost
whole. `assets.predictions` lands them as daily partitions. Features are the raw keys that were scored (`NULL_KEY` for a
missing one), so what drift is measured on is what the model had.
"""

from __future__ import annotations

from msgspec import Struct


class Prediction(Struct, frozen=True):
    """`time` is the request's, `logged` the wall clock's, both epoch ms; columns follow the contract's order of fields."""

    request_id: str
    time: int
    logged: int
    model: str
    user: int
    user_features: list[int]
    item: list[int]
    item_features: list[list[int]]
    context: list[list[int]]
    score: list[float]
    probability: dict[str, list[float]]
    history_length: dict[str, int]
    unknown_user: bool
    unknown_items: int
