"""Evaluation end to end on a small log with real models: who is judged, on what, by whom, and how it is shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from assets import evaluation, lake, registry, samples, training
from models import artifact, baselines, metrics
from models.contract import Contract
from models.home import Home
from models.window import read_requests
from tests import logs
from tests.judged import FIRST, IMMATURE, JUDGED, TERMS, copied


@pytest.fixture
def home(trained: Home, tmp_path: Path) -> Home:
    return copied(trained, tmp_path)


def crown(home: Home, name: str, trained_for: str, judged_day: str) -> str:
    """Make the artifact of `name` the champion that was judged on `judged_day`."""
    tag = registry.store(home, TERMS, name, trained_for, {})
    when = datetime(2026, 4, 1, tzinfo=UTC)
    before = registry.champion(home, before=judged_day)
    assert registry.promote(
        home, judged_day=judged_day, name=name, tag=tag, bento="none:1", against=before.tag if before else None,
        who="test", why="test", when=when,
    )  # fmt: skip
    return tag


def test_the_first_challenger_is_judged_beside_the_references_on_the_rows_of_the_day(home: Home) -> None:
    manifest, judged = evaluation.evaluate(home, TERMS, JUDGED)
    assert judged
    verdict = json.loads(home.verdict(JUDGED).read_text())
    challenger = verdict["challenger"]["name"]
    assert set(verdict["models"]) == {challenger, "popularity", "lightgbm"}
    assert verdict["champion"] is None
    assert verdict["challenger"]["content"] == lake.content_hash(home.model(challenger, JUDGED))
    assert manifest.detail == {"promote": verdict["promote"], "challenger": challenger}
    assert verdict["meanings"] == {"click": "view within 24 hours", "buy": "buy within 12 hours"}
    requests = read_requests(home, TERMS, [JUDGED])
    assert verdict["samples"] == len(requests)
    for name, load in ((challenger, artifact.load), ("popularity", baselines.load), ("lightgbm", baselines.load)):
        scores = load(home.model(name, JUDGED)).score(requests)
        for t, task in enumerate(TERMS.task_names):
            m = verdict["models"][name][task]
            assert m["auc"] == pytest.approx(metrics.auc(requests.label[:, t], scores[:, t]), abs=1e-9)
            users = requests.user[requests.request, 0]
            assert m["gauc"] == pytest.approx(metrics.gauc(requests.label[:, t], scores[:, t], users).value, abs=1e-9)
            x, y = verdict["curves"][name][task]["roc"]
            assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
            assert len(x) <= evaluation.CURVE_POINTS
            assert np.trapezoid(y, x) == pytest.approx(m["auc"], abs=0.01)
    assert set(verdict["comparisons"]) == {"popularity", "lightgbm"}
    assert set(verdict["comparisons"]["popularity"]) == {"click", "buy", "mean"}


def together(count: int, **told: Any) -> Contract:
    """The terms with so many days judged together, of MMoE beside popularity."""
    told |= {"judged_days": count, "candidates": ("mmoe",), "references": ("popularity",)}
    return TERMS.model_copy(update={"training": TERMS.training.model_copy(update=told)})


def test_days_that_are_judged_together_are_one_verdict(home: Home) -> None:
    terms = together(2)
    crown(home, "mmoe", FIRST, FIRST)
    for name in ("mmoe", "popularity"):
        manifest, _ = training.train(home, terms, name, JUDGED, lambda line: None)
        assert manifest.detail == {"days": ["2026-03-28", "2026-03-29"], "held_out": ["2026-03-29"]}
    manifest, _ = evaluation.evaluate(home, terms, JUDGED)
    assert {f"samples/{FIRST}", f"samples/{JUDGED}"} <= manifest.inputs.keys()
    verdict = evaluation.read(home, JUDGED)
    days = [read_requests(home, terms, [day]) for day in (FIRST, JUDGED)]
    assert (verdict["judged_days"], verdict["samples"]) == ([FIRST, JUDGED], sum(map(len, days)))
    models = {
        "mmoe": artifact.load(home.model("mmoe", JUDGED)),
        "champion": artifact.load(home.model("mmoe", FIRST)),
        "popularity": baselines.load(home.model("popularity", JUDGED)),
    }
    for name, model in models.items():
        scores = np.concatenate([model.score(day) for day in days])
        for t, task in enumerate(terms.task_names):
            expected = roc_auc_score(np.concatenate([day.label[:, t] for day in days]), scores[:, t])
            assert verdict["models"][name][task]["auc"] == pytest.approx(expected, abs=1e-9)
    page = home.verdict_page(JUDGED).read_text()
    assert "Tuesday, 31 March 2026 to Wednesday, 1 April 2026" in page
    assert "did best on\n2026-03-29, which none was fitted on" in page
    assert "trained on by none. 2\ndays are judged together" in page
    assert page.index("Rows judged</dt><dd><a") < page.index(f">{FIRST}</a>") < page.index("Rows trained on")


def test_a_champion_that_has_learned_from_the_judged_days_is_not_compared(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `judged_days` was raised: the champion of the 31st learned from labels of the 30th."""
    assert evaluation._seen(TERMS, FIRST, [FIRST, JUDGED]) == ""
    why_not = evaluation._seen(TERMS, FIRST, ["2026-03-30", FIRST, JUDGED])
    assert why_not.startswith(
        "it has learned from what happened until 2026-03-30, and training.judged_days now has the verdict"
    )
    tag = crown(home, "mmoe", FIRST, FIRST)
    asked: list[Any] = []
    monkeypatch.setattr(evaluation, "_seen", lambda *given: asked.append(given) or why_not)
    evaluation.evaluate(home, TERMS, JUDGED)
    verdict = evaluation.read(home, JUDGED)
    assert "champion" not in verdict["models"]
    assert f"The champion {tag} could not be compared: it has learned" in " ".join(verdict["reasons"])
    assert [(day, days) for _, day, days in asked] == [(FIRST, [JUDGED])]


def test_an_unchanged_day_is_not_judged_again_and_a_retrained_model_is(home: Home) -> None:
    evaluation.evaluate(home, TERMS, JUDGED)
    before = home.verdict(JUDGED).read_bytes(), home.verdict_page(JUDGED).read_bytes()
    assert not evaluation.evaluate(home, TERMS, JUDGED)[1]
    home.verdict_page(JUDGED).unlink()
    assert not evaluation.evaluate(home, TERMS, JUDGED)[1]
    assert (home.verdict(JUDGED).read_bytes(), home.verdict_page(JUDGED).read_bytes()) == before
    home.verdict(JUDGED).unlink()
    assert evaluation.evaluate(home, TERMS, JUDGED)[1]
    assert home.verdict(JUDGED).read_bytes() == before[0]
    told = json.loads(home.manifest("popularity", JUDGED).read_text()) | {"content": "other"}
    home.manifest("popularity", JUDGED).write_text(json.dumps(told))
    assert evaluation.evaluate(home, TERMS, JUDGED)[1]


def test_the_reigning_champion_is_scored_on_the_same_rows(home: Home) -> None:
    tag = crown(home, "mmoe", FIRST, FIRST)
    evaluation.evaluate(home, TERMS, JUDGED)
    verdict = json.loads(home.verdict(JUDGED).read_text())
    assert verdict["champion"] == {"tag": tag, "name": "mmoe", "judged_day": FIRST}
    requests = read_requests(home, TERMS, [JUDGED])
    scores = artifact.load(home.model("mmoe", FIRST)).score(requests)
    assert verdict["models"]["champion"]["buy"]["auc"] == pytest.approx(
        metrics.auc(requests.label[:, 1], scores[:, 1]), abs=1e-9
    )
    assert set(verdict["comparisons"]) == {"champion", "popularity", "lightgbm"}
    # Judged again, the first day knows nothing of the champion that it made.
    evaluation.evaluate(home, TERMS, FIRST)
    assert json.loads(home.verdict(FIRST).read_text())["champion"] is None


def test_a_new_champion_makes_the_verdict_new(home: Home) -> None:
    evaluation.evaluate(home, TERMS, JUDGED)
    crown(home, "dtrn", FIRST, FIRST)
    assert evaluation.evaluate(home, TERMS, JUDGED)[1]


def test_a_challenger_with_the_champions_own_weights_does_not_win(home: Home) -> None:
    challenger, _ = evaluation.challenger_of(home, TERMS, JUDGED)
    crown(home, challenger, JUDGED, FIRST)
    evaluation.evaluate(home, TERMS, JUDGED)
    verdict = json.loads(home.verdict(JUDGED).read_text())
    assert not verdict["promote"]
    assert verdict["reasons"][1].startswith("Both give exactly the same probabilities on all ")


def test_a_champion_reads_histories_as_long_as_it_was_trained_on(home: Home) -> None:
    crown(home, "dtrn", FIRST, FIRST)
    lengths = {n: {"values": list(b.values), "length": 1} for n, b in TERMS.behaviours.items()}
    shorter = logs.contract(TERMS.model_dump(mode="json"), behaviours=lengths)
    requests = read_requests(home, TERMS, [JUDGED])
    scores = artifact.load(home.model("dtrn", FIRST)).score(requests)
    assert not np.array_equal(scores, artifact.load(home.model("dtrn", FIRST)).score(read_requests(home, shorter, [JUDGED])))
    evaluation.evaluate(home, shorter, JUDGED)
    came = json.loads(home.verdict(JUDGED).read_text())["models"]["champion"]["click"]
    assert came["logloss"] == pytest.approx(metrics.log_loss(requests.label[:, 0], scores[:, 0]), abs=1e-9)


def test_a_day_that_only_the_champion_looks_back_to_is_an_input_too(home: Home) -> None:
    crown(home, "dtrn", FIRST, FIRST)
    shorter = logs.contract(TERMS.model_dump(mode="json"), histories={"days": 1})
    manifest, _ = evaluation.evaluate(home, shorter, JUDGED)
    oldest = TERMS.history_days(JUDGED, JUDGED)[0]
    assert oldest < shorter.history_days(JUDGED, JUDGED)[0]
    assert min(name for name in manifest.inputs if name.startswith("histories/")) == f"histories/{oldest}"
    events = home.manifest("events", oldest)
    events.write_text(json.dumps(json.loads(events.read_text()) | {"blocked": "too many bad rows"}))
    with pytest.raises(lake.Blocked, match=f"events of {oldest} is blocked"):
        evaluation.evaluate(home, shorter, JUDGED)


def test_a_champion_that_predicts_a_task_that_is_gone_is_still_compared(home: Home) -> None:
    crown(home, "mmoe", FIRST, FIRST)
    training_ = {"window_days": 3, "epochs": 1, "width": 4, "candidates": ["mmoe"], "references": ["popularity"]}
    fewer = logs.contract(TERMS.model_dump(mode="json"), tasks={"buy": TERMS.tasks["buy"]}, training=training_)
    for day in TERMS.days():
        samples.build(home, fewer, day)
    for name in ("mmoe", "popularity"):
        training.train(home, fewer, name, JUDGED, lambda line: None)
    evaluation.evaluate(home, fewer, JUDGED)
    requests = read_requests(home, fewer, [JUDGED])
    buy = artifact.load(home.model("mmoe", FIRST)).score(requests)[:, 1]
    came = json.loads(home.verdict(JUDGED).read_text())["models"]["champion"]["buy"]
    assert came["logloss"] == pytest.approx(metrics.log_loss(requests.label[:, 0], buy), abs=1e-9)


def test_a_champion_that_names_its_tasks_in_another_order_is_read_by_name(home: Home) -> None:
    path = home.model("mmoe", FIRST) / "spec.json"
    theirs = logs.contract(TERMS.model_dump(mode="json"), tasks={n: TERMS.tasks[n] for n in ("buy", "click")})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"contract": theirs.model_dump(mode="json")}))
    crown(home, "mmoe", FIRST, FIRST)
    evaluation.evaluate(home, TERMS, JUDGED)
    requests = read_requests(home, TERMS, [JUDGED])
    buy = artifact.load(home.model("mmoe", FIRST)).score(requests)[:, 0]
    came = json.loads(home.verdict(JUDGED).read_text())["models"]["champion"]["buy"]
    assert came["logloss"] == pytest.approx(metrics.log_loss(requests.label[:, 1], buy), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tasks": {"click": TERMS.tasks["click"], "order": TERMS.tasks["buy"]}}, "it does not predict buy"),
        ({"context": {"derived": ["weekday"]}}, r"it reads the context fields ['weekday'], and the contract now has ['hour']"),
    ],
)
def test_a_champion_of_another_contract_is_not_compared_and_it_is_said(home: Home, change: dict[str, Any], reason: str) -> None:
    path = home.model("mmoe", FIRST) / "spec.json"
    theirs = logs.contract(TERMS.model_dump(mode="json"), **change)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"contract": theirs.model_dump(mode="json")}))
    if "context" in change:  # the weights' vocabulary has no table of that name; only the contract's fields are compared
        _rename_table(home.model("mmoe", FIRST), "hour", "weekday")
    tag = crown(home, "mmoe", FIRST, FIRST)
    evaluation.evaluate(home, TERMS, JUDGED)
    verdict = json.loads(home.verdict(JUDGED).read_text())
    assert "champion" not in verdict["models"]
    assert verdict["reasons"][1].startswith(f"The champion {tag} could not be compared: {reason}")
    assert verdict["champion"]["tag"] == tag
    assert tag in home.verdict_page(JUDGED).read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 1}, "it is of format 1, and this version of the program reads 5"),
        ({"contract": {"name": "shown", "colour": "red"}}, "its contract is of another version of the program"),
    ],
)
def test_a_champion_of_another_version_does_not_stop_the_line(home: Home, change: dict[str, Any], reason: str) -> None:
    path = home.model("mmoe", FIRST) / "spec.json"
    tag = crown(home, "mmoe", FIRST, FIRST)
    stored = registry.artifact(home, tag) / "spec.json"
    stored.write_text(json.dumps(json.loads(path.read_text()) | change))
    evaluation.evaluate(home, TERMS, JUDGED)
    verdict = json.loads(home.verdict(JUDGED).read_text())
    assert "champion" not in verdict["models"]
    assert verdict["reasons"][1].startswith(f"The champion {tag} could not be compared: {reason}")


def _rename_table(folder: Path, old: str, new: str) -> None:
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "vocabulary.safetensors")
    arrays[f"table/{new}"] = arrays.pop(f"table/{old}")
    save_file(arrays, folder / "vocabulary.safetensors")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [({"dtrn": 0.9, "mmoe": 0.8}, "mmoe"), ({"dtrn": 0.7, "mmoe": 0.8}, "dtrn"), ({"dtrn": 0.8, "mmoe": 0.8}, "dtrn")],
)
def test_the_lowest_validation_score_challenges(tmp_path: Path, scores: dict[str, float], expected: str) -> None:
    home = Home(tmp_path, TERMS.name)
    for name, score in scores.items():
        home.model(name, JUDGED).mkdir(parents=True)
        (home.model(name, JUDGED) / "spec.json").write_text(json.dumps({"format": artifact.FORMAT, "validation_score": score}))
    assert evaluation.challenger_of(home, TERMS, JUDGED) == (expected, scores)


def test_a_candidate_without_a_finite_score_is_an_error_not_a_choice(tmp_path: Path) -> None:
    home = Home(tmp_path, TERMS.name)
    for name, score in {"dtrn": 0.8, "mmoe": float("nan")}.items():
        home.model(name, JUDGED).mkdir(parents=True)
        (home.model(name, JUDGED) / "spec.json").write_text(json.dumps({"format": artifact.FORMAT, "validation_score": score}))
    with pytest.raises(ValueError, match=f"mmoe of {JUDGED} has no finite validation score"):
        evaluation.challenger_of(home, TERMS, JUDGED)


def test_what_may_not_be_read_is_refused_and_leaves_no_verdict(home: Home) -> None:
    with pytest.raises(lake.Missing, match="not mature"):
        evaluation.evaluate(home, TERMS, IMMATURE)
    manifest = home.manifest("mmoe", JUDGED)
    kept = manifest.read_text()
    manifest.unlink()
    with pytest.raises(lake.Missing, match=f"mmoe of {JUDGED} is needed"):
        evaluation.evaluate(home, TERMS, JUDGED)
    manifest.write_text(kept)
    day = home.manifest("samples", JUDGED)
    day.write_text(json.dumps(json.loads(day.read_text()) | {"blocked": "too many bad rows"}))
    with pytest.raises(lake.Blocked, match="too many bad rows"):
        evaluation.evaluate(home, TERMS, JUDGED)
    assert not home.verdict(JUDGED).exists()


def test_a_failing_evaluation_keeps_the_verdict_and_the_champion_that_were(home: Home) -> None:
    tag = crown(home, "mmoe", FIRST, FIRST)
    evaluation.evaluate(home, TERMS, JUDGED)
    before = home.verdict(JUDGED).read_bytes()
    name, _ = evaluation.challenger_of(home, TERMS, JUDGED)
    weights = home.model(name, JUDGED) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    told = json.loads(home.manifest(name, JUDGED).read_text()) | {"content": "damaged"}
    home.manifest(name, JUDGED).write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        evaluation.evaluate(home, TERMS, JUDGED)
    assert home.verdict(JUDGED).read_bytes() == before
    reigning = registry.champion(home)
    assert reigning is not None
    assert reigning.tag == tag
