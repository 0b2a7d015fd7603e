"""The days of a contract: when a local day begins, which days hold its labels, which are learned from, which are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from models.sections import Calendar, Histories, Task, Time, Training


def ends(days: Sequence[str]) -> list[str]:
    """The first and the last of days; one where they are the same."""
    return list(dict.fromkeys([days[0], days[-1]]))


def span(days: Sequence[str]) -> str:
    """In words.

    >>> span(["2026-03-01"]), span(["2026-03-01", "2026-03-02", "2026-03-03"])
    ('2026-03-01', '2026-03-01 to 2026-03-03')
    """
    return " to ".join(ends(days))


class Days:
    """The days of what has these sections: the contract."""

    if TYPE_CHECKING:
        time: Time
        calendar: Calendar
        tasks: Mapping[str, Task]
        histories: Histories
        training: Training

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time.zone)

    def day_start(self, day: date | str) -> int:
        """Epoch milliseconds of the local midnight that opens `day`."""
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return round(datetime.combine(day, time(), self.zone).timestamp() * 1000)

    def day_end(self, day: date | str) -> int:
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return self.day_start(day + timedelta(days=1))

    def day_of(self, time_ms: int) -> date:
        """The local day that holds a moment."""
        return datetime.fromtimestamp(time_ms / 1000, self.zone).date()

    @property
    def horizon_days(self) -> int:
        """Calendar days after its own until a sample's labels are known: the longest horizon, in days begun.

        Days and not hours, so that every day has its turn also where the clocks change (`known_before`).
        """
        return max(math.ceil(task.horizon_hours / 24) for task in self.tasks.values())

    def wait_ms(self, hours: float, day: date | str) -> int:
        """From a moment of local `day` to `hours` later; on a log of days: to the start of so many whole days later."""
        if self.time.resolution != "day":
            return round(3_600_000 * hours)
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return self.day_start(day + timedelta(days=hours // 24)) - self.day_start(day)

    def label_days(self, day: date | str) -> list[str]:
        """The days that hold the labels of `day`'s samples: itself and the `horizon_days` after it."""
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return [str(day + timedelta(days=n)) for n in range(self.horizon_days + 1)]

    def known_before(self, hours: float, day: date | str) -> int:
        """Epoch ms: labels of `day` with this horizon are known when its `label_days` end, if their samples are before this.

        All are, unless clocks that go forward make those days shorter than the horizon: then the last hour's are not.
        """
        return self.day_end(self.label_days(day)[-1]) - self.wait_ms(hours, day)

    def days(self, last: date | None = None) -> list[str]:
        """The calendar's days up to `last_day` or `last`, the earlier of the two that are given."""
        ends = [d for d in (last, self.calendar.last_day) if d is not None]
        if not ends:
            raise ValueError("a calendar without last_day needs the last day of the log")
        return [str(self.calendar.first_day + timedelta(days=n)) for n in range((min(ends) - self.calendar.first_day).days + 1)]

    def mature(self, day: date | str, last_ingested: date | str) -> bool:
        """Whether every label of `day`'s samples is known once `last_ingested` and all days before it are in."""
        return self.label_days(day)[-1] <= str(last_ingested)

    def verdict_days(self, judged_day: date | str) -> list[str]:
        """The days whose samples the verdict of `judged_day` is of: itself and, of a thin log, days before it."""
        judged = date.fromisoformat(judged_day) if isinstance(judged_day, str) else judged_day
        return [str(judged - timedelta(days=n)) for n in reversed(range(self.training.judged_days))]

    def training_days(self, judged_day: date | str) -> list[str]:
        """Days of samples for training and early stopping: those whose `label_days` end before the first of `verdict_days`."""
        newest = date.fromisoformat(self.verdict_days(judged_day)[0]) - timedelta(days=1 + self.horizon_days)
        oldest = max(self.calendar.first_day, newest - timedelta(days=self.training.window_days - 1))
        return [str(oldest + timedelta(days=n)) for n in range((newest - oldest).days + 1)]

    def history_days(self, first: date | str, last: date | str) -> list[str]:
        """Calendar days whose events may stand in the history of a sample of `first`…`last`."""
        oldest = date.fromisoformat(str(first)) - timedelta(days=self.histories.days)
        newest = date.fromisoformat(str(last))
        oldest = max(oldest, self.calendar.first_day)
        return [str(oldest + timedelta(days=n)) for n in range((newest - oldest).days + 1)]

    def history_start(self, day: date | str) -> int:
        """Epoch ms: the oldest moment that a history of a sample of `day` may reach."""
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return self.day_start(day - timedelta(days=self.histories.days))
