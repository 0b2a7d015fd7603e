"""What Dagster is told: groups in flow order, days and windows from the contract, and nothing that is on by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.outputs import StepOutputHandle
from dagster._core.execution.plan.plan import ExecutionPlan

from assets import lake, plausibility
from models.checks import Checks
from models.contract import Contract, load
from models.home import Home
from orchestration import days, instance, jobs
from orchestration.build import STAGES, TEAM, build
from orchestration.sensors import line
from tests import logs

GROUPS = {
    "ingest": {"log_files", "events"},
    "samples": {"histories", "samples"},
    "training": {"popularity", "lightgbm", "mmoe", "dtrn"},
    "evaluation": {"verdict"},
    "packaging": {"packaged_model", "bento", "parity", "champion"},
    "monitoring": {"predictions", "outcomes", "drift"},
}
# The day on which the windows are measured, 10,000 days on, is 2047-04-01: the day before it has 23 hours.
AFTER_A_SHORT_DAY = logs.contract(logs.EVENTS, name="short", calendar={"first_day": "2019-11-14", "last_day": "2019-11-24"})
THIN = logs.contract(logs.EVENTS, name="thin", training={"judged_days": 2})
OPEN = logs.contract(logs.EVENTS, name="open", calendar={"first_day": "2026-03-27"})


BUILT: dict[str, dg.Definitions] = {}


def definitions(terms: Contract) -> dg.Definitions:
    """Built once per contract: that takes a tenth of a second, and nothing here changes them."""
    if terms.name not in BUILT:
        BUILT[terms.name] = build(terms, Home(Path("/nowhere"), terms.name), source=terms.name)
    return BUILT[terms.name]


def upstream(terms: Contract, asset: str, dependency: str, day: str) -> list[str]:
    """The days of `dependency` that Dagster takes a day of `asset` to be made from."""
    graph = definitions(terms).resolve_asset_graph()
    key, above = dg.AssetKey([terms.name, asset]), dg.AssetKey([terms.name, dependency])
    node, parent = graph.get(key), graph.get(above)
    assert node.partitions_def is not None
    assert parent.partitions_def is not None
    mapping = graph.get_partition_mapping(key, above)
    mapped = mapping.get_upstream_mapped_partitions_result_for_partitions(
        node.partitions_def.subset_with_partition_keys([day]), node.partitions_def, parent.partitions_def
    )
    return sorted(mapped.partitions_subset.get_partition_keys())


@pytest.mark.parametrize("name", ["simulated", "taobao"])
@pytest.mark.filterwarnings("error")
def test_groups_hold_their_stages_under_the_data_sets_name(name: str) -> None:
    defs = definitions(load(name))
    dg.Definitions.validate_loadable(defs)
    found: dict[str, set[str]] = {}
    for spec in defs.resolve_all_asset_specs():
        assert spec.key.path[0] == name
        assert spec.description, f"{spec.key} says nothing of itself in the UI"
        assert spec.owners == [TEAM]
        assert spec.tags.items() >= {"dtrn/dataset": name, "dtrn/stage": spec.group_name}.items()
        found.setdefault(spec.group_name or "", set()).add(spec.key.path[-1])
    assert found == GROUPS
    assert list(STAGES) == list(GROUPS)


def test_checks_stand_on_their_assets() -> None:
    found = {(k.asset_key.path[-1], k.name) for k in definitions(load("taobao")).resolve_asset_graph().asset_check_keys}
    assert {("events", n) for n in ("schema", "no_duplicates", "rows_accounted_for", "bad_rows_within_limit")} <= found
    assert {("events", n) for n in plausibility.CHECKS} <= found
    assert set(plausibility.CHECKS) == set(Checks.model_fields) - {"days", "fewest_days", "unusual_days"}
    assert all(key in {name for group in GROUPS.values() for name in group} for key, _ in found)


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [("simulated", "2026-03-02", "2026-03-13", 12), ("taobao", "2017-11-25", "2017-12-03", 9)],
)
def test_days_are_the_contracts(name: str, first: str, last: str, count: int) -> None:
    for spec in definitions(load(name)).resolve_all_asset_specs():
        if spec.key.path[-1] == "log_files":
            assert spec.partitions_def is None
        else:
            assert spec.partitions_def is not None
            keys = spec.partitions_def.get_partition_keys()
            assert (keys[0], keys[-1], len(keys)) == (first, last, count)


def test_a_calendar_without_end_holds_the_days_that_are_over() -> None:
    (days,) = {s.partitions_def for s in definitions(OPEN).resolve_all_asset_specs() if s.partitions_def}
    now = datetime(2026, 3, 29, 23, 30, tzinfo=UTC)  # in Paris the 30th has begun
    assert days.get_partition_keys(now) == ["2026-03-27", "2026-03-28", "2026-03-29"]


@pytest.mark.parametrize(
    "terms",
    [load("simulated"), load("taobao"), logs.contract(logs.EVENTS), logs.contract(logs.EXPOSURES), AFTER_A_SHORT_DAY, THIN],
    ids=lambda c: c.name,
)
def test_a_window_is_what_the_contract_says_it_is(terms: Contract) -> None:
    for day in jobs.judgeable(terms, str(terms.calendar.last_day)):
        trained = terms.training_days(day)
        assert upstream(terms, "dtrn", "samples", day) == trained
        assert upstream(terms, "popularity", "histories", day) == terms.history_days(trained[0], trained[-1])
        assert upstream(terms, "verdict", "samples", day) == terms.verdict_days(day)


@pytest.mark.parametrize(
    ("terms", "samples", "histories"),
    [
        (load("simulated"), ["2026-03-08"], ["2026-03-08"]),
        (load("taobao"), ["2017-11-28", "2017-11-29"], ["2017-11-28"]),
        # A horizon of 30 hours reaches over one midnight or two; labels and histories both wait for it.
        (logs.contract(logs.EXPOSURES), ["2026-03-30", "2026-03-31", "2026-04-01"], ["2026-03-28", "2026-03-29", "2026-03-30"]),
    ],
    ids=["simulated", "taobao", "shown"],
)  # fmt: skip
def test_labels_reach_forward_and_late_actions_back(terms: Contract, samples: list[str], histories: list[str]) -> None:
    day = samples[0]
    assert upstream(terms, "samples", "events", day) == samples
    assert upstream(terms, "outcomes", "events", day) == samples
    assert upstream(terms, "histories", "events", day) == histories


def test_only_the_neural_trainings_share_the_gpu() -> None:
    pools = {node.key.path[-1]: node.pools for node in definitions(load("simulated")).resolve_asset_graph().asset_nodes}
    assert {name for name, pool in pools.items() if pool == {"gpu"}} == {"mmoe", "dtrn"}
    assert not any(pools[name] for name in pools if name not in {"mmoe", "dtrn"})


def test_jobs_hold_the_line_and_its_history() -> None:
    defs = definitions(load("taobao"))

    def selected(job: str) -> set[str]:
        return {key.path[-1] for key in defs.resolve_job_def(job).asset_layer.executable_asset_keys}

    assert selected("daily") == {name for group in GROUPS.values() for name in group}
    assert selected("backfill_history") == {"log_files", "events", "histories", "samples"}
    policy = defs.resolve_asset_graph().get(dg.AssetKey(["taobao", "samples"])).backfill_policy
    assert policy == dg.BackfillPolicy.single_run()


def _tick(terms: Contract, when: datetime) -> Any:
    schedule = definitions(terms).resolve_schedule_def("every_day")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.execution_timezone == terms.time.zone
    with dg.DagsterInstance.ephemeral() as own:
        context = dg.build_schedule_context(instance=own, scheduled_execution_time=when)
        return schedule.evaluate_tick(context)


def test_the_schedule_ingests_yesterday_and_the_days_that_it_completes() -> None:
    # 22:00 UTC on the 28th is 06:00 of the 29th in Shanghai: yesterday is the 28th there.
    told = _tick(load("taobao"), datetime(2017, 11, 28, 22, 0, tzinfo=UTC))
    (request,) = told.run_requests
    assert {k.path[-1] for k in request.asset_selection} == {"log_files", "events", "histories", "samples"}
    assert request.tags["dagster/asset_partition_range_start"] == "2017-11-27"
    assert request.tags["dagster/asset_partition_range_end"] == "2017-11-28"


def test_the_schedule_says_that_a_log_is_over() -> None:
    told = _tick(load("taobao"), datetime(2026, 1, 1, 21, 0, tzinfo=UTC))
    assert not told.run_requests
    assert "calendar of taobao ends on 2017-12-03" in told.skip_message
    assert "begins on 2017-11-25" in _tick(load("taobao"), datetime(2017, 11, 20, tzinfo=UTC)).skip_message


def _after(terms: Contract, tags: dict[str, str]) -> Any:
    sensor = definitions(terms).resolve_sensor_def("retrain")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    with dg.DagsterInstance.ephemeral() as own:
        run = dg.DagsterRun(job_name="daily", tags=tags, status=DagsterRunStatus.SUCCESS)
        event = dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name="daily")
        context = dg.build_run_status_sensor_context("retrain", event, own, run)
        told = sensor(context)
        return list(told) if told is not None else []


def test_a_scheduled_ingest_is_followed_by_judging_the_newest_mature_day() -> None:
    tags = {jobs.PART: "ingest", **jobs.day_tags("2017-12-01", "2017-12-02")}
    judge, monitor = _after(load("taobao"), tags)
    assert judge.partition_key == monitor.partition_key == "2017-12-01"
    assert {k.path[-1] for k in judge.asset_selection} == GROUPS["training"] | GROUPS["evaluation"] | GROUPS["packaging"]
    assert {k.path[-1] for k in monitor.asset_selection} == GROUPS["monitoring"]
    again = _after(load("taobao"), tags)
    assert again[0].run_key != judge.run_key, "another ingest of the day must be judged again"


def test_other_runs_and_too_short_a_log_are_followed_by_nothing() -> None:
    (told,) = _after(load("taobao"), jobs.day_tags("2017-12-01", "2017-12-02"))
    assert "not a scheduled ingest" in told.skip_message
    (told,) = _after(load("taobao"), {jobs.PART: "ingest", "dagster/partition": "2017-11-27"})
    assert "two mature days before it" in told.skip_message


def test_a_day_that_is_known_to_have_no_sample_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terms, home = load("simulated"), Home(tmp_path, "simulated")
    monkeypatch.setattr(days, "of_log", lambda home, terms: terms.days())
    every = jobs.judgeable(terms, terms.days()[-1])
    assert days.to_judge(home, terms) == every, "nothing is sampled yet"
    for day, count in zip(every, [0, 5] + [0] * len(every), strict=False):
        manifest = lake.Manifest("samples", day, {}, "", "", "", {"samples": count})
        lake.write_json(home.manifest("samples", day), vars(manifest))
    assert days.to_judge(home, terms) == [every[1]]
    assert days.to_judge(home, THIN) == jobs.judgeable(THIN, THIN.days()[-1])


def test_judged_days_are_mature_and_have_two_days_to_learn_from() -> None:
    # Taobao waits a day for its labels: 11-25 and 11-26 teach, 11-27 is on the way, 11-28 is judged once 11-29 is in.
    assert jobs.judgeable(load("taobao"), "2017-11-28") == []
    assert jobs.judgeable(load("taobao"), "2017-11-29") == ["2017-11-28"]
    assert jobs.judgeable(load("taobao"), "2017-12-03")[-2:] == ["2017-12-01", "2017-12-02"]
    assert jobs.judgeable(load("simulated"), "2026-03-04") == ["2026-03-04"]


@dg.op
def refuses() -> None:
    raise dg.Failure(description="events of 2017-11-28 is blocked: 12 % bad rows", allow_retries=False)


@dg.op
def breaks() -> None:
    raise KeyError("who")


@pytest.mark.parametrize(
    ("op", "why"), [(refuses, "refuses: events of 2017-11-28 is blocked: 12 % bad rows"), (breaks, "breaks: KeyError: 'who'")]
)
def test_a_failure_is_told_in_one_line_with_its_day_and_reason(op: Any, why: str) -> None:
    with dg.DagsterInstance.ephemeral() as own:
        job = dg.GraphDefinition(name="daily", node_defs=[op]).to_job()
        result = job.execute_in_process(instance=own, raise_on_error=False, tags={"dagster/partition": "2017-11-28"})
        failure = next(e for e in result.all_events if e.event_type_value == "PIPELINE_FAILURE")
        context = dg.build_run_status_sensor_context("failures", failure, own, result.dagster_run).for_run_failure()
        told = line(context)
    assert told.startswith("daily of 2017-11-28 failed (run ")
    assert told.endswith(why)
    assert "\n" not in told


def test_what_a_killed_command_left_is_closed(tmp_path: Path) -> None:
    terms = load("taobao")
    home = Home(tmp_path, terms.name)
    with instance.working(home, terms) as own:
        assert not own.telemetry_enabled
        run = own.create_run_for_job(_waiting.to_job(), tags={instance.COMMAND: terms.name}, status=DagsterRunStatus.STARTED)
        other = own.create_run_for_job(_waiting.to_job(), tags={}, status=DagsterRunStatus.STARTED)
        own.event_log_storage.initialize_concurrency_limit_to_default("gpu")
        assert own.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "dtrn").is_claimed
        assert not own.event_log_storage.claim_concurrency_slot("gpu", "a later run", "dtrn").is_claimed
    with instance.working(home, terms) as own:
        assert own.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE
        assert own.get_run_by_id(other.run_id).status == DagsterRunStatus.STARTED, "the daemon's run is not ours to close"
        assert own.event_log_storage.claim_concurrency_slot("gpu", "a later run", "dtrn").is_claimed


@dg.graph(name="daily")
def _waiting() -> None:
    refuses()


def test_two_commands_do_not_work_on_one_data_set_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path, "taobao")
    with (
        instance.working(home, load("taobao")),
        pytest.raises(instance.Busy, match="another command works on"),
        instance.working(home, load("taobao")),
    ):
        pass
    with instance.working(home, load("taobao")):
        pass


@pytest.mark.parametrize("name", ["simulated", "taobao"])
def test_a_step_waits_for_every_asset_that_it_is_drawn_below(name: str) -> None:
    terms = load(name)
    job = definitions(terms).resolve_job_def("daily")
    graph = definitions(terms).resolve_asset_graph()
    plan = create_execution_plan(job)
    keys = {key: handle.step_key for handle, key in _made_by(plan).items()}
    waits = {step.key: step.get_execution_dependency_keys() for step in plan.get_steps_to_execute_in_topo_order()}
    drawn = {(key, above) for key in keys for above in graph.get(key).parent_keys if above in keys and above != key}
    assert len(drawn) > 20
    assert {(key, above) for key, above in drawn if keys[above] not in waits[keys[key]]} == set()


def _made_by(plan: ExecutionPlan) -> dict[StepOutputHandle, dg.AssetKey]:
    return {
        StepOutputHandle(step.key, output.name): output.properties.asset_key
        for step in plan.get_steps_to_execute_in_topo_order()
        for output in step.step_outputs
        if output.properties.asset_key
    }
