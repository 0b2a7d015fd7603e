"""The real daily job through Dagster: from log files to a champion that answers over HTTP; and what running it again does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from assets import evaluation, ingest, lake, registry
from models.contract import DATASETS, Contract, load
from models.home import UNKNOWN_DAY, Home
from orchestration import jobs, runs, summary
from orchestration.progress import Progress
from tests.demonstrated import Ran, demonstrate

TAOBAO = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "taobao_user_behavior_head.csv"
KEYS = {
    *("dataset", "rows_in", "rows_valid", "rows_quarantined", "rows_left_out", "days", "samples", "models", "champion"),
    *("verdict", "bento_tag", "parity", "served", "drift_report", "seconds", "recomputed"),
}
needs_taobao = pytest.mark.skipif(not TAOBAO.is_file(), reason=f"{TAOBAO.name} is not in ../shared/data")
MEASURES = {"auc", "auc_low", "auc_high", "gauc", "logloss", "ece", "positives", "negatives"}


@pytest.fixture
def copied(ran: Ran, tmp_path: Path) -> Ran:
    shutil.copytree(ran.home.root, tmp_path / "home", symlinks=True)
    return Ran(ran.contract, ran.source, Home(tmp_path / "home", "small"), ran.told, ran.shown)


def _line(ran: Ran, do: Callable[[runs.Line], None], log: str = "") -> Progress:
    progress = Progress(Console(file=StringIO()))
    with runs.opened(ran.contract, ran.home, progress, source=ran.source, log=log) as line:
        do(line)
    return progress


def test_every_day_is_ingested_and_two_days_are_judged(ran: Ran) -> None:
    days = ran.contract.days()
    for stage in ("histories", "samples"):
        assert [p for p in lake.partitions(ran.home, stage) if p != "earlier"] == days
    assert lake.partitions(ran.home, "verdict") == days[-2:]
    first, second = (evaluation.read(ran.home, day) for day in days[-2:])
    assert first["champion"] is None
    assert first["promote"], first["reasons"]
    assert second["champion"]["judged_day"] == days[-2], "the first champion is challenged on the next day"


def test_the_summary_holds_what_the_records_hold(ran: Ran) -> None:
    told = json.loads(ran.home.summary.read_text())
    assert told == json.loads(json.dumps(ran.told))
    assert set(told) == KEYS
    rows = sum(pq.read_metadata(p).num_rows for p in ran.home.raw.iterdir())
    assert told["rows_in"] == rows == told["rows_valid"] + told["rows_quarantined"]
    assert told["samples"] == sum(pq.read_metadata(ran.home.samples(d)).num_rows for d in ran.contract.days())
    assert told["days"] == len(ran.contract.days())
    verdict = evaluation.read(ran.home, ran.contract.days()[-1])
    assert set(told["models"]) == set(verdict["models"]) >= {"popularity", "lightgbm", "champion"}
    for name, tasks in told["models"].items():
        for task, measured in tasks.items():
            assert set(measured) == MEASURES
            assert measured["auc"] == verdict["models"][name][task]["auc"]
    reigning = registry.champion(ran.home)
    assert reigning is not None
    assert (told["champion"], told["bento_tag"]) == (reigning.tag, reigning.bento)
    assert told["parity"]["rows"] > 0
    assert told["parity"]["max_difference"] <= 1e-5
    assert told["served"]["ok"] == told["served"]["requests"] > 0
    assert told["served"]["p50_ms"] <= told["served"]["p99_ms"]
    assert Path(told["drift_report"]).stat().st_size > 10_000
    assert {"log_files", "replay 2026-03-07", "dtrn 2026-03-06", "champion 2026-03-06", "drift 2026-03-07"} <= set(
        told["recomputed"]
    )
    assert set(told["recomputed"]) <= set(told["seconds"])


def test_the_terminal_shows_the_same(ran: Ran) -> None:
    for text in ("popularity", "lightgbm", ran.told["champion"], ran.told["drift_report"], "make serve DATASET=small"):
        assert text in ran.shown
    assert f"{ran.told['rows_in']:,} in, {ran.told['rows_valid']:,} valid, 0 quarantined" in ran.shown
    click = ran.told["models"]["popularity"]["click"]
    assert f"{click['auc_low']:.3f}–{click['auc_high']:.3f}" in ran.shown


def test_the_table_fits_a_terminal_of_eighty_columns(ran: Ran) -> None:
    shown = StringIO()
    summary.show(Console(file=shown, width=80), ran.home, ran.told, serve="make serve")
    lines = shown.getvalue().splitlines()
    table = lines[: next(n for n, line in enumerate(lines) if line.startswith("rows"))]
    assert max(map(len, table)) <= 80
    assert "…" not in shown.getvalue()
    for name, tasks in evaluation.read(ran.home, ran.contract.days()[-1])["models"].items():
        for m in tasks.values():
            gauc = f"{m['gauc']:.3f} {round(100 * m['gauc_users_share'])}% {round(100 * m['gauc_rows_share'])}%"
            assert any(name in line and gauc in line and f"{m['logloss']:.4f}" in line for line in table), (name, gauc)


def test_a_parity_of_another_bento_is_not_the_champions(copied: Ran) -> None:
    reigning = registry.champion(copied.home)
    assert reigning is not None
    path = copied.home.promotion("parity", reigning.judged_day)
    lake.write_json(path, json.loads(path.read_text()) | {"bento": "dtrn-small:another"})
    days = copied.contract.days()
    told = summary.summarise(
        copied.home, copied.contract, source=str(copied.home.raw), days=days, judged_day=days[-1], steps=[]
    )
    assert told["parity"] is None
    assert told["champion"] == reigning.tag
    shown = StringIO()
    summary.show(Console(file=shown, width=200), copied.home, told, serve="make serve")
    assert "another by now" in shown.getvalue()


def test_why_the_champion_reigns_is_told_unless_this_verdict_crowned_it(copied: Ran) -> None:
    reigning, last = registry.champion(copied.home), copied.contract.days()[-1]
    assert reigning is not None
    lines = copied.home.champions.read_text().splitlines()
    for judged_day, promote, expected in ((last, True, 0), (last, False, 1), ("2026-03-05", True, 1)):
        newest = json.loads(lines[-1]) | {"judged_day": judged_day, "why": "as it was better"}
        copied.home.champions.write_text(json.dumps(newest) + "\n")
        told = copied.told | {"verdict": copied.told["verdict"] | {"promote": promote}}
        shown = StringIO()
        summary.show(Console(file=shown, width=200), copied.home, told, serve="make serve")
        assert shown.getvalue().count("as it was better") == expected


def test_what_was_served_is_landed_and_met_by_what_followed(ran: Ran) -> None:
    day = ran.contract.days()[-1]
    landed = lake.require(ran.home, "predictions", day).counts
    assert landed["requests"] == ran.told["served"]["ok"]
    outcomes = lake.require(ran.home, "outcomes", day)
    assert outcomes.detail["mature"]
    (served,) = outcomes.detail["served"].values()
    assert served["click"]["positives"] > 0


def test_dagster_knows_the_runs_by_their_jobs(ran: Ran) -> None:
    with dg.DagsterInstance.from_config(str(ran.home.dagster)) as instance:
        found = instance.get_runs()
        assert {run.status for run in found} == {dg.DagsterRunStatus.SUCCESS}
        assert {run.job_name for run in found} == {"daily", "backfill_history"}
        page = ran.home.verdict_page(ran.contract.days()[-1]).read_text()
        linked = set(re.findall(r"127\.0\.0\.1:3000/runs/([-0-9a-f]+)\"", page))
        judging = {run.run_id for run in found if run.tags.get("dagster/partition") in ran.contract.days()[-2:]}
        assert len(linked) == 2, "the run that trained and judged, and the one that made the champion"
        assert linked <= judging
        events = dg.AssetKey(["small", "events"])
        assert instance.get_materialized_partitions(events) == set(ran.contract.days())
        assert instance.get_materialized_partitions(dg.AssetKey(["small", "verdict"])) == set(ran.contract.days()[-2:])


def test_a_second_run_does_nothing_and_says_so(ran: Ran) -> None:
    champions = ran.home.champions.read_bytes()
    again = demonstrate(ran.contract, ran.home, ran.source)
    assert again.told["recomputed"] == []
    assert "nothing was recomputed" in again.shown
    assert ran.home.champions.read_bytes() == champions
    same = KEYS - {"recomputed", "seconds"}
    assert {k: again.told[k] for k in same} == {k: ran.told[k] for k in same}


def test_an_old_day_judged_again_moves_nothing(copied: Ran) -> None:
    champions = copied.home.champions.read_bytes()
    old = copied.contract.days()[-3]
    progress = _line(copied, lambda line: line.judged_day(old))
    steps = {step.name: step.recomputed for step in progress.steps}
    assert set(steps) == {f"{name} {old}" for name in jobs.judged(copied.contract)}
    assert steps[f"dtrn {old}"] == steps[f"verdict {old}"] == 1
    assert steps[f"champion {old}"] == 0
    judged = evaluation.read(copied.home, old)
    assert judged["champion"] is None
    assert judged["promote"], "a day that would have moved the champion then"
    assert lake.require(copied.home, "parity", old).detail["max_difference"] <= 1e-5
    assert copied.home.champions.read_bytes() == champions


def test_swapped_values_with_unchanged_counts_make_their_day_again(copied: Ran) -> None:
    days, day = copied.contract.days(), copied.contract.days()[3]
    path, before = copied.home.events(day), copied.home.events(day).read_bytes()
    table = pq.read_table(path, partitioning=None)
    items = table.column("item").to_pylist()
    other = next(n for n in range(1, len(items)) if items[n] != items[0])
    items[0], items[other] = items[other], items[0]
    pq.write_table(table.set_column(table.schema.get_field_index("item"), "item", pa.array(items, pa.int64())), path)
    progress = _line(copied, lambda line: line.data_days(days[0], days[-1]))
    assert {step.name.split()[0]: step.recomputed for step in progress.steps} == {"events": 1, "histories": 0, "samples": 0}
    assert path.read_bytes() == before


def test_a_blocked_day_is_refused_by_its_own_run_and_by_a_later_one(copied: Ran) -> None:
    days, day = copied.contract.days(), copied.contract.days()[-2]
    table = pq.read_table(copied.home.raw / f"day={day}.parquet", partitioning=None).slice(0, 50)
    nobody = table.set_column(table.schema.get_field_index("user_id"), "user_id", pa.nulls(50, pa.int64()))
    pq.write_table(nobody, copied.home.raw / "late.parquet")
    _line(copied, lambda line: line.take_in())
    with pytest.raises(runs.RunFailed, match=rf"check bad_rows_within_limit: {day}: .*null_id"):
        _line(copied, lambda line: line.data_days(days[0], days[-1]))
    champions = copied.home.champions.read_bytes()
    with pytest.raises(runs.RunFailed, match=rf"events of {day} is blocked"):
        _line(copied, lambda line: line.judged_day(days[-1]))
    assert copied.home.champions.read_bytes() == champions


def _taobao(folder: Path) -> tuple[Contract, str]:
    """The contract of the log with so little to learn that it takes a minute, and its path."""
    text = (DATASETS / "taobao.toml").read_text()
    small = 'window_days = 3\nepochs = 1\ncandidates = ["mmoe"]\nreferences = ["popularity"]\n'
    before = 'window_days = 7\ncandidates = ["dtrn", "mmoe"]\n'
    assert text.count(before) == 1
    (folder / "taobao.toml").write_text(text.replace(before, small))
    return load(folder / "taobao.toml"), str(folder / "taobao.toml")


@needs_taobao
def test_the_taobao_log_goes_the_whole_way(tmp_path: Path) -> None:
    contract, source = _taobao(tmp_path)
    told = demonstrate(contract, Home(tmp_path / "home", "taobao"), source, log=str(TAOBAO)).told
    assert set(told) == KEYS
    assert (told["rows_in"], told["rows_valid"], told["rows_quarantined"]) == (84_475, 84_475, 0)
    assert told["days"] == len(contract.days())
    assert set(told["models"]) >= {"mmoe", "popularity"}
    assert all(set(measured) == MEASURES for tasks in told["models"].values() for measured in tasks.values())
    assert told["champion"] is not None, told["verdict"]["reasons"]
    assert told["bento_tag"].startswith("dtrn-taobao:")
    assert told["parity"]["rows"] > 0
    assert told["parity"]["max_difference"] <= 1e-5
    assert told["served"]["ok"] == told["served"]["requests"] > 0
    assert Path(told["drift_report"]).stat().st_size > 10_000


@needs_taobao
def test_a_cut_line_of_the_taobao_log_is_told_and_the_rest_is_good(tmp_path: Path) -> None:
    contract, source = _taobao(tmp_path)
    home = Home(tmp_path / "home", "taobao")
    cut, good = tmp_path / "cut.csv", TAOBAO.read_bytes()
    cut.write_bytes(good + b"1000,4973" if good.endswith(b"\n") else good + b"\n1000,4973")

    def do(line: runs.Line) -> None:
        line.take_in()
        line.data_days(contract.days()[0], contract.days()[-1])

    _line(Ran(contract, source, home, {}, ""), do, str(cut))
    counted = ingest.totals(home, contract, str(cut))
    assert counted == {"rows_in": 84_476, "rows_valid": 84_475, "rows_quarantined": 1, "rows_left_out": 0}
    (row,) = pq.read_table(home.quarantine(UNKNOWN_DAY), partitioning=None).to_pylist()
    assert (row["line"], row["rule"], row["raw"]) == (84_476, "truncated_line", "1000,4973")
    rows = sum(lake.require(home, "events", p).counts["events"] for p in lake.partitions(home, "events"))
    assert rows == 84_475
    assert not [p for p in lake.partitions(home, "quarantine") if p != UNKNOWN_DAY]
