"""Who may read a day with too many bad rows, how that ends, and how it all shows in Dagster."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets import acceptance, ingest, lake, ledger, plausibility
from assets.project import Project
from orchestration import jobs
from tests.tiny_log import DAY1, DAY2, DAY3, START, contract, home_of, put, rebuilt, row, rows_of, run

ALWAYS = ("schema", "no_duplicates", "rows_accounted_for", "bad_rows_within_limit")
"""Checks that hold of every day, whatever the days before it were like."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


# blocking


def test_a_blocked_day_is_refused_by_every_reader_and_the_others_are_not(folder: Path) -> None:
    terms, home = contract(folder, limit=0.1), home_of(folder)
    put(
        folder,
        "1.csv",
        "".join(row(1, item=n) for n in range(9))
        + f"x,1,pv,{START}\n"
        + row(2) * 7
        + f"1,1,zz,{START + 86_400}\n" * 2
        + row(4),
    )
    built = run(folder, terms)
    assert lake.require(home, "events", DAY1).counts["rows_quarantined"] == 1  # 1 of 10: on the limit, not over it
    with pytest.raises(
        lake.Blocked,
        match=r"1\.csv: 2 of 9 rows of 2024-01-02 are bad: 22\.2%.* is 10\.0%; .*'unknown_behaviour' \(b: 'zz' is none of pv\)",
    ):
        lake.require(home, "events", DAY2)
    assert built[DAY2][0].detail["by_rule"] == {"unknown_behaviour": 2}
    assert len(rows_of(home, DAY2)) == 7
    lake.require(home, "events", DAY3)
    assert rebuilt(run(folder, terms)) == set()
    with pytest.raises(lake.Blocked):
        lake.require(home, "events", DAY2)
    run(folder, contract(folder, limit=0.3))
    lake.require(home, "events", DAY2)


def test_bad_rows_without_a_day_block_every_day_of_their_file(folder: Path) -> None:
    home = home_of(folder)
    put(folder, "1.csv", row(1) + row(2) + "x\n")
    put(folder, "2.csv", row(3))
    run(folder, contract(folder, limit=0.3))
    for day in (DAY1, DAY2):
        with pytest.raises(lake.Blocked, match=r"1 of 3 rows are bad and show no day.*wrong_number_of_columns.*day=unknown"):
            lake.require(home, "events", day)
    lake.require(home, "events", DAY3)


def test_a_file_without_a_readable_row_blocks_all_until_it_is_gone_or_mended(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    put(folder, "good.csv", row(1))
    bad = put(folder, "cut.csv.gz", gzip.compress(row(2).encode() * 99)[:-9])
    run(folder, terms)
    with pytest.raises(
        lake.Blocked,
        match=r"cut\.csv\.gz: no row of it can be used, and it may hold rows of any day: unreadable_file.*take the file out",
    ):
        lake.require(home, "events", DAY1)
    bad.write_bytes(gzip.compress(row(2).encode()))
    run(folder, terms)
    assert len(rows_of(home, DAY2)) == 1
    for day in (DAY1, DAY2):
        lake.require(home, "events", day)
    put(folder, "wrong.csv", "this is\nno log\n")
    run(folder, terms)
    with pytest.raises(lake.Blocked):
        lake.require(home, "events", DAY1)
    (folder / "in" / "wrong.csv").unlink()
    run(folder, terms)
    lake.require(home, "events", DAY1)
    assert "no longer among the source" in str([e.withdrawn for e in ledger.read(home).values()])


def test_an_empty_file_is_quarantined_and_blocks_nothing(folder: Path) -> None:
    put(folder, "1.csv", row(1))
    put(folder, "part-2.csv", "")
    run(folder, contract(folder))
    assert ingest.totals(home_of(folder), contract(folder), str(folder / "in")) == {
        "rows_in": 2,
        "rows_valid": 1,
        "rows_quarantined": 1,
        "rows_left_out": 0,
    }
    lake.require(home_of(folder), "events", DAY1)


def test_a_mended_file_under_the_same_name_takes_the_place_of_a_blocked_one(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    put(folder, "1.csv", row(1, item=8) + f"1,1,zz,{START}\n")
    run(folder, terms)
    put(folder, "1.csv", row(1, item=9) + row(1, item=1))
    built = run(folder, terms)
    assert [r["item"] for r in rows_of(home, DAY1)] == [1, 9]
    assert built[DAY1][0].counts["rows_in"] == 2
    put(folder, "1.csv", row(1, item=8) + f"1,1,zz,{START}\n")
    run(folder, terms)
    with pytest.raises(lake.Blocked):
        lake.require(home, "events", DAY1)


# through Dagster


def job(folder: Path, days: list[str]) -> dg.ExecuteInProcessResult:
    calendar = dg.DailyPartitionsDefinition(DAY1, end_date="2024-01-05", timezone="UTC")
    modules = [ingest, acceptance]
    assets = [
        a.map_asset_specs(lambda s: s.replace_attributes(partitions_def=calendar) if s.key.path == ["events"] else s)
        for a in dg.load_assets_from_modules(modules)
        if isinstance(a, dg.AssetsDefinition)
    ]
    resources = {"project": Project(contract=str(folder / "tiny.toml"), root=str(folder / "home"), log=str(folder / "in"))}
    everything = dg.define_asset_job("everything", dg.AssetSelection.all())
    definitions = dg.Definitions(
        assets, asset_checks=dg.load_asset_checks_from_modules(modules), resources=resources, jobs=[everything]
    )
    tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    return definitions.resolve_job_def("everything").execute_in_process(tags=tags, raise_on_error=False)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    events = [e.materialization for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return {name: value.value for name, value in events[0].metadata.items()}


def test_the_assets_tell_their_counts_and_recompute_nothing_twice(folder: Path) -> None:
    contract(folder)
    put(folder, "1.csv", row(1) + row(2) * 12 + f"x,1,pv,{START + 86_400}\n")
    result = job(folder, [DAY1, DAY2])
    assert result.success
    # A day of one moment ends in hours of silence, which is told and stops nothing.
    assert checks(result) == dict.fromkeys((*ALWAYS, *plausibility.CHECKS), True) | {"freshness": False}
    files, events = metadata(result, "log_files"), metadata(result, "events")
    assert (files["rows_in"], files["rows_valid"], files["rows_quarantined"], files["by_rule"]) == (
        14,
        13,
        1,
        {"not_a_number": 1},
    )
    assert (events["rows_in"], events["events"], events["recomputed"]) == (14, 13, 3)
    again = job(folder, [DAY1, DAY2])
    assert (metadata(again, "log_files")["recomputed"], metadata(again, "events")["recomputed"]) == (0, 0)


def test_a_blocked_day_materialises_and_its_check_fails(folder: Path) -> None:
    contract(folder)
    put(folder, "1.csv", row(1) + f"x,1,pv,{START}\n" + row(2) * 200)
    result = job(folder, [DAY1, DAY2])
    assert not result.success
    assert DAY1 in metadata(result, "events")["blocked"]
    [failed] = [e for e in result.get_asset_check_evaluations() if not e.passed and e.check_name in ALWAYS]
    assert (failed.check_name, failed.blocking) == ("bad_rows_within_limit", True)
    assert "1 of 2 rows of 2024-01-01 are bad" in str(failed.description)
    assert job(folder, [DAY2]).success


def test_a_person_s_mistake_reads_as_a_sentence(folder: Path) -> None:
    contract(folder)
    result = job(folder, [DAY1])
    [failure] = [e for e in result.all_events if e.is_step_failure and e.step_key == "log_files"]
    assert "no log to read at" in str(failure.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]


def test_each_check_can_fail(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    put(folder, "1.csv", row(1) * 2 + row(1, item=2) + row(4))
    run(folder, terms)

    def wrong(check: acceptance.Check) -> bool:
        return any(expected != actual for expected, actual in check(home, terms, [DAY1, DAY2]).values())

    every = (acceptance.schema, acceptance.no_duplicates, acceptance.rows_accounted_for, acceptance.bad_rows_within_limit)
    assert [wrong(check) for check in every] == [False] * 4
    table = pq.read_table(home.events(DAY1), partitioning=None)
    pq.write_table(table.slice(1), home.events(DAY1))
    assert [wrong(check) for check in every] == [False, True, True, False]
    pq.write_table(table.set_column(1, "time", [[0] * 3]), home.events(DAY1))
    assert [wrong(check) for check in every] == [True, False, False, False]


@pytest.mark.parametrize(
    ("stage", "command"),
    [
        *((stage, "ingest") for stage in jobs.DATA),
        *((stage, "evaluate") for stage in ("verdict", *jobs.PROMOTED)),
        *((stage, "train") for stage in ("dtrn", "lightgbm", "ple")),
        *((stage, None) for stage in (*jobs.MONITORED, "replay")),
    ],
)
def test_what_is_missing_is_answered_with_the_command_that_makes_it(folder: Path, stage: str, command: str | None) -> None:
    ui = f"materialise {stage} of {DAY1}"
    told = f"run ./dtrn {command} --day {DAY1} (in the UI: {ui}) first" if command else f"{ui} first"
    with pytest.raises(lake.Missing, match=f"needed and not there; {re.escape(told)}$"):
        lake.require(home_of(folder), stage, DAY1)
    assert lake.remedy("events", "earlier") == "materialise events of earlier"


def test_a_finding_of_many_days_shows_the_first_of_them() -> None:
    wrong = {f"2024-01-0{n}": (0, f"{n} rows") for n in range(1, 7)}
    said = acceptance._said(acceptance.no_duplicates, wrong)
    assert said.splitlines()[:4] == [
        "2024-01-01: expected 0, found 1 rows",
        "2024-01-02: expected 0, found 2 rows",
        "2024-01-03: expected 0, found 3 rows",
        f"and 3 more. {acceptance.REMEDY}",
    ]
    alike = dict.fromkeys(wrong, (0, "1 row"))
    assert acceptance._said(acceptance.no_duplicates, alike).startswith(
        "2024-01-01 to 2024-01-06 (6 days): expected 0, found 1 row."
    )
