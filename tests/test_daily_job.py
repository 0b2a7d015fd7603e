"""The real daily job through Dagster: from log files to a champion that answers over HTTP; and what running it again does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from assets import evaluation, ingest, lake, registry, simulator
from models.contract import DATASETS, Contract, load
from models.home import UNKNOWN_DAY, Home
from orchestration import demo, runs
from orchestration.progress import Progress

TAOBAO = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "taobao_user_behavior_head.csv"
KEYS = {
    *("dataset", "rows_in", "rows_valid", "rows_quarantined", "days", "samples", "models", "champion", "verdict"),
    *("bento_tag", "parity", "served", "drift_report", "seconds", "recomputed"),
}
MEASURES = {"auc", "auc_low", "auc_high", "gauc", "logloss", "ece", "positives", "negatives"}


@dataclass(frozen=True)
class Ran:
    """A data set of a home, and what its demo came to."""

    contract: Contract
    source: str
    home: Home
    told: dict[str, Any]
    shown: str


def _demo(contract: Contract, home: Home, source: str) -> Ran:
    shown = StringIO()
    progress = Progress(Console(file=shown, width=200))
    told = demo.demo(contract, home, progress, source=source, log="", again=" DATASET=small")
    return Ran(contract, source, home, told, shown.getvalue())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The demo on a small simulated log; read only (`again` runs it once more, `copied` is a copy)."""
    folder = tmp_path_factory.mktemp("daily")
    text = (DATASETS / "simulated.toml").read_text()
    text = text.replace('name = "simulated"', 'name = "small"').replace("last_day = 2026-03-13", "last_day = 2026-03-07")
    text = text.replace(
        "window_days = 10", "window_days = 10\nepochs = 4\nwidth = 8\nbatch_samples = 256\nlearning_rate = 5e-3"
    )
    (folder / "small.toml").write_text(text)
    contract = load(folder / "small.toml")
    home = Home(folder / "home", "small")
    simulator.simulate(home.raw, contract, truth=home.truth, users=400, items=1500, impressions=4000)
    return _demo(contract, home, str(folder / "small.toml"))


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
    assert f"{click['auc_low']:.4f} – {click['auc_high']:.4f}" in ran.shown


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
        events = dg.AssetKey(["small", "events"])
        assert instance.get_materialized_partitions(events) == set(ran.contract.days())
        assert instance.get_materialized_partitions(dg.AssetKey(["small", "verdict"])) == set(ran.contract.days()[-2:])


def test_a_second_run_does_nothing_and_says_so(ran: Ran) -> None:
    champions = ran.home.champions.read_bytes()
    again = _demo(ran.contract, ran.home, ran.source)
    assert again.told["recomputed"] == []
    assert "nothing was recomputed" in again.shown
    assert ran.home.champions.read_bytes() == champions
    same = KEYS - {"recomputed", "seconds"}
    assert {k: again.told[k] for k in same} == {k: ran.told[k] for k in same}


def test_an_old_day_judged_again_moves_nothing(copied: Ran) -> None:
    champions = copied.home.champions.read_bytes()
    old = copied.contract.days()[-3]
    progress = _line(
        copied, lambda line: line.judged_day(old, ("popularity", "lightgbm", "mmoe", "dtrn", "verdict", "packaged_model"))
    )
    assert {step.name for step in progress.steps if step.recomputed} >= {f"dtrn {old}", f"verdict {old}"}
    assert lake.read(copied.home, "verdict", old) is not None
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


def _taobao(folder: Path, log: Path) -> tuple[Ran, Progress]:
    contract = load("taobao")
    ran = Ran(contract, "taobao", Home(folder / "home", "taobao"), {}, "")

    def do(line: runs.Line) -> None:
        line.take_in()
        line.data_days(contract.days()[0], contract.days()[-1])

    return ran, _line(ran, do, str(log))


@pytest.mark.skipif(not TAOBAO.is_file(), reason=f"{TAOBAO.name} is not in ../shared/data")
def test_every_row_of_the_taobao_log_is_good_and_a_cut_line_is_told(tmp_path: Path) -> None:
    ran, progress = _taobao(tmp_path, TAOBAO)
    counted = ingest.totals(ran.home, ran.contract, str(TAOBAO))
    assert counted == {"rows_in": 84_475, "rows_valid": 84_475, "rows_quarantined": 0}
    assert [step.recomputed > 0 for step in progress.steps] == [True] * 4

    cut = tmp_path / "cut.csv"
    good = TAOBAO.read_bytes()
    cut.write_bytes(good + b"1000,4973" if good.endswith(b"\n") else good + b"\n1000,4973")
    ran, _ = _taobao(tmp_path, cut)
    counted = ingest.totals(ran.home, ran.contract, str(cut))
    assert counted == {"rows_in": 84_476, "rows_valid": 84_475, "rows_quarantined": 1}
    (row,) = pq.read_table(ran.home.quarantine(UNKNOWN_DAY), partitioning=None).to_pylist()
    assert (row["line"], row["rule"], row["raw"]) == (84_476, "truncated_line", "1000,4973")
    # The same rows told by two files are told once.
    rows = sum(lake.require(ran.home, "events", p).counts["events"] for p in lake.partitions(ran.home, "events"))
    assert rows == 84_475
