"""What follows a run: a retraining after an ingest, a plain line after a failure."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from models.contract import Contract
from models.days import span
from orchestration import jobs


def retrain(contract: Contract, job: dg.UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """After a scheduled ingest of D succeeded: retrain and judge the newest day J that D made mature, then monitor J.

    A sensor and not a second schedule, because J needs D's labels: a late or failed ingest must not be trained over.
    """

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[job],
        request_job=job,
        description="After the schedule's ingest of a day succeeded: retrains, judges and monitors the newest mature day.",
    )
    def retrain(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        run = context.dagster_run
        days = jobs.days_of(run)
        if run.tags.get(jobs.PART) != "ingest" or days is None:
            yield dg.SkipReason(f"run {run.run_id} is not a scheduled ingest")
            return
        day = days[1]
        days_to_judge = jobs.judgeable(contract, day)
        if not days_to_judge:
            yield dg.SkipReason(f"after {day} no day of {contract.name} can be judged yet: it takes two mature days before it")
            return
        for part, names in (("judge", jobs.judged(contract)), ("monitor", jobs.MONITORED)):
            yield dg.RunRequest(
                run_key=f"{part}-{days_to_judge[-1]}-after-{run.run_id}",
                partition_key=days_to_judge[-1],
                asset_selection=jobs.keys(contract, names),
                tags={jobs.PART: part},
            )

    return retrain


def failures() -> dg.SensorDefinition:
    """One line in the daemon's log for every failed run: which, of what day, and why in the step's own words."""

    @dg.run_failure_sensor(
        default_status=dg.DefaultSensorStatus.RUNNING, description="Logs every failed run in one line: job, day, step, reason."
    )
    def failures(context: dg.RunFailureSensorContext) -> None:
        context.log.error(line(context))

    return failures


def line(context: dg.RunFailureSensorContext) -> str:
    """Job, day or range, run and every failed step with its reason."""
    run = context.dagster_run
    days = jobs.days_of(run)
    day = span(days) if days else "no day"
    reasons = [f"{event.step_key}: {reason(event)}" for event in context.get_step_failure_events()]
    return f"{run.job_name} of {day} failed (run {run.run_id}): {'; '.join(reasons) or context.failure_event.message}"


def reason(event: dg.DagsterEvent) -> str:
    """Why a step failed: the words meant for people where there are any, else the error's own."""
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else "no reason was recorded"
