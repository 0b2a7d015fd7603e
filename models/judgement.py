"""The verdict on a challenger: champion, challenger and references on the same rows, and one rule that decides.

Users, not rows, are what a day samples, so intervals come from resampling users: each resample draws as many users as the
day has, with replacement, and every model is measured on the same draws (the paired percentile bootstrap of Efron &
Tibshirani, 1993, ch. 13 and 16, with users as clusters). The rule is `decide`; it reads comparisons and no rows.
Whose scores these are, and what follows from the verdict, is not known here.
Letters: B samples · T tasks · U users · R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from models import metrics
from models.metrics import Floats

CHAMPION = "champion"
"""The name that the reigning champion goes by in scores and comparisons, so that it never clashes with a challenger's own."""

POPULARITY = "popularity"
MEAN = "mean"
LEVEL, RESAMPLES = 0.95, 500
MIN_EACH = 30
"""Positives, and negatives, that a task needs: below about 30 the interval is wider than any difference that models show."""
MIN_USERS = 10
"""Users that those positives, and those negatives, must come from: 30 purchases of one user are one draw, not 30."""

BLOCK = 1 << 23
"""Multiplicities that are held at once: 64 MB."""


class Measure(TypedDict):
    """One model on one task. None where the rows do not define it; no interval where the task cannot be judged."""

    auc: float | None
    auc_low: float | None
    auc_high: float | None
    gauc: float | None
    gauc_users_share: float | None
    gauc_rows_share: float | None
    logloss: float | None
    ece: float | None
    positives: int
    negatives: int


class Comparison(TypedDict):
    """AUC of the challenger less that of another model, with its interval; all None, and `note` saying why, if not judged."""

    difference: float | None
    low: float | None
    high: float | None
    judged: bool
    note: str


class Within(TypedDict):
    """GAUC of the challenger less that of whom it must beat: how much better it orders the own rows of so many users."""

    users: int
    difference: float
    low: float
    high: float


class Judgement(TypedDict):
    """What `judge` found, ready for JSON (no nan): measures by model and task, comparisons by model and task or `mean`.

    within: by task, of those judged in which enough users have both classes.
    """

    promote: bool
    reasons: list[str]
    models: dict[str, dict[str, Measure]]
    comparisons: dict[str, dict[str, Comparison]]
    within: dict[str, Within]
    samples: int


def judge(
    labels: NDArray[np.int8],
    users: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    *,
    tasks: Sequence[str],
    challenger: str,
    seed: int,
    resamples: int = RESAMPLES,
    min_each: int = MIN_EACH,
    min_users: int = MIN_USERS,
) -> Judgement:
    """Measure every model in `scores`, compare the challenger with each other one, and decide.

    labels: (B, T), -1 masked · users: (B,) keys · scores: by model, (B, T) probabilities, with the reigning champion, if any,
    under 'champion' · seed: of the resampling; the same arguments give the same judgement.
    Raises ValueError when scores have another shape or are no probabilities, or when there is nothing to beat.
    """
    _check(labels, users, scores, tasks, challenger)
    user = np.unique(users, return_inverse=True)[1].reshape(-1)
    unfit = [_unfit(column, user, min_each, min_users) for column in labels.T]
    drawn = {name: np.full((len(tasks), resamples), np.nan) for name in scores}
    fit = [t for t, reason in enumerate(unfit) if not reason]
    rival = CHAMPION if CHAMPION in scores else POPULARITY
    both = (challenger, rival) if rival in scores else ()  # else `decide` says what is missing
    own = {t: [metrics.user_aucs(labels[:, t], scores[name][:, t], user) for name in both] for t in fit}
    within = {t: np.full(resamples, np.nan) for t, told in own.items() if told and len(told[0][0]) >= min_users}
    for rows, counts in _draws(user, resamples if fit else 0, np.random.default_rng(seed)):
        for name, values in scores.items():
            for t in fit:
                drawn[name][t, rows] = metrics.resampled_auc(labels[:, t], values[:, t], user, counts)
        for t, values in within.items():
            (people, ours, weight), (_, theirs, _) = own[t]
            weights = counts[:, people] * weight
            # Not as a product of matrices, which sums in another order for another block of resamples.
            total = weights.sum(axis=1)
            np.divide((weights * (ours - theirs)).sum(axis=1), total, out=values[rows], where=total > 0)
    models = {
        name: {
            task: _measure(labels[:, t], values[:, t], user, drawn[name][t] if t in fit else None)
            for t, task in enumerate(tasks)
        }
        for name, values in scores.items()
    }
    comparisons = {
        name: _compare(models[challenger], models[name], drawn[challenger] - drawn[name], unfit)
        for name in scores
        if name != challenger
    }
    promote, reasons = decide(challenger, comparisons)
    apart = {tasks[t]: _within(own[t], values) for t, values in within.items()}
    if promote:
        reasons += _within_users(challenger, "the champion" if rival == CHAMPION else rival, comparisons[rival], apart)
    if CHAMPION in scores and np.array_equal(scores[challenger], scores[CHAMPION]):
        reasons.insert(1, f"Both give exactly the same probabilities on all {len(labels):,} rows.")
    return {
        "promote": promote, "reasons": reasons, "models": models, "comparisons": comparisons, "within": apart,
        "samples": len(labels),
    }  # fmt: skip


def measure(
    labels: NDArray[np.int8], users: NDArray[Any], scores: NDArray[Any], *, seed: int, resamples: int = RESAMPLES
) -> Measure:
    """One model on one task: labels (B,), -1 masked, users (B,) keys, scores (B,) probabilities.

    No interval where `judge` would not judge the task, and the same one where it would.
    """
    user = np.unique(users, return_inverse=True)[1].reshape(-1)
    if _unfit(labels, user, MIN_EACH, MIN_USERS):
        return _measure(labels, scores, user, None)
    drawn = np.empty(resamples)
    for rows, counts in _draws(user, resamples, np.random.default_rng(seed)):
        drawn[rows] = metrics.resampled_auc(labels, scores, user, counts)
    return _measure(labels, scores, user, drawn)


def decide(challenger: str, comparisons: Mapping[str, Mapping[str, Comparison]]) -> tuple[bool, list[str]]:
    """(whether the challenger wins, why, in sentences: the outcome first, then what was not judged, then warnings).

    It wins against the reigning champion, or where there is none against popularity, if it is significantly worse on no judged
    task and its difference on at least one judged task, or on their mean, has its whole interval above 0. Any other model that
    is better somewhere is a warning, not a veto.
    """
    rival = CHAMPION if CHAMPION in comparisons else POPULARITY
    if rival not in comparisons:
        raise ValueError(
            f"no champion yet, and the first one must beat popularity, which was not scored (scored: {sorted(comparisons)}); "
            "add 'popularity' to training.references of the contract"
        )
    against = comparisons[rival]
    judged = {task: c for task, c in against.items() if c["judged"]}
    if len(judged) == 2:  # the mean over one task is that task
        judged.pop(MEAN, None)
    worse = [_words(task, c) for task, c in judged.items() if task != MEAN and (c["high"] or 0) < 0]
    better = [_words(task, c) for task, c in judged.items() if (c["low"] or 0) > 0]
    promote = bool(better) and not worse
    stays = "The champion stays" if rival == CHAMPION else "No model is promoted"
    name = "the champion" if rival == CHAMPION else rival
    if promote:
        opening = f"{challenger} wins: it beats {name} on {_list(better)}, and is significantly worse on no judged task."
    elif worse:
        opening = f"{stays}: {challenger} is significantly worse than {name} on {_list(worse)}."
        if better:
            opening += f" That it is better on {_list(better)} does not outweigh this."
    elif judged:
        last = list(judged)[-1]
        where = "on any judged task, nor on" if last == MEAN else "on the only judged task,"
        opening = f"{stays}: {challenger} is not clearly better than {name} {where} {_words(last, judged[last])}."
    else:
        opening = f"{stays}: no task of this day can be judged."
    reasons = [opening]
    reasons += [f"{task} was not judged: {c['note']}." for task, c in against.items() if not c["judged"] and task != MEAN]
    for other, rows in comparisons.items():
        lost = [_words(task, c) for task, c in rows.items() if c["judged"] and task != MEAN and (c["high"] or 0) < 0]
        if other != rival and lost:
            reasons.append(f"Warning: {other} ranks significantly better than {challenger} on {_list(lost)}.")
    return promote, reasons


def _within(own: Sequence[tuple[NDArray[Any], Floats, Floats]], drawn: Floats) -> Within:
    (_, ours, weight), (_, theirs, _) = own
    low, high = _interval(drawn)
    return {"users": len(ours), "difference": float(np.average(ours - theirs, weights=weight)), "low": low, "high": high}


def _within_users(
    challenger: str, rival: str, against: Mapping[str, Comparison], within: Mapping[str, Within]
) -> Iterator[str]:
    """What a winner's AUC does not say: whether the rows of each user are in a better order, or users told apart."""
    for task, w in within.items():
        told = f"(GAUC {w['difference']:+.4f}, {LEVEL:.0%} interval {w['low']:+.4f} to {w['high']:+.4f}, {w['users']:,} users)"
        if w["high"] < 0:
            yield f"Warning: within each user's own rows {challenger} orders {task} worse than {rival} {told}."
        elif w["low"] <= 0 and (against[task]["low"] or 0) > 0:
            yield (
                f"Within each user's own rows it is not clear that {challenger} orders {task} better than {rival} {told}: its "
                "gain may be to tell users apart."
            )


def _check(
    labels: NDArray[Any], users: NDArray[Any], scores: Mapping[str, NDArray[Any]], tasks: Sequence[str], challenger: str
) -> None:
    if labels.shape != (len(users), len(tasks)):
        raise ValueError(f"labels {labels.shape} must be (users, tasks) = ({len(users)}, {len(tasks)})")
    if challenger not in scores or challenger == CHAMPION:
        raise ValueError(f"challenger '{challenger}' must be scored under its own name; scored: {sorted(scores)}")
    if MEAN in tasks:
        raise ValueError(f"a task may not be called '{MEAN}': comparisons keep the mean over tasks under that name")
    for name, values in scores.items():
        if values.shape != labels.shape:
            raise ValueError(f"{name} gave scores {values.shape} for labels {labels.shape}")
        if wrong := int((~((values >= 0) & (values <= 1))).sum()):
            raise ValueError(
                f"{name} gave {wrong:,} of {values.size:,} scores that are no probability in [0, 1]; it cannot be judged"
            )


def _unfit(labels: NDArray[Any], user: NDArray[Any], min_each: int, min_users: int) -> str:
    """Why a task cannot be judged on these rows; empty when it can."""
    found = []
    for kind, value in (("positives", 1), ("negatives", 0)):
        rows = labels == value
        people = len(np.unique(user[rows]))
        if rows.sum() < min_each or people < min_users:
            found.append(f"{int(rows.sum()):,} {kind} from {people:,} users")
    if not found:
        return ""
    return (
        f"it has {' and '.join(found)}, and {min_each} of each class from {min_users} users are needed "
        "(training.judged_days takes more days together)"
    )


def _draws(user: NDArray[Any], resamples: int, rng: np.random.Generator) -> Iterator[tuple[slice, Floats]]:
    """Blocks of resamples: (slice of R, how often each user was drawn (block, U))."""
    people = int(user.max()) + 1 if len(user) else 0
    step = max(1, BLOCK // max(people, 1))
    for first in range(0, resamples, step):
        rows = slice(first, min(first + step, resamples))
        counts = [np.bincount(rng.integers(people, size=people), minlength=people) for _ in range(rows.stop - first)]
        yield rows, np.array(counts, np.float64)


def _measure(labels: NDArray[Any], scores: NDArray[Any], user: NDArray[Any], drawn: Floats | None) -> Measure:
    low, high = (None, None) if drawn is None else _interval(drawn)
    grouped = metrics.gauc(labels, scores, user)
    return {
        "auc": _number(metrics.auc(labels, scores)),
        "auc_low": low,
        "auc_high": high,
        "gauc": _number(grouped.value),
        "gauc_users_share": _number(grouped.users),
        "gauc_rows_share": _number(grouped.rows),
        "logloss": _number(metrics.log_loss(labels, scores)),
        "ece": _number(metrics.ece(labels, scores)),
        "positives": int((labels == 1).sum()),
        "negatives": int((labels == 0).sum()),
    }


def _compare(
    ours: Mapping[str, Measure], theirs: Mapping[str, Measure], drawn_TR: Floats, unfit: Sequence[str]
) -> dict[str, Comparison]:
    """Per task, and for the mean over the judged tasks: the difference on all rows, its interval from the resamples."""
    out: dict[str, Comparison] = {}
    differences, fit = [], []
    for t, task in enumerate(ours):
        if unfit[t]:
            out[task] = _unjudged(unfit[t])
            continue
        fit.append(t)
        differences.append((ours[task]["auc"] or 0.0) - (theirs[task]["auc"] or 0.0))
        out[task] = _judged(differences[-1], drawn_TR[t])
    out[MEAN] = _judged(float(np.mean(differences)), drawn_TR[fit].mean(axis=0)) if fit else _unjudged("no task can be judged")
    return out


def _judged(difference: float, drawn: Floats) -> Comparison:
    low, high = _interval(drawn)
    note = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    return {"difference": difference, "low": low, "high": high, "judged": True, "note": note}


def _unjudged(note: str) -> Comparison:
    return {"difference": None, "low": None, "high": None, "judged": False, "note": note}


def _interval(drawn: Floats) -> tuple[float, float]:
    """The middle LEVEL of the resamples that define the statistic (one may, very rarely, draw no positive)."""
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _words(task: str, comparison: Comparison) -> str:
    c = comparison
    name = "the mean" if task == MEAN else task
    return f"{name} (AUC {c['difference']:+.4f}, {LEVEL:.0%} interval {c['low']:+.4f} to {c['high']:+.4f})"


def _list(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
