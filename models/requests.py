"""Whole requests and the ragged histories that they point into: the one structure that training and serving read.

A history is never copied per sample and never padded here. Per action there is one array of tokens ordered by
(user, time); a request points at [start, end) of it, where `end` is the user's number of events strictly before the
request. So point-in-time correctness is one integer, found by one binary search.

All arrays are numpy. Ids are raw 64-bit keys here; `models.vocabulary` turns them into rows without changing the shape.
Letters: U requests · B samples · T tasks · A actions · N tokens of one action · F fields.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
MASKED = -1
"""A label that says nothing: its task is conditional on another that did not happen, or it was not known in time."""

NULL_KEY = np.iinfo(np.int64).min
"""The key of a missing feature; no vocabulary holds it, so it becomes row 0, 'unknown'."""


def shared(own: Any, other: Any, slots: Sequence[int], missing: int) -> list[Any]:
    """What items have in common, of their columns (…, C), which broadcast: by field, whether an entry of it; then by field but
    the first, whether an entry of it and none of a field before it. `slots`: columns of each field; `missing` equals nothing.
    """
    same, end = [], 0
    for count in slots:
        begin, end = end, end + count
        pairs = ((own[..., a], other[..., b]) for a in range(begin, end) for b in range(begin, end))
        same.append(reduce(operator.or_, ((mine == theirs) & (mine != missing) for mine, theirs in pairs)))
    before = itertools.accumulate(same, operator.or_)
    return [*same, *(with_it & ~earlier for with_it, earlier in zip(same[1:], before, strict=False))]


@dataclass(frozen=True)
class Sequences:
    """What users did, per action, ordered by (user, time); ties keep a total order of their own.

    users     sorted distinct user keys                      (V,)
    offsets   per action: token offsets of each user         A × (V+1,)
    tokens    per action: item key and item feature keys     A × (N, Fi)
    times     per action: epoch ms                           A × (N,)
    """

    users: Ints
    offsets: list[Ints]
    tokens: list[NDArray[Any]]
    times: list[Ints]

    @classmethod
    def from_events(cls, users: list[Ints], tokens: list[NDArray[Any]], times: list[Ints]) -> Sequences:
        """Order events, given per action in any order, by (user, time, item, features).

        Users (N,), tokens (N, Fi), times (N,), each a list over actions.
        """
        orders = [np.lexsort((*k.T[::-1], t, u)) for u, k, t in zip(users, tokens, times, strict=True)]
        return cls.from_runs(*([x[o] for x, o in zip(part, orders, strict=True)] for part in (users, tokens, times)))

    @classmethod
    def from_runs(cls, users: list[Ints], tokens: list[NDArray[Any]], times: list[Ints]) -> Sequences:
        """As `from_events`, for events whose every user's are in order already: day partitions one after the other.

        A stable sort by user alone keeps that order, and on runs that are sorted it is a merge.
        """
        distinct = np.unique(np.concatenate([*users, np.empty(0, np.int64)]))
        offsets, ordered, when = [], [], []
        for user, token, time in zip(users, tokens, times, strict=True):
            order = np.argsort(user, kind="stable")
            offsets.append(
                np.append(np.searchsorted(user[order], distinct), len(order)).astype(np.int64)
            )  # an id may be the largest
            ordered.append(token[order])
            when.append(time[order])
        return cls(distinct, offsets, ordered, when)

    def span(self, user: Ints, before: Ints, since: Ints, lengths: Sequence[int]) -> tuple[Ints, Ints]:
        """(start, end), each (U, A): tokens of `user` with since ≤ time < before, at most the last `lengths[a]`.

        `user`, `before`, `since`: (U,). An unknown user has empty spans.
        """
        place = np.searchsorted(self.users, user)
        known = (
            (place < len(self.users)) & (self.users[np.minimum(place, max(len(self.users) - 1, 0))] == user)
            if len(self.users)
            else np.zeros(len(user), bool)
        )
        start = np.zeros((len(user), len(self.offsets)), np.int64)
        end = np.zeros_like(start)
        for action, (offsets, times) in enumerate(zip(self.offsets, self.times, strict=True)):
            if not len(times) or not known.any():
                continue
            # One sorted key (user rank, time) for all tokens turns 'strictly before' into one binary search.
            base = times.min()
            width = int(times.max() - base) + 2
            owner = np.repeat(np.arange(len(self.users)), np.diff(offsets))
            key = owner * width + (times - base)
            rank = place[known]
            last = np.searchsorted(key, rank * width + np.clip(before[known] - base, 0, width - 1))
            first = np.searchsorted(key, rank * width + np.clip(since[known] - base, 0, width - 1))
            end[known, action] = last
            start[known, action] = np.maximum(first, last - lengths[action])
        return start, np.maximum(start, end)


@dataclass(frozen=True)
class Requests:
    """U requests of one user at one moment each, with their B candidates, in whole requests.

    user      user key and user feature keys                     (U, Fu)
    time      epoch ms of the request                            (U,)
    offsets   request u holds samples offsets[u]…offsets[u+1]    (U+1,)
    item      item key and item feature keys                     (B, Fi)
    context   context keys                                       (B, Fc)
    label     0, 1, or MASKED                                    (B, T) int8
    start,end per action: the request's span in `sequences`      (U, A)
    sequences shared by all selections of these requests
    told      of encoded requests: rows of `models.statistics` of each user and item, (U, T) and (B, T), or none
    """

    user: NDArray[Any]
    time: Ints
    offsets: Ints
    item: NDArray[Any]
    context: NDArray[Any]
    label: NDArray[np.int8]
    start: Ints
    end: Ints
    sequences: Sequences
    told: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        """Number of samples B."""
        return len(self.item)

    @property
    def request(self) -> Ints:
        """Which request each sample belongs to, (B,)."""
        return np.repeat(np.arange(len(self.time)), np.diff(self.offsets))

    def take(self, requests: Ints) -> Requests:
        """The requests at these positions, in this order, whole; the sequences are shared, not copied."""
        sizes = self.offsets[requests + 1] - self.offsets[requests]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = np.repeat(self.offsets[requests] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return replace(
            self,
            user=self.user[requests],
            time=self.time[requests],
            offsets=offsets,
            item=self.item[rows],
            context=self.context[rows],
            label=self.label[rows],
            start=self.start[requests],
            end=self.end[requests],
            told=None if self.told is None else (self.told[0][requests], self.told[1][rows]),
        )

    def chunks(self, samples: int, order: Ints | None = None) -> list[Ints]:
        """Whole requests, in `order` (default as they stand), about `samples` samples at a time: their positions."""
        order = np.arange(len(self.time)) if order is None else order
        if not len(order):
            return []
        reached = np.cumsum(np.diff(self.offsets)[order])
        return np.split(order, np.flatnonzero(np.diff((reached - 1) // samples)) + 1)


def group(user: Ints, time: Ints) -> Ints:
    """Offsets (U+1,) of the requests in rows ordered by (user, time): a request is one user at one moment."""
    if not len(user):
        return np.zeros(1, np.int64)
    new = np.flatnonzero((user[1:] != user[:-1]) | (time[1:] != time[:-1])) + 1
    return np.concatenate([[0], new, [len(user)]]).astype(np.int64)
