"""What a service is made of when it opens: a ranker, the home's histories, what earlier processes were told, a clock, a log."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

from bentos import lines, online
from bentos.clock import Wall, clock_of, wall
from bentos.ranking import Ranker, Ranking
from models.home import Home

NESTED = ("data", "metrics", "reasons")
"""Labels whose text is JSON."""


def open_ranking(
    ranker: Ranker,
    tag: str,
    home: Home,
    weights: dict[str, float],
    *,
    replay: bool = False,
    until: date | None = None,
    logged: bool = True,
    wall: Wall = wall,
) -> Ranking:
    """The ranking of `ranker` in `home`, with the histories of the days up to `until` (all when left out).

    A replay neither reads nor keeps told events: it must give the same whenever it runs.
    """
    started, contract = wall(), ranker.contract
    snapshot, end = online.load(home, contract, until)
    journal = None if replay else lines.Lines(home.online_events, started)
    histories = online.OnlineHistories(contract, snapshot, end, journal)
    if not replay:
        histories.remember(list(lines.read(home.online_events, online.Event)))
    clock = clock_of(contract, end, histories.newest, wall)
    log = lines.Lines(home.prediction_inbox, started) if logged else None
    return Ranking(ranker, tag, histories, clock, weights, replay=replay, log=log)


def describe(ranking: Ranking, labels: dict[str, str]) -> dict[str, Any]:
    """What GET /model says besides the time: the model, its lineage, what it was opened with."""
    histories, contract = ranking.histories, ranking.contract
    return {
        "model": ranking.tag,
        "name": ranking.ranker.name,
        "dataset": contract.name,
        "weights": ranking.weights,
        "behaviours": dict(zip(contract.actions, contract.lengths, strict=True)),
        "lineage": {name: json.loads(text) if name in NESTED else text for name, text in labels.items()},
        "histories": {
            "users": len(histories.snapshot.users),
            "events": sum(map(len, histories.snapshot.times)),
            "end": histories.end,
        },
        "replay": ranking.replay,
    }
