"""Files come late, twice, damaged or corrected: what a day then holds, byte for byte, and who may read it."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from collections import Counter
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets import histories, ingest, lake, ledger, parquet, samples
from models.contract import load
from models.home import Home
from tests.tiny_log import DAY1, DAY2, DAY3, SEEN, START, bytes_of, contract, home_of, put, rebuilt, row, rows_of, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


# merging


def test_a_late_file_merges_into_its_old_day_and_touches_no_other(folder: Path) -> None:
    terms = contract(folder)
    put(folder, "1.csv", row(1) + row(2))
    assert rebuilt(run(folder, terms)) == {"earlier", DAY1, DAY2}
    put(folder, "late.csv", row(1, second=5) + row(1))
    built = run(folder, terms)
    assert rebuilt(built) == {DAY1}
    assert [r["time"] for r in rows_of(home_of(folder), DAY1)] == [START * 1000, START * 1000 + 5000]
    counts = {"rows_in": 3, "rows_valid": 3, "rows_quarantined": 0, "merged": 1, "events": 2}
    assert built[DAY1][0].counts == counts
    assert rebuilt(run(folder, terms)) == set()


def test_a_redelivery_is_harmless_and_real_repeats_survive(folder: Path) -> None:
    terms = contract(folder, repeats="real")
    put(folder, "a.csv", row(1) * 3 + row(1, item=2))
    run(folder, terms)
    before = bytes_of(home_of(folder))
    put(folder, "same bytes.csv", row(1) * 3 + row(1, item=2))
    assert rebuilt(run(folder, terms)) == set()
    put(folder, "same rows.csv", row(1, item=2) + row(1) * 2)
    run(folder, terms)
    assert bytes_of(home_of(folder)) == before
    assert [r["item"] for r in rows_of(home_of(folder), DAY1)] == [1, 1, 1, 2]


files = st.lists(st.lists(st.integers(0, 7), max_size=12), min_size=1, max_size=3)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=files, order=st.randoms(use_true_random=False), repeats=st.sampled_from(["real", "duplicates"]))
def test_a_day_is_the_largest_multiplicity_over_files_in_any_order(
    files: list[list[int]], order: random.Random, repeats: str
) -> None:
    # Each number is one of eight possible rows of day 1.
    texts = ["".join(row(1, user=n % 2, item=n // 4, second=n // 2 % 2) for n in numbers) for numbers in files]
    expected = Counter[tuple[int, int, int]]()
    for numbers in files:
        told = Counter((n % 2, (START + n // 2 % 2) * 1000, n // 4) for n in numbers)
        expected |= told if repeats == "real" else Counter(dict.fromkeys(told, 1))
    results = []
    for shuffled in (False, True):
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in").mkdir()
            terms = contract(folder, repeats, limit=1)
            if shuffled:
                order.shuffle(texts)
            for number, text in enumerate(texts):
                if text:
                    ingest.accept(home_of(folder), terms, str(put(folder, f"{number}.csv", text)), SEEN)
            later = put(folder, "later.csv", row(2))  # so that day 1 is over, also where nobody was there
            ingest.accept(home_of(folder), terms, str(later), SEEN)
            manifest, _ = ingest.events(home_of(folder), terms, DAY1)
            results.append(home_of(folder).events(DAY1).read_bytes())
            found = [(r["user"], r["time"], r["item"]) for r in rows_of(home_of(folder), DAY1)]
            assert found == sorted(expected.elements())
            came = sum(text.count("\n") for text in set(texts))  # the same content again is no new file
            assert manifest.counts["rows_in"] == came == manifest.counts["rows_valid"] + manifest.counts["rows_quarantined"]
    assert results[0] == results[1]


def test_bytes_do_not_depend_on_threads_or_a_second_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = contract(folder, limit=1)
    order = random.Random(5)
    lines = [row(order.randint(0, 1), order.randint(1, 900), order.randint(1, 99), order.randint(0, 9)) for _ in range(40_000)]
    put(folder, "log.csv", "".join(lines) + "bad\n" * 50)
    monkeypatch.setattr(parquet, "ROW_GROUP", 5000)
    run(folder, terms)
    first = bytes_of(home_of(folder)), bytes_of(home_of(folder), "quarantine")
    file = pq.ParquetFile(home_of(folder).events(DAY1))
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert len(sizes) > 2
    assert set(sizes[:-1]) == {5000}
    for cpus in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda cpus=cpus: cpus)
        shutil.rmtree(home_of(folder).root)
        run(folder, terms)
        assert (bytes_of(home_of(folder)), bytes_of(home_of(folder), "quarantine")) == first


def test_swapped_values_with_unchanged_counts_rebuild_the_day(folder: Path) -> None:
    terms = contract(folder)
    put(folder, "1.csv", row(1, user=1, item=2) + row(1, user=3, item=4) + row(2))
    run(folder, terms)
    shutil.rmtree(home_of(folder).split(lake.content_hash(folder / "in" / "1.csv")))
    home_of(folder).ledger.unlink()  # as if the file had come like this: the manifests alone must notice
    put(folder, "1.csv", row(1, user=1, item=4) + row(1, user=3, item=2) + row(2))
    assert rebuilt(run(folder, terms)) >= {DAY1}
    assert [(r["user"], r["item"]) for r in rows_of(home_of(folder), DAY1)] == [(1, 4), (3, 2)]


def test_a_partition_that_was_changed_or_lost_is_made_again(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    put(folder, "1.csv", row(1) + row(2) + "bad\n")
    run(folder, terms)
    before = bytes_of(home), bytes_of(home, "quarantine")
    home.events(DAY1).write_bytes(b"something else")
    home.events(DAY2).unlink()
    home.quarantine(DAY1).unlink()
    home.quarantine("unknown").unlink()
    assert rebuilt(run(folder, terms)) == {DAY1, DAY2}
    assert (bytes_of(home), bytes_of(home, "quarantine")) == before


def test_a_lost_piece_and_a_changed_contract_split_the_file_again(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    path = put(folder, "1.csv", row(1) * 2)
    [accepted] = ingest.accept(home, terms, str(path), SEEN)
    assert accepted.fresh
    assert not ingest.accept(home, terms, str(path), SEEN)[0].fresh
    (home.split(accepted.file) / f"day={DAY1}.parquet").unlink()
    assert ingest.accept(home, terms, str(path), SEEN)[0].fresh
    strict = contract(folder, repeats="duplicates")
    with pytest.raises(ValueError, match=r"1\.csv: split under another contract; run \./dtrn ingest .*with this file"):
        ingest.events(home, strict, DAY1)
    assert ingest.accept(home, strict, str(path), SEEN)[0].split.bad == {DAY1: {"duplicate": 1}}
    assert len(home.ledger.read_text().splitlines()) == 1


def test_a_day_that_has_not_come_is_not_an_empty_day(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    put(folder, "1.csv", row(1))
    assert set(run(folder, terms)) == {"earlier", DAY1}
    with pytest.raises(lake.Missing, match=f"no file has a row of {DAY2} or of a later day: it has not come yet"):
        ingest.events(home, terms, DAY2)
    histories.build(home, terms, DAY1)
    assert samples.build(home, terms, DAY1)[0].detail["mature"] is False
    put(folder, "3.csv", row(3))
    run(folder, terms)
    assert samples.build(home, terms, DAY1)[0].detail["mature"] is True, "day 2 is over, and nobody came"


def test_what_a_late_file_changes_is_found_and_refused_until_it_is_made_again(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    put(folder, "1.csv", row(1) + row(2) + row(3))
    run(folder, terms)
    for day in (DAY1, DAY2):
        histories.build(home, terms, day)
        samples.build(home, terms, day)
    assert (ingest.to_renew(home, terms), lake.to_renew(home, "samples")) == ([], [])
    samples.window_inputs(home, terms, [DAY1])
    put(folder, "late.csv", row(1, item=7))
    ingest.accept(home, terms, str(folder / "in"), SEEN)
    assert ingest.to_renew(home, terms) == [DAY1]
    ingest.events(home, terms, DAY1)
    assert (lake.to_renew(home, "histories"), lake.to_renew(home, "samples")) == ([DAY1], [DAY1])
    with pytest.raises(lake.Missing, match=f"samples of {DAY1} was made from events/{DAY1}, changed or blocked since"):
        samples.window_inputs(home, terms, [DAY1])
    histories.build(home, terms, DAY1)
    samples.build(home, terms, DAY1)
    assert lake.to_renew(home, "samples") == []
    samples.window_inputs(home, terms, [DAY1])


def test_a_day_without_rows_is_an_empty_partition_of_the_same_schema(folder: Path) -> None:
    put(folder, "1.csv", row(1) + row(4))
    built = run(folder, contract(folder))
    home = home_of(folder)
    assert pq.read_schema(home.events(DAY3)).equals(pq.read_schema(home.events(DAY1)))
    assert rows_of(home, DAY3) == []
    assert lake.require(home, "events", DAY3) == built[DAY3][0]


def test_rows_before_the_first_day_are_history_not_days(folder: Path) -> None:
    put(folder, "1.csv", row(0) + row(-1) + row(-2))
    built = run(folder, contract(folder, limit=1))
    assert built["earlier"][0].counts["events"] == 2
    assert ingest.last_day(home_of(folder), contract(folder, limit=1)) is None
    put(folder, "2.csv", row(2))
    run(folder, contract(folder, limit=1))
    assert ingest.last_day(home_of(folder), contract(folder, limit=1)) == date(2024, 1, 2)


# sources


def test_a_folder_a_glob_and_gzip_name_the_same_rows(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    (folder / "in" / "deep").mkdir()
    put(folder, "deep/1.csv.gz", gzip.compress((row(1) + row(2)).encode()))
    put(folder, "2.csv", row(3))
    put(folder, "README.md", "not a log")
    put(folder, "_SUCCESS", "")
    put(folder, ".hidden.csv", "x")
    everything = {"rows_in": 3, "rows_valid": 3, "rows_quarantined": 0, "rows_left_out": 0}
    ingest.accept(home, terms, str(folder / "in"), SEEN)
    assert ingest.totals(home, terms, str(folder / "in")) == everything
    assert ingest.totals(home, terms, str(folder / "in" / "**" / "*.csv*")) == everything
    assert ingest.totals(home, terms, str(folder / "in" / "2.csv")) == {
        "rows_in": 1,
        "rows_valid": 1,
        "rows_quarantined": 0,
        "rows_left_out": 0,
    }
    put(folder, "3.csv", row(4))
    with pytest.raises(ValueError, match=r"was not ingested yet; run \./dtrn ingest first"):
        ingest.totals(home, terms, str(folder / "in"))


@pytest.mark.parametrize("source", ["nowhere.csv", "in", "in/*.csv", ""])
def test_no_source_file_is_said_plainly(folder: Path, source: str) -> None:
    with pytest.raises(ValueError, match=r"no log to read at .*Give a csv file, a folder of them or a glob"):
        ingest.accept(home_of(folder), contract(folder), source and str(folder / source), SEEN)


def test_a_ledger_line_that_a_kill_cut_off_is_as_if_never_written(folder: Path) -> None:
    terms, home = contract(folder), home_of(folder)
    path = put(folder, "1.csv", row(1))
    ingest.accept(home, terms, str(path), SEEN)
    with home.ledger.open("ab") as file:
        file.write(b'{"file": "abc", "na')
    [entry] = ledger.active(home)
    assert entry.first_seen == SEEN
    ingest.accept(home, terms, str(put(folder, "2.csv", row(2))), SEEN)
    assert [e.name for e in ledger.read(home).values()] == [str(path), str(folder / "in" / "2.csv")]


# the real log

TAOBAO = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "taobao_user_behavior_head.csv"


@pytest.mark.skipif(not TAOBAO.is_file(), reason="../shared/data is not there")
def test_taobao(tmp_path: Path) -> None:
    terms, home = load("taobao"), Home(tmp_path, "taobao")
    ingest.accept(home, terms, str(TAOBAO), SEEN)
    assert ingest.totals(home, terms, str(TAOBAO)) == {
        "rows_in": 84_475,
        "rows_valid": 84_475,
        "rows_quarantined": 0,
        "rows_left_out": 0,
    }
    sizes = {day: ingest.events(home, terms, day)[0].counts["events"] for day in ("earlier", *terms.days())}
    assert (sizes["earlier"], sum(sizes.values())) == (35, 84_475)
    assert ingest.last_day(home, terms) == date(2017, 12, 3)

    cut = tmp_path / "cut.csv"
    cut.write_bytes(TAOBAO.read_bytes() + b"1003700,531979,33")
    ingest.accept(home, terms, str(cut), SEEN)
    assert ingest.totals(home, terms, str(cut)) == {
        "rows_in": 84_476,
        "rows_valid": 84_475,
        "rows_quarantined": 1,
        "rows_left_out": 0,
    }
    [bad] = pq.ParquetFile(home.quarantine("unknown")).read().to_pylist()
    assert (bad["line"], bad["rule"], bad["raw"]) == (84_476, "truncated_line", "1003700,531979,33")
    for day, size in sizes.items():
        manifest, _ = ingest.events(home, terms, day)
        assert (manifest.counts["events"], manifest.blocked) == (size, None)
