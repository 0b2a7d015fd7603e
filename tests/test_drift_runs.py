"""Evidently's workspace holds a run a day, read here by Evidently itself: replaced, never doubled, and whole after a kill."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evidently.ui.service.base import SeriesFilter
from evidently.ui.service.storage.local.base import InMemoryDataStorage
from evidently.ui.workspace import Workspace

from assets import drift, drift_runs
from models.home import Home
from tests.serving import SHOWN

DAY, NEXT = "2026-04-01", "2026-04-02"
COLUMNS = drift.kinds(SHOWN)


def rows(seed: int, users: int = 200) -> pd.DataFrame:
    """Rows of every column that a model of SHOWN reads, in which nothing moves from seed to seed."""
    random = np.random.default_rng(seed)
    made: dict[str, Any] = {n: random.integers(0, 2 if k == "unknown" else 4, 600) for n, k in COLUMNS.items()}
    made |= {n: random.random(600) for n, k in COLUMNS.items() if k == "prediction"}
    return pd.DataFrame(made | {"user": random.integers(0, users, 600)})


def saved(home: Home, day: str, served: pd.DataFrame) -> dict[str, drift.Field]:
    """The verdict on `served`, whose run is in the workspace now."""
    reference = dict.fromkeys(set(COLUMNS.values()), rows(1))
    fields, snapshot = drift.compare(SHOWN, reference, served, SHOWN.monitoring.drift_share, day=day)
    drift_runs.save(home, SHOWN, COLUMNS, day, snapshot)
    return fields


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, drift.Field]]:
    """A home in whose workspace DAY is a run; (home, its verdict). Not to be changed."""
    home = Home(tmp_path_factory.mktemp("once"), "shown")
    return home, saved(home, DAY, rows(2))


@pytest.fixture
def home(once: tuple[Home, Any], tmp_path: Path) -> Home:
    """A copy of `once` that a test may change."""
    shutil.copytree(once[0].root, tmp_path / "home")
    return Home(tmp_path / "home", "shown")


def runs(home: Home) -> dict[str, Any]:
    """Name → run of the one project of the workspace, as Evidently reads them."""
    workspace = Workspace(str(home.evidently))
    (project,) = workspace.list_projects()
    assert (project.name, project.description) == ("shown", SHOWN.description or None)
    found = [workspace.get_run(project.id, run) for run in workspace.list_runs(project.id)]
    return {run.name: run for run in found if run is not None}


def scores(run: Any) -> dict[str, float]:
    results = [r for r in run.metric_results.values() if "column" in r.metric_value_location.metric.params]
    return {r.metric_value_location.metric.params["column"]: r.value for r in results}


def count(run: Any) -> float:
    (found,) = [r.count.value for r in run.metric_results.values() if hasattr(r, "count")]
    return float(found)


def test_a_day_is_a_run_with_the_scores_of_its_verdict(once: tuple[Home, dict[str, drift.Field]]) -> None:
    (name, run), fields = *runs(once[0]).items(), once[1]
    assert (name, run.timestamp.date().isoformat()) == (DAY, DAY)
    assert scores(run) == pytest.approx({n: f.score for n, f in fields.items()}, abs=1e-4)
    assert count(run) == 0 == sum(f.drifted for f in fields.values())


def test_the_same_day_again_replaces_its_run_and_another_day_joins_it(home: Home) -> None:
    fields = saved(home, DAY, rows(3).assign(position=9, history_length_buy=0))
    drifted = {n for n, f in fields.items() if f.drifted}
    assert drifted == {"position", "history_length_buy"}
    (run,) = runs(home).values()
    assert count(run) == 2
    assert scores(run) == pytest.approx({n: f.score for n, f in fields.items()}, abs=1e-4)
    saved(home, NEXT, rows(4))
    assert set(runs(home)) == {DAY, NEXT}
    drift_runs.remove(home, DAY)
    drift_runs.remove(home, DAY)
    assert set(runs(home)) == {NEXT}


def test_a_kill_while_a_run_is_written_leaves_the_one_before(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def cut(self: Path, text: str, *_: Any) -> int:
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", cut)
        with pytest.raises(Killed):
            saved(home, DAY, rows(3).assign(position=9))
    assert count(runs(home)[DAY]) == 0
    saved(home, DAY, rows(3).assign(position=9))
    assert count(runs(home)[DAY]) == 1


def test_every_panel_draws_one_line_a_field_over_the_days(home: Home) -> None:
    saved(home, NEXT, rows(4, users=50))  # fewer users: another threshold, which must not begin another line
    dashboard = json.loads((home.drift_project / "dashboard.json").read_text())
    (tab,) = dashboard["tabs"]
    assert tab["panels"] == [panel["id"] for panel in dashboard["panels"]]
    storage = InMemoryDataStorage(str(home.evidently))
    drawn = []
    for panel in dashboard["panels"]:
        asked = [SeriesFilter(**{k: v[k] for k in ("tags", "metadata", "metric", "metric_labels")}) for v in panel["values"]]
        if not asked:
            continue
        project = next(iter(storage.state.projects))
        told = asyncio.run(storage.get_data_series(project, asked, None, None))
        assert sorted(s.filter_index for s in told.series) == list(range(len(asked))), panel["title"]
        assert all(len(s.values) == 2 and None not in s.values for s in told.series)
        drawn += [value["legend"] for value in panel["values"]]
    assert sorted(drawn) == sorted([*COLUMNS, "fields"])


def test_two_data_sets_of_a_root_are_two_projects(home: Home) -> None:
    other = Home(home.root, "other")
    shutil.copytree(home.drift_project, other.drift_project)
    assert home.drift_project.parent == other.drift_project.parent == home.evidently
    assert home.drift_run(DAY).name != other.drift_run(DAY).name
