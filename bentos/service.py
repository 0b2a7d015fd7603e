"""The BentoML service: what a built bento starts. It names its model by full tag and holds no rule of its own.

The environment says which home (`DTRN_HOME`) and, for a replay or a parity check, `DTRN_REPLAY=1` (requests may say what
time it is, and told events are not kept), `DTRN_HISTORIES_UNTIL=<day>` (histories of later days are not read) and
`DTRN_PREDICTION_LOG=off`. It is read when the service starts, not when this file is imported.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel

from bentos import lines, online
from bentos.clock import clock_of, wall
from bentos.door import application
from bentos.ranking import Ranking
from models.home import Home


class Arguments(BaseModel):
    """What the bento was built with: the model's full tag and the weights of the tasks in the combined score."""

    model: str
    weights: dict[str, float] = {}


ARGUMENTS = bentoml.use_arguments(Arguments)
APP = application()


@bentoml.service(
    name="dtrn",
    workers=1,  # told events live in the process
    logging={"access": {"enabled": False}},  # the prediction log says more, for less
    tracing={"excluded_urls": ["rank", "events"]},  # nothing collects the spans, and they cost a third of the shell
)
@bentoml.asgi_app(APP, path="/")
class Service:
    """Ranks with the model of the bento's arguments. A full tag: `latest` would be looked up again at every start."""

    model = bentoml.models.BentoModel(ARGUMENTS.model)

    def __init__(self) -> None:
        # Imported here: BentoML imports this file twice, in the supervisor too, which has no use for torch.
        import torch

        from models import artifact

        torch.set_num_threads(1)
        started = wall()
        replay = os.environ.get("DTRN_REPLAY") == "1"
        until = os.environ.get("DTRN_HISTORIES_UNTIL")
        ranker = artifact.load(Path(self.model.path) / "artifact")
        home = Home.from_environment(ranker.contract.name)
        snapshot, end = online.load(home, ranker.contract, date.fromisoformat(until) if until else None)
        journal = None if replay else lines.Lines(home.online_events, started)
        histories = online.OnlineHistories(ranker.contract, snapshot, end, journal)
        if not replay:
            histories.remember(list(lines.read(home.online_events, online.Event)))
        clock = clock_of(ranker.contract, end, histories.newest)
        log = None if os.environ.get("DTRN_PREDICTION_LOG") == "off" else lines.Lines(home.prediction_inbox, started)
        APP.state.ranking = Ranking(ranker, ARGUMENTS.model, histories, clock, ARGUMENTS.weights, replay=replay, log=log)
        APP.state.lineage = self._lineage(APP.state.ranking)

    def _lineage(self, ranking: Ranking) -> dict[str, Any]:
        labels: dict[str, str] = dict(self.model.info.labels)
        histories = ranking.histories
        return {
            "model": ranking.tag,
            "name": ranking.ranker.name,
            "dataset": ranking.contract.name,
            "tasks": ranking.weights,
            "behaviours": dict(zip(ranking.contract.actions, ranking.contract.lengths, strict=True)),
            "lineage": labels,
            "histories": {
                "users": len(histories.snapshot.users),
                "events": sum(map(len, histories.snapshot.times)),
                "end": histories.end,
            },
            "replay": ranking.replay,
        }
