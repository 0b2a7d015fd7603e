"""The leaderboard's runs: each kept by itself, none made twice."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measuring
from benchmarks.measuring import measured
from benchmarks.runs import GRADIENTS, Record, Run, Store, Variant, Where, digest, found, locked
from tests import board
from tests.board import CONTRACT, TERMS, SmallWorld, done, kept, runs
from tests.shops import cut_off

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_that_is_there_is_not_made_again(
    small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(run: Run, *arguments: Any, **named: Any) -> Record:
        made.append(run.model)
        return measured(run, *arguments, **named)

    monkeypatch.setattr(measuring, "measured", counted)
    asked = runs(small_world[0], "popularity", "mmoe", "lightgbm")
    assert not done(asked, small_world, tmp_path, limit=2)
    assert made == ["popularity", "mmoe"]
    assert not done(asked, small_world, tmp_path, until=0)
    assert len(made) == 2
    assert not done(asked, small_world, tmp_path)
    assert not done(asked, small_world, tmp_path)
    assert made == ["popularity", "mmoe", "lightgbm"]
    [mmoe] = [r for r in kept(tmp_path) if r["model"] == "mmoe"]
    (tmp_path / "runs" / "mmoe.jsonl").unlink()
    assert not done(asked, small_world, tmp_path)
    assert made[3:] == ["mmoe"]
    assert [r["tasks"] for r in kept(tmp_path) if r["model"] == "mmoe"] == [mmoe["tasks"]]


def test_a_training_that_was_cut_off_goes_on_and_the_others_are_not_repeated(
    small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = runs(small_world[0], "popularity", "mmoe")
    assert not done(asked, small_world, tmp_path / "whole")
    assert not list((tmp_path / "whole" / "scratch").glob("checkpoints/*"))

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "train", cut_off)
        with pytest.raises(KeyboardInterrupt):
            done(asked, small_world, tmp_path)
    assert [r["model"] for r in kept(tmp_path)] == ["popularity"]
    capsys.readouterr()
    assert not done(asked, small_world, tmp_path)
    told = capsys.readouterr().out
    assert "mmoe on sign 1, selection 1, seed 5" in told
    assert "popularity" not in told
    assert "epoch 2" in told
    assert "epoch 1" not in told
    whole, resumed = kept(tmp_path / "whole")[0], kept(tmp_path)[0]
    assert (whole["resumed"], resumed["resumed"]) == (False, True)
    assert resumed["tasks"] == whole["tasks"]


def test_a_run_that_another_process_has_in_hand_is_left_to_it(small_world: SmallWorld, tmp_path: Path) -> None:
    asked = runs(small_world[0], "popularity", "lightgbm")
    locks = tmp_path / "scratch" / "locks"
    locks.mkdir(parents=True)
    taken = locks / digest(asked[0].key(CONTRACT))
    taken.touch()
    with locked(taken) as ours:
        assert ours
        assert not done(asked, small_world, tmp_path)
    assert [r["model"] for r in kept(tmp_path)] == ["lightgbm"]
    assert not done(asked, small_world, tmp_path)
    assert [r["model"] for r in kept(tmp_path)] == ["lightgbm", "popularity"]


def test_runs_of_other_content_or_other_code_are_made_again(small_world: SmallWorld, tmp_path: Path) -> None:
    asked = runs(small_world[0], "popularity", "lightgbm")
    assert not done(asked[:1], small_world, tmp_path)
    first = kept(tmp_path)[0]
    store = Store(tmp_path / "other" / "runs")
    store.keep({**first, "content": "another log of that name", "tasks": {}})
    assert not done(
        asked, small_world, tmp_path / "other"
    )  # the log is opened for the second, and the first is seen to be of another
    assert [r["model"] for r in kept(tmp_path / "other")] == ["lightgbm", "popularity", "popularity"]
    old = Store(tmp_path / "old" / "runs")
    old.keep({**first, "code": "older"})
    assert not done(asked[:1], small_world, tmp_path / "old")
    assert len(kept(tmp_path / "old")) == 1
    assert not done(asked[:1], small_world, tmp_path / "old", same_code=True)
    assert [r["code"] for r in kept(tmp_path / "old")] == ["older", measuring.code()]


def test_a_model_that_cannot_be_trained_is_told_and_the_next_is_made(
    small_world: SmallWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = runs(small_world[0], "mmoe", "popularity")
    asked[0] = replace(asked[0], terms={**asked[0].terms, "learning_rate": 1e20})
    (failed,) = done(asked, small_world, tmp_path)
    assert "mmoe on sign 1" in failed
    assert "is not a number in epoch" in failed
    assert [r["model"] for r in kept(tmp_path)] == ["popularity"]
    assert "failed: the loss of task" in capsys.readouterr().out


def test_a_line_that_is_no_run_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    assert store.records() == []
    store.keep({"model": "a"})
    store.keep({"model": "b"})
    assert store.records() == [{"model": "a"}, {"model": "b"}]
    assert [path.name for path in sorted((tmp_path / "runs").iterdir())] == ["a.jsonl", "b.jsonl"]
    (tmp_path / "runs" / "b.jsonl").write_text('{"model": "b"}\n{"mod')
    with pytest.raises(ValueError, match=r"b\.jsonl, line 2: not a run .* delete the line, and it is made again"):
        store.records()


def test_two_who_write_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store.keep({"model": "a", "run": 1})
    other = threading.Thread(target=store.keep, args=({"model": "a", "run": 3},))
    with locked(store.folder):
        other.start()
        path = store.folder / "a.jsonl"
        path.write_text(path.read_text() + '{"model": "a", "run": 2}\n')
    other.join()
    assert store.records() == [{"model": "a", "run": number} for number in (1, 2, 3)]


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
def test_anything_else_is_another_run(small_world: SmallWorld, change: dict[str, Any]) -> None:
    (run,) = runs(small_world[0], "mmoe")
    key = run.key(CONTRACT)
    newer = {**key, "content": "c", "code": "x"}
    assert found([newer], replace(run, **change).key(CONTRACT)) is None
    assert found([{**newer, "code": "w"}, newer], key) == newer
    assert found([newer], key, code="w") is None
    assert found([newer], key, content="d") is None
    assert found([newer], key, content="c", code="x") == newer


def test_a_part_that_recipes_did_not_have_is_at_its_default(small_world: SmallWorld) -> None:
    key = runs(small_world[0], "mmoe")[0].key(CONTRACT)
    older = {name: value for name, value in key["recipe"].items() if name != "layers"}
    record = {**key, "content": "c", "code": "x", "recipe": older}
    assert found([record], key) == record
    assert found([record], {**key, "recipe": {**key["recipe"], "layers": 2}}) is None
    assert found([{**record, "recipe": {**older, "dropped": 1}}], key) is None
    assert found([{**record, "recipe": None}], key) is None
