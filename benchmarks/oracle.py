"""How good a ranking of a simulated day can be at best, and how good one is, with the noise of the drawn labels and without.

The simulator keeps the probability p that each impression's label was drawn with. Against drawn labels even p ranks with the
luck of the draw. Against p itself as a soft label nothing is drawn: row i is a positive with weight p_i and a negative with
weight 1 − p_i, and over all ordered pairs of different rows, scores s,

    AUC(s) = Σ_{i≠j} p_i (1 − p_j) ([s_i > s_j] + ½ [s_i = s_j])  ÷  Σ_{i≠j} p_i (1 − p_j)

that is, the expected number of well-ordered pairs over the expected number of pairs, labels being drawn independently. No score
has a greater one than p has. What is told here is about a day of an exposure log of `assets.simulator`.
Letters: B samples · T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assets.simulator import MEANINGS
from models import window
from models.contract import Contract
from models.home import Home
from models.metrics import auc
from models.requests import Requests

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reach:
    """AUCs of one task: of the true probabilities, and of the scores; against drawn labels, and against soft ones."""

    best_drawn: float
    best_soft: float
    drawn: float
    soft: float


def soft_auc(probabilities: NDArray[Any], scores: NDArray[Any]) -> float:
    """AUC of scores (B,) against true probabilities (B,) as soft labels, by the formula at the top; exact, in O(B log B).

    nan when there is no pair of weight above 0. Raises ValueError on scores that are not finite, or no probabilities.
    """
    p, s = np.asarray(probabilities, np.float64), np.asarray(scores, np.float64)
    if p.shape != s.shape or p.ndim != 1:
        raise ValueError(f"probabilities {p.shape} and scores {s.shape} must be of one shape, (B,)")
    if not np.isfinite(s).all():
        raise ValueError(f"{int((~np.isfinite(s)).sum())} of {len(s)} scores are not finite")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("true probabilities must lie in [0, 1]")
    own = p * (1 - p)  # the weight of a row's pair with itself, which is none
    pairs = p.sum() * (1 - p).sum() - own.sum()
    if not pairs > 0:
        return float("nan")
    _, tied = np.unique(s, return_inverse=True)
    negatives = np.bincount(tied, 1 - p)
    below = np.cumsum(negatives) - negatives
    won = (p * (below + negatives / 2)[tied]).sum() - own.sum() / 2
    return float(won / pairs)


def truth(home: Home, contract: Contract, day: str, requests: Requests) -> Floats:
    """The true probability (B, T) of each sample of `requests`, raw keys, all of `day`, in its order.

    Raises FileNotFoundError for a home without a simulated truth of the day, ValueError for a task or a sample not in it.
    """
    if strange := [task for task in contract.tasks if task not in MEANINGS]:
        raise ValueError(f"the simulator draws no {', '.join(strange)}; it draws {', '.join(MEANINGS)}")
    table = pq.read_table(home.truth / f"day={day}.parquet", partitioning=None)
    known = np.stack([table.column(name).to_numpy() for name in ("user", "time", "item")])
    request = requests.request
    asked = np.stack([requests.user[request, 0], requests.time[request], requests.item[:, 0]])
    _, key = np.unique(np.concatenate([known, asked], axis=1), axis=1, return_inverse=True)
    row = np.full(key.max(initial=-1) + 1, -1)
    row[key[: known.shape[1]]] = np.arange(known.shape[1])
    row = row[key[known.shape[1] :]]
    if missing := int((row < 0).sum()):
        raise ValueError(f"{missing} of {len(row)} samples of {day} are not in {home.truth}; was it simulated again?")
    return np.stack([table.column(MEANINGS[task]).to_numpy()[row] for task in contract.tasks], axis=1)


def reach(home: Home, contract: Contract, day: str, scores: Floats) -> dict[str, Reach]:
    """Per task what `scores` (B, T), in the order of the day's samples, reach on `day`, and what could be."""
    requests = window.read_requests(home, contract, [day])
    p = truth(home, contract, day, requests)
    if scores.shape != p.shape:
        raise ValueError(f"scores {scores.shape} came; the day's samples and tasks are {p.shape}")
    out = {}
    for t, task in enumerate(contract.tasks):
        y = requests.label[:, t]
        out[task] = Reach(
            best_drawn=auc(y, p[:, t]),
            best_soft=soft_auc(p[:, t], p[:, t]),
            drawn=auc(y, scores[:, t]),
            soft=soft_auc(p[:, t], scores[:, t]),
        )
    return out
