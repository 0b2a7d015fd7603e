"""Evidently's workspace: a project a data set, a run a day. Files alone, so `make reports` can show them with nothing else up.

The ids of project, runs and panels follow from their names, so a day measured again takes the place of its run, and
each file is renamed into its place: a kill leaves the old run or the new one. Evidently's own `Workspace` writes in
place and draws a new id each time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from assets import lake
from models.contract import Contract
from models.home import Home

if TYPE_CHECKING:
    from evidently.core.report import Snapshot
    from evidently.sdk.models import DashboardModel, DashboardPanelPlot

PANELS = {
    "history": "History lengths",
    "prediction": "Probabilities",
    "unknown": "Ids that the model does not know",
    "item": "Item features",
    "user": "User features",
    "context": "Context",
}
"""Kind of field → title of the panel that follows its scores over the days."""
READ = (
    "A point is a day. A field's score (PSI) is 0 when the served rows are spread over its values as in training, and grows as "
    "they part; past {share:g} and what so few users move by chance, it has drifted. Every day's charts are under Reports."
)


def save(home: Home, contract: Contract, kinds: dict[str, str], day: str, snapshot: Snapshot) -> None:
    """The run of `day`, in place of the one that was there, in the data set's project. `kinds`: column → kind of field."""
    from evidently.sdk.models import ProjectModel

    run = home.drift_run(day)
    run.parent.mkdir(parents=True, exist_ok=True)  # before the project is one: Evidently lists it from then on
    told = snapshot.to_snapshot_model().dict()
    _level(told["metric_results"])
    _write(run, told)
    run.touch()  # a UI that is up looks again at what is touched; a renaming it takes for another file's
    _write(home.drift_project / "dashboard.json", _dashboard(home, kinds, contract.monitoring.drift_share).dict())
    about = ProjectModel(id=UUID(home.drift_project.name), name=contract.name, description=contract.description or None)
    _write(home.drift_project / "metadata.json", about.dict())


def address(home: Home, day: str) -> str:
    """Where `make reports` shows a day, unless PORT= says otherwise; where nothing was compared, all days."""
    run = home.drift_run(day)
    return f"http://127.0.0.1:8000/projects/{home.drift_project.name}/reports/{run.stem if run.is_file() else ''}"


def remove(home: Home, day: str) -> None:
    """Forget the run of a day, if there is one: nothing was compared on it."""
    home.drift_run(day).unlink(missing_ok=True)


def _level(results: Any) -> None:
    """Take out of every result what differs from day to day though the measure is the same.

    The dashboard draws a line for each set of parameters; a threshold moves with the number of users, the list of columns
    with the contract.
    """
    if isinstance(results, dict):
        for name in ("threshold", "per_column_threshold", "columns") if "column" in results or "columns" in results else ():
            results.pop(name, None)
        for part in results.values():
            _level(part)


def _write(path: Path, value: Any) -> None:
    from evidently.legacy.utils import NumpyEncoder

    with lake.replacing(path) as part:
        part.write_text(json.dumps(value, cls=NumpyEncoder))


def _dashboard(home: Home, kinds: dict[str, str], share: float) -> DashboardModel:
    """What the project opens with: how many fields drifted, day by day, and every field's score."""
    from evidently.sdk.models import DashboardModel, DashboardTabModel, PanelMetric
    from evidently.sdk.panels import bar_plot_panel, line_plot_panel, text_panel

    drifted = [PanelMetric(legend="fields", metric="DriftedColumnsCount", metric_labels={"value_type": "count"})]
    panels = [
        text_panel(f"What {home.dataset} was asked, beside what its champion was trained on", READ.format(share=share)),
        bar_plot_panel("Drifted fields", drifted, "How many a day; none is a day like those trained on", size="half"),
    ]
    for kind, title in PANELS.items():
        scores = [
            PanelMetric(legend=name, metric="ValueDrift", metric_labels={"column": name})
            for name, k in kinds.items()
            if k == kind
        ]
        told = "Score against the training window; 0 is no difference"
        panels += [line_plot_panel(title, scores, told, size="half")] if scores else []
    named = [_named(home, panel) for panel in panels]
    tab = DashboardTabModel(
        id=uuid5(NAMESPACE_URL, f"{home.drift_project.name}/tab"), title="Drift", panels=[p.id for p in named]
    )
    return DashboardModel(tabs=[tab], panels=named)


def _named(home: Home, panel: DashboardPanelPlot) -> DashboardPanelPlot:
    return panel.copy(update={"id": uuid5(NAMESPACE_URL, f"{home.drift_project.name}/{panel.title}")})
