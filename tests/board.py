"""Made-up runs of the leaderboard, and a small simulated log to make real ones on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets import simulator
from benchmarks import plan
from benchmarks.leaderboard import do
from benchmarks.measuring import Data
from benchmarks.runs import Record, Run, Store, Variant, Where
from benchmarks.search import Log
from benchmarks.worlds import World
from models import window
from models.contract import Contract, load
from models.home import Home

SETTING = {"learning_rate": 4e-3, "embedding_decay": 0.1, "embedding_std": 0.3}
TRIALS = [{"log": "x", "model": "dtrn", "setting": SETTING, "score": 1.0, "code": ""}]
TERMS = {"epochs": 2, "patience": 2, "seed": 3, "batch_samples": 256, "width": 8}
CONTRACT = load("simulated")
TASKS = list(CONTRACT.tasks)
PLAIN = Variant()
SmallWorld = tuple[Where, Data]
"""What `simulated` gives, as the fixture `small_world`."""

Measured = dict[str, dict[str, Any]]


def record(run: Run, tasks: Measured, **other: Any) -> Record:
    """A run as it stands in the file, with these figures."""
    about = {
        "content": "c",
        "code": "today",
        "samples": {"fit": 9, "held_out": 1, "judged": 1},
        "device": "cpu",
        "threads": 1,
        "machine": {"cpu": "a processor"},
        "seconds": 10.0,
        "processor_seconds": 9.0,
        "tasks": tasks,
    }
    size = {"resumed": False, "parameters": 1234, "parameters_beside_embeddings": 567} if run.recipe else {}
    return {**run.key(CONTRACT), **about, **size, **other}


def soft(values: dict[str, float], best: float = 0.9) -> Measured:
    """Figures of a simulated day whose AUCs without label noise are these."""
    return {
        task: {"auc": auc + 0.01, "soft": auc, "best_auc": best, "best_soft": best, "positives": 100}
        for task, auc in values.items()
    }


def of_worlds(aucs: dict[str, float | list[float]], conflict: tuple[float, float], seeds: int = 5) -> list[Record]:
    """A run a world and model: on every task its AUC, the same in every world or (list) one a world."""
    out = []
    for world in plan.worlds([conflict], plan.SEEDS[:seeds]):
        for model, auc in aucs.items():
            value = auc[plan.SEEDS.index(world.seed)] if isinstance(auc, list) else auc
            run = plan.run(plan.of_world(world), model, TRIALS)
            out.append(record(run, soft(dict.fromkeys(TASKS, value))))
    return out


def of_day(aucs: dict[str, float], day: str, spread: float = 0.01, positives: int = 300) -> list[Record]:
    """A run a model on a day of a real log: its AUC, and resampled ones that go up and down together for all models."""
    shared = np.random.default_rng(0).normal(0, 0.05, 50)
    out = []
    for place, (model, auc) in enumerate(aucs.items()):
        own = np.random.default_rng(1 + place).normal(0, spread, 50)
        told = {"auc": auc, "resampled": list(auc + shared + own), "positives": positives, "users_with_positives": 50}
        out.append(record(plan.run(Where("taobao", day), model, TRIALS), dict.fromkeys(TASKS, told)))
    return out


WORLD = World(seed=5, sign_conflict=1, selection_conflict=1, users=60, items=40, impressions=600)


def simulated(root: Path) -> SmallWorld:
    """A small world's first three days: trained on, stopped on and scored. Histories hold yesterday's clicks and carts."""
    home, days = Home(root, "simulated"), CONTRACT.days()[:3]
    sizes = {"users": WORLD.users, "items": WORLD.items, "impressions": WORLD.impressions, "seed": WORLD.seed}
    simulator.simulate(home.raw, CONTRACT, truth=home.truth, days=days, sign_conflict=1, selection_conflict=1, **sizes)
    for day in days:
        log = pd.read_parquet(home.raw / f"day={day}.parquet").sort_values(["user_id", "timestamp_ms", "item_id"])
        keep = {"user": log.user_id, "time": log.timestamp_ms, "item": log.item_id, "segment": log.segment}
        keep |= {"category": log.category_id, "price_band": log.price_band, "hour": 0 * log.user_id, "position": log.position}
        frame = pd.DataFrame(keep | {f"label_{task}": log[f"is_{task}"] for task in TASKS})
        _write(home.samples(day), frame)
        done = [frame[frame[f"label_{a}"] > 0].assign(action=n) for n, a in enumerate(CONTRACT.actions) if a in TASKS]
        _write(home.histories(day), pd.concat(done))
    fit, held_out, judged = (window.read_requests(home, CONTRACT, [day]) for day in days)
    where = Where("simulated", days[2], WORLD)
    return where, Data(home, Log("simulated", CONTRACT, days[:2], "here", fit, held_out), judged)


def _write(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def runs(where: Where, *models: str, variant: Variant = PLAIN) -> list[Run]:
    return [plan.run(where, model, TRIALS, variant, TERMS) for model in models]


def done(asked: list[Run], world: SmallWorld, folder: Path, **options: Any) -> list[str]:
    """Do these runs on the small world, kept in `folder`; what failed."""

    def contract(where: Where) -> Contract:
        return CONTRACT

    return do(asked, Store(folder / "runs"), lambda where: world[1], contract, folder / "scratch", **options)


def kept(folder: Path) -> list[Record]:
    return Store(folder / "runs").records()
