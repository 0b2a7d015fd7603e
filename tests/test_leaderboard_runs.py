"""The leaderboard's runs: each kept by itself, none made twice, scored as an independent calculation scores them."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from sklearn.metrics import roc_auc_score

from benchmarks import gradients, leaderboard, measuring, plan, standing
from benchmarks.leaderboard import Given, Part, do, planned
from benchmarks.measuring import Data, measured, resampling
from benchmarks.runs import GRADIENTS, Record, Run, Store, Variant, Where, digest, found, locked
from models.baselines import Popularity
from models.contract import Contract
from models.embeddings import Shape
from models.home import Home
from models.network import Network
from models.training import train
from models.vocabulary import Vocabulary
from tests import board
from tests.board import CONTRACT, TASKS, TERMS, TRIALS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Where, Data]:
    return board.simulated(tmp_path_factory.mktemp("board"))


def runs(where: Where, *models: str, variant: Variant = board.PLAIN) -> list[Run]:
    return [plan.run(where, model, TRIALS, variant, TERMS) for model in models]


def done(asked: list[Run], log: tuple[Where, Data], folder: Path, **options: Any) -> list[str]:
    def contract(where: Where) -> Contract:
        return CONTRACT

    return do(asked, Store(folder / "runs.jsonl"), lambda where: log[1], contract, folder / "scratch", **options)


def kept(folder: Path) -> list[Record]:
    return Store(folder / "runs.jsonl").records()


# scores


def pairs_won(p: Any, s: Any) -> float:
    """The AUC without label noise, over all pairs of rows, written out."""
    weight = p[:, None] * (1 - p[None, :])
    np.fill_diagonal(weight, 0)
    well = (s[:, None] > s[None, :]) + 0.5 * (s[:, None] == s[None, :])
    return float((weight * well).sum() / weight.sum())


def test_the_share_is_that_of_an_independent_calculation(log: tuple[Where, Data], tmp_path: Path) -> None:
    where, data = log
    assert not done(runs(where, "popularity", "lightgbm"), log, tmp_path)
    of_world = standing.Board.of(kept(tmp_path))
    home, days = data.home, [*data.log.days, where.day]
    fit, judged = (pd.read_parquet(home.raw / f"day={day}.parquet") for day in (days[0], days[2]))
    true = pd.read_parquet(home.truth / f"day={days[2]}.parquet")
    judged = judged.merge(true, left_on=["user_id", "timestamp_ms", "item_id"], right_on=["user", "time", "item"])
    for task in TASKS:
        counted = fit.groupby("item_id")[f"is_{task}"].agg(["sum", "count"])
        base = fit[f"is_{task}"].mean()
        popular = judged.item_id.map((counted["sum"] + 20 * base) / (counted["count"] + 20)).fillna(base).to_numpy()
        p = judged[task].to_numpy()
        worst, best = pairs_won(p, popular), pairs_won(p, p)
        (told,) = of_world.soft("popularity", task).values()
        assert told == pytest.approx(worst, abs=1e-9)
        (boosted,) = of_world.soft("lightgbm", task).values()
        (share,) = of_world.share("lightgbm", task).values()
        assert share == pytest.approx((boosted - worst) / (best - worst), abs=1e-9)
        (drawn,) = of_world.sampled("popularity", task).values()
        assert drawn == pytest.approx(roc_auc_score(judged[f"is_{task}"], popular), abs=1e-9)
        assert list(of_world.share("popularity", task).values()) == [0]


def test_a_real_day_is_scored_on_its_labels_and_on_the_same_resamples_of_users(log: tuple[Where, Data], tmp_path: Path) -> None:
    where, data = log
    real = Where("simulated", where.day)
    assert not done(runs(real, "popularity", "mmoe"), log, tmp_path)
    one, other = kept(tmp_path)
    judged = data.judged
    users = np.unique(judged.user[:, 0])
    counts = resampling(len(users))
    assert (counts.sum(1) == len(users)).all()
    assert len({row.tobytes() for row in counts}) == measuring.RESAMPLES
    scores = Popularity.fit(CONTRACT, data.log.fit).score(judged)
    row_user = np.searchsorted(users, judged.user[judged.request, 0])
    for t, task in enumerate(TASKS):
        y = judged.label[:, t]
        assert one["tasks"][task]["positives"] == y.sum()
        assert one["tasks"][task]["users_with_positives"] == len(set(row_user[y == 1]))
        assert one["tasks"][task]["auc"] == pytest.approx(roc_auc_score(y, scores[:, t]), abs=1e-9)
        for n in (0, 7):
            weight = counts[n][row_user]
            expected = roc_auc_score(y, scores[:, t], sample_weight=weight)
            assert one["tasks"][task]["resampled"][n] == pytest.approx(expected, abs=1e-5)
        assert len(other["tasks"][task]["resampled"]) == measuring.RESAMPLES
        assert "soft" not in other["tasks"][task]


def test_a_neural_run_keeps_the_best_epoch_and_what_it_cost(
    log: tuple[Where, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def watched(recipe: Any, contract: Any, fit: Any, held_out: Any, **named: Any) -> Any:
        trained = train(recipe, contract, fit, held_out, **named)
        seen.append((recipe, contract.training, fit, held_out, trained))
        return trained

    monkeypatch.setattr(measuring, "train", watched)
    where, data = log
    assert not done(runs(where, "dtrn"), log, tmp_path)
    (record,), ((recipe, training, fit, held_out, trained),) = kept(tmp_path), seen
    assert fit is data.log.fit
    assert held_out is data.log.held_out
    assert {name: getattr(training, name) for name in TERMS} == TERMS
    assert training.learning_rate == board.SETTING["learning_rate"]
    assert training.device == record["device"] == "cpu"
    assert training.embedding_decay == board.SETTING["embedding_decay"]
    assert (recipe.bottom, recipe.width, recipe.embedding_std) == ("dtrn", 8, 0.3)
    assert record["validation"]["score"] == trained.score
    assert trained.history[record["best_epoch"] - 1].score == trained.score
    every = sum(p.numel() for p in trained.network.parameters())
    tables = sum(p.numel() for name, p in trained.network.named_parameters() if ".fields." in name)
    assert (record["parameters"], record["parameters_beside_embeddings"]) == (every, every - tables)
    assert 0 < tables < every
    assert record["seconds"] > 0
    assert not list((tmp_path / "scratch" / "checkpoints").iterdir())


@pytest.mark.parametrize("action", CONTRACT.actions)
def test_an_action_that_is_left_out_is_read_by_nothing(log: tuple[Where, Data], action: str) -> None:
    where, data = log
    whole = data.judged
    contract, (fit, held_out, judged) = data.of(Variant(action, without=action), where.day)
    rest = [a for a in CONTRACT.actions if a != action]
    assert contract.actions == tuple(rest)
    assert list(contract.tasks) == TASKS
    for part in (fit, held_out, judged):
        assert part.start.shape[1] == len(part.sequences.tokens) == len(part.sequences.offsets) == len(rest)
    for place, name in enumerate(rest):
        before = CONTRACT.actions.index(name)
        assert np.array_equal(judged.end[:, place], whole.end[:, before])
        assert np.array_equal(judged.start[:, place], whole.start[:, before])
        assert np.array_equal(judged.sequences.tokens[place], whole.sequences.tokens[before])
    assert np.array_equal(judged.label, whole.label)


def test_histories_are_cut_to_their_newest_events(log: tuple[Where, Data]) -> None:
    where, data = log
    variant = Variant("short", longest=2)
    contract, (fit, _, judged) = data.of(variant, where.day)
    assert contract.lengths == (2, 2, 2, 2)
    assert np.array_equal(judged.end, data.judged.end)
    assert np.array_equal(judged.start, np.maximum(data.judged.start, data.judged.end - 2))
    assert (judged.start != data.judged.start).any()
    assert np.array_equal(fit.label, data.log.fit.label)
    assert Variant("same", longest=30).contract(CONTRACT).lengths == (30, 20, 20, 20)


def test_ablations_and_angles_are_runs_like_any_other(
    log: tuple[Where, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "POINTS", 2)
    where, data = log
    changed = [Variant("no click", without="click"), Variant("short", longest=1), Variant("wide", recipe={"reduction": 1})]
    asked = [run for variant in changed for run in runs(where, "dtrn", variant=variant)]
    asked += [replace(runs(where, "shared-bottom")[0], kind=GRADIENTS)]
    assert not done(asked, log, tmp_path)
    *ablated, angled = kept(tmp_path)
    assert [r["variant"] for r in ablated] == ["no click", "short", "wide"]
    whole = sum(p.numel() for p in _trained(asked[1], data).parameters())
    assert ablated[1]["parameters"] == whole < ablated[2]["parameters"]
    assert ablated[0]["parameters"] < whole  # no embedding of that action, and a field less
    best = {t: v["best_soft"] for t, v in ablated[0]["tasks"].items()}
    assert all({t: v["best_soft"] for t, v in r["tasks"].items()} == best for r in ablated)
    assert set(angled["angles"]["cosines"]) == {"click, cart", "click, buy", "cart, buy"}
    assert "tasks" not in angled
    assert standing.angles(kept(tmp_path)) == {"shared-bottom": angled}
    assert standing.Board.of(kept(tmp_path)).variants == ["no click", "short", "wide"]


def _trained(run: Run, data: Data) -> Network:
    """The network that a run is of, untrained."""
    contract, (fit, _, _) = data.of(run.variant, run.where.day)
    assert run.recipe
    return Network(run.recipe, Shape.of(contract, Vocabulary.fit(fit, contract)))


def test_content_is_that_of_all_days_the_judged_one_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, day, version = Home(tmp_path, "simulated"), CONTRACT.days()[-1], {"judged": "1"}

    def inputs(home: Home, terms: Contract, chosen: list[str]) -> dict[str, str]:
        return {name: version["judged"] if name == day else "1" for name in chosen}

    read: list[str] = []
    monkeypatch.setattr(leaderboard.samples, "window_inputs", inputs)
    monkeypatch.setattr(measuring.window, "read_requests", lambda home, terms, chosen: read.extend(chosen))
    first = Data.read(home, CONTRACT, day)
    assert read == [*CONTRACT.training_days(day), day]
    assert Data.read(home, CONTRACT, day).log.content == first.log.content
    version["judged"] = "2"
    assert Data.read(home, CONTRACT, day).log.content != first.log.content


# the store


def test_a_run_that_is_there_is_not_made_again(
    log: tuple[Where, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(run: Run, *arguments: Any, **named: Any) -> Record:
        made.append(run.model)
        return measured(run, *arguments, **named)

    monkeypatch.setattr(measuring, "measured", counted)
    asked = runs(log[0], "popularity", "mmoe", "lightgbm")
    assert not done(asked, log, tmp_path, limit=2)
    assert made == ["popularity", "mmoe"]
    assert not done(asked, log, tmp_path, until=0)
    assert len(made) == 2
    assert not done(asked, log, tmp_path)
    assert not done(asked, log, tmp_path)
    assert made == ["popularity", "mmoe", "lightgbm"]
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    (tmp_path / "runs.jsonl").write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    assert not done(asked, log, tmp_path)
    assert made[3:] == ["mmoe"]
    assert kept(tmp_path)[-1]["tasks"] == {r["model"]: r for r in map(json.loads, lines)}["mmoe"]["tasks"]


def test_a_training_that_was_cut_off_goes_on_and_the_others_are_not_repeated(
    log: tuple[Where, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = runs(log[0], "popularity", "mmoe")
    assert not done(asked, log, tmp_path / "whole")

    def cut(*arguments: Any, report: Any, **named: Any) -> Any:
        def stop(epoch: Any) -> None:
            raise KeyboardInterrupt

        return train(*arguments, report=stop, **named)

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "train", cut)
        with pytest.raises(KeyboardInterrupt):
            done(asked, log, tmp_path)
    assert [r["model"] for r in kept(tmp_path)] == ["popularity"]
    capsys.readouterr()
    assert not done(asked, log, tmp_path)
    told = capsys.readouterr().out
    assert "mmoe on sign 1, selection 1, seed 5" in told
    assert "popularity" not in told
    assert "epoch 2" in told
    assert "epoch 1" not in told
    whole, resumed = kept(tmp_path / "whole")[1], kept(tmp_path)[1]
    assert (whole["resumed"], resumed["resumed"]) == (False, True)
    assert resumed["tasks"] == whole["tasks"]


def test_a_run_that_another_process_has_in_hand_is_left_to_it(log: tuple[Where, Data], tmp_path: Path) -> None:
    asked = runs(log[0], "popularity", "lightgbm")
    locks = tmp_path / "scratch" / "locks"
    locks.mkdir(parents=True)
    taken = locks / digest(asked[0].key(CONTRACT))
    taken.touch()
    with locked(taken) as ours:
        assert ours
        assert not done(asked, log, tmp_path)
    assert [r["model"] for r in kept(tmp_path)] == ["lightgbm"]
    assert not done(asked, log, tmp_path)
    assert [r["model"] for r in kept(tmp_path)] == ["lightgbm", "popularity"]


def test_runs_of_other_content_or_other_code_are_made_again(log: tuple[Where, Data], tmp_path: Path) -> None:
    asked = runs(log[0], "popularity", "lightgbm")
    assert not done(asked[:1], log, tmp_path)
    first = kept(tmp_path)[0]
    store = Store(tmp_path / "other" / "runs.jsonl")
    store.keep({**first, "content": "another log of that name", "tasks": {}})
    assert not done(asked, log, tmp_path / "other")  # the log is opened for the second, and the first is seen to be of another
    assert [r["model"] for r in kept(tmp_path / "other")] == ["popularity", "popularity", "lightgbm"]
    old = Store(tmp_path / "old" / "runs.jsonl")
    old.keep({**first, "code": "older"})
    assert not done(asked[:1], log, tmp_path / "old")
    assert len(kept(tmp_path / "old")) == 1
    assert not done(asked[:1], log, tmp_path / "old", same_code=True)
    assert [r["code"] for r in kept(tmp_path / "old")] == ["older", measuring.code()]


def test_a_model_that_cannot_be_trained_is_told_and_the_next_is_made(
    log: tuple[Where, Data], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = runs(log[0], "mmoe", "popularity")
    asked[0] = replace(asked[0], terms={**asked[0].terms, "learning_rate": 1e20})
    (failed,) = done(asked, log, tmp_path)
    assert "mmoe on sign 1" in failed
    assert "is not a number in epoch" in failed
    assert [r["model"] for r in kept(tmp_path)] == ["popularity"]
    assert "failed: the loss of task" in capsys.readouterr().out


def test_a_line_that_is_no_run_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.jsonl")
    assert store.records() == []
    store.keep({"model": "a"})
    store.keep({"model": "b"})
    assert store.records() == [{"model": "a"}, {"model": "b"}]
    (tmp_path / "runs.jsonl").write_text('{"model": "a"}\n{"mod')
    with pytest.raises(ValueError, match=r"line 2: not a run .* delete the line, and it is made again"):
        store.records()


def test_two_who_write_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.jsonl")
    store.keep({"model": "a"})
    other = threading.Thread(target=store.keep, args=({"model": "b"},))
    with locked(tmp_path):
        other.start()
        there = store.path.read_text()
        store.path.write_text(there + '{"model": "c"}\n')
    other.join()
    assert store.records() == [{"model": name} for name in "acb"]


@pytest.mark.parametrize(
    "change",
    [
        {"where": Where("simulated", CONTRACT.days()[3], board.WORLD)},
        {"where": Where("simulated", CONTRACT.days()[2], replace(board.WORLD, users=61))},
        {"where": Where("simulated", CONTRACT.days()[2])},
        {"model": "dtrn"},
        {"terms": {**TERMS, "seed": 4}},
        {"variant": Variant("short", longest=3)},
        {"variant": Variant("short", without="cart")},
        {"recipe": None},
        {"kind": GRADIENTS},
    ],
)
def test_anything_else_is_another_run(log: tuple[Where, Data], change: dict[str, Any]) -> None:
    (run,) = runs(log[0], "mmoe")
    key = run.key(CONTRACT)
    newer = {**key, "content": "c", "code": "x"}
    assert found([newer], replace(run, **change).key(CONTRACT)) is None
    assert found([{**newer, "code": "w"}, newer], key) == newer
    assert found([newer], key, code="w") is None
    assert found([newer], key, content="d") is None
    assert found([newer], key, content="c", code="x") == newer


def test_a_part_that_recipes_did_not_have_is_at_its_default(log: tuple[Where, Data]) -> None:
    key = runs(log[0], "mmoe")[0].key(CONTRACT)
    older = {name: value for name, value in key["recipe"].items() if name != "layers"}
    record = {**key, "content": "c", "code": "x", "recipe": older}
    assert found([record], key) == record
    assert found([record], {**key, "recipe": {**key["recipe"], "layers": 2}}) is None
    assert found([{**record, "recipe": {**older, "dropped": 1}}], key) is None
    assert found([{**record, "recipe": None}], key) is None


# the plan


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


def test_a_real_log_is_judged_on_days_after_the_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        leaderboard.days, "to_judge", lambda home, terms: ["2017-11-29", "2017-11-30", "2017-12-01", "2017-12-02"]
    )
    read: list[str] = []
    monkeypatch.setattr(leaderboard.samples, "window_inputs", lambda home, terms, chosen: read.extend(chosen))
    given = Given.of(f"taobao={tmp_path}")
    assert given.days == ("2017-11-30", "2017-12-01", "2017-12-02")  # the search learned from 11-25 to 11-29
    assert set(read) == {f"2017-11-{n}" for n in range(25, 31)} | {"2017-12-01", "2017-12-02"}
    real = planned([Part.LOGS, Part.ABLATIONS], ["popularity", "dtrn"], 5, [given], TRIALS)
    plain = [(r.where.day, r.model) for r in real if not r.where.world and not r.variant.name]
    assert plain == [(day, model) for day in given.days for model in ("popularity", "dtrn")]
    assert {r.where.day for r in real if not r.where.world and r.variant.name} == {"2017-12-02"}


def test_a_log_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="'taobao': a log is DATASET=HOME"):
        Given.of("taobao")
    with pytest.raises(typer.BadParameter, match=r"nonesuch=here: .*no such contract"):
        Given.of("nonesuch=here")
    with pytest.raises(typer.BadParameter, match=r"the log holds no good row .*`./dtrn backfill` makes samples"):
        Given.of(f"taobao={tmp_path}")
    monkeypatch.setattr(leaderboard.days, "to_judge", lambda home, terms: ["2017-12-01", "2017-12-02"])
    with pytest.raises(typer.BadParameter, match="samples"):
        Given.of(f"taobao={tmp_path}")


def test_an_unknown_model_is_told() -> None:
    with pytest.raises(typer.BadParameter, match="'nonesuch' is not a model"):
        leaderboard.main(model=["nonesuch"])
