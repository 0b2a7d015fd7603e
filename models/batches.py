"""Encoded requests → what a network reads: each history once, in a few buckets of like length, and where it goes.

A bucket holds histories of about the same length, of whatever action, padded only to the longest of them; empty histories are
in none. So the work follows the events that there are, not the longest history allowed. What is done to
a token alone is done to all of them at once: they lie end to end, bucket after bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.requests import Ints, Requests, shared
from models.vocabulary import Rows

EDGES = np.array([2, 4, 8, 16, 32])
"""Bucket k holds lengths up to EDGES[k]; the last one holds the rest."""

GAPS = 32
"""Time-gap buckets: 0 below a second, else 1 + ⌊log2 of the seconds since the event⌋, as floats store it."""


COUNTS = 8
"""Count buckets: 0, 1, 2–3, 4–7, … and 64 or more: 0 or 1 + ⌊log2⌋."""


@dataclass
class Bucket:
    """N histories of length ≤ L, an action's after another's, oldest event first; their N·L tokens follow the last bucket's.

    present (N, L) · candidate (N, R) the samples that look at the history, -1 where a request has fewer than R ·
    actions: (action, how many of the N are of it), in order
    """

    present_NL: Tensor
    candidate_NR: Tensor
    actions: list[tuple[int, int]]

    def by_action(self) -> Iterator[tuple[int, Bucket]]:
        """The histories of each action as a bucket."""
        counts = [count for _, count in self.actions]
        present_candidate = (torch.split(x, counts) for x in (self.present_NL, self.candidate_NR))
        parts = zip(self.actions, *present_candidate, strict=True)
        for (action, count), present, candidate in parts:
            yield action, Bucket(present, candidate, [(action, count)])


@dataclass
class Batch:
    """Whole requests: user (U, Fu), item (B, Fi), context (B, Fc) rows; label and known (B, T); place (B, A), history (U, A).

    The tokens of all H histories lie end to end as the buckets do: token (Q, Fi) rows · gap (Q,) time-gap bucket · age (Q,) 0
    for the newest event · action (Q, A) 1 at its own, else 0 · share (Q,) one over its history's length, 0 of what is no
    event · begin (H,) where those of each history begin. Of ids only these rows are read: users (Nu,), items (Ni,),
    ascending; the first column of user, item and token is a place in them. match (B, A, K, 2), K = 2·F: of all events of the
    history; of those that have the candidate's item, and each of its features (of a list: one entry of it); and of those that
    have a feature but the item and no earlier feature: how many there are (count bucket), and how long ago the last of them
    was (time-gap bucket; 0 where there is none), as rows of one table of every action's (K, count or gap); K is 0 where
    nobody reads them. place[b, a] is 0 where the history is empty, else 1 + the row of (bucket, n, r) in the buckets' outputs
    laid end to end; history[u, a] likewise of (bucket, n). told: rows of the statistics of users (U, T) and of items (B, T); no
    columns where there are none.
    """

    user_UF: Tensor
    item_BF: Tensor
    context_BC: Tensor
    request_B: Tensor
    label_BT: Tensor
    known_BT: Tensor
    users: Tensor
    items: Tensor
    token_QF: Tensor
    gap_Q: Tensor
    age_Q: Tensor
    action_QA: Tensor
    share_Q: Tensor
    begin_H: Tensor
    buckets: list[Bucket]
    match_BAK2: Tensor
    place_BA: Tensor
    history_UA: Tensor
    user_told_UT: Tensor
    item_told_BT: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if device.type == "cpu":
            return self

        def moved(part: Batch | Bucket) -> dict[str, Any]:
            return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in vars(part).items()}

        return Batch(**{**moved(self), "buckets": [Bucket(**moved(b)) for b in self.buckets]})


@dataclass
class Loader:
    """Batches of encoded `requests` (rows, from `Vocabulary.encode`)."""

    requests: Requests
    slots: tuple[int, ...] | None = None
    """Item columns of each field that matches are told of: a list has several. None: each column is a field; (): no matches."""
    bases: Ints = field(init=False)
    fields: tuple[int, ...] = field(init=False)
    scratch: Ints = field(init=False)

    def __post_init__(self) -> None:
        sizes = [len(t) for t in self.requests.sequences.tokens]
        self.bases = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        ids = [self.requests.user, self.requests.item, *self.requests.sequences.tokens]
        self.scratch = np.empty(1 + max(int(rows[:, 0].max(initial=0)) for rows in ids), np.int64)
        self.fields = (1,) * self.requests.item.shape[1] if self.slots is None else self.slots

    @cached_property
    def tokens(self) -> NDArray[np.int32]:
        """All actions' tokens end to end, (ΣN, Fi)."""
        return np.concatenate(self.requests.sequences.tokens)

    @cached_property
    def times(self) -> Ints:
        return np.concatenate(self.requests.sequences.times)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(4096)

    def batches(
        self, samples: int, order: Ints | None = None, dropout: tuple[float, np.random.Generator] | None = None
    ) -> Iterator[Batch]:
        """Batches of about `samples` samples, requests in `order`; `dropout` (rate, generator) turns rows 'unknown'."""
        for part in self.requests.batches(samples, order):
            yield self._batch(part, dropout)

    def _batch(self, part: Requests, dropout: tuple[float, np.random.Generator] | None) -> Batch:
        sizes, lengths = np.diff(part.offsets), part.end - part.start
        place, history = (np.zeros((n, lengths.shape[1]), np.int64) for n in (len(part), len(part.time)))
        match = np.zeros((*place.shape, 2 * len(self.fields), 2), np.int64)

        # Every history that is not empty, those of like length together, an action's after another's.
        action, request = np.nonzero(lengths.T)
        bucket = np.searchsorted(EDGES, lengths[request, action])
        order = np.argsort(bucket, kind="stable")
        action, request, bucket = action[order], request[order], bucket[order]
        length, size = lengths[request, action], sizes[request]
        firsts = np.flatnonzero(np.diff(bucket, prepend=-1))
        counts = np.diff(np.append(firsts, len(bucket)))
        longest, most = (np.maximum.reduceat(n, firsts) if len(firsts) else n for n in (length, size))

        widths = np.repeat(longest, counts)
        wide, step = _laid_out(widths)
        present = step < length[wide]
        token = (self.bases[action] + part.start[request, action])[wide] + np.where(present, step, 0)
        gap = _gaps(part.time[request][wide] - self.times[token])
        age = np.where(present, length[wide] - 1 - step, 0)
        share = present / length[wide]
        high, turn = _laid_out(np.repeat(most, counts))
        looks = turn < size[high]
        candidate = np.where(looks, part.offsets[request][high] + turn, -1)
        place[candidate[looks], action[high[looks]]] = 1 + np.flatnonzero(looks)
        history[request, action] = 1 + np.arange(len(request))

        buckets: list[Bucket] = []
        begin = row = 0
        for first, count, width, height in zip(firsts, counts, longest.tolist(), most.tolist(), strict=True):
            tokens, rows = slice(begin, begin + count * width), slice(row, row + count * height)
            present_NL, candidate_NR = present[tokens].reshape(-1, width), candidate[rows].reshape(-1, height)
            of = action[first : first + count]
            there = [(a, n) for a, n in enumerate(np.bincount(of).tolist()) if n]
            buckets.append(Bucket(torch.from_numpy(present_NL), torch.from_numpy(candidate_NR), there))
            if self.fields:
                own, theirs = part.item[candidate_NR], self.tokens[token[tokens].reshape(-1, width)]
                found = _matches(own, theirs, self.fields, present_NL, gap[tokens].reshape(-1, width))
                looking = looks[rows].reshape(-1, height)
                match[candidate_NR[looking], np.repeat(of, looking.sum(1))] = found[looking]
            begin, row = tokens.stop, rows.stop

        user, item = _dropped(part.user, dropout), _dropped(part.item, dropout)
        token_QF = _dropped(self.tokens[token], dropout)
        tables = np.arange(match.shape[1] * match.shape[2]).reshape(*match.shape[1:3], 1)
        told = part.told or tuple(np.empty((n, 0), np.int32) for n in (len(user), len(item)))
        users, items = _localised([user], self.scratch), _localised([item, token_QF], self.scratch)
        return Batch(
            torch.from_numpy(user),
            torch.from_numpy(item),
            torch.from_numpy(_dropped(part.context, dropout)),
            torch.from_numpy(part.request),
            torch.from_numpy(part.label.clip(0).astype(np.float32)),
            torch.from_numpy(part.label >= 0),
            torch.from_numpy(users),
            torch.from_numpy(items),
            torch.from_numpy(token_QF),
            torch.from_numpy(gap),
            torch.from_numpy(age),
            torch.from_numpy(np.eye(lengths.shape[1], dtype=np.float32)[action[wide]]),
            torch.from_numpy(share),
            torch.from_numpy(np.cumsum(widths) - widths),
            buckets,
            torch.from_numpy(match + tables * (COUNTS + GAPS) + [0, COUNTS]),
            torch.from_numpy(place),
            torch.from_numpy(history),
            *(torch.from_numpy(rows.astype(np.int64)) for rows in told),
        )


def _laid_out(widths: Ints) -> tuple[Ints, Ints]:
    """Of runs of these widths laid end to end: which run each place is of, and which place of it."""
    run = np.repeat(np.arange(len(widths)), widths)
    return run, np.arange(len(run)) - (np.cumsum(widths) - widths)[run]


def _gaps(milliseconds: Ints) -> Ints:
    return np.frexp(milliseconds / 1000.0)[1].clip(0, GAPS - 1).astype(np.int64)


def _matches(item_NRC: Rows, token_NLC: Rows, slots: tuple[int, ...], present_NL: NDArray[np.bool_], gap_NL: Ints) -> Ints:
    """(N, R, 2·F, 2): count and time-gap bucket of all of the history's events, then of those that have what `shared` tells of
    in common with the candidate; `slots`: columns (of C) of each field.

    Row 0, 'unknown', equals nothing. The events are in time order, so the last one is the newest.
    """
    (histories, candidates, _), length = item_NRC.shape, token_NLC.shape[1]
    there = present_NL[:, None, :]
    found = shared(item_NRC[:, :, None], token_NLC[:, None], slots, missing=0)
    out = np.empty((histories, candidates, 2 * len(slots), 2), np.int64)
    for place, of in enumerate([there, *(same & there for same in found)]):
        count, last = of.sum(-1), length - 1 - of[..., ::-1].argmax(-1)
        gap = np.where(count > 0, gap_NL[np.arange(histories)[:, None], last], 0)
        out[:, :, place, 0], out[:, :, place, 1] = np.frexp(count)[1].clip(0, COUNTS - 1), gap
    return out


def _dropped(rows: NDArray[np.int32], dropout: tuple[float, np.random.Generator] | None) -> Ints:
    if dropout is not None:
        rate, generator = dropout
        rows = np.where(generator.random(rows.shape, np.float32) < rate, 0, rows)
    return np.maximum(rows, 0).astype(np.int64)  # an item without a row is 'unknown'


def _localised(parts: list[Ints], scratch: Ints) -> Ints:
    """The distinct ids, ascending, in the first columns of `parts`, which then hold places in them; `scratch` has one an id."""
    ordered = np.sort(np.concatenate([p[:, 0] for p in parts]).astype(np.int32))
    distinct = ordered[np.diff(ordered, prepend=-1) > 0].astype(np.int64)
    scratch[distinct] = np.arange(len(distinct))
    for part in parts:
        part[:, 0] = scratch[part[:, 0]]
    return distinct
