"""What is served is what was judged: the same probabilities over HTTP as offline, for every kind of log and of user."""

from __future__ import annotations

from datetime import date
from typing import Any, cast

import numpy as np
import pytest

from assets import packaging, served
from assets.asking import Asking
from bentos.opening import open_ranking
from models import artifact
from models.contract import Contract
from models.home import Home
from models.requests import Requests, Sequences
from models.window import read_requests
from tests.serving import BOUGHT, DAILY, JUDGED, SHOWN, Frozen, door, logged


class InProcess:
    """The endpoints without the process, spoken to as `served.Served` is."""

    def __init__(self, home: Home, ranker: artifact.NeuralRanker) -> None:
        until = date.fromisoformat(JUDGED)
        self.client = door(open_ranking(ranker, "t:t", home, {}, replay=True, until=until, logged=False, wall=Frozen(0)))

    def rank(self, message: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.post("/rank", json=message).raise_for_status().json()
        return answer


@pytest.mark.parametrize(("log", "terms"), [("shown", SHOWN), ("bought", BOUGHT), ("daily", DAILY)])
def test_every_request_of_a_day_is_served_as_it_was_judged(log: str, terms: Contract, request: pytest.FixtureRequest) -> None:
    home: Home = request.getfixturevalue(log)
    ranker = artifact.load(home.model("dtrn", JUDGED))
    asked = read_requests(home, terms, [JUDGED])
    lengths = asked.end - asked.start
    assert lengths.min() == 0
    assert (lengths.max(axis=0) == terms.lengths).all()  # cut at the contract's length
    asked = packaging.spread(asked, 60)
    online = packaging.rescore(cast("served.Served", InProcess(home, ranker)), Asking(terms, {}), asked)
    assert np.abs(online - ranker.score(asked)).max() < 1e-6


def test_the_built_bento_agrees_and_leaves_no_trace_in_the_inbox(built: Home) -> None:
    found = packaging.read(built.promotion("parity", JUDGED))
    asked = read_requests(built, SHOWN, [JUDGED])
    assert found["bento"] == packaging.read(built.promotion("bento", JUDGED))["tag"]
    assert found["requests"] == len(asked.time) < packaging.MOST_REQUESTS
    assert found["rows"] == len(asked) > found["requests"]
    assert 0 < found["max_difference"] < 1e-6
    assert not logged(built)


def test_a_service_without_the_latest_histories_is_found_out(service: served.Served, built: Home) -> None:
    ranker = artifact.load(built.model("dtrn", JUDGED))
    asked = packaging.spread(read_requests(built, SHOWN, [JUDGED]), 40)
    online = packaging.rescore(service, Asking(SHOWN, {}), asked)  # it reads the day before, not the judged day
    with pytest.raises(packaging.NotTheSame, match=r"rows differ by more than 1e-05, most .* in task .*history lengths there"):
        packaging.agreement(SHOWN, asked, ranker.score(asked), online)


def keys(*shape: int) -> Any:
    return np.arange(int(np.prod(shape))).reshape(shape)


def requests() -> Requests:
    """Two requests of one and of two items, their histories 5 events long."""
    nothing = Sequences(keys(0), [], [], [])
    spans = (keys(2, 2), keys(2, 2) + 5)
    return Requests(keys(2, 1), keys(2), np.array([0, 1, 3]), keys(3, 2), keys(3, 0), keys(3, 2), *spans, nothing)


@pytest.mark.parametrize("wrong", [2e-5, float("nan")])
def test_a_difference_is_told_by_number_and_place(wrong: float) -> None:
    offline = np.full((3, 2), 0.25)
    online = offline.copy()
    online[2, 1] += wrong
    with pytest.raises(
        packaging.NotTheSame, match=r"1 of 3 rows differ .* in task buy for user 1, item 4, time 1: .*lengths there \[5, 5\]"
    ):
        packaging.agreement(SHOWN, requests(), offline, online)
    online[2, 1] = 0.25 + 9e-6
    assert packaging.agreement(SHOWN, requests(), offline, online)["max_difference"] == pytest.approx(9e-6)


def test_nothing_compared_is_no_parity() -> None:
    none = np.empty((0, 2))
    with pytest.raises(packaging.NotTheSame, match="nothing was compared"):
        packaging.agreement(SHOWN, requests().take(np.array([], np.int64)), none, none)


def test_requests_are_spread_from_the_emptiest_history_to_the_longest(shown: Home) -> None:
    asked = read_requests(shown, SHOWN, [JUDGED])
    totals = np.sort((asked.end - asked.start).sum(axis=1))
    chosen = packaging.spread(asked, 20)
    got = (chosen.end - chosen.start).sum(axis=1)
    assert len(got) == 20
    assert (got == totals[np.linspace(0, len(totals) - 1, 20).astype(int)]).all()
    assert (np.diff(chosen.offsets) == 4).all()  # whole
    assert len(packaging.spread(asked, 10_000).time) == len(asked.time)
