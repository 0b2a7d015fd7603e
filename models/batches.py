"""Encoded requests → what a network reads: each history once, in a few buckets of like length, and where it goes.

A bucket holds the (request, action) pairs whose histories have about the same length, padded only to the longest of them;
empty histories are in none. So the work follows the events that there are, not the longest history allowed.
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

from models.requests import Ints, Requests

EDGES = np.array([2, 4, 8, 16, 32])
"""Bucket k holds lengths up to EDGES[k]; the last one holds the rest."""

GAPS = 32
"""Time-gap buckets: 0 below a second, else 1 + ⌊log2 of the seconds since the event⌋, as floats store it."""


@dataclass
class Bucket:
    """N histories of length ≤ L, oldest event first.

    token (N, L, Fi) rows · gap (N, L) time-gap bucket · age (N, L) 0 for the newest event · present (N, L) · action (N,)
    · candidate (N, R) the samples that look at the history, -1 where a request has fewer than R
    """

    token_NLF: Tensor
    gap_NL: Tensor
    age_NL: Tensor
    present_NL: Tensor
    action_N: Tensor
    candidate_NR: Tensor


@dataclass
class Batch:
    """Whole requests: user (U, Fu), item (B, Fi), context (B, Fc) rows; label and known (B, T); place (B, A).

    place[b, a] is 0 where the history is empty, else 1 + the row of (bucket, n, r) in the buckets' outputs laid end to end.
    """

    user_UF: Tensor
    item_BF: Tensor
    context_BC: Tensor
    request_B: Tensor
    label_BT: Tensor
    known_BT: Tensor
    buckets: list[Bucket]
    place_BA: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if device.type == "cpu":
            return self
        rest: dict[str, Any] = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if k != "buckets"}
        return Batch(
            **rest, buckets=[Bucket(**{k: v.to(device, non_blocking=True) for k, v in vars(b).items()}) for b in self.buckets]
        )


@dataclass
class Loader:
    """Batches of encoded `requests` (rows, from `Vocabulary.encode`)."""

    requests: Requests
    bases: Ints = field(init=False)

    def __post_init__(self) -> None:
        sizes = [len(t) for t in self.requests.sequences.tokens]
        self.bases = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

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
        sizes = np.diff(part.offsets)
        place = np.zeros((len(part), part.start.shape[1]), np.int64)
        lengths = (part.end - part.start).ravel()
        owner, action = np.divmod(np.arange(len(lengths)), part.start.shape[1])
        bucket = np.where(lengths > 0, np.searchsorted(EDGES, lengths), -1)
        buckets, base = [], 1
        for number in range(len(EDGES) + 1):
            chosen = np.flatnonzero(bucket == number)
            if not len(chosen):
                continue
            u, a, n = owner[chosen], action[chosen], lengths[chosen]
            longest, most = int(n.max()), int(sizes[u].max())
            step = np.arange(longest)
            present = step < n[:, None]
            token = (self.bases[a] + part.start.ravel()[chosen])[:, None] + np.where(present, step, 0)
            gap = (part.time[u][:, None] - self.times[token]) / 1000.0
            candidate = np.where(np.arange(most) < sizes[u][:, None], part.offsets[u][:, None] + np.arange(most), -1)
            n_index, r_index = np.nonzero(candidate >= 0)
            place[candidate[n_index, r_index], a[n_index]] = base + n_index * most + r_index
            base += len(chosen) * most
            buckets.append(
                Bucket(
                    _rows(self.tokens[token], dropout),
                    torch.from_numpy(np.frexp(gap)[1].clip(0, GAPS - 1).astype(np.int64)),
                    torch.from_numpy(np.where(present, n[:, None] - 1 - step, 0)),
                    torch.from_numpy(present),
                    torch.from_numpy(a),
                    torch.from_numpy(candidate),
                )
            )
        return Batch(
            _rows(part.user, dropout),
            _rows(part.item, dropout),
            _rows(part.context, dropout),
            torch.from_numpy(part.request),
            torch.from_numpy(part.label.clip(0).astype(np.float32)),
            torch.from_numpy(part.label >= 0),
            buckets,
            torch.from_numpy(place),
        )


def _rows(rows: NDArray[np.int32], dropout: tuple[float, np.random.Generator] | None) -> Tensor:
    if dropout is not None:
        rate, generator = dropout
        rows = np.where(generator.random(rows.shape, np.float32) < rate, 0, rows)
    return torch.from_numpy(rows.astype(np.int64))
