"""Encoded requests → what a network reads: each history once, in a few buckets of like length, and where it goes.

A bucket holds histories of about the same length, of whatever action, padded only to the longest of them; empty histories are
in none. So the work follows the events that there are, not the longest history allowed. What is done to
a token alone is done to all of them at once: they lie end to end, bucket after bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.requests import Ints, Requests, shared

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
    ascending; the first column of user, item and token is a place in them, or an id where these are None. match (B, A, K, 2),
    K = 2·F: of all events of the history; of those that have the candidate's item, and each of its features (of a list: one
    entry of it); and of those that have a feature but the item and no earlier feature: how many there are (count bucket), and
    how long ago the last of them was (time-gap bucket; 0 where there is none), as rows of one table of every action's (K,
    count or gap); K is 0 where nobody reads them. place[b, a] is 0 where the history is empty, else 1 + the row of (bucket,
    n, r) in the buckets' outputs laid end to end; history[u, a] likewise of (bucket, n). told: rows of the statistics of
    users (U, T) and of items (B, T); no columns where there are none.
    """

    user_UF: Tensor
    item_BF: Tensor
    context_BC: Tensor
    request_B: Tensor
    label_BT: Tensor
    known_BT: Tensor
    users: Tensor | None
    items: Tensor | None
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


Dropout = tuple[float, np.random.Generator]
CPU = torch.device("cpu")


@dataclass
class Loader:
    """Batches of encoded `requests` (rows, from `Vocabulary.encode`), which lie on `device` as a whole.

    The processor plans a batch by lengths alone, so it knows every size in it, and a GPU that fills it need not be waited for.
    """

    requests: Requests
    slots: tuple[int, ...] | None = None
    """Item columns of each field that matches are told of: a list has several. None: each column is a field; (): no matches."""
    device: torch.device = CPU

    def __post_init__(self) -> None:
        given, told = self.requests, self.requests.sequences
        self.fields = (1,) * given.item.shape[1] if self.slots is None else self.slots
        self.sizes, self.lengths = np.diff(given.offsets), given.end - given.start
        self.first = given.start + np.cumsum([0, *map(len, told.tokens)])[:-1]
        rows = given.user, given.item, given.context, np.concatenate(told.tokens), *(given.told or ())
        self.user, self.item, self.context, self.tokens, *self.told = (_tensor(of).to(self.device) for of in rows)
        self.label, self.times = (_tensor(of).to(self.device) for of in (given.label, np.concatenate(told.times)))
        self.eye = torch.eye(len(told.tokens), device=self.device)
        ids = (rows[:, :1] for rows in (given.user, given.item, *told.tokens))
        self.scratch = torch.empty(1 + max(int(of.max(initial=0)) for of in ids), dtype=torch.int64)

    def _put(self, rows: NDArray[Any]) -> Tensor:
        """On the device; a GPU copies from pinned memory when it comes to it, without a wait here."""
        tensor = _tensor(rows)
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(4096)

    def batches(self, samples: int, order: Ints | None = None, dropout: Dropout | None = None) -> Iterator[Batch]:
        """Batches of about `samples` samples, requests in `order`; `dropout` (rate, generator) turns rows 'unknown'."""
        for chosen in self.requests.chunks(samples, order):
            with _one_thread():
                batch = self._batch(chosen, dropout)
            yield batch

    def _batch(self, chosen: Ints, dropout: Dropout | None) -> Batch:
        sizes, lengths = self.sizes[chosen], self.lengths[chosen]
        samples, actions = int(sizes.sum()), lengths.shape[1]

        # Every history that is not empty, those of like length together, an action's after another's.
        action, request = np.nonzero(lengths.T)
        bucket = np.searchsorted(EDGES, lengths[request, action])
        order = np.argsort(bucket, kind="stable")
        action, request, bucket = action[order], request[order], bucket[order]
        length, size = lengths[request, action], sizes[request]
        firsts = np.flatnonzero(np.diff(bucket, prepend=-1))
        counts = np.diff(np.append(firsts, len(bucket)))
        longest, most = (np.maximum.reduceat(n, firsts) if len(firsts) else n for n in (length, size))
        widths, heights = np.repeat(longest, counts), np.repeat(most, counts)
        offsets = np.cumsum(sizes) - sizes
        token, time, sample = self.first[chosen][request, action], self.requests.time[chosen][request], offsets[request]
        plan = self._put(np.stack([action, request, length, size, widths, heights, token, time, sample]))
        action_H, request_H, length_H, size_H, width_H, height_H, token_H, time_H, sample_H = plan
        chosen_U, size_U, shift_U = self._put(np.stack([chosen, sizes, self.requests.offsets[chosen] - offsets]))

        request_B, turn, begin_U = _laid_out(size_U, samples)
        row_B = turn + _at(shift_U + begin_U, request_B)
        history_Q, step, begin_H = _laid_out(width_H, int(widths.sum()))
        length_Q = _at(length_H, history_Q)
        present = step < length_Q
        token_Q = _at(token_H, history_Q) + step * present
        gap = _gaps(_at(time_H, history_Q) - _at(self.times, token_Q))
        high, turn, _ = _laid_out(height_H, int(heights.sum()))
        looks = turn < _at(size_H, high)
        candidate = torch.where(looks, _at(sample_H, high) + turn, -1)
        # One row behind all others takes what nobody looks at: to leave it out would be to wait for how much there is.
        spot = torch.where(looks, candidate * actions + _at(action_H, high), samples * actions)
        place = self._zeros(samples * actions + 1).index_copy_(0, spot, self._count(len(spot)) + 1)
        spots = request_H * actions + action_H
        history = self._zeros(len(chosen) * actions).index_copy_(0, spots, self._count(len(spots)) + 1)
        item, tokens = _at(self.item, row_B), _at(self.tokens, token_Q)
        match = self._zeros(samples * actions + 1, 2 * len(self.fields), 2)

        buckets: list[Bucket] = []
        begin = row = 0
        for first, count, width, height in zip(firsts, counts, longest.tolist(), most.tolist(), strict=True):
            of, rows = slice(begin, begin + count * width), slice(row, row + count * height)
            present_NL, candidate_NR = present[of].view(-1, width), candidate[rows].view(-1, height)
            there = [(a, n) for a, n in enumerate(np.bincount(action[first : first + count]).tolist()) if n]
            buckets.append(Bucket(present_NL, candidate_NR, there))
            if self.fields:
                own = _at(item, candidate_NR.flatten().clamp(min=0)).view(*candidate_NR.shape, -1)
                theirs = tokens[of].view(*present_NL.shape, -1)
                found = _matches(own, theirs, self.fields, present_NL, gap[of].view(-1, width))
                match.index_copy_(0, spot[rows], found.flatten(0, 1))
            begin, row = of.stop, rows.stop

        user, item = self._dropped(_at(self.user, chosen_U), dropout), self._dropped(item, dropout)
        tokens, context = self._dropped(tokens, dropout), self._dropped(_at(self.context, row_B), dropout)
        tables = self._count(actions * match.shape[1]).view(actions, -1, 1) * (COUNTS + GAPS)
        label = _at(self.label, row_B)
        return Batch(
            user,
            item,
            context,
            request_B,
            label.clamp(min=0).float(),
            label >= 0,
            self._ids([user]),
            self._ids([item, tokens]),
            tokens,
            gap,
            (length_Q - 1 - step).clamp_(min=0),
            _at(self.eye, _at(action_H, history_Q)),
            present / length_Q.double(),
            begin_H,
            buckets,
            match[:-1].view(samples, actions, -1, 2) + torch.cat([tables, tables + COUNTS], dim=-1),
            place[:-1].view(samples, actions),
            history.view(len(chosen), actions),
            *(self._told(rows, at) for rows, at in ((0, chosen_U), (1, row_B))),
        )

    def _told(self, side: int, rows: Tensor) -> Tensor:
        return _at(self.told[side], rows).long() if self.told else self._zeros(len(rows), 0)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=self.device)

    def _count(self, end: int) -> Tensor:
        return torch.arange(end, device=self.device)

    def _dropped(self, rows: Tensor, dropout: Dropout | None) -> Tensor:
        """An item without a row is 'unknown', and so is what is dropped; in a type that may be written to."""
        rows = rows.clamp(min=0).long()
        if dropout is not None:
            rate, generator = dropout
            rows.masked_fill_(self._put(generator.random(rows.shape, np.float32) < rate), 0)
        return rows

    def _ids(self, parts: list[Tensor]) -> Tensor | None:
        """The distinct ids, ascending, in the first columns of `parts`, which then hold places in them.

        None but on the processor: how many there are would have to be waited for.
        """
        if self.device.type != "cpu":
            return None
        ordered = np.sort(np.concatenate([p[:, 0].numpy() for p in parts]).astype(np.int32))
        distinct = torch.from_numpy(ordered[np.diff(ordered, prepend=-1) > 0].astype(np.int64))
        self.scratch.index_copy_(0, distinct, self._count(len(distinct)))
        for part in parts:
            part[:, 0] = _at(self.scratch, part[:, 0])
        return distinct


@contextmanager
def _one_thread() -> Iterator[None]:
    """So many small operations are slower on several threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tensor(rows: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.require(rows, requirements="W"))


def _at(rows: Tensor, places: Tensor) -> Tensor:
    return rows.index_select(0, places)


def _laid_out(widths: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of runs of these widths laid end to end, `total`: which run each place is of, which place of it; where each begins."""
    begin = widths.cumsum(0) - widths
    run = torch.repeat_interleave(widths, output_size=total)
    return run, torch.arange(total, device=widths.device) - _at(begin, run), begin


def _gaps(milliseconds: Tensor) -> Tensor:
    return torch.frexp(milliseconds.double() / 1000).exponent.clamp_(0, GAPS - 1).long()


def _matches(item_NRC: Tensor, token_NLC: Tensor, slots: tuple[int, ...], present_NL: Tensor, gap_NL: Tensor) -> Tensor:
    """(N, R, 2·F, 2): count and time-gap bucket of all of the history's events, then of those that have what `shared` tells of
    in common with the candidate; `slots`: columns (of C) of each field.

    Row 0, 'unknown', equals nothing. The newest event's gap is the least one, so that the largest of 32 - gap tells it.
    """
    there = present_NL[:, None].expand(-1, item_NRC.shape[1], -1)
    found = shared(item_NRC[:, :, None], token_NLC[:, None], slots, missing=0)
    recency = (GAPS - gap_NL).to(torch.uint8)[:, None]
    counts, newest = [], []
    for same in (there, *found):  # one by one: of many candidates and long histories all at once would be much
        of = (same & there).view(torch.uint8)
        counts.append(of.sum(-1, dtype=torch.int32))
        newest.append((of * recency).amax(-1))
    count = torch.frexp(torch.stack(counts, -1).float()).exponent.clamp_(max=COUNTS - 1)
    return torch.stack([count, (GAPS - torch.stack(newest, -1).int()) % GAPS], dim=-1).long()
