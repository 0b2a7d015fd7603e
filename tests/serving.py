"""A small home with a trained artifact and a verdict that promotes it: what packaging and the door start from."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from assets import histories, lake, samples, training
from bentos.door import application
from bentos.opening import describe, open_ranking
from bentos.ranking import Ranking
from models import artifact
from models.contract import Contract
from models.home import Home
from tests.logs import DATES, EVENTS, EXPOSURES, contract, write_events

JUDGED, EVE = "2026-04-01", "2026-03-31"
TRAINING = {"candidates": ["dtrn"], "references": [], "window_days": 4, "epochs": 1, "width": 4, "batch_samples": 64}

SHOWN = contract(
    EXPOSURES,
    calendar={"first_day": "2026-03-27", "last_day": "2026-04-03"},  # up to the last labels of the judged day
    user_features={"segment": "segment"},
    training=TRAINING,
    serving={"weights": {"click": 1, "buy": 3}},
)
NOON = SHOWN.day_start(JUDGED) + 12 * 3_600_000
BOUGHT = contract(EVENTS, training=TRAINING)
DAILY = contract(DATES, training=TRAINING)


def random_day(terms: Contract, day: str, random: np.random.Generator, users: int = 40, rows: int = 90) -> list[dict[str, Any]]:
    """Events of one day; a few features are missing, and users 0…4 are there every day many times."""
    start, end = terms.day_start(day), terms.day_end(day)
    out = []
    for _ in range(rows):
        user = int(random.integers(0, 5 if random.random() < 0.4 else users))
        item = int(random.integers(100, 160))
        time = start if terms.time.resolution == "day" else start + 1000 * int(random.integers(0, (end - start) // 1000))
        row: dict[str, Any] = {
            "user": user,
            "time": time,
            "item": item,
            "category": item % 7 if random.random() < 0.9 else None,
        }
        if terms.shape == "events":
            row["behaviour"] = str(random.choice(terms.actions))
        else:
            row |= {"segment": user % 3, "position": int(random.integers(0, 9))}
            row |= {"clicked": float(random.random() < 0.4), "stars": float(random.integers(1, 6))}
        # An impression stands among others of its moment.
        out += [row] + [
            row | {"item": int(i), "category": int(i) % 7}
            for i in random.choice(np.arange(200, 260), 3, replace=False)
            if terms.shape == "exposures"
        ]
    return out


def laid(root: Path, terms: Contract, judged_day: str = JUDGED) -> Home:
    """A home below `root` with events, histories and samples of all days and the artifact `dtrn` for `judged_day`."""
    home, random = Home(root, terms.name), np.random.default_rng(3)
    days = terms.days()
    for day in days:
        write_events(home, terms, day, random_day(terms, day, random))
    for day in days:
        histories.build(home, terms, day)
    for day in days:
        samples.build(home, terms, day)
    training.train(home, terms, "dtrn", judged_day, say=lambda _: None)
    return home


def judge(
    home: Home, judged_day: str = JUDGED, promote: bool = True, reason: str = "It is better.", against: str | None = None
) -> None:
    """A verdict as evaluation leaves it; `against` is the tag of the champion that was challenged."""
    content = lake.require(home, "dtrn", judged_day).content
    told = {
        "judged_day": judged_day,
        "challenger": {"name": "dtrn", "content": content},
        "champion": {"tag": against} if against else None,
        "promote": promote,
        "reasons": [reason],
        "models": {"dtrn": {"click": {"auc": 0.7}}},
    }

    def make(path: Path) -> dict[str, Any]:
        path.write_text(json.dumps(told))
        return {}

    lake.build(
        home, "verdict", judged_day, home.verdict(judged_day), make, inputs={"told": json.dumps(told)}, code="", contract=""
    )


def beside(home: Home, folder: Path) -> Home:
    """The lake of `home`, with an inbox and told events of its own."""
    (folder / home.dataset).mkdir()
    (folder / home.dataset / "lake").symlink_to(home.lake, target_is_directory=True)
    return Home(folder, home.dataset)


class Frozen:
    """A wall clock that stands still until it is moved; epoch ms."""

    def __init__(self, now: int) -> None:
        self.ms = now

    def __call__(self) -> int:
        return self.ms


def opened(home: Home, ranker: artifact.NeuralRanker, **changes: Any) -> Ranking:
    """The ranking of SHOWN's artifact in `home`, as for replay at noon of the judged day unless `changes` say otherwise."""
    options: dict[str, Any] = {"replay": True, "until": date.fromisoformat(EVE), "wall": Frozen(NOON)} | changes
    return open_ranking(ranker, "dtrn-shown:tag", home, {"click": 1.0, "buy": 3.0}, **options)


def door(ranking: Ranking) -> TestClient:
    """The endpoints over `ranking`, in this process; an exception inside would surface in the test."""
    app = application()
    app.state.ranking, app.state.lineage = ranking, describe(ranking, {})
    return TestClient(app)


def logged(home: Home) -> list[dict[str, Any]]:
    """Every prediction in the inbox, oldest process first."""
    return [json.loads(line) for p in sorted(home.prediction_inbox.glob("*.jsonl")) for line in p.read_text().splitlines()]
