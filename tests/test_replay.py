"""A replayed request is ranked on exactly what the offline samples say was known at its time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from assets import histories, packaging, predictions, replay, samples
from bentos import lines, online
from bentos.clock import clock_of
from bentos.door import application
from bentos.ranking import Ranking
from models import artifact
from models.contract import Contract
from models.home import Home
from models.requests import NULL_KEY, Requests
from models.vocabulary import Vocabulary
from models.window import read_requests
from tests import inbox, logs, serving

HOUR = 3_600_000
JUDGED, BEFORE = "2026-03-31", "2026-03-30"
Row = dict[str, Any]


@dataclass(frozen=True)
class Fingerprint:
    """A ranker whose probability depends on every key that it is shown: user, item, context, and each history in its order."""

    contract: Contract
    vocabulary: Vocabulary
    name: str = "fingerprint"

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.contract.task_names

    def score(self, requests: Requests) -> NDArray[np.float64]:
        out = np.empty((len(requests), len(self.tasks)))
        for row, request in enumerate(requests.request):
            seen = [*requests.user[request], *requests.item[row], *requests.context[row], requests.time[request]]
            for action, tokens in enumerate(requests.sequences.tokens):
                span = slice(requests.start[request, action], requests.end[request, action])
                seen += [action, *tokens[span].ravel(), *requests.sequences.times[action][span]]
            value = 0
            for key in seen:
                value = (value * 31 + int(key)) % 1_000_003
            out[row] = [(value * (task + 1)) % 1_000_003 / 1_000_003 for task in range(len(self.tasks))]
        return out


def fill(home: Home, terms: Contract, rows: int = 300) -> None:
    random = np.random.default_rng(3)
    start, end = terms.day_start("2026-03-27"), terms.day_end("2026-04-02")
    by_day: dict[str, list[Row]] = defaultdict(list)
    for _ in range(rows):
        moment = int(random.integers(start, end)) // HOUR * HOUR  # whole hours: many ties
        if terms.time.resolution == "day":
            moment = terms.day_start(terms.day_of(moment))
        item = int(random.integers(1, 12))
        row: Row = {
            "user": int(random.integers(1, 6)),
            "item": item,
            "time": moment,
            "category": None if item == 7 else item % 3,
        }
        if terms.shape == "events":
            row["behaviour"] = str(random.choice(["view", "buy"]))
        else:
            row |= {
                "position": int(random.integers(3)),
                "clicked": float(random.integers(2)),
                "stars": float(random.integers(3, 6)),
            }
        by_day[str(terms.day_of(moment))].append(row)
    for day in terms.days():
        logs.write_events(home, terms, day, by_day[day])
    for day in terms.days():
        histories.build(home, terms, day)
        samples.build(home, terms, day)


def door(home: Home, terms: Contract) -> tuple[Ranking, Callable[[], httpx.Client]]:
    """The service's own app on the histories until the day before, spoken to without a socket."""
    offline = read_requests(home, terms, [BEFORE])
    vocabulary = Vocabulary.fit(offline, terms)
    snapshot, end = online.load(home, terms, terms.day_of(terms.day_start(BEFORE)))
    told = online.OnlineHistories(terms, snapshot, end, None)
    log = lines.Lines(home.prediction_inbox, 1)
    ranking = Ranking(Fingerprint(terms, vocabulary), "dtrn-tiny:1", told, clock_of(terms, end, 0), {}, replay=True, log=log)
    app = application()
    app.state.ranking, app.state.lineage = ranking, {"model": "dtrn-tiny:1"}
    return ranking, lambda: TestClient(app)


BY_DATE = {
    **logs.EXPOSURES,
    "time": logs.DATES["time"],
    "context": {"derived": ["weekday"], "columns": {"position": "position"}},
    "behaviours": {"view": {"when": "clicked"}, "buy": {"when": "stars >= 4", "horizon_hours": 48}},
}
"""A day's actions are known two days later, and the clocks change between the one and the other."""


@pytest.mark.parametrize(
    "base", [logs.EVENTS, logs.DATES, logs.EXPOSURES, BY_DATE], ids=["events", "dates", "exposures", "exposures_by_date"]
)
def test_what_is_ranked_online_is_what_the_samples_hold(tmp_path: Path, base: dict[str, Any]) -> None:
    terms = logs.contract(base)
    home = Home(tmp_path, terms.name)
    fill(home, terms)
    ranking, connect = door(home, terms)
    streams = replay.conversations(home, terms, JUDGED, None)
    firsts: list[replay.Answer] = []
    answers = replay.converse(streams, connect, 1, firsts.append)
    offline = read_requests(home, terms, [JUDGED])
    assert [a.error for a in answers] == [""] * len(offline.time)
    assert len(firsts) == 1
    assert firsts[0] in answers
    predictions.land(home, terms, JUDGED)
    landed = pq.read_table(home.predictions(JUDGED), partitioning=None)
    probability = ranking.ranker.score(offline)
    request = offline.request
    expected = sorted(
        (int(offline.time[u]), int(offline.user[u, 0]), *map(int, offline.item[row]), *map(int, offline.context[row]),
         *map(int, (offline.end - offline.start)[u]), *probability[row])
        for row, u in enumerate(request)
    )  # fmt: skip
    names = [
        *("time", "user", *terms.item_fields, *terms.context_fields),
        *(f"history_length_{a}" for a in terms.actions),
        *(f"p_{t}" for t in terms.task_names),
    ]
    assert sorted(tuple(row[n] for n in names) for row in landed.to_pylist()) == expected
    assert (offline.end - offline.start).max(axis=0).min() > 0
    # Something of the day itself was known at some request, else nothing was proved (a bare date ties the whole day).
    if terms.time.resolution != "day":
        newest = [
            offline.sequences.times[0][e - 1] for s, e in zip(offline.start[:, 0], offline.end[:, 0], strict=True) if e > s
        ]
        assert max(newest) > terms.day_start(JUDGED)


def test_requests_are_whole_users_within_the_limit_and_always_the_same(tmp_path: Path) -> None:
    terms = logs.contract(logs.EXPOSURES)
    home = Home(tmp_path, terms.name)
    fill(home, terms)
    offline = read_requests(home, terms, [JUDGED])
    per_user = dict(zip(*np.unique(offline.user[:, 0], return_counts=True), strict=True))
    for limit in (1, 10, 20, len(offline.time)):
        streams = replay.conversations(home, terms, JUDGED, limit)
        assert streams == replay.conversations(home, terms, JUDGED, limit)
        asked: dict[int, int] = defaultdict(int)
        for stream in streams:
            for path, message in stream:
                asked[message["user_id"] if path == "/rank" else message["events"][0]["user_id"]] += path == "/rank"
        assert dict(asked) == {user: per_user[user] for user in asked}
        assert sum(asked.values()) <= limit or len(asked) == 1
    assert len(asked) == len(per_user)


def test_a_missing_feature_is_told_as_null_and_a_long_request_in_parts(tmp_path: Path) -> None:
    terms = logs.contract(logs.EXPOSURES)
    home = Home(tmp_path, terms.name)
    start = terms.day_start(JUDGED)
    shown = [
        {"user": 1, "item": i, "time": start, "category": None, "position": i, "clicked": 1, "stars": 1} for i in range(1001)
    ]
    for day in terms.days():
        logs.write_events(home, terms, day, shown if day == JUDGED else [])
        histories.build(home, terms, day)
    samples.build(home, terms, JUDGED)
    (stream,) = replay.conversations(home, terms, JUDGED, None)
    sizes = [(path, len(message["item_ids"] if path == "/rank" else message["events"])) for path, message in stream]
    assert sizes == [("/rank", 1000), ("/rank", 1), ("/events", 1000), ("/events", 1)]
    assert stream[0][1]["item_features"]["category"] == [None] * 1000
    assert NULL_KEY not in stream[2][1]["events"][0]["item_features"].values()


def test_a_refused_telling_fails_what_follows_instead_of_ranking_on_another_past() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(400, text="events[0].behaviour: is not known")
            if request.url.path == "/events"
            else httpx.Response(200, json={"request_id": "a"})
        )

    message = {"user_id": 1, "time": 5, "item_ids": [1]}
    streams: list[replay.Stream] = [[("/rank", message), ("/events", {"events": []}), ("/rank", message | {"time": 6})]]
    answers = replay.converse(
        streams, lambda: httpx.Client(transport=httpx.MockTransport(answer), base_url="http://x"), 3, lambda _: None
    )
    assert [(a.time, a.error) for a in answers] == [(5, ""), (6, "/events: 400 events[0].behaviour: is not known")]


def test_a_day_without_requests_is_refused_with_what_to_do(tmp_path: Path) -> None:
    terms = logs.contract(logs.EXPOSURES)
    home = Home(tmp_path, terms.name)
    for day in terms.days():
        logs.write_events(home, terms, day, [])
        histories.build(home, terms, day)
    samples.build(home, terms, JUDGED)
    with pytest.raises(ValueError, match=f"samples of {JUDGED} hold no request to replay; choose"):
        replay.conversations(home, terms, JUDGED, None)


def inbox_of_others(home: Home) -> None:
    terms = serving.SHOWN
    inbox.write(home, "0-1", [inbox.line(terms, "other", terms.day_start("2026-03-28"), 1, [100])])


def test_the_built_bento_answers_a_replay_once_and_a_new_one_takes_its_place(copied: Home) -> None:
    home, day = copied, "2026-03-31"  # mature, as the judged day of this home is not
    bento = packaging.read(home.promotion("bento", serving.JUDGED))["tag"]
    inbox_of_others(home)
    former = {p.name: p.read_bytes() for p in home.prediction_inbox.glob("*.jsonl")}

    def new() -> set[str]:
        return {p.name for p in home.prediction_inbox.glob("*.jsonl")} - set(former)

    manifest, ran = replay.replay(home, serving.SHOWN, day, bento, requests=60)
    detail = manifest.detail
    assert ran
    assert detail["requests"] == detail["ok"] <= 60
    assert detail["errors"] == []
    assert 0 < detail["p50_ms"] <= detail["p99_ms"]
    first = new()
    assert len(first) == 1
    assert replay.replay(home, serving.SHOWN, day, bento, requests=60)[1] is False

    answers = pq.read_table(home.partition("replay", day), partitioning=None)
    landed, _ = predictions.land(home, serving.SHOWN, day)
    assert landed.counts["requests"] == detail["requests"] == len(answers)
    assert landed.counts["rows"] == sum(answers.column("items").to_pylist())
    online = pq.read_table(home.predictions(day), partitioning=None).to_pylist()
    offline = read_requests(home, serving.SHOWN, [day])
    probability = artifact.load(home.model("dtrn", serving.JUDGED)).score(offline)
    place = {
        (int(offline.user[u, 0]), int(offline.time[u]), int(offline.item[row, 0]), *map(int, offline.context[row])): row
        for row, u in enumerate(offline.request)
    }
    for row in online:
        key = (row["user"], row["time"], row["item"], row["hour"], row["position"])
        served = [row[f"p_{t}"] for t in serving.SHOWN.task_names]
        assert served == pytest.approx(probability[place[key]].tolist(), abs=1e-5)

    manifest, ran = replay.replay(home, serving.SHOWN, day, bento, requests=20)
    assert ran
    assert len(new()) == 1
    assert new() != first
    assert predictions.land(home, serving.SHOWN, day)[0].counts["requests"] == manifest.detail["requests"] <= 20
    assert {n: (home.prediction_inbox / n).read_bytes() for n in former} == former  # what others served stays
