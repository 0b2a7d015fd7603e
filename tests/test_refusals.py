"""The door: what it refuses, by field and reason; and garbage, which is answered or refused and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentos.messages import MOST_BYTES
from bentos.opening import open_ranking
from bentos.ranking import Ranking
from models import artifact
from models.home import Home
from tests.serving import NOON, Frozen, door, opened

HOUR = 3_600_000
JSON = {"content-type": "application/json"}
VALID = {"user_id": 2, "item_ids": [101, 102], "time": NOON}
PAST = {"item_id": 1, "time": 1}
EVENT = {"user_id": 2, "item_id": 101, "behaviour": "view", "time": NOON}


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"user_id": "02"}, "user_id", "'02' is not a whole number, and this field is one in the log; send 2, without quotes"),
        ({"user_id": "u2"}, "user_id", "'u2' is not a whole number, and this field is one in the log"),
        ({"user_id": None}, "user_id", "got `null`"),
        ({"user_id": True}, "user_id", "got `bool`"),
        ({"user_id": 2**63}, "user_id", "<= 9223372036854775807"),
        ({"user_id": -(2**63)}, "user_id", ">= -9223372036854775807"),
        ({"user_id": 10**40}, "user_id", "<="),
        ({"item_ids": []}, "item_ids", "length >= 1"),
        ({"item_ids": list(range(1001))}, "item_ids", "length <= 1000"),
        ({"item_ids": [1, 2.5]}, "item_ids[1]", "got `float`"),
        ({"item_ids": 3}, "item_ids", "Expected `array`"),
        ({"items": [1]}, "body", "unknown field `items`; known are user_id, item_ids, item_features"),
        ({"item_features": {"category": [1]}}, "item_features.category", "has 1 values for 2 item_ids"),
        ({"item_features": {"colour": [1, 2]}}, "item_features.colour", "known are category"),
        ({"user_features": {"age": 1}}, "user_features.age", "known are segment"),
        ({"context": {"position": [1, 2, 3]}}, "context.position", "has 3 values for 2 item_ids"),
        ({"context": {"weather": 1}}, "context.weather", "known are position"),
        ({"context": {"hour": 1}}, "context.hour", "follows from the time"),
        ({"histories": {"like": []}}, "histories.like", "known are view, buy"),
        ({"histories": {"view": [{"item_id": 1}]}}, "histories[...][0]", "missing required field `time`"),
        ({"histories": {"view": [PAST | {"item_features": {"x": 1}}]}}, "histories.view[0].item_features.x", "known are"),
        ({"histories": {"view": [PAST | {"item": 1}]}}, "histories[...][0]", "`item`; known are item_id, time, item_features"),
        ({"histories": {"view": [PAST] * 1001}}, "histories[...]", "length <= 1000"),
        ({"time": -1}, "time", ">= 0"),
        ({"time": 10**15}, "time", "<="),
    ],
)  # fmt: skip
def test_a_bad_ranking_is_refused_by_field_and_reason(ranking: Ranking, change: Any, field: str, reason: str) -> None:
    got = door(ranking).post("/rank", json=VALID | change)
    assert got.status_code == 400
    assert got.json()["error"]["field"] == field
    assert reason in got.json()["error"]["reason"]


@pytest.mark.parametrize(
    ("events", "field", "reason"),
    [
        ([], "events", "length >= 1"),
        ([EVENT] * 1001, "events", "length <= 1000"),
        ([EVENT, EVENT | {"behaviour": "like"}], "events[1].behaviour.like", "known are view, buy"),
        ([EVENT | {"item_features": {"colour": 1}}], "events[0].item_features.colour", "known are category"),
        ([EVENT | {"item_id": None}], "events[0].item_id", "got `null`"),
        ([EVENT, {"user_id": 1}], "events[1]", "missing required field"),
        ([EVENT | {"item": 4}], "events[0]", "unknown field `item`; known are user_id, item_id, behaviour"),
    ],
)
def test_bad_events_are_refused_together(ranking: Ranking, events: Any, field: str, reason: str) -> None:
    got = door(ranking).post("/events", json={"events": events})
    assert (got.status_code, got.json()["error"]["field"]) == (400, field)
    assert reason in got.json()["error"]["reason"]
    assert not ranking.histories._told


def test_only_a_replay_is_told_the_time(asked: Home, ranker: artifact.NeuralRanker) -> None:
    client = door(opened(asked, ranker, replay=False))
    got = client.post("/rank", json=VALID).json()
    assert got["error"]["field"] == "time"
    assert "started for replay" in got["error"]["reason"]
    for time, reason in ((NOON + 25 * HOUR, "ahead of the service's clock"), (NOON // 1000, "seconds came?")):
        got = client.post("/events", json={"events": [EVENT | {"time": time}]}).json()
        assert got["error"]["field"] == "events[0].time"
        assert reason in got["error"]["reason"]


@pytest.mark.parametrize(
    ("body", "headers", "field", "reason"),
    [
        (b"", JSON, "body", "truncated"),
        (b'{"user_id": NaN, "item_ids": [1]}', JSON, "body", "malformed"),
        (b'{"user_id": 1e999, "item_ids": [1]}', JSON, "user_id", "out of range"),
        (b'{"user_id": 1, "item_ids": [1]} {}', JSON, "body", "trailing"),
        (b'{"\xff": 1}', JSON, "body", "is not JSON in UTF-8"),
        (
            b'{"user_id": 1, "item_ids": [1], "context": {"position": ' + b"[" * 100_000,
            JSON,
            "context[...][0][0]",
            "got `array`",
        ),
        (b" " * (MOST_BYTES + 1), JSON, "body", f"longer than {MOST_BYTES} bytes"),
        (json.dumps(VALID).encode(), {"content-type": "text/plain"}, "content-type", "send application/json"),
        (json.dumps(VALID).encode(), {}, "content-type", "is 'nothing'"),
    ],
)
def test_what_is_not_a_message_is_refused(ranking: Ranking, body: bytes, headers: Any, field: str, reason: str) -> None:
    for path in ("/rank", "/events"):
        got = door(ranking).post(path, content=body, headers=headers)
        assert got.status_code == 400
        if path == "/rank":
            assert got.json()["error"]["field"] == field
            assert reason in got.json()["error"]["reason"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("user_id", "item_ids", "item_features", "user_features", "context", "histories", "time", "events", "behaviour")
NAMES = st.sampled_from(["category", "segment", "position", "hour", "view", "buy", "x"])
NESTED = st.dictionaries(NAMES, ANYTHING | st.lists(st.integers(-5, 5) | st.none(), min_size=2, max_size=2), max_size=2)


@pytest.fixture(scope="module")
def sturdy(shown: Home, ranker: artifact.NeuralRanker) -> Ranking:
    return open_ranking(ranker, "t:t", shown, {}, replay=True, logged=False, wall=Frozen(NOON))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.dictionaries(st.sampled_from(FIELDS), ANYTHING | NESTED, max_size=4), path=st.sampled_from(["/rank", "/events"])
)
def test_garbage_is_answered_or_refused_and_nothing_else(sturdy: Ranking, changes: dict[str, Any], path: str) -> None:
    base = VALID if path == "/rank" else {"events": [EVENT | changes]}
    got = door(sturdy).post(path, content=json.dumps(base | changes), headers=JSON)
    assert got.status_code in (200, 400)
    if got.status_code == 400:
        assert set(got.json()["error"]) == {"field", "reason"}
        assert all(got.json()["error"].values())


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=60), path=st.sampled_from(["/rank", "/events"]))
def test_bytes_are_refused(sturdy: Ranking, body: bytes, path: str) -> None:
    assert door(sturdy).post(path, content=body, headers=JSON).status_code == 400
