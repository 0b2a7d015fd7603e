"""Where a data set's log comes from: what LOG names, or, for a data set of our own making, the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assets import simulator
from models.contract import Contract
from models.home import Home
from orchestration.progress import Progress

SIMULATED = "simulated"


def absolute(log: str) -> str:
    """LOG as seen from any folder; a glob stays one."""
    return str(Path(log).absolute()) if log else ""


def ready(contract: Contract, home: Home, log: str, progress: Progress) -> None:
    """Simulate the log of the `simulated` contract when no other is given; the world that is there, if one is, stays.

    Raises ValueError when there is no log to take.
    """
    if log:
        return
    if contract.name == SIMULATED:
        simulate(contract, home, progress, **simulator.asked(home.truth))
    elif not (home.raw.is_dir() and any(home.raw.iterdir())):
        raise ValueError(
            f"where is the log of {contract.name}? LOG= takes a file, a folder or a glob (or put its files into {home.raw})"
        )


def simulate(contract: Contract, home: Home, progress: Progress, **world: Any) -> simulator.Simulated:
    """Write the log of `world` (sizes, seed, conflicts) to the data set's raw folder; nothing when the same is there."""
    with progress.timed("simulate") as worked:
        done = simulator.simulate(home.raw, contract, truth=home.truth, **world)
        worked.append(int(done.recomputed))
    return done
