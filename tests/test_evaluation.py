"""Evaluation end to end on a small log with real models: who is judged, on what, by whom, and how it is shown."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from assets import evaluation, histories, lake, registry, samples, training, verdict_page
from assets.project import Project
from models import artifact, baselines, metrics
from models.contract import Contract
from models.home import Home
from models.window import read_requests
from tests import logs

DAYS = ("2026-03-28", "2026-04-02")
FIRST, JUDGED, IMMATURE = "2026-03-31", "2026-04-01", "2026-04-02"
MODELS = ("popularity", "lightgbm", "mmoe", "dtrn")
TERMS = logs.contract(
    logs.EVENTS,
    calendar={"first_day": DAYS[0], "last_day": DAYS[1]},
    context={"derived": ["hour"]},
    tasks={"click": {"behaviours": ["view"], "horizon_hours": 24}, "buy": {"behaviours": ["buy"], "horizon_hours": 12}},
    training={"window_days": 3, "epochs": 2, "width": 4, "batch_samples": 512},
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with every model trained for two judged days; read only, `home` is a copy."""
    home = Home(tmp_path_factory.mktemp("evaluation"), TERMS.name)
    random = np.random.default_rng(3)
    rows = defaultdict(list)
    for _ in range(1500):
        user, time = int(random.integers(1, 60)), int(random.integers(TERMS.day_start(DAYS[0]), TERMS.day_end(DAYS[1])))
        item = min(int(random.exponential(6)), 30) * 3 + user % 3  # a user keeps to one category
        behaviour = "view" if random.random() < 0.7 else "buy"
        rows[str(TERMS.day_of(time))].append(
            {"user": user, "item": item, "time": time // 1000 * 1000, "category": item % 3, "behaviour": behaviour}
        )
    for day in TERMS.days():
        logs.write_events(home, TERMS, day, rows[day])
    for day in TERMS.days():
        histories.build(home, TERMS, day)
        samples.build(home, TERMS, day)
    for day in (FIRST, JUDGED):
        for name in MODELS:
            training.train(home, TERMS, name, day, lambda line: None)
    return home


@pytest.fixture
def home(trained: Home, tmp_path: Path) -> Home:
    shutil.copytree(trained.root, tmp_path, dirs_exist_ok=True)
    return Home(tmp_path, trained.dataset)


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
        ({"format": 1}, "it is of format 1, and this version of the program reads 3"),
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


def test_the_asset_and_its_checks_run_in_dagster(home: Home, tmp_path: Path) -> None:
    terms = tmp_path / "tiny.toml"
    days = dg.DailyPartitionsDefinition(DAYS[0], end_date="2026-04-03")
    project = _Told(contract=str(terms), root=str(home.root))
    asset = evaluation.verdict.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days))
    result = dg.materialize(
        [asset, evaluation.finite_metrics, evaluation.challenger_beats_popularity],
        resources={"project": project},
        partition_key=JUDGED,
        instance=dg.DagsterInstance.ephemeral(),
    )
    (made,) = result.asset_materializations_for_node("verdict")
    assert made.metadata["recomputed"].value == 1
    assert made.metadata["page"].value == str(home.verdict_page(JUDGED))
    table = str(made.metadata["numbers"].value)
    verdict = evaluation.read(home, JUDGED)
    ours = verdict["models"][verdict["challenger"]["name"]]
    assert made.metadata["mean_auc"].value == pytest.approx((ours["click"]["auc"] + ours["buy"]["auc"]) / 2)
    difference = verdict["comparisons"]["popularity"]["mean"]["difference"]
    assert made.metadata["mean_difference_to_popularity"].value == difference
    m = verdict["models"]["popularity"]["click"]
    assert f"| click | popularity | {m['auc']:.4f} |" in table
    assert f"| {m['gauc']:.4f} ({round(100 * m['gauc_users_share'])}%, {round(100 * m['gauc_rows_share'])}%) |" in table
    assert str(made.metadata["ROC of buy"].value).startswith("![ROC of buy](data:image/png;base64,iVBOR")
    checks = {c.check_name: c for c in result.get_asset_check_evaluations()}
    assert checks["finite_metrics"].passed
    assert checks["challenger_beats_popularity"].passed == verdict["promote"]
    told = str(checks["challenger_beats_popularity"].description)
    assert told.startswith(verdict["reasons"][0])
    assert ("training.epochs" in told) == (not verdict["promote"]), "a check that fails says what to do"


class _Told(Project):
    """The project of this file's contract, which lies in no TOML file."""

    @property
    def terms(self) -> Contract:
        return TERMS


def test_both_checks_can_fail(home: Home) -> None:
    evaluation.evaluate(home, TERMS, JUDGED)
    verdict = evaluation.read(home, JUDGED)
    assert evaluation.unmeasured(verdict) == []
    verdict["models"]["popularity"]["buy"]["auc"] = None
    assert evaluation.unmeasured(verdict) == ["popularity/buy: auc"]
    for task in ("click", "mean"):
        verdict["comparisons"]["popularity"][task] |= {"difference": -0.2, "low": -0.3, "high": -0.1, "judged": True}
    passed, why = evaluation.against_popularity(verdict)
    assert not passed
    assert "significantly worse than popularity on click (AUC -0.2000" in why
    del verdict["comparisons"]["popularity"]
    assert evaluation.against_popularity(verdict) == (
        False,
        "popularity was not scored; add 'popularity' to training.references of the contract",
    )


@pytest.fixture(scope="module")
def shown(trained: Home) -> dict[str, Any]:
    evaluation.evaluate(trained, TERMS, JUDGED)
    return evaluation.read(trained, JUDGED)


class _Reader(HTMLParser):
    """Notes what a page refers to, and whether each element that opens is closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.refers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [v or "" for k, v in attrs if k in ("href", "xlink:href", "src", "action", "data", "poster")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(verdict: dict[str, Any]) -> _Reader:
    reader = _Reader()
    reader.feed(verdict_page.render(verdict))
    assert reader.open == []
    return reader


def test_the_page_fetches_nothing_and_runs_nothing(shown: dict[str, Any]) -> None:
    page = verdict_page.render(shown)
    assert not re.search(r"https?:|//[a-z]|@import|url\(\s*['\"]?[^#'\")]", page)
    reader = read_page(shown)
    assert all(reference.startswith("#") for reference in reader.refers)
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(reader.tags)
    assert page == verdict_page.render(shown)


def test_the_page_leads_to_the_runs_and_is_made_again_when_they_or_the_words_change(home: Home) -> None:
    home.verdict(JUDGED).unlink(missing_ok=True)
    evaluation.evaluate(home, TERMS, JUDGED, run="0a1b2c3d-run")
    path = home.verdict_page(JUDGED)
    reader = _Reader()
    reader.feed(path.read_text())
    links = [reference for reference in reader.refers if not reference.startswith("#")]
    assert "http://127.0.0.1:3000/runs/0a1b2c3d-run" in links
    assert all(link.startswith("http://127.0.0.1:3000/") for link in links)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert not evaluation.evaluate(home, TERMS, JUDGED, run="another")[1]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    manifest = lake.require(home, "verdict", JUDGED)
    lake.write_json(home.manifest("verdict", JUDGED), asdict(manifest) | {"run": "another"})
    assert not evaluation.evaluate(home, TERMS, JUDGED)[1]
    assert "/runs/another" in path.read_text()


def test_the_page_says_in_words_what_an_auc_is(shown: dict[str, Any]) -> None:
    text = " ".join(read_page(shown).text.split())
    for task in ("click", "buy"):
        told = ", ".join(f"{model} {tasks[task]['auc']:.1%}" for model, tasks in shown["models"].items())
        assert f"one with {task} and one without, the one with it is ranked higher so often: {told}." in text


def test_the_page_says_who_why_and_how_much(shown: dict[str, Any]) -> None:
    text = " ".join(read_page(shown).text.split())
    assert "judged on Wednesday, 1 April 2026" in text
    for reason in shown["reasons"]:
        assert reason in text
    for tasks in shown["models"].values():
        for m in tasks.values():
            for key in ("auc", "auc_low", "auc_high", "gauc", "logloss", "ece"):
                assert f"{m[key]:.4f}" in text
    for rows in shown["comparisons"].values():
        for c in rows.values():
            assert f"{c['difference']:+.4f}".replace("-", "−") in text


def test_what_is_written_in_the_verdict_is_text_and_never_markup(shown: dict[str, Any]) -> None:
    evil = '<script>alert("x")</script>&'
    verdict = json.loads(json.dumps(shown).replace('"buy"', json.dumps(evil)))
    verdict |= {"dataset": evil, "reasons": [evil, *shown["reasons"]]}
    verdict["champion"] = {"tag": evil, "name": evil, "judged_day": evil}
    reader = read_page(verdict)
    assert "script" not in reader.tags
    assert reader.text.count(evil) >= 6


@pytest.mark.parametrize(
    ("promote", "champion", "compared", "headline"),
    [
        (True, True, True, "{} beats the champion"),
        (True, False, False, "{} beats popularity"),
        (True, True, False, "{} beats popularity"),
        (False, True, True, "The champion stays"),
        (False, True, False, "The champion stays"),
        (False, False, False, "No champion yet"),
    ],
)
def test_the_headline_is_the_outcome(
    shown: dict[str, Any], promote: bool, champion: bool, compared: bool, headline: str
) -> None:
    name = shown["challenger"]["name"]
    models = shown["models"] | ({"champion": shown["models"][name]} if compared else {})
    reigning = {"tag": "dtrn-tiny:1", "name": "dtrn", "judged_day": FIRST} if champion else None
    assert verdict_page.headline(shown | {"promote": promote, "champion": reigning, "models": models}) == headline.format(name)


def test_calibration_of_drawn_negatives_is_said_to_be_relative_and_that_of_impressions_is_not(shown: dict[str, Any]) -> None:
    assert "relative to that sampling rate" in " ".join(read_page(shown).text.split())
    assert "sampling rate" not in read_page(shown | {"shape": "exposures"}).text


def test_a_day_without_positives_still_has_a_page(shown: dict[str, Any]) -> None:
    from models.judgement import judge

    labels, users = np.zeros((50, 2), np.int8), np.arange(50)
    scores = {"dtrn": np.full((50, 2), 0.25), "popularity": np.full((50, 2), 0.5)}
    judged = judge(labels, users, scores, tasks=TERMS.task_names, challenger="dtrn", seed=1)
    curves = evaluation.curves(labels, scores, TERMS.task_names)
    verdict = shown | dict(judged) | {"curves": curves, "challenger": {"name": "dtrn", "content": "0"}}
    text = " ".join(read_page(verdict).text.split())
    assert "No model is promoted: no task of this day can be judged." in text
    assert "not judged" in text
    assert "ROC of click" in evaluation.verdict_metadata(verdict)
