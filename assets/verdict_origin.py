"""Where a verdict came from: the Dagster runs that trained and judged, and the partitions that were read, as links.

The run ids are in the manifests, not in the verdict: the same day judged again is the same verdict, whichever run did it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assets import lake, samples
from models.days import ends
from models.home import Home
from models.judgement import CHAMPION

UI = "http://127.0.0.1:3000"
"""Where `make ui` shows Dagster unless PORT= says otherwise."""

SHOWN_DAYS = 14
"""So many days of a window are links of their own; of a longer one its ends are."""


@dataclass(frozen=True)
class Link:
    """What a person reads, and where it leads."""

    text: str
    url: str


Origin = dict[str, list[Link]]
"""What is linked, in words → its links."""


def origin(home: Home, verdict: dict[str, Any], manifest: lake.Manifest) -> Origin:
    """The links of the verdict that `manifest` is of. A run is left out where a partition was made outside of Dagster."""
    dataset, day, challenger = verdict["dataset"], verdict["judged_day"], verdict["challenger"]["name"]
    others = sorted({*verdict["validation"], *verdict["models"]} - {challenger, CHAMPION})
    out = {
        "This verdict": [partition(dataset, "verdict", day), *_run(manifest)],
        "Challenger": _made(home, dataset, challenger, day),
        "Its rivals of the day": [link for name in others for link in _made(home, dataset, name, day)],
        "Rows judged": _samples(dataset, verdict["judged_days"]),
    }
    if reigning := verdict["champion"]:
        its = reigning["judged_day"]
        out["Champion"] = _made(home, dataset, reigning["name"], its)
        if home.verdict_page(its).is_file():
            out["Champion"].append(Link(f"its own verdict of {its}", home.verdict_page(its).name))
    trained, held_out = lake.read(home, challenger, day), verdict["held_out"]
    out["Rows trained on"] = _samples(dataset, samples.fitted(trained.detail["days"], held_out) if trained else [])
    out["Rows that training stopped by"] = _samples(dataset, held_out)
    return {what: links for what, links in out.items() if links}


def _samples(dataset: str, days: Sequence[str]) -> list[Link]:
    shown = {day: day for day in days}
    if len(days) > SHOWN_DAYS:
        first, last = ends(days)
        shown = {f"from {first}": first, f"to {last} ({len(days)} days)": last}
    return [Link(text, partition(dataset, "samples", day).url) for text, day in shown.items()]


def partition(dataset: str, asset: str, day: str) -> Link:
    """The page of one asset's day."""
    return Link(f"{asset} {day}", f"{UI}/assets/{dataset}/{asset}?view=partitions&partition={day}")


def _made(home: Home, dataset: str, name: str, day: str) -> list[Link]:
    manifest = lake.read(home, name, day)
    return [partition(dataset, name, day), *_run(manifest)] if manifest else []


def _run(manifest: lake.Manifest) -> list[Link]:
    return [Link(f"run {manifest.run[:8]}", f"{UI}/runs/{manifest.run}")] if manifest.run else []
