"""The BentoML service: what a built bento starts. It names its model by full tag and holds no rule of its own.

The environment says which home (`DTRN_HOME`) and, for a replay or a parity check, `DTRN_REPLAY=1` (requests may say what
time it is, and told events are not kept), `DTRN_HISTORIES_UNTIL=<day>` (histories of later days are not read) and
`DTRN_PREDICTION_LOG=off`. It is read when the service starts, not when this file is imported.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import bentoml
from pydantic import BaseModel

from bentos.door import application
from bentos.opening import describe, open_ranking
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
    logging={"access": {"enabled": False}},  # the prediction log says more; 0.2 ms a request
    tracing={
        "excluded_urls": ["rank", "events"]
    },  # nobody collects the spans: 0.4 of the 0.9 ms that a request costs around its work
)
@bentoml.asgi_app(APP, path="/")
class Service:
    """Ranks with the model of the bento's arguments. A full tag: `latest` would be looked up again at every start."""

    model = bentoml.models.BentoModel(ARGUMENTS.model)

    def __init__(self) -> None:
        # Imported here: BentoML imports this file twice, in the supervisor too, which has no use for torch.
        import torch

        from models import artifact

        torch.set_num_threads(1)  # one request is too small to share out, and threads that wait for each other cost its p99
        ranker = artifact.load(Path(self.model.path) / "artifact")
        until = os.environ.get("DTRN_HISTORIES_UNTIL")
        APP.state.ranking = open_ranking(
            ranker,
            ARGUMENTS.model,
            Home.from_environment(ranker.contract.name),
            ARGUMENTS.weights,
            replay=os.environ.get("DTRN_REPLAY") == "1",
            until=date.fromisoformat(until) if until else None,
            logged=os.environ.get("DTRN_PREDICTION_LOG") != "off",
        )
        APP.state.lineage = describe(APP.state.ranking, dict(self.model.info.labels))
