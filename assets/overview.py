"""A day in five lines: what came in, what was sampled, who reigns, what was served, what drifted. Read from the records."""

from __future__ import annotations

from typing import Any

from assets import lake, registry
from models.home import Home


def markdown(home: Home, day: str, drift: dict[str, Any]) -> str:
    """A table for the UI. `drift`: the drift verdict of the day; what has no record says so."""
    told = {
        "rows": _rows(home, day),
        "samples": _samples(home, day),
        "champion": _champion(home),
        "served": _served(home, day),
        "drift": _drift(drift),
    }
    lines = [f"| {day} | |", "| --- | --- |", *(f"| **{what}** | {text} |" for what, text in told.items())]
    return "\n".join(lines)


def _rows(home: Home, day: str) -> str:
    manifest = lake.read(home, "events", day)
    if manifest is None:
        return "not ingested"
    counts = manifest.counts
    told = f"{counts['rows_in']:,} in, {counts['rows_valid']:,} valid, {counts['rows_quarantined']:,} quarantined"
    return f"{told}; **blocked**: {_cell(manifest.blocked)}" if manifest.blocked else told


def _samples(home: Home, day: str) -> str:
    manifest = lake.read(home, "samples", day)
    if manifest is None:
        return "none yet"
    positives = [
        f"{n:,} {name.removeprefix('positives_')}" for name, n in manifest.counts.items() if name.startswith("positives_")
    ]
    final = "" if manifest.detail["mature"] else f"; labels known until {manifest.detail['labels_until']}"
    return f"{manifest.counts['samples']:,}, of them {', '.join(positives)}{final}"


def _champion(home: Home) -> str:
    reigning = registry.champion(home)
    return f"`{reigning.tag}`, since the verdict of {reigning.judged_day}" if reigning else "none yet"


def _served(home: Home, day: str) -> str:
    landed, joined = lake.read(home, "predictions", day), lake.read(home, "outcomes", day)
    if landed is None or not landed.counts["requests"]:
        return "nothing"
    told = f"{landed.counts['requests']:,} requests, {landed.counts['rows']:,} rows"
    if joined is None or not joined.detail["mature"]:
        return f"{told}; what followed is not known yet"
    aucs = [
        f"{task} {m['auc']:.4f}"
        for tasks in joined.detail["served"].values()
        for task, m in tasks.items()
        if m["auc"] is not None
    ]
    return f"{told}; AUC as served: {', '.join(aucs) or 'not defined'}"


def _drift(drift: dict[str, Any]) -> str:
    if drift["model"] is None:
        return "nothing to compare"
    return f"{len(drift['drifted']) or 'none'} of {len(drift['fields'])} fields" + (
        f": {', '.join(drift['drifted'])}" if drift["drifted"] else ""
    )


def _cell(text: str) -> str:
    """Text that cannot end its table's cell."""
    return text.replace("|", "/").replace("\n", " ")
