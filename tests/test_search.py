"""The search: the same trials for every model, each kept by itself, none done twice, the judged days never read."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from assets import samples, simulator
from benchmarks import plan, worlds
from benchmarks import search as searching
from benchmarks.search import RESULTS, SETTINGS, Log, done, kept, key_of, mean_ranks, search, settings, show
from benchmarks.worlds import World
from models import window
from models.config import RECIPES
from models.contract import load
from models.home import Home
from models.training import train
from orchestration.command_line import app
from tests.shops import cut_off, shop, terms

TERMS = {"epochs": 2, "patience": 2, "seed": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def logs() -> list[Log]:
    contract = terms()
    return [
        Log(f"log {n}", contract, ["2026-03-30", "2026-03-31"], str(n), *(shop(contract, d, seed=n + s, requests=30) for d, s in
            (("2026-03-30", 1), ("2026-03-31", 2))))
        for n in (0, 10)
    ]  # fmt: skip


def run(logs: list[Log], folder: Path, *, models: tuple[str, ...] = ("mmoe", "dtrn"), trials: int = 2) -> list[dict[str, Any]]:
    return search(logs, models, trials, TERMS, results=folder / "search.json", scratch=folder / "scratch")


def test_every_model_gets_the_same_trials_and_a_rerun_does_only_what_is_new(
    logs: list[Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments[0].bottom)
        return train(*arguments, **named)

    monkeypatch.setattr(searching, "train", counted)
    first = run(logs, tmp_path)
    assert len(calls) == 8
    tried = Counter((r["log"], r["model"], json.dumps(r["setting"])) for r in first)
    assert set(tried.values()) == {1}
    assert {(log.name, model, json.dumps(s)) for log in logs for model in ("mmoe", "dtrn") for s in settings(2)} == set(tried)
    assert kept(tmp_path / "search.json") == first
    assert not list((tmp_path / "scratch").iterdir())
    assert run(logs, tmp_path) == first
    assert len(calls) == 8
    assert run(logs, tmp_path, trials=3)[:8] == first
    assert len(calls) == 12
    (tmp_path / "search.json").write_text(json.dumps({"trials": first[:5]}))  # as a search that was cut off leaves it
    again = run(logs, tmp_path)
    assert len(calls) == 15
    assert [(r["score"], r["auc"]) for r in again] == [(r["score"], r["auc"]) for r in first]


def test_a_trial_that_was_cut_off_goes_on_from_its_last_epoch(
    logs: list[Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(logs[:1], tmp_path / "whole", models=("mmoe",), trials=1)

    with monkeypatch.context() as patch:
        patch.setattr(searching, "train", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(logs[:1], tmp_path, models=("mmoe",), trials=1)
    assert not kept(tmp_path / "search.json")
    capsys.readouterr()
    (resumed,) = run(logs[:1], tmp_path, models=("mmoe",), trials=1)
    told = capsys.readouterr().out
    assert "epoch 2" in told
    assert "epoch 1" not in told
    assert resumed["score"] == whole[0]["score"]


def test_a_trial_is_trained_as_its_setting_says_and_is_kept_with_what_it_was_made_by(
    logs: list[Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def watched(recipe: Any, contract: Any, *arguments: Any, **named: Any) -> Any:
        seen.append((recipe, contract.training))
        return train(recipe, contract, *arguments, **named)

    monkeypatch.setattr(searching, "train", watched)
    records = run(logs[:1], tmp_path, models=("dtrn",))
    for record, (recipe, training) in zip(records, seen, strict=True):
        assert record["setting"] == {
            "learning_rate": training.learning_rate,
            "embedding_decay": training.embedding_decay,
            "embedding_std": recipe.embedding_std,
        }
        assert {name: getattr(training, name) for name in TERMS} == TERMS
        assert recipe.bottom == "dtrn"
        assert recipe.width == logs[0].contract.training.width
        assert record["seconds"] > 0
        assert record["samples"] == {"fit": len(logs[0].fit), "held_out": len(logs[0].held_out)}
        assert {"machine", "versions", "when", "code", "parameters", "threads"} <= set(record)
        assert record["machine"]["cpu"]
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("part", "other"),
    [("content", "x"), ("model", "dtrn"), ("terms", {}), ("recipe", {}), ("days", []), ("contract", ""), ("setting", {})],
)
def test_a_trial_of_anything_else_is_another_trial(logs: list[Log], part: str, other: Any) -> None:
    key = key_of(logs[0], "mmoe", settings(1)[0], TERMS)
    record = {**key, "code": searching.code(), "score": 1.0}
    assert done([{**record, "score": 2.0}, record], key) == record  # the newest
    assert done([{**record, part: other}], key) is None


def test_other_code_counts_only_when_asked_for(logs: list[Log]) -> None:
    key = key_of(logs[0], "mmoe", settings(1)[0], TERMS)
    record = {**key, "code": "older", "score": 1.0}
    assert done([record], key) is None
    assert done([record], key, any_code=True) == record


def test_every_model_tries_the_same_settings_in_one_written_order() -> None:
    every = settings(len(SETTINGS))
    assert len({json.dumps(s) for s in every}) == len(SETTINGS)
    assert every[0] == {"learning_rate": 4e-3, "embedding_decay": 1e-1, "embedding_std": 0.1}
    assert settings(5) == every[:5]
    for wrong in (0, len(SETTINGS) + 1):
        with pytest.raises(ValueError, match=f"{wrong} trials were asked for; {len(SETTINGS)} settings are written"):
            settings(wrong)


def test_the_defaults_are_what_is_best_for_all_searched_models_together() -> None:
    training, recipe = load("simulated").training, RECIPES["dtrn"]
    chosen = {
        "learning_rate": training.learning_rate,
        "embedding_decay": training.embedding_decay,
        "embedding_std": recipe.embedding_std,
    }
    assert chosen == mean_ranks(plan.searched(kept(RESULTS)))[0][0]


def test_ranks_are_means_over_logs_and_models_with_ties_shared() -> None:
    a, b, c = settings(3)
    scores = {("x", "m"): (0.5, 0.6, 0.7), ("x", "n"): (0.9, 0.8, 0.8), ("y", "m"): (0.3, 0.2, 0.1)}
    records = [
        {"log": log, "model": model, "setting": s, "score": score, "code": ""}
        for (log, model), values in scores.items()
        for s, score in zip((a, b, c), values, strict=True)
    ]
    ranks = {json.dumps(s): rank for s, rank in mean_ranks(records)}
    assert ranks == pytest.approx(
        {json.dumps(a): (1 + 3 + 3) / 3, json.dumps(b): (2 + 1.5 + 2) / 3, json.dumps(c): (3 + 1.5 + 1) / 3}
    )
    assert [rank for _, rank in mean_ranks(records)] == sorted(ranks.values())
    with pytest.raises(ValueError, match="not every model has tried the same"):
        mean_ranks(records[:-1])


def test_the_tables_name_the_best_of_each_model_and_of_all(logs: list[Log], tmp_path: Path) -> None:
    records = run(logs, tmp_path, trials=1)
    console = Console(width=140, record=True, file=io.StringIO())
    show(records, console)
    told = console.export_text()
    assert all(f"{model} on {log.name}" in told for model in ("mmoe", "dtrn") for log in logs)
    for model in ("mmoe", "dtrn", "all models together"):
        assert f"best mean rank over 2 log(s), {model}: " in told
    for r in records:
        assert f"{r['score']:.4f}" in told


def test_what_a_demo_judges_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract, read = load("simulated"), []

    def requests(home: Home, terms: Any, chosen: list[str]) -> Any:
        read.extend(chosen)

    monkeypatch.setattr(window, "read_requests", requests)
    monkeypatch.setattr(samples, "window_inputs", lambda home, terms, chosen: dict.fromkeys(chosen, ""))
    monkeypatch.setattr(searching.days, "to_judge", lambda home, terms: ["2026-03-11", "2026-03-12", "2026-03-13"])
    log = Log.read("any", Home(tmp_path, "simulated"), contract)
    assert read == log.days == contract.training_days("2026-03-12")
    assert max(read) < "2026-03-12"
    Log.read("any", Home(tmp_path, "simulated"), contract, "2026-03-10")
    assert read[len(log.days) :] == contract.training_days("2026-03-10")


def test_days_that_are_judged_together_are_not_compared(tmp_path: Path) -> None:
    contract = load("simulated")
    together = contract.model_copy(update={"training": contract.training.model_copy(update={"judged_days": 2})})
    with pytest.raises(ValueError, match=r"set training\.judged_days = 1 in the contract 'simulated'"):
        Log.read("any", Home(tmp_path, "simulated"), together)


def test_a_world_is_made_by_the_projects_commands_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, called = World(seed=5, sign_conflict=1, selection_conflict=0.5, users=30, items=120, impressions=250), []

    def run_here(*words: str) -> None:
        called.append(words[0])
        if words[0] == "simulate":
            assert CliRunner().invoke(app, list(words)).exit_code == 0

    monkeypatch.setattr(worlds, "_dtrn", run_here)
    home = world.home(tmp_path)
    assert simulator.asked(home.truth) == {name: getattr(world, name) for name in World.__dataclass_fields__}
    assert world.home(tmp_path) == home
    assert called == ["simulate", "backfill", "backfill"]
    assert replace(world, sign_conflict=0).home(tmp_path) != home
    assert called[3:] == ["simulate", "backfill"]


def test_worlds_of_the_search_differ_in_seed_and_conflict() -> None:
    assert len({(w.sign_conflict, w.selection_conflict) for w in searching.WORLDS}) == 2
    assert len({w.seed for w in searching.WORLDS}) == 2


def test_what_is_asked_for_wrongly_is_told() -> None:
    with pytest.raises(typer.BadParameter, match="'taobao': a log is DATASET=HOME, for example"):
        searching.main(log=["taobao"])
    with pytest.raises(typer.BadParameter, match="no model nonesuch; models are "):
        searching.main(model=["nonesuch"])
    with pytest.raises(typer.BadParameter, match="no log: give one by --log"):
        searching.main(worlds=False)


def test_the_score_is_that_of_the_best_epoch_not_of_the_last(
    logs: list[Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse_at_last(*arguments: Any, **named: Any) -> Any:
        trained = train(*arguments, **named)
        last = trained.history[-1]
        return replace(trained, history=[*trained.history, replace(last, epoch=3, score=last.score + 1, validation_auc={})])

    monkeypatch.setattr(searching, "train", worse_at_last)
    (record,) = run(logs[:1], tmp_path, models=("mmoe",), trials=1)
    assert record["best_epoch"] < record["epochs"] == 3
    assert record["score"] < 1.5
    assert set(record["auc"]) == set(logs[0].contract.tasks)
