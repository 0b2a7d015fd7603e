"""One run of the leaderboard: scored as an independent calculation scores it, with what its variant takes away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import gradients, leaderboard, measuring, standing
from benchmarks.measuring import Data, resampling
from benchmarks.runs import GRADIENTS, Run, Variant, Where
from models.baselines import LightGBM, Popularity
from models.contract import Contract
from models.embeddings import Shape
from models.home import Home
from models.network import Network
from models.training import train
from models.vocabulary import Vocabulary
from tests import board
from tests.board import CONTRACT, TASKS, TERMS, SmallWorld, done, kept, runs

pytestmark = pytest.mark.usefixtures("one_thread")


def pairs_won(p: Any, s: Any) -> float:
    """The AUC without label noise, over all pairs of rows, written out."""
    weight = p[:, None] * (1 - p[None, :])
    np.fill_diagonal(weight, 0)
    well = (s[:, None] > s[None, :]) + 0.5 * (s[:, None] == s[None, :])
    return float((weight * well).sum() / weight.sum())


def test_the_share_is_that_of_an_independent_calculation(small_world: SmallWorld, tmp_path: Path) -> None:
    where, data = small_world
    assert not done(runs(where, "popularity", "lightgbm"), small_world, tmp_path)
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


def test_no_model_is_given_the_judged_day_to_stop_on(
    small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, data = small_world
    given: list[tuple[Any, Any]] = []

    def boosted(contract: Contract, fit: Any, held_out: Any) -> Any:
        given.append((fit, held_out))
        return LightGBM.fit(contract, fit, held_out)

    def trained(recipe: Any, contract: Contract, fit: Any, held_out: Any, **named: Any) -> Any:
        given.append((fit, held_out))
        return train(recipe, contract, fit, held_out, **named)

    monkeypatch.setattr(measuring, "LightGBM", SimpleNamespace(fit=boosted))
    monkeypatch.setattr(measuring, "train", trained)
    assert not done(runs(where, "lightgbm", "mmoe"), small_world, tmp_path)
    assert len(given) == 2
    judged = data.judged.time.min()
    for fit, held_out in given:
        assert fit.time.max() < held_out.time.min() <= held_out.time.max() < judged


def test_a_real_day_is_scored_on_its_labels_and_on_the_same_resamples_of_users(small_world: SmallWorld, tmp_path: Path) -> None:
    where, data = small_world
    real = Where("simulated", where.day)
    assert not done(runs(real, "popularity", "mmoe"), small_world, tmp_path)
    other, one = kept(tmp_path)
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
    small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def watched(recipe: Any, contract: Any, fit: Any, held_out: Any, **named: Any) -> Any:
        trained = train(recipe, contract, fit, held_out, **named)
        seen.append((recipe, contract.training, fit, held_out, trained))
        return trained

    monkeypatch.setattr(measuring, "train", watched)
    where, data = small_world
    assert not done(runs(where, "dtrn"), small_world, tmp_path)
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
def test_an_action_that_is_left_out_is_read_by_nothing(small_world: SmallWorld, action: str) -> None:
    where, data = small_world
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


def test_histories_are_cut_to_their_newest_events(small_world: SmallWorld) -> None:
    where, data = small_world
    variant = Variant("short", longest=2)
    contract, (fit, _, judged) = data.of(variant, where.day)
    assert contract.lengths == (2, 2, 2, 2)
    assert np.array_equal(judged.end, data.judged.end)
    assert np.array_equal(judged.start, np.maximum(data.judged.start, data.judged.end - 2))
    assert (judged.start != data.judged.start).any()
    assert np.array_equal(fit.label, data.log.fit.label)
    assert Variant("same", longest=30).contract(CONTRACT).lengths == (30, 20, 20, 20)


def test_ablations_and_angles_are_runs_like_any_other(
    small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "POINTS", 2)
    where, data = small_world
    changed = [Variant("no click", without="click"), Variant("short", longest=1), Variant("wide", recipe={"reduction": 1})]
    asked = [run for variant in changed for run in runs(where, "dtrn", variant=variant)]
    asked += [replace(runs(where, "shared-bottom")[0], kind=GRADIENTS)]
    assert not done(asked, small_world, tmp_path)
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
    return Network(run.recipe, Shape.of(contract, Vocabulary.fit(fit, contract, [fit])))


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
