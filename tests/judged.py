"""A small home in which there is something to judge: an event log with every model trained for two judged days."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np

from assets import histories, samples, training
from models.home import Home
from tests import logs

DAYS = ("2026-03-28", "2026-04-02")
FIRST, JUDGED, IMMATURE = "2026-03-31", "2026-04-01", "2026-04-02"
MODELS = ("popularity", "lightgbm", "mmoe", "dtrn")
TERMS = logs.contract(
    logs.EVENTS,
    calendar={"first_day": DAYS[0], "last_day": DAYS[1]},
    context={"derived": ["hour"]},
    tasks={"click": {"behaviours": ["view"], "horizon_hours": 24}, "buy": {"behaviours": ["buy"], "horizon_hours": 12}},
    training={"window_days": 3, "epochs": 2, "width": 4, "batch_samples": 512},
)


def laid(root: Path) -> Home:
    """A home below `root` with every model trained for both judged days."""
    home = Home(root, TERMS.name)
    random = np.random.default_rng(3)
    rows = defaultdict(list)
    for _ in range(1500):
        user, time = int(random.integers(1, 60)), int(random.integers(TERMS.day_start(DAYS[0]), TERMS.day_end(DAYS[1])))
        item = min(int(random.exponential(6)), 30) * 3 + user % 3  # a user keeps to one category
        behaviour = "view" if random.random() < 0.7 else "buy"
        rows[str(TERMS.day_of(time))].append(
            {"user": user, "item": item, "time": time // 1000 * 1000, "category": item % 3, "behaviour": behaviour}
        )
    for day in TERMS.days():
        logs.write_events(home, TERMS, day, rows[day])
    for day in TERMS.days():
        histories.build(home, TERMS, day)
        samples.build(home, TERMS, day)
    for day in (FIRST, JUDGED):
        for name in MODELS:
            training.train(home, TERMS, name, day, lambda line: None)
    return home


def copied(home: Home, folder: Path) -> Home:
    """A copy of `home` in `folder`, which may be changed."""
    shutil.copytree(home.root, folder, dirs_exist_ok=True)
    return Home(folder, home.dataset)
