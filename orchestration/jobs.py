"""The two jobs, what each part of them makes, and which day may be judged once another is in.

`daily` holds the whole line. Its parts have different keys (a base day D is ingested, a judged day J is retrained for), so
a scheduled run takes the part and the day that it needs; run whole from the UI it does all parts for one day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg

from assets.training import REFERENCES
from models import names
from models.contract import Contract

DATA = ("log_files", "events", "histories", "samples")
"""Made for a base day D, or for a range of them in one run."""

PROMOTED = ("packaged_model", "bento", "parity", "champion")

MONITORED = ("predictions", "outcomes", "drift")
"""Made for a day that was served and is mature."""

PART = "dtrn/part"
"""Run tag: which part of `daily` the run is."""

DAILY = "daily"
BACKFILL = "backfill_history"


def candidates(contract: Contract) -> tuple[str, ...]:
    """The stages of the contract's candidates."""
    return tuple(names.identifier(name) for name in contract.training.candidates)


def trained(contract: Contract) -> tuple[str, ...]:
    """The stages that learn: references and candidates."""
    return (*REFERENCES, *candidates(contract))


def judged(contract: Contract) -> tuple[str, ...]:
    """The stages of a judged day J."""
    return (*trained(contract), "verdict", *PROMOTED)


def with_candidate(contract: Contract, name: str) -> Contract:
    """The contract with one candidate more, for what Dagster is told: a run can then train a model that it does not list.

    What a run reads and what its results depend on stays the data set's own contract, which `Project` loads.
    """
    listed = contract.training.candidates
    more = listed if name in listed else (*listed, name)
    return contract.model_copy(update={"training": contract.training.model_copy(update={"candidates": more})})


def keys(contract: Contract, stages: Sequence[str]) -> list[dg.AssetKey]:
    """Asset keys of these stages of one data set."""
    return [dg.AssetKey([contract.name, stage]) for stage in stages]


def daily(contract: Contract) -> dg.UnresolvedAssetJobDefinition:
    """Everything, for one day."""
    return dg.define_asset_job(
        DAILY,
        selection=dg.AssetSelection.assets(*keys(contract, (*DATA, *judged(contract), *MONITORED))),
        description="One day of the line: ingest and sample it; retrain, judge, package and promote; land what was served.",
    )


def backfill_history(contract: Contract) -> dg.UnresolvedAssetJobDefinition:
    """The data stages over a range of days, in one run."""
    return dg.define_asset_job(
        BACKFILL,
        selection=dg.AssetSelection.assets(*keys(contract, DATA)),
        description="Ingest and sample a range of days in one run. What is unchanged is not made again.",
    )


def ingested_with(contract: Contract, day: str) -> tuple[str, str]:
    """The range of base days to make when `day` comes in: it holds labels of the samples of the days just before it."""
    first = date.fromisoformat(day) - timedelta(days=contract.horizon_days)
    return str(max(contract.calendar.first_day, first)), day


def day_tags(first: str, last: str) -> dict[str, str]:
    """Run tags that stand for a range of days in one run."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def days_of(run: dg.DagsterRun) -> tuple[str, str] | None:
    """The days that a run is for, None for a run without days."""
    if day := run.tags.get("dagster/partition"):
        return day, day
    first, last = (run.tags.get(f"dagster/asset_partition_range_{side}") for side in ("start", "end"))
    return (first, last) if first and last else None


def judgeable(contract: Contract, last_ingested: str) -> list[str]:
    """Days that can be judged once all days up to `last_ingested` are in: mature, with two mature days before the verdict's."""
    return [
        day
        for day in contract.days(date.fromisoformat(last_ingested))
        if contract.mature(day, last_ingested) and len(contract.training_days(day)) >= 2
    ]
