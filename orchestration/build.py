"""Contract → what Dagster is told: assets in their groups, their days, jobs, schedule and sensors.

A function, so that tests and the command line build a fresh one for any contract and home; `definitions.py` calls it once
for the UI. The stages carry neither dates nor groups nor the data set's name: they are attached here; and the contract
says which candidates there are.
"""

from __future__ import annotations

import math
import warnings
from datetime import date, timedelta
from types import ModuleType

import dagster as dg

from assets import acceptance, drift, evaluation, histories, ingest, outcomes, packaging, predictions, samples, training
from assets.project import Project
from models.contract import Contract
from models.home import Home
from orchestration import jobs, schedules, sensors

STAGES: dict[str, list[ModuleType]] = {
    "ingest": [ingest, acceptance],
    "samples": [histories, samples],
    "training": [training],
    "evaluation": [evaluation],
    "packaging": [packaging],
    "monitoring": [predictions, outcomes, drift],
}
"""Group → its stages, in the order that data flows."""

WHOLE = "log_files"
"""The one asset without days."""

TEAM = "team:ranking"
"""Who owns every asset."""


def build(contract: Contract, home: Home, *, source: str, log: str = "") -> dg.Definitions:
    """Everything of one data set. `source` is the contract's name or path, `log` as in `assets.project.Project`."""
    # Meant so: `daily` takes one day a run, `backfill_history` all at once; Dagster takes the smaller for `daily`.
    warnings.filterwarnings("ignore", message="Asset job daily materializes assets with varying BackfillPolicies")
    prefix, days = contract.name, partitions(contract)
    stages = [module for modules in STAGES.values() for module in modules]
    made = [training.candidate(contract.name, name) for name in contract.training.candidates]
    made.append(evaluation.verdict(contract.name, jobs.candidates(contract)))
    groups = {asset.key.path[-1]: name for name, modules in reversed(STAGES.items()) for asset in _assets(modules)}
    groups |= {evaluation.VERDICT: "evaluation"} | dict.fromkeys(jobs.candidates(contract), "training")
    daily, backfill = jobs.daily(contract), jobs.backfill_history(contract)
    return dg.Definitions(
        assets=[_attached(asset, contract, days, groups) for asset in (*_assets(stages, prefix), *made)],
        asset_checks=dg.load_asset_checks_from_modules(stages, asset_key_prefix=prefix),
        resources={"project": Project(contract=source, root=str(home.root), log=log)},
        jobs=[daily, backfill],
        schedules=[schedules.every_day(contract, daily)],
        sensors=[sensors.retrain(contract, daily), sensors.failures()],
        executor=dg.in_process_executor,
    )


def _assets(modules: list[ModuleType], prefix: str | None = None) -> list[dg.AssetsDefinition]:
    loaded = dg.load_assets_from_modules(modules, key_prefix=prefix)
    return [asset for asset in loaded if isinstance(asset, dg.AssetsDefinition)]


def partitions(contract: Contract) -> dg.DailyPartitionsDefinition:
    """The calendar's days; without a last_day all that are over by now."""
    last = contract.calendar.last_day
    return dg.DailyPartitionsDefinition(
        start_date=str(contract.calendar.first_day),
        end_date=str(last + timedelta(days=1)) if last else None,
        timezone=contract.time.zone,
    )


def _attached(
    asset: dg.AssetsDefinition, contract: Contract, days: dg.DailyPartitionsDefinition, groups: dict[str, str]
) -> dg.AssetsDefinition:
    """The asset in its group, owned and tagged, on the calendar, with the days of each dependency that its own days read."""

    def attach(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.path[-1]
        tags = {**spec.tags, "dtrn/dataset": contract.name, "dtrn/shape": contract.shape, "dtrn/stage": groups[name]}
        spec = spec.replace_attributes(group_name=groups[name], owners=[TEAM], tags=tags)
        if name == WHOLE:
            return spec
        above = [dep.asset_key for dep in spec.deps]
        deps = [dg.AssetDep(key, partition_mapping=window(contract, name, key.path[-1])) for key in above]
        return spec.replace_attributes(partitions_def=days, deps=deps)

    attached = asset.map_asset_specs(attach)
    if asset.key.path[-1] == WHOLE:
        return attached
    one = asset.key.path[-1] in (*jobs.trained(contract), "verdict")  # a judged day a run; others take a range of days in one
    return attached.with_attributes(backfill_policy=dg.BackfillPolicy.multi_run(1) if one else dg.BackfillPolicy.single_run())


def window(contract: Contract, asset: str, dependency: str) -> dg.PartitionMapping | None:
    """Which days of `dependency` a day of `asset` reads; None for the same day, or for what has no days."""
    if dependency == WHOLE:
        return None
    # Far from the calendar's start, where no window is cut short.
    day = contract.calendar.first_day + timedelta(days=10_000)
    read = [day]
    if dependency == "events" and asset in ("samples", "outcomes"):
        read = [date.fromisoformat(d) for d in contract.label_days(day)]
    elif dependency == "events" and asset == "histories":
        delay = max(b.horizon_hours for b in contract.behaviours.values())
        read = [day - timedelta(days=math.ceil(delay / 24)), day]
    elif asset == "verdict" and dependency == "samples":
        read = [date.fromisoformat(d) for d in contract.verdict_days(day)]
    elif asset in jobs.trained(contract):
        trained = contract.training_days(day)
        read = [
            date.fromisoformat(d)
            for d in (trained if dependency == "samples" else contract.history_days(trained[0], trained[-1]))
        ]
    first, last = (read[0] - day).days, (read[-1] - day).days
    if first == last == 0:
        return None
    with warnings.catch_warnings():
        # Beta, and needed: without it a window that begins before the calendar is an error rather than a shorter window.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.TimeWindowPartitionMapping(start_offset=first, end_offset=last, allow_nonexistent_upstream_partitions=True)
