"""What time it is for the service. A log that is closed has no now of its own, so its clock runs on from where it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from models.contract import Contract

Wall = Callable[[], int]


def wall() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Clock:
    """Milliseconds that never repeat: what is told before a request is strictly before it, however fast both come.

    `last` is a moment that is over.
    """

    shift: int
    says: str
    wall: Wall = wall
    last: int = 0

    def now(self) -> int:
        self.last = max(self.wall() + self.shift, self.last + 1)
        return self.last


def clock_of(contract: Contract, histories_end: int, newest_told: int, wall: Wall = wall) -> Clock:
    """The wall clock; for a calendar whose last day is over, one that starts at `histories_end` (epoch ms).

    Either starts after `newest_told` (epoch ms, 0 for none), so that what was told before a restart stays in the past.
    """
    last_day = contract.calendar.last_day
    if last_day is None or wall() < contract.day_end(last_day):
        return Clock(0, "wall clock", wall, min(newest_told, wall()))
    start = max(histories_end, newest_told + 1)
    return Clock(start - wall(), f"the log is closed since {last_day}: time runs on from the end of its loaded histories", wall)
