"""What the samples of earlier days say of an id: by task, how often they were positive.

    log[ (p + 20·b) / ((n + 20)·b) ]      p positives of n known labels, b the rate of the task over all ids

These are target statistics, smoothed as popularity is, and ordered as in Prokhorenkova et al., NeurIPS 2018 ('CatBoost'): a
sample is told what was known before it, never its own label or a later one. Here that is what was known when its day began, in
training as in serving, where a model that was trained before the day is all there is. b, too, is of that moment. An id that
nothing is known of is told 0, as one whose rate is that of all. (n itself was of no use: docs/log.md.)
Letters: B samples · T tasks · V ids · N entries, those of one id in the order of their days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.contract import Contract
from models.requests import Ints, Requests

PRIOR = 20.0
"""Samples of the base rate that every id starts with."""

STEP, REACH = 6, 20
"""Bins of the log: STEP of them to a unit, up to REACH on either side of 0."""

BINS = 2 * REACH + 1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Of one kind of id. `sums` cumulates, over all entries, known labels, then positives, of each task.

    keys (V,) sorted · offsets (V+1,) each id's entries · days (N,) ordinal of the day that first knows an entry ·
    sums (N+1, 2T) · all_days (M,) and all_sums (M+1, 2T): the same of all ids together
    """

    keys: Ints
    offsets: Ints
    days: Ints
    sums: Ints
    all_days: Ints
    all_sums: Ints

    @classmethod
    def fit(cls, contract: Contract, parts: Sequence[Requests]) -> dict[str, Statistics]:
        """Those of items and of users, of the samples of `parts`; a label counts from the day on that it is known."""
        day = np.concatenate([days_of(contract, r.time)[r.request] for r in parts]) + 1 + contract.horizon_days
        label = np.concatenate([r.label for r in parts])
        entry = np.concatenate([label >= 0, label == 1], axis=1).astype(np.int8)
        kinds = {"item": [r.item[:, 0] for r in parts], "user": [r.user[r.request, 0] for r in parts]}
        return {kind: cls._of(np.concatenate(keys), day, entry) for kind, keys in kinds.items()}

    @classmethod
    def _of(cls, keys: Ints, day: Ints, entry: NDArray[np.int8]) -> Statistics:
        order = np.lexsort((day, keys))
        ordered = keys[order]
        begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(keys) else np.empty(0, np.int64)
        by_day = np.argsort(day, kind="stable")
        offsets = np.append(begins, len(keys)).astype(np.int64)
        return cls(ordered[begins], offsets, day[order], _cumulated(entry[order]), day[by_day], _cumulated(entry[by_day]))

    @staticmethod
    def kept(kinds: dict[str, Statistics]) -> dict[str, Ints]:
        """The arrays that an artifact keeps, by name: what is known after the last day of training, and nothing of before."""
        return {f"statistics/{kind}/{name}": array for kind, told in kinds.items() for name, array in vars(told.last).items()}

    @classmethod
    def read(cls, arrays: dict[str, Ints]) -> dict[str, Statistics]:
        """What `kept` gave, found among others."""
        names = [field.name for field in fields(cls)]
        kinds = [kind for kind in ("item", "user") if f"statistics/{kind}/keys" in arrays]
        return {kind: cls(*(arrays[f"statistics/{kind}/{name}"] for name in names)) for kind in kinds}

    @property
    def tasks(self) -> int:
        return int(self.sums.shape[1]) // 2

    @property
    def last(self) -> Statistics:
        """What is left when only moments after the last entry are asked for: one entry an id."""
        newest = self.all_days[-1:]
        totals = np.diff(self.sums[self.offsets], axis=0)
        places = np.arange(len(self.keys) + 1)
        return Statistics(
            self.keys, places, np.repeat(newest, len(self.keys)), _cumulated(totals), newest, self.all_sums[[0, -1]]
        )

    def values(self, keys: Ints, day: Ints) -> Floats:
        """(B, T): the logs of ids (B,), as known when the days (B,), ordinals, began."""
        sums, every = self._before(keys, day), self.all_sums[np.searchsorted(self.all_days, day, side="right")]
        known, positive = sums[:, : self.tasks], sums[:, self.tasks :]
        base = (every[:, self.tasks :] + 1) / (every[:, : self.tasks] + 2)  # of no label at all: a half
        return np.asarray(np.log((positive + PRIOR * base) / ((known + PRIOR) * base)))

    def rows(self, keys: Ints, day: Ints) -> NDArray[np.int32]:
        """(B, T): the bins of `values`, as rows of one table of T · BINS."""
        bins = np.rint(STEP * self.values(keys, day)).clip(-REACH, REACH) + REACH
        return (bins + BINS * np.arange(self.tasks)).astype(np.int32)

    def _before(self, keys: Ints, day: Ints) -> Ints:
        """(B, 2T): sums over the entries of each id that are known by its day."""
        if not len(self.keys):
            return np.zeros((len(keys), self.sums.shape[1]), np.int64)
        rank = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        first, width, ranked = self._ranked
        until = np.searchsorted(ranked, rank * width + (day + 1 - first).clip(0, width - 1))
        found = self.sums[until] - self.sums[self.offsets[rank]]
        return np.where((self.keys[rank] == keys)[:, None], found, 0)

    @cached_property
    def _ranked(self) -> tuple[int, int, Ints]:
        """(first day, w, entries as w · place of the id + days since the first, which ascend)."""
        first = int(self.all_days[0])
        width = int(self.all_days[-1]) - first + 2
        return first, width, np.repeat(np.arange(len(self.keys)), np.diff(self.offsets)) * width + self.days - first


def days_of(contract: Contract, times: Ints) -> Ints:
    """The ordinal of the local day of each moment (epoch ms)."""
    if not len(times):
        return times
    first, last = (contract.day_of(int(t)).toordinal() for t in (times.min(), times.max()))
    starts = np.array([contract.day_start(date.fromordinal(day)) for day in range(first, last + 1)])
    return np.asarray(first + np.searchsorted(starts, times, side="right") - 1, np.int64)


def _cumulated(entries: NDArray[np.integer]) -> Ints:
    """(N+1, …) sums of the first 0 … N entries."""
    return np.concatenate([np.zeros((1, entries.shape[1]), np.int64), np.cumsum(entries, axis=0, dtype=np.int64)])
