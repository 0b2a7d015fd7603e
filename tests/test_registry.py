"""The registry: who reigns, across kills, reruns and old days; and models that are what their tag says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from assets import lake, registry
from models.home import Home
from tests.serving import JUDGED, SHOWN

WHEN = datetime(2026, 4, 3, 5, tzinfo=UTC)


def promoted(home: Home, judged_day: str, tag: str = "dtrn-x:v", **changes: Any) -> registry.Champion | None:
    reigning = registry.champion(home)
    told: dict[str, Any] = {"name": "dtrn", "bento": tag + "-b", "who": "run 1", "why": "better", "when": WHEN}
    told |= {"against": reigning.tag if reigning else None} | changes
    return registry.promote(home, judged_day=judged_day, tag=tag, **told)


def test_nobody_reigns_at_first(tmp_path: Path) -> None:
    assert registry.champion(Home(tmp_path, "x")) is None


def test_a_change_is_one_line_that_says_who_when_why_from_and_to(tmp_path: Path) -> None:
    home = Home(tmp_path, "x")
    promoted(home, "2026-04-01", "m:1")
    promoted(home, "2026-04-02", "m:2", why="also\nbetter")
    first, second = map(json.loads, home.champions.read_text().splitlines())
    assert (first["from"], first["to"], second["from"], second["to"]) == (None, "m:1", "m:1", "m:2")
    told = {"when": "2026-04-03T05:00:00+00:00", "who": "run 1", "why": "also\nbetter", "judged_day": "2026-04-02"}
    assert second == told | {"from": "m:1", "to": "m:2", "bento": "m:2-b", "name": "dtrn"}


def test_the_champion_before_a_day_is_the_last_one_judged_earlier(tmp_path: Path) -> None:
    home = Home(tmp_path, "x")
    for day in ("2026-04-01", "2026-04-03"):
        promoted(home, day, f"m:{day}")
    found = [registry.champion(home, before=f"2026-04-0{n}") for n in (1, 2, 3, 4)]
    assert [c and c.judged_day for c in found] == [None, "2026-04-01", "2026-04-01", "2026-04-03"]


@pytest.mark.parametrize("day", ["2026-04-02", "2026-04-01"])
def test_the_same_day_again_or_an_older_one_moves_nothing(tmp_path: Path, day: str) -> None:
    home = Home(tmp_path, "x")
    promoted(home, "2026-04-02", "m:1")
    before = home.champions.read_bytes()
    assert promoted(home, day, "m:other") is None
    assert home.champions.read_bytes() == before


@pytest.mark.parametrize("against", [None, "m:other"])
def test_to_be_better_than_one_that_no_longer_reigns_moves_nothing(tmp_path: Path, against: str | None) -> None:
    home = Home(tmp_path, "x")
    promoted(home, "2026-04-01", "m:1")
    before = home.champions.read_bytes()
    told = f"judged against {against or 'no champion'} on 2026-04-02, and m:1 reigns by now; judge 2026-04-02 again"
    with pytest.raises(lake.Missing, match=told):
        promoted(home, "2026-04-02", "m:2", against=against)
    assert promoted(home, "2026-04-01", "m:2", against=against) is None, "an old day is history, whomever it was judged against"
    assert home.champions.read_bytes() == before
    with pytest.raises(lake.Missing, match="judged against m:1 on 2026-04-02, and none reigns by now"):
        promoted(Home(tmp_path, "y"), "2026-04-02", "m:2", against="m:1")


def test_a_kill_in_the_middle_of_a_line_leaves_the_champion_before(tmp_path: Path) -> None:
    home = Home(tmp_path, "x")
    promoted(home, "2026-04-01", "m:1")
    promoted(home, "2026-04-02", "m:2")
    whole = home.champions.read_bytes()
    start = whole.index(b"\n") + 1
    for cut in range(start, len(whole)):
        home.champions.write_bytes(whole[:cut])
        reigning = registry.champion(home)
        assert reigning is not None
        assert reigning.tag == "m:1"
    again = promoted(home, "2026-04-02", "m:2")
    assert again is not None
    assert (again.tag, again.replaced) == ("m:2", "m:1")
    assert [c.tag for c in registry.champions(home)] == ["m:1", "m:2"]


def test_a_line_damaged_by_hand_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path, "x")
    promoted(home, "2026-04-01", "m:1")
    home.champions.write_bytes(home.champions.read_bytes() + b'{"to": 3}\n')
    with pytest.raises(ValueError, match=r"champions.jsonl, line 2: is not a change of champion .*mend or remove"):
        registry.champion(home)


def test_a_model_is_stored_once_with_its_lineage_and_its_very_bytes(copied: Home) -> None:
    tag = registry.model_tag(copied, SHOWN, "dtrn", JUDGED)
    content = lake.content_hash(copied.model("dtrn", JUDGED))
    assert tag == f"dtrn-shown:{JUDGED}-dtrn-{content[:10]}"
    assert lake.content_hash(registry.artifact(copied, tag)) == content
    folder = registry.artifact(copied, tag).parent
    before = lake.content_hash(folder)
    assert registry.store(copied, SHOWN, "dtrn", JUDGED, {"other": "labels"}) == tag
    assert lake.content_hash(folder) == before
    assert registry.lineage(copied, tag)["run"] == "run-1"
    spec = registry.artifact(copied, tag) / "spec.json"
    spec.write_text(spec.read_text() + " ")
    assert not registry.stored(copied, tag)
    registry.store(copied, SHOWN, "dtrn", JUDGED, {"run": "run-2"})
    assert lake.content_hash(registry.artifact(copied, tag)) == content
    assert registry.lineage(copied, tag)["run"] == "run-2"


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path) -> None:
    home = Home(tmp_path, "shown")
    with pytest.raises(lake.Missing, match=r"dtrn-shown:v-dtrn-0 is not in the store .*materialise packaged_model"):
        registry.artifact(home, "dtrn-shown:v-dtrn-0")
    with pytest.raises(ValueError, match="no such artifact; train dtrn for 2026-04-01 first"):
        registry.store(home, SHOWN, "dtrn", JUDGED, {})
