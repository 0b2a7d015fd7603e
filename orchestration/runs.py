"""The job `daily` run in this process, part by part, as runs that the UI shows; a failure is told in the step's own words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from models.contract import Contract
from models.days import span
from models.home import Home
from orchestration import build, instance, jobs
from orchestration.progress import Progress
from orchestration.sensors import reason

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunFailed(Exception):
    """A run that failed; the message says which steps and why, for people."""


@dataclass(frozen=True)
class Line:
    """One data set of one home, ready to run. The caller holds the home for as long (`opened`)."""

    contract: Contract
    home: Home
    progress: Progress
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def take_in(self) -> None:
        """Accept the log's files."""
        self.run(jobs.DATA[:1])

    def data_days(self, first: str, last: str) -> None:
        """Ingest and sample every day of a range, in one run."""
        self.run(jobs.DATA[1:], days=(first, last), job=jobs.BACKFILL)

    def judged_day(self, day: str, names: Sequence[str] = ()) -> None:
        """Retrain for one day, judge it, package and promote; or only the stages `names` of that."""
        self.run(names or jobs.judged(self.contract), days=(day, day))

    def monitored_day(self, day: str) -> None:
        """Land what was served on one day, join what followed, report drift."""
        self.run(jobs.MONITORED, days=(day, day))

    def run(self, names: Sequence[str], *, days: tuple[str, str] | None = None, job: str = jobs.DAILY) -> None:
        """These stages for one day or a range of days, as one run of `job`. Raises RunFailed."""
        partition = jobs.day_tags(*days) if days and days[0] != days[1] else {}
        run_id = dg.DagsterRun(job_name=job).run_id
        label = span(days) if days else ""
        self.instance.add_event_listener(run_id, self.progress.listener(label))
        result = self.definitions.resolve_job_def(job).execute_in_process(
            run_config=QUIET,
            instance=self.instance,
            asset_selection=jobs.keys(self.contract, names),
            partition_key=days[0] if days and not partition else None,
            tags={**partition, instance.COMMAND: self.contract.name},
            run_id=run_id,
            raise_on_error=False,
        )
        if not result.success:
            raise RunFailed(_why(result))


@contextmanager
def opened(contract: Contract, home: Home, progress: Progress, *, source: str, log: str) -> Iterator[Line]:
    """Hold the home while the block runs. Raises instance.Busy when another command does."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with instance.working(home, contract) as dagster:
        yield Line(contract, home, progress, build.build(contract, home, source=source, log=log), dagster)


def _why(result: dg.ExecuteInProcessResult) -> str:
    told = []
    for event in result.filter_events(lambda e: e.is_step_failure):
        source = event.step_failure_data.error_source
        if source is not None and source.value == "INTERRUPT":
            return "stopped before it was done. What is finished stays; the same command goes on from there"
        if event.step_failure_data.error and event.step_failure_data.error.cls_name == "DagsterAssetCheckFailedError":
            continue  # the check speaks for itself, below
        fault = (
            "" if event.step_failure_data.user_failure_data else f" (a fault; `make ui` has its trace, run {result.run_id[:8]})"
        )
        told.append(f"{(event.step_key or '').split('__', 1)[-1]}: {reason(event)}{fault}")
    checks = [
        f"check {c.check_name}: {c.description or 'failed'}"
        for c in result.get_asset_check_evaluations()
        if not c.passed and c.severity == dg.AssetCheckSeverity.ERROR
    ]
    return "\n".join([*told, *checks]) or "the run failed before a step began; `make ui` shows why"
