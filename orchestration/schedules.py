"""When the daily job runs by itself: off until someone switches it on."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from models.contract import Contract
from orchestration import jobs


def every_day(contract: Contract, job: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """At the contract's hour in the log's zone: ingest the day before, sample what that completes. `sensors` retrains."""
    first, last = contract.calendar.first_day, contract.calendar.last_day

    @dg.schedule(
        job=job,
        cron_schedule=f"0 {contract.schedule.hour} * * *",
        execution_timezone=contract.time.zone,
        description="Ingests and samples the day before; the sensor `retrain` follows it. Switch both on.",
    )
    def every_day(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = context.scheduled_execution_time.astimezone(contract.zone).date() - timedelta(days=1)
        if last is not None and day > last:
            return dg.SkipReason(
                f"the calendar of {contract.name} ends on {last}, so there is no {day} to ingest; "
                "for a log that goes on, take calendar.last_day out of its contract"
            )
        if day < first:
            return dg.SkipReason(f"the calendar of {contract.name} begins on {first}, after {day}")
        return dg.RunRequest(
            run_key=f"ingest-{day}",
            asset_selection=jobs.keys(contract, jobs.DATA),
            tags=jobs.day_tags(*jobs.ingested_with(contract, str(day))) | {jobs.PART: "ingest"},
        )

    return every_day
