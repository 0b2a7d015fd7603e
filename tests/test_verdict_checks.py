"""The verdict in Dagster: what its asset shows, when its checks fail, and what they say helps."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import evaluation, lake
from assets.project import Project
from models import artifact
from models.contract import Contract
from models.home import Home
from tests.judged import DAYS, JUDGED, TERMS, copied


@pytest.fixture
def home(trained: Home, tmp_path: Path) -> Home:
    return copied(trained, tmp_path)


def test_the_asset_and_its_checks_run_in_dagster(home: Home, tmp_path: Path) -> None:
    terms = tmp_path / "tiny.toml"
    days = dg.DailyPartitionsDefinition(DAYS[0], end_date="2026-04-03")
    project = _Told(contract=str(terms), root=str(home.root))
    asset = evaluation.verdict("tiny", ()).map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days))
    result = dg.materialize(
        [asset, *dg.load_asset_checks_from_modules([evaluation], asset_key_prefix="tiny")],
        resources={"project": project},
        partition_key=JUDGED,
        instance=dg.DagsterInstance.ephemeral(),
    )
    (made,) = result.asset_materializations_for_node("tiny__verdict")
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
    assert ("Its loss by epoch" in told) == (not verdict["promote"]), "a check that fails says what to do"


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


def test_what_helps_is_said_where_it_can(home: Home) -> None:
    evaluation.evaluate(home, TERMS, JUDGED)
    verdict = evaluation.read(home, JUDGED)
    users, name = verdict["users"], verdict["challenger"]["name"]
    against = verdict["comparisons"]["popularity"]

    def helps(low: float, high: float, **training: Any) -> str:
        for task in ("click", "buy", "mean"):
            against[task] |= {"difference": (low + high) / 2, "low": low, "high": high, "judged": True}
        return evaluation.what_helps(home, contract(**training), verdict)

    longer = TERMS.calendar.model_copy(update={"first_day": date(2026, 3, 1)})

    def contract(**training: Any) -> Contract:
        return TERMS.model_copy(update={"training": TERMS.training.model_copy(update=training), "calendar": longer})

    first = lake.require(home, name, JUDGED).detail["days"][0]
    assert first == str(TERMS.calendar.first_day)
    history = artifact.read_spec(home.model(name, JUDGED))["history"]
    last_is_best = min(history, key=lambda epoch: epoch["score"])["epoch"] == len(history)
    more = f"its last epoch was its best: more of them (training.epochs, now {len(history)}) help; "
    for epochs, said in ((len(history), last_is_best), (len(history) + 1, False)):
        assert (more in helps(-0.01, 0.03, epochs=epochs)) == said
    assert helps(-0.01, 0.03, epochs=len(history) + 1) == (
        f" {users:,} users on 1 day may be too few to tell: more days judged together (training.judged_days) narrow the "
        "interval; "
        f"it learned from {first} on, and there are 27 days before it: more of them (training.window_days) may help. "
        "Its loss by epoch stands on the asset of that model."
    )
    assert "training.judged_days" not in helps(-0.03, -0.01), "no interval will cure what is worse"
    assert "training.judged_days" not in helps(-0.03, 0.01)
    nearly = TERMS.calendar.model_copy(update={"first_day": date(2026, 3, 27)})
    for window, said in ((5, False), (4, True)):  # one day more is a fifth of the window, and more than that
        training = TERMS.training.model_copy(update={"window_days": window})
        terms = TERMS.model_copy(update={"calendar": nearly, "training": training})
        assert ("training.window_days" in evaluation.what_helps(home, terms, verdict)) is said
    short = TERMS.calendar.model_copy(update={"first_day": date(2026, 3, 31), "last_day": date(2026, 4, 2)})
    said = evaluation.what_helps(home, TERMS.model_copy(update={"calendar": short}), verdict)
    assert "training.judged_days" not in said, "of three days no more than one can be judged"
    assert "t learned from every day that there is to learn from" in said
    for task in against:
        against[task] |= {"judged": False}
    assert evaluation.what_helps(home, TERMS, verdict) == "", "then the verdict itself says what is needed"
