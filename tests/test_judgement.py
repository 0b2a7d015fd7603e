"""The verdict: the rule branch by branch, and its numbers against loops that write the bootstrap out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models import judgement
from models.judgement import Comparison, decide, judge

TASKS = ("click", "buy")


def day(seed: int = 0, rows: int = 600, people: int = 40) -> tuple[Any, Any, dict[str, Any]]:
    """Labels (B, 2), users (B,) as unordered 64-bit keys, and scores of four models that know the truth less and less."""
    random = np.random.default_rng(seed)
    users = random.permutation(people)[random.integers(0, people, rows)] * 10**12
    truth = random.normal(size=(rows, 2))
    labels = (random.random((rows, 2)) < 1 / (1 + np.exp(1.2 - 1.5 * truth))).astype(np.int8)
    noise = {"dtrn": 0.2, "champion": 0.8, "lightgbm": 0.3, "popularity": 3.0}
    return labels, users, {n: 1 / (1 + np.exp(-truth - s * random.normal(size=truth.shape))).round(2) for n, s in noise.items()}


def verdict(labels: Any, users: Any, scores: Any, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"tasks": TASKS, "challenger": "dtrn", "seed": 11, "resamples": 60} | changes
    return judge(labels, users, scores, **arguments)


def test_intervals_are_those_of_rows_drawn_user_by_user() -> None:
    labels, users, scores = day()
    labels[::7, 1] = -1
    came = verdict(labels, users, scores)

    random, people = np.random.default_rng(11), sorted(set(users.tolist()))
    own: dict[int, list[int]] = {p: [row for row, u in enumerate(users) if u == p] for p in people}
    aucs: dict[tuple[str, int], list[float]] = {}
    for _ in range(60):
        picked = [row for place in random.integers(len(people), size=len(people)) for row in own[people[place]]]
        for t in range(2):
            kept = [row for row in picked if labels[row, t] >= 0]
            for name, values in scores.items():
                aucs.setdefault((name, t), []).append(roc_auc_score(labels[kept, t], values[kept, t]))

    def interval(values: Any) -> list[float]:
        return [float(np.quantile(values, q)) for q in (0.025, 0.975)]

    for t, task in enumerate(TASKS):
        known = labels[:, t] >= 0
        for name, values in scores.items():
            m = came["models"][name][task]
            assert [m["auc_low"], m["auc_high"]] == pytest.approx(interval(aucs[name, t]), abs=1e-12)
            assert m["auc"] == pytest.approx(roc_auc_score(labels[known, t], values[known, t]), abs=1e-12)
            assert judgement.measure(labels[:, t], users, values[:, t], seed=11, resamples=60) == m
            assert (m["positives"], m["negatives"]) == ((labels[:, t] == 1).sum(), (labels[:, t] == 0).sum())
    for other in ("champion", "lightgbm", "popularity"):
        apart = [np.subtract(aucs["dtrn", t], aucs[other, t]) for t in range(2)]
        exact = [came["models"]["dtrn"][task]["auc"] - came["models"][other][task]["auc"] for task in TASKS]
        for task, drawn, difference in [
            ("click", apart[0], exact[0]),
            ("buy", apart[1], exact[1]),
            ("mean", np.mean(apart, axis=0), np.mean(exact)),
        ]:
            c = came["comparisons"][other][task]
            assert c["judged"]
            assert c["difference"] == pytest.approx(difference, abs=1e-12)
            assert [c["low"], c["high"]] == pytest.approx(interval(drawn), abs=1e-12)


def test_the_order_within_users_is_compared_with_whom_must_be_beaten_on_the_same_draws() -> None:
    labels, users, scores = day()
    labels[::7, 1] = -1
    labels[users == users[0], 0] = 0  # a user of one class has no order of its own
    for rival in ("champion", "popularity"):
        came = verdict(labels, users, scores)["within"]
        mixed: dict[str, int] = {}
        people = sorted(set(users.tolist()))
        for t, task in enumerate(TASKS):
            own: dict[int, tuple[float, int]] = {}
            for place, person in enumerate(people):
                kept = np.flatnonzero((users == person) & (labels[:, t] >= 0))
                if len(set(labels[kept, t].tolist())) == 2:
                    mixed[task] = mixed.get(task, 0) + 1
                    aucs = [roc_auc_score(labels[kept, t], scores[n][kept, t]) for n in ("dtrn", rival)]
                    own[place] = (aucs[0] - aucs[1], len(kept))
            assert len(own) < len(people) or t == 1
            random, drawn = np.random.default_rng(11), []
            for _ in range(60):
                told = [own[p] for p in random.integers(len(people), size=len(people)).tolist() if p in own]
                drawn.append(sum(apart * rows for apart, rows in told) / sum(rows for _, rows in told))
            assert came[task]["difference"] == pytest.approx(
                sum(apart * rows for apart, rows in own.values()) / sum(rows for _, rows in own.values()), abs=1e-12
            )
            assert came[task]["users"] == mixed[task]
            for key, q in (("low", 0.025), ("high", 0.975)):
                assert came[task][key] == pytest.approx(float(np.quantile(drawn, q)), abs=1e-12)
        scores.pop("champion", None)


def test_a_win_that_only_tells_users_apart_is_said_to_be_one() -> None:
    """Scores of the challenger move with each user's own rate; the champion orders within users, or nobody does."""
    random = np.random.default_rng(4)
    users = np.repeat(np.arange(100), 20)
    rate, within = random.normal(size=100)[users] * 2, random.normal(size=2000)
    labels = (random.random(2000) < 1 / (1 + np.exp(-rate - within))).astype(np.int8)[:, None]
    noise = random.normal(size=2000)

    def probability(value: Any) -> Any:
        return 1 / (1 + np.exp(-value))[:, None]

    scores = {"dtrn": probability(rate + 0.01 * noise), "popularity": probability(noise)}
    came = verdict(labels, users, scores, tasks=("click",))
    assert came["promote"]
    assert came["reasons"][-1].startswith(
        "Within each user's own rows it is not clear that dtrn orders click better than popularity (GAUC "
    )
    assert came["reasons"][-1].endswith("users): its gain may be to tell users apart.")
    assert f", {came['within']['click']['users']} users)" in came["reasons"][-1]
    coin = (random.random((2000, 1)) < 0.5).astype(np.int8)
    two = {name: np.hstack([values, probability(random.normal(size=2000))]) for name, values in scores.items()}
    came = verdict(np.hstack([labels, coin]), users, two)
    assert [reason[:70] for reason in came["reasons"][1:]] == [
        "Within each user's own rows it is not clear that dtrn orders click better than popularity"[:70]
    ], "of a task that it does not win nothing is said"
    lost = verdict(labels, users, {"dtrn": scores["popularity"], "popularity": probability(within)}, tasks=("click",))
    assert not lost["promote"]
    assert len(lost["reasons"]) == 1, "of who does not win it is not said that it wins by less"
    scores["champion"] = probability(0.5 * within)
    came = verdict(labels, users, scores, tasks=("click",))
    assert came["promote"]
    assert came["reasons"][-1].startswith(
        "Warning: within each user's own rows dtrn orders click worse than the champion (GAUC -"
    )
    scores |= {"dtrn": probability(rate + within), "champion": probability(noise)}
    came = verdict(labels, users, scores, tasks=("click",))
    assert came["promote"]
    assert len(came["reasons"]) == 1


def test_of_fewer_users_than_a_verdict_needs_their_order_is_not_compared_and_no_draw_without_one_counts() -> None:
    users = np.repeat(np.arange(400), 2)
    labels = np.repeat(np.arange(400) % 2, 2).astype(np.int8)[:, None]
    labels[: 2 * 11 : 2] = 1 - labels[: 2 * 11 : 2]  # eleven users have both classes
    right = np.where(labels == 1, 0.9, 0.1)
    scores = {"dtrn": right, "popularity": np.where(users[:, None] < 11, 1 - right, right)}
    came = verdict(labels, users, scores, tasks=("click",), resamples=500)["within"]["click"]
    assert (came["users"], came["difference"], came["low"], came["high"]) == (11, 2 - 1, 1, 1)
    assert "click" in verdict(labels, users, scores, tasks=("click",), min_users=11)["within"]
    assert verdict(labels, users, scores, tasks=("click",), min_users=12)["within"] == {}
    few = slice(20, 82)  # of 31 users one has both classes, and one of three draws holds no row of that one
    alone = {"labels": labels[few], "users": users[few], "scores": {name: values[few] for name, values in scores.items()}}
    came = verdict(**alone, tasks=("click",), min_users=1, min_each=1)["within"]["click"]
    assert (came["users"], came["low"], came["high"]) == (1, 1, 1)


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = verdict(*day())
    monkeypatch.setattr(judgement, "BLOCK", 100)
    assert verdict(*day()) == at_once


def test_row_order_changes_nothing_and_neither_do_copies_of_every_row() -> None:
    labels, users, scores = day()
    once = verdict(labels, users, scores)
    order = np.random.default_rng(1).permutation(len(users))
    shuffled = verdict(labels[order], users[order], {n: s[order] for n, s in scores.items()})
    # A user's rows told four times are no more users than before; row-wise resampling would halve the interval.
    fourfold = verdict(np.repeat(labels, 4, 0), np.repeat(users, 4), {n: np.repeat(s, 4, 0) for n, s in scores.items()})
    for other in once["comparisons"]:
        for task, c in once["comparisons"][other].items():
            for again in (shuffled, fourfold):
                for key in ("difference", "low", "high"):
                    assert again["comparisons"][other][task][key] == pytest.approx(c[key], abs=1e-12)


def test_a_clearly_better_challenger_wins_and_a_clearly_worse_one_does_not() -> None:
    labels, users, scores = day(rows=3000, people=200)
    won = verdict(labels, users, scores)
    assert won["promote"]
    assert won["samples"] == 3000
    assert won["reasons"][0].startswith("dtrn wins: it beats the champion on click (AUC +")
    scores["dtrn"], scores["champion"] = scores["champion"], scores["dtrn"]
    lost = verdict(labels, users, scores)
    assert not lost["promote"]
    assert lost["reasons"][0].startswith("The champion stays: dtrn is significantly worse than the champion on click (AUC -")
    assert any(r.startswith("Warning: lightgbm ranks significantly better than dtrn on click") for r in lost["reasons"])


def test_an_identical_challenger_never_wins() -> None:
    labels, users, scores = day()
    scores["champion"] = scores["dtrn"].copy()
    came = verdict(labels, users, scores)
    assert not came["promote"]
    assert all((c["difference"], c["low"], c["high"]) == (0, 0, 0) for c in came["comparisons"]["champion"].values())
    assert came["reasons"][1] == "Both give exactly the same probabilities on all 600 rows."


def test_too_few_positives_are_said_and_not_guessed() -> None:
    labels, users, scores = day()
    labels[:, 1] = 0
    labels[:29, 1] = 1
    came = verdict(labels, users, scores)
    people = len(set(users[:29].tolist()))
    note = f"it has 29 positives from {people} users, and 30 of each class from 10 users are needed "
    note += "(training.judged_days takes more days together)"
    assert f"buy was not judged: {note}." in came["reasons"]
    assert came["comparisons"]["champion"]["buy"] == {
        "difference": None,
        "low": None,
        "high": None,
        "judged": False,
        "note": note,
    }
    assert came["models"]["dtrn"]["buy"]["auc_low"] is None
    assert came["models"]["dtrn"]["buy"]["auc"] == pytest.approx(roc_auc_score(labels[:, 1], scores["dtrn"][:, 1]))
    assert came["comparisons"]["champion"]["mean"]["low"] == came["comparisons"]["champion"]["click"]["low"]
    labels[29, 1] = 1
    assert verdict(labels, users, scores)["comparisons"]["champion"]["buy"]["judged"]


def test_too_few_negatives_are_said_too() -> None:
    labels, users, scores = day()
    labels[:, 0] = 1
    labels[:5, 0] = 0
    assert "5 negatives from" in verdict(labels, users, scores)["comparisons"]["popularity"]["click"]["note"]


def test_many_positives_of_few_users_are_few() -> None:
    labels, users, scores = day()
    nine = sorted(set(users.tolist()))[:9]
    labels[:, 1] = np.isin(users, nine)
    came = verdict(labels, users, scores)
    assert f"{labels[:, 1].sum()} positives from 9 users" in came["comparisons"]["champion"]["buy"]["note"]
    labels[:, 1] = np.isin(users, sorted(set(users.tolist()))[:10])
    assert verdict(labels, users, scores)["comparisons"]["champion"]["buy"]["judged"], "ten are enough"
    labels[:, 1] = ~np.isin(users, nine)
    came = verdict(labels, users, scores)
    assert f"{(labels[:, 1] == 0).sum()} negatives from 9 users" in came["comparisons"]["champion"]["buy"]["note"]


def test_a_day_of_one_class_or_of_no_rows_promotes_nobody_and_is_valid_json() -> None:
    labels, users, scores = day()
    for rows, reason in ((600, "it has 0 positives from 0 users"), (0, "it has 0 positives from 0 users and 0 negatives")):
        came = verdict(np.zeros_like(labels[:rows]), users[:rows], {n: s[:rows] for n, s in scores.items()})
        assert not came["promote"]
        assert came["reasons"][0] == "The champion stays: no task of this day can be judged."
        assert sum(reason in r for r in came["reasons"]) == 2
        assert not came["comparisons"]["champion"]["mean"]["judged"]
        json.dumps(came, allow_nan=False)


def test_a_masked_task_is_measured_on_its_own_rows() -> None:
    labels, users, scores = day()
    whole = verdict(labels, users, scores)
    labels[:, 1] = -1
    came = verdict(labels, users, scores)
    assert came["models"]["dtrn"]["click"] == whole["models"]["dtrn"]["click"]
    assert came["models"]["dtrn"]["buy"]["logloss"] is None
    assert came["models"]["dtrn"]["buy"]["positives"] == 0


def test_the_same_seed_gives_the_same_verdict_and_another_seed_other_intervals() -> None:
    assert verdict(*day()) == verdict(*day())
    assert verdict(*day()) != verdict(*day(), seed=12)


def comparison(low: float | None, high: float | None) -> Comparison:
    if low is None or high is None:
        return {"difference": None, "low": None, "high": None, "judged": False, "note": "it has 3 positives"}
    return {"difference": (low + high) / 2, "low": low, "high": high, "judged": True, "note": ""}


UP, FLAT, DOWN, NOT = (0.01, 0.03), (-0.01, 0.02), (-0.03, -0.01), (None, None)
TOUCHING = (0.0, 0.02)


@pytest.mark.parametrize(
    ("click", "buy", "mean", "promote", "opening"),
    [
        (UP, UP, UP, True, "dtrn wins: it beats {} on click"),
        (UP, FLAT, FLAT, True, "dtrn wins: it beats {} on click (AUC +0.0200, 95% interval +0.0100 to +0.0300), and is"),
        (FLAT, FLAT, UP, True, "dtrn wins: it beats {} on the mean (AUC +0.0200"),
        (FLAT, FLAT, FLAT, False, "dtrn is not clearly better than {} on any judged task, nor on the mean (AUC +0.0050"),
        (TOUCHING, TOUCHING, TOUCHING, False, "dtrn is not clearly better than {}"),
        (UP, DOWN, UP, False, "dtrn is significantly worse than {} on buy (AUC -0.0200, 95% interval -0.0300 to -0.0100)."),
        (DOWN, DOWN, DOWN, False, "dtrn is significantly worse than {} on click"),
        (UP, NOT, UP, True, "dtrn wins: it beats {} on click (AUC +0.0200, 95% interval +0.0100 to +0.0300), and is"),
        (FLAT, NOT, FLAT, False, "dtrn is not clearly better than {} on the only judged task, click (AUC +0.0050"),
        (DOWN, NOT, DOWN, False, "dtrn is significantly worse than {} on click"),
        (NOT, NOT, NOT, False, "no task of this day can be judged."),
    ],
)
@pytest.mark.parametrize("rival", ["champion", "popularity"])
def test_the_rule(rival: str, click: Any, buy: Any, mean: Any, promote: bool, opening: str) -> None:
    rows = {"click": comparison(*click), "buy": comparison(*buy), "mean": comparison(*mean)}
    came, reasons = decide("dtrn", {rival: rows})
    assert came == promote
    named = opening.format("the champion" if rival == "champion" else rival)
    before = "" if promote else "The champion stays: " if rival == "champion" else "No model is promoted: "
    assert reasons[0].startswith(before + named)
    assert reasons[1:] == [f"{t} was not judged: it has 3 positives." for t, c in (("click", click), ("buy", buy)) if c == NOT]


def test_what_a_win_does_not_outweigh_is_told() -> None:
    _, reasons = decide("dtrn", {"champion": {"click": comparison(*UP), "buy": comparison(*DOWN), "mean": comparison(*FLAT)}})
    assert reasons[0].endswith(
        "That it is better on click (AUC +0.0200, 95% interval +0.0100 to +0.0300) does not outweigh this."
    )


def test_the_champion_decides_and_a_better_reference_only_warns() -> None:
    up, down = ({t: comparison(*kind) for t in ("click", "mean")} for kind in (UP, DOWN))
    promote, reasons = decide("dtrn", {"popularity": down, "champion": up, "lightgbm": down})
    assert promote
    assert [r[:60] for r in reasons[1:]] == [
        "Warning: popularity ranks significantly better than dtrn on ",
        "Warning: lightgbm ranks significantly better than dtrn on cl",
    ]
    promote, _ = decide("dtrn", {"champion": down, "popularity": up})
    assert not promote


def test_without_champion_and_popularity_there_is_nothing_to_beat() -> None:
    with pytest.raises(ValueError, match=r"must beat popularity.*\['lightgbm'\].*add 'popularity' to training.references"):
        decide("dtrn", {"lightgbm": {"click": comparison(*UP), "mean": comparison(*UP)}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, u, s: s["dtrn"].__setitem__((3, 1), np.nan), "dtrn gave 1 of 1,200 scores that are no probability"),
        (lambda y, u, s: s["lightgbm"].__setitem__((slice(2), 0), -3.0), "lightgbm gave 2 of 1,200 scores"),
        (lambda y, u, s: s.update(champion=s["champion"][1:]), r"champion gave scores \(599, 2\) for labels \(600, 2\)"),
        (lambda y, u, s: s.pop("dtrn"), "challenger 'dtrn' must be scored under its own name"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(change: Any, message: str) -> None:
    labels, users, scores = day()
    change(labels, users, scores)
    with pytest.raises(ValueError, match=message):
        verdict(labels, users, scores)


def test_a_task_called_mean_is_refused() -> None:
    with pytest.raises(ValueError, match="a task may not be called 'mean'"):
        verdict(*day(), tasks=("click", "mean"))
