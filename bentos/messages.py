"""What the door takes and gives, as msgspec schemas: columns, not row objects. What does not fit is
refused by field and reason.

Ids and features are written as in the log: whole numbers or, where the contract says so, texts, measures or lists; null stands
for a missing feature. Times are epoch milliseconds.
An item may stand twice in `item_ids` (two positions of one page): each place is ranked for itself, and `index` in the
answer says which is which.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

Key = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)] | Annotated[str, Meta(max_length=1000)]
"""An id as the log writes it."""
Moment = Annotated[int, Meta(ge=0, le=7_258_118_400_000, description="epoch milliseconds, 1970 to 2200")]
Entry = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)] | float | Annotated[str, Meta(max_length=1000)] | None
Feature = Entry | Annotated[list[Entry], Meta(max_length=64)]
"""What a feature may be; the contract's kind of the field decides which of these is taken."""

MOST_ITEMS = 1000
MOST_EVENTS = 1000
MOST_BYTES = 4 << 20

T = TypeVar("T")


class Refused(ValueError):
    """A request that cannot be answered, as the field that is wrong and the reason."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Past(Struct, forbid_unknown_fields=True, frozen=True):
    """One event of a history given with a request; in an exposure log, at the time when it became known."""

    item_id: Key
    time: Moment
    item_features: dict[str, Feature] = {}


class RankRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """`item_features` and lists in `context` are aligned with `item_ids`; `histories` replaces what is known, by behaviour."""

    user_id: Key
    item_ids: Annotated[list[Key], Meta(min_length=1, max_length=MOST_ITEMS)]
    item_features: dict[str, list[Feature]] = {}
    user_features: dict[str, Feature] = {}
    context: dict[str, Annotated[list[Feature], Meta(max_length=MOST_ITEMS)] | Entry] = {}
    histories: dict[str, Annotated[list[Past], Meta(max_length=MOST_EVENTS)]] = {}
    time: Moment | None = None


class RankResponse(Struct, frozen=True):
    """Columns in rank order. `index` is each one's place in the request; `score` the weighted sum of `probabilities`.

    `unknown_items`: those of the items, in rank order, that the model has not seen in training; what they get is the guess
    for any new item with such features. `unknown_user`: likewise of the user, whose history counts all the same.
    """

    request_id: str
    model: str
    item_ids: list[int | str]
    index: list[int]
    score: list[float]
    probabilities: dict[str, list[float]]
    unknown_user: bool
    unknown_items: list[int | str]


class Told(Struct, forbid_unknown_fields=True, frozen=True):
    """Something that a user just did; `time` is now when left out."""

    user_id: Key
    item_id: Key
    behaviour: str
    time: Moment | None = None
    item_features: dict[str, Feature] = {}


class EventsRequest(Struct, forbid_unknown_fields=True, frozen=True):
    events: Annotated[list[Told], Meta(min_length=1, max_length=MOST_EVENTS)]


class EventsResponse(Struct, frozen=True):
    """`accepted` events count from now on; `covered` ones fall on days that the loaded histories hold already."""

    accepted: int
    covered: int


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The message in `body`. Raises Refused, naming the field as `item_ids[2]`."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        place = path.rstrip("`").lstrip(".")
        if reason.startswith("Object contains unknown field"):
            kind: Any = {"events": Told, "histories": Past}.get(re.split(r"[.\[]", place)[0], decoder.type)
            reason += f"; known are {', '.join(kind.__struct_fields__)}"
        raise Refused(place or "body", reason) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("body", f"is not JSON in UTF-8: {error}") from None


def known(field: str, names: Collection[str], allowed: Collection[str]) -> None:
    """Raise Refused where a name is not among those that the contract has."""
    for name in names:
        if name not in allowed:
            raise Refused(f"{field}.{name}", f"is not known; known are {', '.join(allowed) or 'none'}")


def aligned(field: str, column: list[Any], items: int) -> None:
    """Raise Refused where a column does not have one value an item."""
    if len(column) != items:
        raise Refused(field, f"has {len(column)} values for {items} item_ids; give one each, in their order")
