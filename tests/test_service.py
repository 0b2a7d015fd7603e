"""The door: what it answers, what it knows of a user at a moment, and what it writes down."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets import predictions
from bentos import lines, online
from bentos.clock import Clock, clock_of
from bentos.opening import open_ranking
from bentos.ranking import Ranking
from models import artifact
from models.home import Home
from models.requests import NULL_KEY
from models.window import read_sequences
from tests.logs import contract
from tests.serving import DAILY, EVE, JUDGED, NOON, SHOWN, Frozen, door, logged, opened

HOUR = 3_600_000


def lengths(home: Home) -> dict[str, int]:
    """History lengths that the last ranking saw."""
    found: dict[str, int] = logged(home)[-1]["history_length"]
    return found


# what it answers


def test_items_come_in_the_order_of_the_weighted_probabilities(asked: Home, ranking: Ranking) -> None:
    items = [205, 101, 230, 101, 999]
    context = {"position": [0, 1, 2, 3, None]}
    got = door(ranking).post("/rank", json={"user_id": 2, "item_ids": items, "context": context, "time": NOON}).json()
    click, buy = (np.array(got["probabilities"][task]) for task in ("click", "buy"))
    assert np.allclose(got["score"], click + 3 * buy, rtol=1e-12)
    assert got["score"] == sorted(got["score"], reverse=True)
    assert got["item_ids"] == [items[place] for place in got["index"]]
    assert sorted(got["index"]) == [0, 1, 2, 3, 4]  # an item that stands twice is ranked at each place
    line = logged(asked)[0]
    assert (line["request_id"], line["item"]) == (got["request_id"], items)
    assert [line["score"][place] for place in got["index"]] == got["score"]


def test_without_weights_all_tasks_count_alike(asked: Home, ranker: artifact.NeuralRanker) -> None:
    ranking = open_ranking(ranker, "t:t", asked, {}, logged=False, wall=Frozen(NOON))
    got = door(ranking).post("/rank", json={"user_id": 2, "item_ids": [101, 230]}).json()
    assert np.allclose(got["score"], np.mean([got["probabilities"]["click"], got["probabilities"]["buy"]], axis=0))


def test_the_unknown_are_ranked_as_unknown(asked: Home, ranking: Ranking) -> None:
    client = door(ranking)
    got = client.post("/rank", json={"user_id": -5, "item_ids": [-7, 10**15], "time": NOON}).json()
    assert got["score"][0] == got["score"][1]
    assert got["index"] == [0, 1]  # equal ones stay as they came
    line = logged(asked)[-1]
    assert (line["unknown_user"], line["unknown_items"], line["history_length"]) == (True, 2, {"view": 0, "buy": 0})
    assert (got["unknown_user"], got["unknown_items"]) == (True, [-7, 10**15])
    got = client.post("/rank", json={"user_id": 2, "item_ids": [101], "time": NOON}).json()
    assert (logged(asked)[-1]["unknown_user"], logged(asked)[-1]["unknown_items"]) == (False, 0)
    assert (got["unknown_user"], got["unknown_items"]) == (False, [])
    got = client.post("/rank", json={"user_id": 2, "item_ids": [-7, 101, -9, 205, -7], "time": NOON}).json()
    assert got["unknown_items"] == [item for item in got["item_ids"] if item < 0]
    assert len(got["unknown_items"]) == 3


def test_features_left_out_are_those_last_seen_and_given_ones_win(asked: Home, ranking: Ranking) -> None:
    client = door(ranking)

    def features(**given: Any) -> tuple[Any, Any, Any]:
        client.post("/rank", json={"user_id": 2, "item_ids": [205, 999], "time": NOON, **given}).raise_for_status()
        line = logged(asked)[-1]
        return line["item_features"], line["user_features"], line["context"]

    null, noon = NULL_KEY, 12
    assert features() == ([[205 % 7], [null]], [2 % 3], [[noon, null], [noon, null]])
    given = {"item_features": {"category": [6, None]}, "user_features": {"segment": None}, "context": {"position": 4}}
    assert features(**given) == ([[6], [null]], [null], [[noon, 4], [noon, 4]])
    told = {"user_id": 7, "item_id": 999, "behaviour": "view", "time": NOON, "item_features": {"category": 3}}
    assert client.post("/events", json={"events": [told]}).json() == {"accepted": 1, "covered": 0}
    assert features()[0] == [[205 % 7], [3]]
    features(item_features={"category": [1, 2]})
    assert features()[0] == [[205 % 7], [3]]  # what a request gives is its own


def test_the_openapi_document_describes_the_endpoints(ranking: Ranking) -> None:
    told = door(ranking).get("/openapi.json").json()
    assert set(told["paths"]) == {"/rank", "/events", "/model"}
    items = told["components"]["schemas"]["RankRequest"]["properties"]["item_ids"]
    assert (items["minItems"], items["maxItems"]) == (1, 1000)
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(told)))
    assert names <= set(told["components"]["schemas"])


# what it knows of a user at a moment


def test_a_history_ends_strictly_before_the_request(asked: Home, ranking: Ranking) -> None:
    client = door(ranking)
    client.post("/events", json={"events": [{"user_id": 77, "item_id": 205, "behaviour": "view", "time": NOON}]})
    for time, count in ((NOON - 1, 0), (NOON, 0), (NOON + 1, 1)):
        client.post("/rank", json={"user_id": 77, "item_ids": [101], "time": time})
        assert lengths(asked) == {"view": count, "buy": 0}


def test_an_action_of_an_exposure_log_counts_once_it_is_known(asked: Home, ranking: Ranking) -> None:
    client = door(ranking)
    client.post("/events", json={"events": [{"user_id": 77, "item_id": 205, "behaviour": "buy", "time": NOON}]})
    for time, count in ((NOON + 30 * HOUR, 0), (NOON + 30 * HOUR + 1, 1)):
        client.post("/rank", json={"user_id": 77, "item_ids": [101], "time": time})
        assert lengths(asked) == {"view": 0, "buy": count}


def test_what_is_told_is_in_the_next_ranking_however_fast_it_comes(asked: Home, ranker: artifact.NeuralRanker) -> None:
    clock = Frozen(NOON)
    client = door(opened(asked, ranker, replay=False, wall=clock))
    ask = {"user_id": 2, "item_ids": list(range(100, 130))}
    before = client.post("/rank", json=ask).json()
    told = {"user_id": 2, "item_id": 104, "behaviour": "view"}
    assert client.post("/events", json={"events": [told]}).json()["accepted"] == 1
    after = client.post("/rank", json=ask).json()
    assert logged(asked)[-1]["time"] > NOON  # the wall clock stands still
    assert dict(zip(before["index"], before["score"], strict=True)) != dict(zip(after["index"], after["score"], strict=True))


def test_the_longest_and_oldest_history_is_the_contracts(asked: Home, ranking: Ranking) -> None:
    client = door(ranking)
    moments = [NOON - k * 60_000 for k in range(1, 9)]
    client.post(
        "/events",
        json={"events": [{"user_id": 77, "item_id": 100 + k, "behaviour": "view", "time": t} for k, t in enumerate(moments)]},
    )
    client.post("/rank", json={"user_id": 77, "item_ids": [101], "time": NOON})
    assert lengths(asked)["view"] == 4
    oldest = SHOWN.day_end(date.fromisoformat(JUDGED)) + (SHOWN.histories.days - 1) * 24 * HOUR
    for time, count in ((oldest - 1, 4), (oldest + 1, 0)):  # the day after which JUDGED is out of reach
        client.post("/rank", json={"user_id": 77, "item_ids": [101], "time": time + 24 * HOUR})
        assert lengths(asked)["view"] == count


def test_given_histories_take_the_place_of_the_known(asked: Home, ranking: Ranking) -> None:
    client = door(ranking)
    known = read_sequences(asked, SHOWN, SHOWN.history_days(EVE, EVE))
    user = int(known.users[0])
    begin, end = known.offsets[0][:2]
    past = [
        {
            "item_id": int(token[0]),
            "time": int(time),
            "item_features": {"category": None if token[1] == NULL_KEY else int(token[1])},
        }
        for token, time in zip(known.tokens[0][begin:end], known.times[0][begin:end], strict=True)
    ]
    assert len(past) > 4
    ask = {"user_id": user, "item_ids": [101, 205, 230], "time": NOON}
    plain = client.post("/rank", json=ask).json()
    same = client.post("/rank", json=ask | {"histories": {"view": past[::-1]}}).json()
    none = client.post("/rank", json=ask | {"histories": {"view": []}}).json()
    assert same["probabilities"] == plain["probabilities"] != none["probabilities"]
    assert [line["history_length"]["view"] for line in logged(asked)] == [4, 4, 0]
    assert len({line["history_length"]["buy"] for line in logged(asked)}) == 1  # the other behaviour stays as it is


def test_where_only_days_are_known_today_is_a_tie(daily: Home, tmp_path: Path) -> None:
    home = Home(tmp_path, daily.dataset)
    home.base.mkdir()
    home.lake.symlink_to(daily.lake, target_is_directory=True)
    ranker = artifact.load(daily.model("dtrn", JUDGED))
    ranking = open_ranking(ranker, "t:t", home, {}, replay=True, until=date.fromisoformat(EVE), wall=Frozen(NOON))
    client = door(ranking)
    client.post("/events", json={"events": [{"user_id": 77, "item_id": 101, "behaviour": "view", "time": NOON}]})
    for time, count in ((NOON + HOUR, 0), (DAILY.day_end(JUDGED) - 1, 0), (DAILY.day_end(JUDGED), 1)):
        client.post("/rank", json={"user_id": 77, "item_ids": [101], "time": time})
        assert lengths(home)["view"] == count


def test_the_lake_is_the_record_of_the_days_that_it_holds(asked: Home, ranking: Ranking) -> None:
    known = read_sequences(asked, SHOWN, SHOWN.history_days(EVE, EVE))
    place = int(np.argmax(known.times[0]))
    user = int(np.repeat(known.users, np.diff(known.offsets[0]))[place])
    event = {
        "user_id": user,
        "item_id": int(known.tokens[0][place, 0]),
        "behaviour": "view",
        "time": int(known.times[0][place]),
    }
    assert door(ranking).post("/events", json={"events": [event]}).json() == {"accepted": 0, "covered": 1}
    assert [len(times) for _, times in ranking.histories.of(user)] == [
        int(np.diff(offsets)[known.users == user][0]) for offsets in known.offsets
    ]


def test_a_restart_knows_what_was_told(asked: Home, ranker: artifact.NeuralRanker) -> None:
    clock = Frozen(NOON)
    first = door(opened(asked, ranker, replay=False, wall=clock))
    first.post("/events", json={"events": [{"user_id": 77, "item_id": k, "behaviour": "view"} for k in (101, 102)]})
    told = next(asked.online_events.glob("*.jsonl"))
    told.write_bytes(told.read_bytes() + b'{"user":77,"item":1')  # a kill in the middle of a line
    again = opened(asked, ranker, replay=False, wall=clock)
    door(again).post("/rank", json={"user_id": 77, "item_ids": [101]})
    assert lengths(asked)["view"] == 2
    # Once the lake holds that day, what was told of it is not counted twice.
    assert not opened(asked, ranker, replay=False, wall=clock, until=None).histories._told
    # A replay neither knows nor keeps what is told: it must give the same whenever it runs.
    replay = opened(asked, ranker)
    assert not replay.histories._told
    door(replay).post("/events", json={"events": [{"user_id": 8, "item_id": 1, "behaviour": "view", "time": NOON}]})
    assert len(list(asked.online_events.iterdir())) == 1
    told.write_text('{"user":"x"}\n')
    with pytest.raises(ValueError, match=r"line 1: .*mend the line, or move the file away"):
        list(lines.read(asked.online_events, online.Event))


def test_a_closed_log_has_a_clock_of_its_own() -> None:
    end, late = SHOWN.day_end(EVE), SHOWN.day_end("2030-01-01")
    wall = Frozen(late)
    clock = clock_of(SHOWN, end, 0, wall)
    assert clock.now() == end
    wall.ms += 5000
    assert clock.now() == end + 5000
    assert "closed since 2026-04-03" in clock.says
    assert clock_of(SHOWN, end, end + 77, wall).now() == end + 78  # told events stay in the past
    assert clock_of(SHOWN, end, 0, Frozen(NOON)).now() == NOON  # the log is still going on
    open_ended = contract({**SHOWN.model_dump(), "calendar": {"first_day": "2026-03-27"}})
    assert clock_of(open_ended, end, 0, Frozen(late)).now() == late


def test_time_never_stands_still() -> None:
    wall = Frozen(50)
    clock = Clock(0, "", wall)
    told = [clock.now() for _ in range(3)]
    wall.ms = 40  # set back
    assert [*told, clock.now()] == [50, 51, 52, 53]


def test_a_home_without_histories_ranks_all_the_same(tmp_path: Path, ranker: artifact.NeuralRanker) -> None:
    ranking = open_ranking(ranker, "t:t", Home(tmp_path, "shown"), {}, wall=Frozen(NOON))
    assert door(ranking).post("/rank", json={"user_id": 2, "item_ids": [101]}).status_code == 200


# what it writes down


def test_what_was_logged_lands(asked: Home, ranking: Ranking, shown: Home) -> None:
    client = door(ranking)
    for user in (1, 2, 77):
        client.post("/rank", json={"user_id": user, "item_ids": [101, 205, 999], "context": {"position": 1}, "time": NOON})
    own = Home(asked.root / "landing", asked.dataset)
    own.prediction_inbox.mkdir(parents=True)
    for path in asked.prediction_inbox.iterdir():
        (own.prediction_inbox / path.name).write_bytes(path.read_bytes())
    manifest, _ = predictions.land(own, SHOWN, JUDGED)
    assert (manifest.counts["rows"], manifest.counts["left_out"]) == (9, 0)
