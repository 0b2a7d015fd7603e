"""What every user did, as the service knows it: the lake's histories up to a day, and what it was told since.

The lake is the record: an event that falls on a day whose histories are loaded is in them, so it is not taken a second
time, neither when it is told nor when it is read again after a restart. Histories stay ragged; one user's are cut out
as a view and put in order together with what was told, by the rule that orders them in training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from msgspec import Struct

from bentos import lines
from models.contract import Contract
from models.home import Home
from models.requests import NULL_KEY, Ints, Sequences
from models.window import read_sequences


class Event(Struct, frozen=True):
    """An event that the service was told of, as it is kept: raw keys by column, so that a later contract reads it."""

    user: int
    item: int
    behaviour: str
    time: int
    item_features: dict[str, int]


class OnlineHistories:
    """Histories of all users: `snapshot` up to `end` (epoch ms, exclusive) and told events from then on."""

    def __init__(self, contract: Contract, snapshot: Sequences, end: int, journal: lines.Lines | None) -> None:
        self.contract = contract
        self.snapshot = snapshot
        self.end = end
        self.newest = 0
        self._journal = journal
        self._told: dict[int, dict[str, list[tuple[int, tuple[int, ...]]]]] = defaultdict(lambda: defaultdict(list))
        self._features: dict[int, tuple[int, ...]] = {}

    def remember(self, events: Sequence[Event]) -> None:
        """Take what earlier processes were told; what the snapshot covers by now is left out."""
        for event in events:
            if event.behaviour in self.contract.behaviours and self.counts_from(event) >= self.end:
                self._take(event)

    def tell(self, event: Event) -> bool:
        """Take one event. False when the snapshot covers its day."""
        if self.counts_from(event) < self.end:
            return False
        if self._journal is not None:
            self._journal.append(event)
        self._take(event)
        return True

    def counts_from(self, event: Event) -> int:
        """When the event enters a history: at its time, in the log's resolution; in an exposure log once it is known."""
        hours, day = self.contract.behaviours[event.behaviour].horizon_hours, self.contract.day_of(event.time)
        return resolved(self.contract, event.time) + self.contract.wait_ms(hours, day)

    def _take(self, event: Event) -> None:
        features = tuple(event.item_features.get(name, NULL_KEY) for name in self.contract.item_columns[1:])
        self._told[event.user][event.behaviour].append((self.counts_from(event), (event.item, *features)))
        self._features[event.item] = features
        self.newest = max(self.newest, event.time)

    def features(self, items: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """Features told since the snapshot, of those of `items` that were told."""
        return {item: self._features[item] for item in items if item in self._features} if self._features else {}

    def of(self, user: int) -> list[tuple[Ints, Ints]]:
        """Per action: tokens (N, Fi) and times (N,) of one user, in any order."""
        snapshot, width = self.snapshot, len(self.contract.item_columns)
        place = int(np.searchsorted(snapshot.users, user))
        known = place < len(snapshot.users) and snapshot.users[place] == user
        told = self._told.get(user, {})
        out = []
        for action, name in enumerate(self.contract.actions):
            begin, end = snapshot.offsets[action][place : place + 2] if known else (0, 0)
            tokens, times = snapshot.tokens[action][begin:end], snapshot.times[action][begin:end]
            if name in told:
                tokens = np.concatenate([tokens, np.array([t for _, t in told[name]], np.int64).reshape(-1, width)])
                times = np.concatenate([times, np.array([t for t, _ in told[name]], np.int64)])
            out.append((tokens, times))
        return out


def resolved(contract: Contract, time: int) -> int:
    """A moment in the log's resolution: where only days are known all of a day are ties, and its start stands for them."""
    return contract.day_start(contract.day_of(time)) if contract.time.resolution == "day" else time


def load(home: Home, contract: Contract, until: date | None) -> tuple[Sequences, int]:
    """(histories of the days on disk up to `until`, all of them when it is left out; epoch ms at which they end).

    Without any day there are no histories, and they end where the calendar begins.
    """
    there = (_day(folder) for folder in home.histories("x").parent.parent.glob("day=*"))
    newest = max((day for day in there if day is not None and (until is None or day <= until)), default=None)
    if newest is None:
        return read_sequences(home, contract, []), contract.day_start(contract.calendar.first_day)
    days = [d for d in contract.history_days(newest, newest) if home.histories(d).is_file()]
    return read_sequences(home, contract, days), contract.day_end(newest)


def _day(folder: Path) -> date | None:
    try:
        return date.fromisoformat(folder.name.removeprefix("day="))
    except ValueError:  # 'earlier'
        return None
