"""The leaderboard's plan: every model in every world with one budget, and settings that a search of equal length gave."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from benchmarks import leaderboard, plan, search
from benchmarks.leaderboard import Given, Part, planned
from benchmarks.runs import GRADIENTS, digest
from tests import board
from tests.board import CONTRACT, TRIALS


def test_what_is_planned_is_every_model_in_every_world_and_nothing_twice() -> None:
    every = planned([Part.WORLDS, Part.LARGE, Part.ABLATIONS, Part.GRADIENTS], plan.MODELS, 5, [], TRIALS)
    keys = [digest(run.key(CONTRACT)) for run in every]
    assert len(set(keys)) == len(keys)
    of = [r for r in every if r.where.world and r.where.world != plan.LARGE and r.kind != GRADIENTS and not r.variant.name]
    assert len(of) == 20 * len(plan.MODELS)
    worlds = {r.where.world for r in of}
    assert {(w.selection_conflict, w.sign_conflict) for w in worlds if w} == set(plan.CELLS)
    assert all(w.impressions * 9 >= 250_000 for w in worlds if w)
    assert plan.LARGE.impressions * 9 >= 2_000_000
    assert plan.LARGE.seed not in plan.SEEDS
    assert len([r for r in every if r.where.world == plan.LARGE]) == len(plan.MODELS)
    assert {r.model for r in every if r.kind == GRADIENTS} == {"shared-bottom", "mmoe", "dtrn"}
    for where in {r.where for r in every if r.variant.name}:
        assert where.world
        assert (where.world.selection_conflict, where.world.sign_conflict) == plan.ABLATED
    changed = {r.variant.name for r in every if r.variant.name}
    assert {"without click", "without buy", "reduction r = 8", "histories of at most 5"} <= changed
    first = planned([Part.WORLDS], plan.MODELS, 1, [], TRIALS)
    assert {r.where.world.seed for r in first if r.where.world} == {plan.SEEDS[0]}
    assert not planned([Part.PAGE], plan.MODELS, 5, [], TRIALS)


def test_every_neural_model_has_one_budget() -> None:
    every = [r for r in planned([Part.WORLDS], plan.MODELS, 1, [], TRIALS) if r.recipe]
    assert {str(r.terms) for r in every} == {str({**plan.TERMS, "learning_rate": 4e-3, "embedding_decay": 0.1})}
    assert {(r.recipe.width, r.recipe.embedding_std) for r in every if r.recipe} == {(plan.TERMS["width"], 0.3)}


def test_the_setting_is_the_best_of_those_that_all_have_tried() -> None:
    a, b, c = ({**board.SETTING, "learning_rate": rate} for rate in (1.0, 2.0, 3.0))
    scores = {
        ("x", "m"): (0.5, 0.4, 0.1),  # its best, c, was tried by it alone
        ("y", "m"): (0.5, 0.4, 0.1),
        ("x", "n"): (0.3, 0.9),
        ("y", "n"): (0.3, 0.9),
        ("x", "o"): (0.3, 0.9),
        ("y", "o"): (0.3, 0.9),
    }
    trials = [
        {"log": log, "model": model, "setting": s, "score": score}
        for (log, model), values in scores.items()
        for s, score in zip((a, b, c), values, strict=False)
    ]
    assert plan.setting("m", trials) == (b, True)
    assert plan.setting("n", trials) == (a, True)
    assert plan.setting("another", trials) == (a, False)
    with pytest.raises(ValueError, match="run `make search` first"):
        plan.setting("m", trials[2:3] + trials[3:4])
    with pytest.raises(ValueError, match="run `make search` first"):
        plan.setting("m", [])


def test_a_trial_of_another_model_or_of_other_terms_changes_no_setting() -> None:
    trials = search.kept(search.RESULTS)
    ours = plan.searched(trials)
    assert {t["model"] for t in ours} == {*plan.FAMILY, plan.OURS}
    first = next(t for t in trials if t["model"] == "dtrn")
    short = {**first, "terms": {**first["terms"], "epochs": 1}, "score": 0.0}
    assert plan.searched([*trials, short, {**first, "model": "stem"}]) == ours


def test_a_real_log_is_judged_on_days_after_the_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        leaderboard.days, "to_judge", lambda home, terms: ["2017-11-29", "2017-11-30", "2017-12-01", "2017-12-02"]
    )
    read: list[str] = []
    monkeypatch.setattr(leaderboard.samples, "window_inputs", lambda home, terms, chosen: read.extend(chosen))
    trials = [{"log": "taobao", "days": [f"2017-11-{n}" for n in range(25, 30)]}, {"log": "other", "days": ["2017-12-01"]}]
    given = Given.of(f"taobao={tmp_path}", trials)
    assert given.days == ("2017-11-30", "2017-12-01", "2017-12-02")  # the search learned from 11-25 to 11-29
    assert set(read) == {f"2017-11-{n}" for n in range(25, 31)} | {"2017-12-01", "2017-12-02"}
    real = planned([Part.LOGS, Part.ABLATIONS], ["popularity", "dtrn"], 5, [given], TRIALS)
    plain = [(r.where.day, r.model) for r in real if not r.where.world and not r.variant.name]
    assert plain == [(day, model) for day in given.days for model in ("popularity", "dtrn")]
    assert {r.where.day for r in real if not r.where.world and r.variant.name} == {"2017-12-02"}


def test_a_log_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="'taobao': a log is DATASET=HOME"):
        Given.of("taobao", [])
    with pytest.raises(typer.BadParameter, match=r"nonesuch=here: .*no such contract"):
        Given.of("nonesuch=here", [])
    with pytest.raises(typer.BadParameter, match=r"no file of the log was ingested into .*`./dtrn backfill` makes samples"):
        Given.of(f"taobao={tmp_path}", [])
    monkeypatch.setattr(leaderboard.days, "to_judge", lambda home, terms: ["2017-12-01", "2017-12-02"])
    with pytest.raises(typer.BadParameter, match="samples"):
        Given.of(f"taobao={tmp_path}", [])


def test_an_unknown_model_is_told() -> None:
    with pytest.raises(typer.BadParameter, match="'nonesuch' is not a model"):
        leaderboard.main(model=["nonesuch"])
