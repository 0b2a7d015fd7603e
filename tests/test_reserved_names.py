"""A feature may have any name that is not refused: what is read, judged and merged is the same under all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.damaged_log import DAYS, START, contract, events_of, quarantined, take_in

WORKING = (
    *("number", "day", "part", "rule", "detail", "raw", "text", "damaged", "open", "fields", "found", "expected", "broken"),
    *("filename", "times", "copy", "label_buy", "p_buy", "history_length_view"),
)
FREE = (
    "first",
    "label_color",
    "p_name",
    "earlier",
    "happened",
    "most",
    "moment",
    "told",
    "file",
    "row",
    "until",
    "shown",
    "block",
    "category",
)
LOG = b"1,2,7,pv,%d\n1,2,8,pv,%d\n1,3,x,pv,%d\n2,2,,buy,%d\n2,2,,buy,%d\n" % tuple(START + n for n in (0, 1, 2, 3, 3))


def named(name: str) -> dict[str, Any]:
    told = contract().model_dump(mode="json", exclude_unset=True)
    return told | {"item_features": {name: "c"}}


@pytest.mark.parametrize("name", WORKING)
def test_a_name_that_rows_have_while_they_are_read_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"\['{name}'\] used twice or reserved; rename"):
        type(contract()).model_validate(named(name))


def test_under_any_other_name_the_rows_are_the_same(tmp_path: Path) -> None:
    found = set()
    for name in FREE:
        (folder := tmp_path / name).mkdir()
        home, _ = take_in(folder, type(contract()).model_validate(named(name)), LOG)
        found.add((
            tuple(tuple(row.values()) for row in events_of(home, DAYS[0])),
            tuple((row["rule"], row["line"], row["raw"]) for row in quarantined(home, *DAYS)),
        ))  # fmt: skip
    [(events, bad)] = found
    assert [row[-1] for row in events] == [7, 8, None]
    assert bad == (("not_a_number", 3, "1,3,x,pv,1704063602"), ("duplicate", 5, "2,2,,buy,1704063603"))
