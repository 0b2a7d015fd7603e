"""How good a ranking and its probabilities are: exact, vectorised, and the same numbers as their written definitions.

Labels are 0, 1 or MASKED (-1); masked rows are left out by every function here. Weights, where resampling needs them, are
AUC's alone. A metric that its rows do not define (an AUC of one class, anything of no rows) is nan, never a made-up 0 or 0.5.
Which differences matter is `models.judgement`'s business. Letters: B samples · N rows that are not masked · U users ·
R resamples · K bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.requests import MASKED

Floats = NDArray[np.float64]

BINS = 10
CHUNK = 1 << 18
"""Elements of one block of resamples: small enough for the cache, large enough to hide numpy's call overhead."""


def auc(labels: NDArray[Any], scores: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """Area under the ROC curve: P(score of a positive > that of a negative), ties counting one half; exact.

    labels, scores, weights: (B,). A weight counts a row that many times (a bootstrap's multiplicities, for one).
    nan without a positive or a negative of weight above 0. Raises ValueError on scores that are not finite.

    >>> auc(np.array([0, 1, 0, 1, -1]), np.array([0.1, 0.4, 0.4, 0.8, 0.0]))
    0.875
    """
    labels, scores, kept = _known(labels, scores)
    counts = np.ones((1, len(labels))) if weights is None else np.asarray(weights, np.float64)[kept][None]
    return float(resampled_auc(labels, scores, np.arange(len(labels)), counts)[0])


def resampled_auc(labels: NDArray[Any], scores: NDArray[Any], users: NDArray[Any], counts_RU: NDArray[Any]) -> Floats:
    """(R,) AUCs, in each of which every row of user u counts `counts_RU[r, u]` times; nan where a class is missing.

    labels, scores: (B,); users: (B,) positions in counts_RU's second axis. The scores are sorted once: each positive then
    knows how many negatives lie below it and how many not above it, and a resample is a cumulative sum of their weights.
    """
    labels, scores, kept = _known(labels, scores)
    users = np.asarray(users)[kept]
    positive = np.flatnonzero(labels == 1)
    negative = np.flatnonzero(labels == 0)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    not_above = np.searchsorted(scores[negative], scores[positive], side="right")
    out = np.empty(len(counts_RU))
    step = max(1, CHUNK // max(len(labels), 1))
    for first in range(0, len(counts_RU), step):
        counts = counts_RU[first : first + step]
        wins = np.zeros((len(counts), len(negative) + 1))
        np.cumsum(counts[:, users[negative]], axis=1, out=wins[:, 1:], dtype=np.float64)
        weight = counts[:, users[positive]].astype(np.float64)
        beaten = (weight * (wins[:, below] + wins[:, not_above])).sum(axis=1) / 2
        pairs = weight.sum(axis=1) * wins[:, -1]
        out[first : first + step] = np.divide(beaten, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)
    return out


@dataclass(frozen=True)
class GroupedAuc:
    """value: the mean over users, each weighing as many rows as it has · users, rows: the share of them that could count."""

    value: float
    users: float
    rows: float


def gauc(labels: NDArray[Any], scores: NDArray[Any], users: NDArray[Any]) -> GroupedAuc:
    """Impressions-weighted mean of each user's own AUC, over the users that have both classes (Zhu et al., KDD 2017).

    labels, scores, users: (B,). The shares say how much of the day that is; users and rows that are only masked are in neither.
    """
    kept = np.asarray(labels) != MASKED
    people, rows = np.unique(np.asarray(users)[kept], return_counts=True)
    if not len(people):
        return GroupedAuc(np.nan, np.nan, np.nan)
    _, own, weight = user_aucs(labels, scores, users)
    if not len(own):
        return GroupedAuc(np.nan, 0.0, 0.0)
    return GroupedAuc(float(np.average(own, weights=weight)), len(own) / len(people), float(weight.sum() / rows.sum()))


def user_aucs(labels: NDArray[Any], scores: NDArray[Any], users: NDArray[Any]) -> tuple[NDArray[Any], Floats, Floats]:
    """(users, the AUC of each one's own rows, those rows), each (K,), of the users that have both classes, in their order.

    labels, scores, users: (B,).
    """
    labels, scores, kept = _known(labels, scores)
    people, user = np.unique(np.asarray(users)[kept], return_inverse=True)
    user = user.reshape(-1)
    if not len(labels):
        return people, np.empty(0), np.empty(0)
    order = np.lexsort((scores, user))
    labels, scores, user = labels[order], scores[order], user[order]
    rows = np.bincount(user)
    new = np.concatenate([[True], (user[1:] != user[:-1]) | (scores[1:] != scores[:-1])])
    first = np.flatnonzero(new)
    middle = first + (np.diff(np.append(first, len(labels))) + 1) / 2  # mean 1-based rank of each run of ties
    rank = middle[np.cumsum(new) - 1] - (np.cumsum(rows) - rows)[user]
    positives = np.bincount(user, labels == 1, minlength=len(rows))
    pairs = positives * (rows - positives)
    both = pairs > 0
    won = np.bincount(user, rank * (labels == 1), minlength=len(rows)) - positives * (positives + 1) / 2
    return people[both], won[both] / pairs[both], rows[both].astype(np.float64)


def log_loss(labels: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Mean of -log of the probability given to what happened, in nats; probabilities are kept one float64 eps off 0 and 1.

    labels, probabilities: (B,). nan without a row. Raises ValueError on a probability that is not in [0, 1].
    """
    labels, probabilities, _ = _known(labels, probabilities)
    if not len(labels):
        return float("nan")
    _in_unit_interval(probabilities)
    edge = np.finfo(np.float64).eps
    kept = np.clip(probabilities, edge, 1 - edge)
    return float(-np.where(labels == 1, np.log(kept), np.log1p(-kept)).mean())


def entropy(labels: NDArray[Any]) -> float:
    """Log loss, in nats, of always predicting the labels' own base rate: what a model has to beat. 0 for one class."""
    labels = np.asarray(labels)
    labels = labels[labels != MASKED]
    if not len(labels):
        return float("nan")
    rate = float((labels == 1).mean())
    return -sum(p * float(np.log(p)) for p in (rate, 1 - rate) if p > 0)


def calibration(labels: NDArray[Any], probabilities: NDArray[Any], bins: int = BINS) -> tuple[Floats, Floats, Floats]:
    """(mean probability, share of positives, rows), each (K,), of up to `bins` bins that hold about equally many rows.

    Equal mass, not equal width: at a base rate of 2 % nearly all rows would share one bin of [0, 0.1). With N rows in order
    of probability, row i (from 0) goes to bin floor(bins · j / N), j being the first row of the same probability; so ties stay
    together, whatever the order that rows come in, and a model of few distinct scores has fewer bins.
    """
    labels, probabilities, _ = _known(labels, probabilities)
    _in_unit_interval(probabilities)
    if not len(labels):
        return np.empty(0), np.empty(0), np.empty(0)
    ordered = np.sort(probabilities)
    place = np.searchsorted(ordered, probabilities, side="left") * bins // len(labels)
    rows = np.bincount(place, minlength=bins).astype(np.float64)
    full = rows > 0
    predicted = np.bincount(place, probabilities, minlength=bins)[full] / rows[full]
    observed = np.bincount(place, labels == 1, minlength=bins)[full] / rows[full]
    return predicted, observed, rows[full]


def ece(labels: NDArray[Any], probabilities: NDArray[Any], bins: int = BINS) -> float:
    """Expected calibration error: rows-weighted mean over `calibration`'s bins of |mean probability - share of positives|."""
    predicted, observed, rows = calibration(labels, probabilities, bins)
    return float(np.average(np.abs(predicted - observed), weights=rows)) if len(rows) else float("nan")


def roc(labels: NDArray[Any], scores: NDArray[Any]) -> tuple[Floats, Floats]:
    """(false positive rate, true positive rate) from (0, 0) to (1, 1), one point per distinct score; empty for one class."""
    labels, scores, _ = _known(labels, scores)
    positives = int((labels == 1).sum())
    if positives in (0, len(labels)):
        return np.empty(0), np.empty(0)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(labels) - 1)
    hits = np.cumsum(labels[order] == 1)[last]
    misses = last + 1 - hits
    return np.append(0.0, misses / (len(labels) - positives)), np.append(0.0, hits / positives)


def _known(labels: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], Floats, NDArray[np.bool_]]:
    """Labels and scores of the rows that are not masked, and which those are."""
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be of one shape, (B,)")
    kept = labels != MASKED
    labels, scores = labels[kept], scores[kept]
    if wrong := int((~np.isfinite(scores)).sum()):
        raise ValueError(f"{wrong} of {len(scores)} scores are not finite; a model that gives nan cannot be measured")
    if strange := sorted(set(np.unique(labels).tolist()) - {0, 1}):
        raise ValueError(f"labels {strange} came; a label is 0, 1 or {MASKED} (masked)")
    return labels, scores, kept


def _in_unit_interval(probabilities: Floats) -> None:
    if wrong := int(((probabilities < 0) | (probabilities > 1)).sum()):
        raise ValueError(f"{wrong} of {len(probabilities)} probabilities lie outside [0, 1]; a logit is not a probability")
