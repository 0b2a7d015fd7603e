"""The demo on a small simulated log: a home in which every step ran, and what a person was shown. Made once a session."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from assets import simulator
from models.contract import DATASETS, Contract, load
from models.home import Home
from orchestration import demo
from orchestration.progress import Progress

AGAIN = " DATASET=small"


@dataclass(frozen=True)
class Ran:
    """A data set of a home, and what its demo came to."""

    contract: Contract
    source: str
    home: Home
    told: dict[str, Any]
    shown: str


def demonstrate(contract: Contract, home: Home, source: str, log: str = "") -> Ran:
    """Run the demo and keep what it printed."""
    shown = StringIO()
    progress = Progress(Console(file=shown, width=200))
    told = demo.demo(contract, home, progress, source=source, log=log, again=AGAIN)
    return Ran(contract, source, home, told, shown.getvalue())


def small(folder: Path) -> Ran:
    """The demo of six simulated days below `folder`, with as little to learn as gives a champion."""
    text = (DATASETS / "simulated.toml").read_text()
    text = text.replace('name = "simulated"', 'name = "small"').replace("last_day = 2026-03-13", "last_day = 2026-03-07")
    text = text.replace(
        "window_days = 10", "window_days = 10\nepochs = 4\nwidth = 8\nbatch_samples = 256\nlearning_rate = 5e-3"
    )
    (folder / "small.toml").write_text(text)
    contract = load(folder / "small.toml")
    home = Home(folder / "home", "small")
    simulator.simulate(home.raw, contract, truth=home.truth, users=400, items=1500, impressions=4000)
    return demonstrate(contract, home, str(folder / "small.toml"))
