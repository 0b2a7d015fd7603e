"""Drift is told field by field: quiet where nothing moved, and one dead behaviour shows though it moves little mass."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import torch

from assets import drift, drift_bins, drift_page, lake, outcomes, predictions, registry, samples
from models import artifact, training
from models.home import Home
from models.requests import NULL_KEY
from models.vocabulary import Vocabulary
from models.window import read_requests
from tests import inbox, logs
from tests.serving import JUDGED, SHOWN

Shop = tuple[Home, artifact.NeuralRanker, str]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def shop(shown: Home, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A home with a stored model for JUDGED; (home, the model, its tag)."""
    home = Home(tmp_path_factory.mktemp("drift"), shown.dataset)
    shutil.copytree(shown.root, home.root, dirs_exist_ok=True)
    tag = registry.store(home, SHOWN, "dtrn", JUDGED, {})
    return home, artifact.load(registry.artifact(home, tag)), tag


def told(shop: Shop, day: str = JUDGED) -> list[Row]:
    """What a service would log for the requests of `day`, computed offline."""
    home, ranker, tag = shop
    asked = read_requests(home, SHOWN, [day])
    probability = ranker.score(asked)
    out = []
    for u in range(len(asked.time)):
        rows = slice(int(asked.offsets[u]), int(asked.offsets[u + 1]))
        out.append(
            inbox.line(
                SHOWN, f"{day}-{u:05}", int(asked.time[u]), int(asked.user[u, 0]), asked.item[rows, 0].tolist(),
                user_features=asked.user[u, 1:].tolist(),
                item_features=asked.item[rows, 1:].tolist(),
                context=asked.context[rows].tolist(),
                score=probability[rows].mean(axis=1).tolist(),
                probability={t: probability[rows, i].tolist() for i, t in enumerate(SHOWN.task_names)},
                history_length=dict(zip(SHOWN.actions, (asked.end - asked.start)[u].tolist(), strict=True)),
                model=tag,
            )
        )  # fmt: skip
    return out


def measured(home: Home, lines: list[Row], day: str = JUDGED) -> Row:
    for path in home.prediction_inbox.glob("*.jsonl"):
        path.unlink()
    inbox.write(home, "1-1", lines)
    predictions.land(home, SHOWN, day)
    drift.measure(home, SHOWN, day)
    verdict: Row = json.loads(home.drift(day).read_text())
    return verdict


def judged(home: Home) -> None:
    """What evaluation leaves of the verdict, as far as the page tells it."""
    measure = {"auc": 0.618, "auc_low": 0.517, "auc_high": 0.719}

    def make(path: Any) -> dict[str, Any]:
        path.write_text(json.dumps({"models": {"dtrn": {"click": measure, "buy": measure}}}))
        return {}

    lake.build(home, "verdict", JUDGED, home.verdict(JUDGED), make, inputs={}, code="", contract="")


def loads(page: str) -> list[str]:
    """What a page would fetch when it is opened: addresses in tags and in style sheets."""

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []
            self.inside = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside = tag
            self.found += [str(v) for n, v in attrs if n == "src" or (n == "href" and tag == "link")]

        def handle_data(self, data: str) -> None:
            if self.inside == "style":
                self.found += [u for u in re.findall(r"@import[^;]*|url\([^)]{0,40}", data) if "url(data:" not in u]

    reader = Reader()
    reader.feed(page)
    return [u for u in reader.found if not u.startswith("data:")]


def psi(reference: dict[str, float], served: dict[str, float]) -> float:
    """The formula, written out; an empty bin counts as one in ten thousand, as Evidently has it."""
    total = 0.0
    for name in reference:
        p, q = reference[name] or 1e-4, served[name] or 1e-4
        total += (p - q) * float(np.log(p / q))
    return total


def test_an_ordinary_day_is_quiet_and_its_scores_are_the_formula(shop: Shop) -> None:
    verdict = measured(shop[0], told(shop))
    assert set(verdict["fields"]) == {
        *("hour", "position", "category", "segment", "unknown_item", "unknown_user"),
        *("history_length_view", "history_length_buy", "p_click", "p_buy"),
    }
    assert (verdict["model"], verdict["judged_day"], verdict["drifted"]) == (shop[2], JUDGED, [])
    assert verdict["rows"]["others"] == 0
    for name, field in verdict["fields"].items():
        used = {n: s for n, s in field["reference"].items() if s or field["served"][n]}
        assert field["score"] == pytest.approx(psi(used, field["served"]), abs=2e-3), name
        assert sum(field["reference"].values()) == pytest.approx(1, abs=1e-4)
        assert field["threshold"] > SHOWN.monitoring.drift_share
        assert not field["drifted"]


def test_of_few_users_a_field_that_passes_is_not_called_quiet(shop: Shop) -> None:
    verdict = measured(shop[0], told(shop))
    for field in verdict["fields"].values():
        field["threshold"] = verdict["share"] + 0.49
    page = drift_page.render(verdict, "")
    assert page.count(">quiet</span>") == len(verdict["fields"])
    assert "too few" not in page
    assert "The weekday is not among them" not in page, "this contract has none"
    assert "The weekday is not among them" in drift_page.render(verdict | {"left_out": ["weekday"]}, "")
    assert verdict["share"] == SHOWN.monitoring.drift_share
    verdict["fields"]["p_click"]["threshold"] = verdict["fields"]["hour"]["threshold"] = verdict["share"] + 0.51
    page = drift_page.render(verdict, "")
    assert page.count("<span class='quiet'>too few users</span>") == 2
    assert page.count("<span class='calm'>quiet</span>") == len(verdict["fields"]) - 2
    for field in verdict["fields"].values():
        field["threshold"] = verdict["share"] + 0.51
    users, count = verdict["rows"]["users"], len(verdict["fields"])
    assert drift_page.markdown(verdict) == (
        f"Of none of the {count} fields of {JUDGED} can be told whether it drifted: {users:,} users are too few."
    )
    for field in list(verdict["fields"].values())[2:]:
        field["threshold"] = verdict["share"] + 0.49
    assert f"was trained on. Of 2 nothing can be told: {users:,} users are too few." in drift_page.markdown(verdict)


def test_one_dead_behaviour_shows_and_nothing_else(shop: Shop) -> None:
    lines = told(shop)
    assert any(line["history_length"]["buy"] for line in lines)
    verdict = measured(shop[0], [line | {"history_length": line["history_length"] | {"buy": 0}} for line in lines])
    assert verdict["drifted"] == ["history_length_buy"]
    field = verdict["fields"]["history_length_buy"]
    assert field["method"] == "psi, all empty"
    assert field["note"].startswith("No served history holds any buy")
    assert lake.require(shop[0], "drift", JUDGED).detail["drifted"] == ["history_length_buy"]


def test_a_rare_behaviour_that_dies_shows_although_its_score_is_small() -> None:
    reference = np.where(np.arange(10_000) < 100, 3, 0)
    served = np.zeros(10_000, np.int64)
    assert psi(*drift_bins.lengths(reference, served).shares()) < SHOWN.monitoring.drift_share
    assert drift._dead(reference, served, users=1000)
    assert not drift._dead(reference, served, users=50)  # 0.99 ** 50 = 0.6: that can be chance
    assert not drift._dead(reference, np.append(served, 1), users=1000)
    assert not drift._dead(np.zeros(10, np.int64), served, users=1000)  # it never lived


def test_a_rare_behaviour_that_dies_is_a_verdict_of_its_own(
    shop: Shop, sides: tuple[dict[str, pd.DataFrame], pd.DataFrame]
) -> None:
    reference, ordinary = dict(sides[0]), drift.online(shop[1], sides[1])
    rare, rows = reference["history"], len(reference["history"])
    reference["history"] = rare.assign(user=range(rows), history_length_buy=np.where(np.arange(rows) % 50 == 0, 2, 0))
    served = ordinary.assign(user=range(len(ordinary)), history_length_buy=0)
    field = drift.compare(SHOWN, reference, served, SHOWN.monitoring.drift_share, day=JUDGED)[0]["history_length_buy"]
    assert field.score < SHOWN.monitoring.drift_share
    assert (field.drifted, field.method, field.threshold) == (True, "psi, all empty", 0.0)


@pytest.fixture(scope="module")
def sides(shop: Shop) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """(the reference, the predictions of an ordinary day)."""
    home, ranker, _ = shop
    measured(home, told(shop))
    return drift.reference(home, ranker, SHOWN.training_days(JUDGED)), pd.read_parquet(home.predictions(JUDGED))


@pytest.mark.parametrize("judged_days", [1, 2])
def test_probabilities_are_held_against_those_that_training_itself_gives_its_early_stopping_days(
    shop: Shop, judged_days: int
) -> None:
    home, ranker, _ = shop
    network = copy.deepcopy(ranker.network)
    with torch.no_grad():  # so little training leaves what statistics say near 0
        for fields in network.bottom.tables():
            for table in fields.told:
                table.normal_(std=3)
    terms = SHOWN.model_copy(update={"training": SHOWN.training.model_copy(update={"judged_days": judged_days})})
    ranker = replace(ranker, network=network, contract=terms)
    days = SHOWN.training_days("2026-04-03")  # of the window of JUDGED no label is known on the day that stops early
    held_out = samples.held_out(home, days, judged_days)
    assert len(held_out) == judged_days
    fit, stop = read_requests(home, SHOWN, [day for day in days if day not in held_out]), read_requests(home, SHOWN, held_out)
    vocabulary = replace(ranker.vocabulary, statistics=Vocabulary.fit(fit, SHOWN, (fit, stop)).statistics)
    expected = training.predict(network, training.loader_of(network.recipe, vocabulary, stop))
    found = drift.reference(home, ranker, days)["prediction"][[f"p_{t}" for t in SHOWN.task_names]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(ranker.score(stop) - expected).max() > 1e-3  # the artifact alone, which knows only what came after


@pytest.mark.parametrize(
    ("column", "value", "drifted"),
    [
        ("category", 99, "category"),
        ("segment", NULL_KEY, "segment"),
        ("position", NULL_KEY, "position"),
        ("p_click", 0.999, "p_click"),
        ("item", 10**9, "unknown_item"),
        ("unknown_user", True, "unknown_user"),
    ],
)
def test_each_kind_of_field_shows_by_itself(
    shop: Shop, sides: tuple[dict[str, pd.DataFrame], pd.DataFrame], column: str, value: Any, drifted: str
) -> None:
    reference, ordinary = sides
    served = drift.online(shop[1], ordinary.assign(**{column: value}))
    fields, snapshot = drift.compare(SHOWN, reference, served, SHOWN.monitoring.drift_share, day=JUDGED)
    assert [name for name, field in fields.items() if field.drifted] == [drifted]
    assert next(iter(fields)) == drifted  # what drifted comes first
    assert snapshot.get_html_str(False).count("Drift in column") == len(fields)


def test_a_list_is_one_field_and_the_weekday_none() -> None:
    terms = logs.contract(
        logs.EVENTS,
        item_features={"brand": "b", "tags": {"column": "t", "kind": "text", "separator": ",", "most": 3}},
        user_features={"likes": {"column": "l", "separator": ",", "most": 2}},
    )
    found = [name for name, kind in drift.kinds(terms).items() if kind in ("context", "item", "user")]
    assert found == ["hour", "brand", "tags", "likes"]


def test_predictions_that_lack_what_the_model_reads_are_refused(
    shop: Shop, sides: tuple[dict[str, pd.DataFrame], pd.DataFrame]
) -> None:
    with pytest.raises(ValueError, match=r"predictions lack \['segment'\].*retrain"):
        drift.online(shop[1], sides[1].drop(columns="segment"))


def test_only_the_model_that_served_most_is_compared(shop: Shop) -> None:
    lines = told(shop)
    other = [
        line | {"request_id": f"x{n}", "model": "dtrn-old:1", "history_length": {"view": 0, "buy": 0}}
        for n, line in enumerate(lines[:9])
    ]
    verdict = measured(shop[0], lines + other)
    assert (verdict["model"], verdict["drifted"]) == (shop[2], [])
    assert verdict["rows"]["others"] == sum(len(line["item"]) for line in other)


def test_the_page_opens_offline_and_puts_outcomes_beside_what_was_judged(shop: Shop) -> None:
    home = shop[0]
    judged(home)
    measured(home, told(shop))
    assert "not known yet" in home.drift_report(JUDGED).read_text()
    logs.write_events(home, SHOWN, "2026-04-03", [])  # with it the 30 hours of the last impression are in
    outcomes.join(home, SHOWN, JUDGED)
    assert drift.measure(home, SHOWN, JUDGED)[1]
    verdict = json.loads(home.drift(JUDGED).read_text())
    assert verdict["served"] == lake.require(home, "outcomes", JUDGED).detail["served"] != {}
    page = home.drift_report(JUDGED).read_text()
    assert "None of 10 fields" in page
    click = verdict["served"][shop[2]]["click"]
    assert f"<td>{click['auc']:.4f} ({click['auc_low']:.4f} to {click['auc_high']:.4f})</td>" in page
    older = {name: click[name] for name in ("auc", "logloss", "ece", "positives", "negatives")}
    told_before = drift_page.render(verdict | {"served": {shop[2]: {"click": older}}}, "")
    assert f"<td>{click['auc']:.4f}</td>" in told_before, "joined before outcomes had an interval"
    assert "0.6180 (0.5170 to 0.7190)" in page
    assert loads(page) == []
    assert "evidently.telemetry" not in sys.modules  # nothing that could send anything was so much as imported
    before = home.drift(JUDGED).read_bytes()
    assert drift.measure(home, SHOWN, JUDGED)[1] is False
    manifest = lake.require(home, "outcomes", JUDGED)
    anew = {shop[2]: {**verdict["served"][shop[2]], "click": {**click, "auc_low": 0.25, "auc_high": 0.75}}}
    lake.write_json(home.manifest("outcomes", JUDGED), {**vars(manifest), "detail": {**manifest.detail, "served": anew}})
    assert drift.measure(home, SHOWN, JUDGED)[1] is True, "the same rows, measured anew"
    assert "(0.2500 to 0.7500)" in home.drift_report(JUDGED).read_text()
    lake.write_json(home.manifest("outcomes", JUDGED), vars(manifest))
    assert drift.measure(home, SHOWN, JUDGED)[1] is True
    home.drift_report(JUDGED).unlink()
    assert drift.measure(home, SHOWN, JUDGED)[1] is True
    home.drift_run(JUDGED).unlink()
    assert drift.measure(home, SHOWN, JUDGED)[1] is True
    assert home.drift_run(JUDGED).is_file()
    assert home.drift(JUDGED).read_bytes() == before


def test_what_a_model_of_another_version_served_is_told_and_not_compared(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    home, lines = shop[0], told(shop)
    monkeypatch.setattr(artifact, "FORMAT", artifact.FORMAT + 1)
    verdict = measured(home, lines)
    assert (verdict["model"], verdict["fields"]) == (shop[2], {})
    assert f"format {artifact.FORMAT - 1} came" in home.drift_report(JUDGED).read_text()
    assert drift.measure(home, SHOWN, JUDGED)[1] is False


def test_a_day_on_which_nothing_was_served_says_so(shop: Shop) -> None:
    verdict = measured(shop[0], [])
    assert (verdict["model"], verdict["fields"], verdict["drifted"]) == (None, {}, [])
    assert not shop[0].drift_run(JUDGED).exists()
    assert drift.measure(shop[0], SHOWN, JUDGED)[1] is False
    assert "Nothing was served" in shop[0].drift_report(JUDGED).read_text()
    assert drift_page.markdown(verdict).startswith("Nothing was served")


def test_the_check_warns_with_the_fields(shop: Shop) -> None:
    from assets.project import Project

    lines = [line | {"history_length": {"view": 0, "buy": 0}} for line in told(shop)]
    measured(shop[0], lines)
    written = shop[0].root / "shown.toml"
    days = dg.DailyPartitionsDefinition("2026-03-27")
    asset = drift.drift.map_asset_specs(lambda s: s.replace_attributes(partitions_def=days))
    written.write_text(toml())
    project = Project(contract=str(written), root=str(shop[0].root))
    result = dg.materialize([asset, drift.no_field_drifted], partition_key=JUDGED, resources={"project": project})
    (check,) = result.get_asset_check_evaluations()
    assert (result.success, check.passed, check.severity) == (True, False, dg.AssetCheckSeverity.WARN)
    assert str(check.description).startswith("drifted: history_length_view, history_length_buy. Read the day's report (`")
    (made,) = result.asset_materializations_for_node("drift")
    assert "| **drift** | 2 of 10 fields: history_length_view, history_length_buy |" in str(made.metadata["overview"].value)
    assert str(made.metadata["run"].value).endswith(f"{shop[0].drift_project.name}/reports/{shop[0].drift_run(JUDGED).stem}")
    assert check.metadata["actual"].value == f"{JUDGED}: history_length_view, {JUDGED}: history_length_buy"


def toml() -> str:
    """SHOWN as a file: nested tables as inline ones."""

    def written(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {written(v)}" for k, v in value.items() if v is not None) + "}"
        return json.dumps(value)

    return "\n".join(f"{k} = {written(v)}" for k, v in SHOWN.model_dump(mode="json", exclude_unset=True).items())


def test_thinning_keeps_whole_requests_evenly(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = read_requests(shop[0], SHOWN, [JUDGED])
    for most in (1, 50, 200, 10**6):
        monkeypatch.setattr(drift, "ROWS", most)
        kept = drift.thinned(requests)
        assert len(kept) <= most or len(kept.time) == 1
        assert len(kept) == len(requests) or len(kept) >= most // 3 or len(kept.time) == 1
        latest = np.flatnonzero((requests.user[:, 0] == kept.user[-1, 0]) & (requests.time == kept.time[-1]))[0]
        assert len(kept.time) < 4 or latest > 0.7 * len(requests.time)  # spread to the end, not the first ones
        pairs = set(zip(requests.user[:, 0], requests.time, np.diff(requests.offsets), strict=True))
        assert set(zip(kept.user[:, 0], kept.time, np.diff(kept.offsets), strict=True)) <= pairs
