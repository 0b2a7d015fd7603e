"""The corpus of broken files, damage at random, odd names, and what `dtrn init` and `dtrn check` say of it all."""

from __future__ import annotations

import gzip
import io
import os
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from assets import ingest, lake, parsing, profile, trial
from models.home import Home
from models.sections import Source
from orchestration import newcomer
from tests import corpus
from tests.broken_file import COLUMNS
from tests.broken_parquet import PARQUET
from tests.damaged_log import DAYS, SEEN, START, contract, events_of, quarantined, take_in


@pytest.fixture(scope="module")
def came(tmp_path_factory: pytest.TempPathFactory) -> dict[str, corpus.Came]:
    return corpus.ingested(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("name", corpus.files())
def test_every_row_of_a_broken_file_is_valid_or_quarantined_with_its_reason(came: dict[str, corpus.Came], name: str) -> None:
    made, found = corpus.files()[name], came[name]
    assert (found.rows, found.valid) == (made.rows, sum(made.valid.values()))
    assert not made.valid - found.events
    place = "row" if made.changes["source"].get("format") == "parquet" else "line"
    bad = sorted(found.bad, key=lambda row: row[place] or 0)
    assert [(row[place], row["rule"]) for row in bad] == [(b.place, b.rule) for b in made.bad]
    for row, expected in zip(bad, made.bad, strict=True):
        assert Path(row["file"]).is_file()
        assert re.search(expected.says, row["detail"])
        if expected.place is not None:
            assert row["raw"].startswith("u=") if place == "row" else row["raw"] == expected.raw


def test_nothing_but_the_valid_rows_became_events(came: dict[str, corpus.Came]) -> None:
    for one in came.values():
        expected = {row for name, made in corpus.files().items() if came[name].events is one.events for row in made.valid}
        assert one.events == Counter(dict.fromkeys(expected, 1))


def test_the_counts_are_printed(came: dict[str, corpus.Came]) -> None:
    told = corpus.table(came)
    print(told)
    rows, valid, bad = (int(n.replace(",", "")) for n in told.splitlines()[-1].split("{")[0].split()[2:])
    assert rows == valid + bad == sum(made.rows for made in corpus.files().values())
    assert bad == sum(len(made.bad) for made in corpus.files().values())


@pytest.mark.parametrize("name", [n for n, m in corpus.files().items() if m.file == "log.csv" and len(m.data) < 100_000])
def test_packed_text_is_read_as_plain_text_is(tmp_path: Path, name: str) -> None:
    made = corpus.files()[name]
    source = contract(**made.changes).source

    def read(data: bytes) -> list[dict[str, object]] | str:
        path = tmp_path / "log"
        path.write_bytes(data)
        try:
            return pa.concat_tables(parsing.rows(path, source, COLUMNS, tmp_path).blocks).to_pylist()
        except parsing.Refused as refused:
            return refused.rule

    if made.data[:2] != b"\x1f\x8b" and made.data[:4] not in parsing.PACKED and made.data and made.data[:4] != b"PAR1":
        plain = read(made.data)
        assert read(gzip.compress(made.data)) == plain
        assert read(pa.Codec("zstd").compress(made.data).to_pybytes()) == plain


# names


ODD = (
    b"sp ace.csv",
    b"q'uo\"te.csv",
    b"br[ack]et.csv",
    b"st*r.csv",
    b"new\nline.csv",
    "ü日.csv".encode(),
    b"bad\xff.csv",
    b"back\\.csv",
)


def test_files_of_any_name_are_read_and_named(tmp_path: Path) -> None:
    terms, home = contract(), Home(tmp_path / "home", "tiny")
    (tmp_path / "in" / "a").mkdir(parents=True)
    for n, name in enumerate(ODD):
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(b"1,%d,3,pv,%d\nx%d\n" % (n, START, n))
    (tmp_path / "in" / "a" / "sp ace.csv").write_bytes(b"1,99,3,pv,%d\n" % START)  # a name twice, in two folders
    (tmp_path / "in" / "folder.csv").mkdir()
    (tmp_path / "in" / "dangling.csv").symlink_to(tmp_path / "nowhere")
    accepted = ingest.accept(home, terms, str(tmp_path / "in"), SEEN)
    ingest.events(home, terms, DAYS[0])
    assert sum(a.split.rows_in for a in accepted) == 2 * len(ODD) + 1
    assert sorted(row["item"] for row in events_of(home, DAYS[0])) == [*range(len(ODD)), 99]
    found = {row["raw"]: Path(row["file"]).name for row in quarantined(home, "unknown")}
    assert found == {f"x{n}": name.decode("utf-8", "backslashreplace") for n, name in enumerate(ODD)}


def test_what_may_not_be_read_is_no_log_with_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "locked").mkdir(parents=True)
    (tmp_path / "in" / "log.csv").write_bytes(b"1,2,3,pv,1704063600\n")
    for place in ("in/log.csv", "in/locked"):  # root may read all: the answer of the system is put in its place
        monkeypatch.setattr(parsing.os, "access", lambda path, mode, place=place: path != tmp_path / place)
        with pytest.raises(ValueError, match=f"{place} may not be read .permission denied."):
            parsing.named(str(tmp_path / "in"), contract())


@pytest.mark.parametrize("name", ["a[b]", "a*b", "q'uote", 'd"q', "sp ace", "{a,b}", "ü", "$HOME"])
def test_a_home_of_any_name_holds_its_own_rows_only(tmp_path: Path, name: str) -> None:
    terms, log = contract(), tmp_path / "log.csv"
    for place, item in (("ab", 1), ("aXb", 2), (name, 3)):
        log.write_bytes(b"1,%d,3,pv,%d\n" % (item, START))
        home = Home(tmp_path / place, "tiny")
        ingest.accept(home, terms, str(log), SEEN)
        ingest.events(home, terms, DAYS[0])
    assert [row["item"] for row in events_of(home, DAYS[0])] == [3]
    assert lake.engine().read_parquet(home.events(DAYS[0])).item.execute().tolist() == [3]
    lake.refresh_catalogue(home)
    with duckdb.connect(str(home.catalogue), read_only=True) as connection:
        assert connection.execute("SELECT item FROM events").fetchall() == [(3,)]


@pytest.mark.parametrize("name", ["a?b", "a\nb", "a\\b", os.fsdecode(b"a\xff")])
def test_a_home_that_the_engine_cannot_open_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be DTRN_HOME"):
        Home(tmp_path / name, "tiny")


# init and check

SMALL = [n for n, m in corpus.files().items() if len(m.data) < 3_000_000 and "(tsv)" not in n and "timestamps" not in n]


@pytest.mark.parametrize("name", SMALL[::3])
def test_a_draft_for_a_broken_file_is_written_or_refused_in_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / corpus.files()[name].file
    path.write_bytes(corpus.files()[name].data)
    said = ""
    try:
        newcomer.write_draft(str(path), tmp_path / "out.toml", ("user=1", "item=2"), Console(file=io.StringIO()))
    except UnicodeError:
        raise  # a ValueError too, and none that is written for people
    except ValueError as error:
        said = str(error)
    assert (tmp_path / "out.toml").is_file() or any(word in said for word in (path.name, "--answer", "column"))


@pytest.mark.parametrize("name", SMALL[::9])
def test_check_counts_the_rows_of_a_broken_file(tmp_path: Path, name: str) -> None:
    made = corpus.files()[name]
    path = tmp_path / made.file
    path.write_bytes(made.data)
    found = trial.attempt(contract(**made.changes), str(path), SEEN)
    assert found.rows_in == made.rows == found.valid + sum(broken.rows for broken in found.rules.values())


def test_a_line_that_is_no_object_has_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n[1]\n' + b"[" * 100_000 + b"\n")
    assert profile._columns(path, Source(format="jsonl")) == ("a",)


# side tables


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty_file"),
        (gzip.compress(b"i,c\n1,2\n" * 99)[:-9], "unreadable_file"),
        ("i,c\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"x,y\n1,2\n", "no column 'i'"),
        (b'i,c\n1,"2\n2,3\n', "1 of 2 rows.*several lines"),
        (b"i,c\r1,2\r2,x\r", "1 of 2 rows.*'x' is not a 64-bit number"),
    ],
)
def test_a_broken_side_table_is_refused_in_words(tmp_path: Path, data: bytes, said: str) -> None:
    side = {"file": "items.dat", "format": "csv", "key": "i", "features": ["category"]}
    terms = contract(item_table=side, validation={"max_bad_share": 0.1})
    (tmp_path / "log.csv").write_bytes(b"1,2,3,pv,1704063600\n")
    (tmp_path / "items.dat").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        ingest.accept(Home(tmp_path / "home", "tiny"), terms, str(tmp_path), SEEN)


# damage at random


@st.composite
def damage(draw: st.DrawFn) -> tuple[int, int, bytes]:
    """Where (in 1/1000 of the file), how many bytes go, and what comes in their place."""
    return (
        draw(st.integers(0, 1000)),
        draw(st.integers(0, 60)),
        draw(st.binary(max_size=12) | st.sampled_from([b"\n", b"\r", b'"', b"\0"])),
    )


WHOLE = [b"1,%d,3,pv,%d" % (n, START + n) for n in range(40)]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(damage(), min_size=1, max_size=3), st.booleans(), st.sampled_from(["", "gzip"]))
def test_damage_at_random_loses_no_row_and_touches_no_other(hits: list[tuple[int, int, bytes]], cut: bool, packed: str) -> None:
    data = b"".join(line + b"\n" for line in WHOLE)
    for place, gone, new in hits:
        at = place * len(data) // 1000
        data = data[:at] + new + (b"" if cut else data[at + gone :])
    written = gzip.compress(data)[: -9 if cut else None] if packed else data
    with TemporaryDirectory() as folder:
        home, accepted = take_in(Path(folder), contract(), written)
        bad = quarantined(home, *corpus.EVERY_DAY)
        found = Counter(b"%d" % row["item"] for day in ("earlier", *DAYS) for row in events_of(home, day))
        assert accepted.split.rows_in == accepted.split.rows_valid + len(bad)
        assert all(row["rule"] and row["detail"] and Path(row["file"]).is_file() for row in bad)
        if accepted.split.refused:
            return
        lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        assert accepted.split.rows_in == sum(bool(line.rstrip(b"\r")) for line in lines)
        untouched = {line.split(b",")[1] for line in WHOLE if line in lines}
        assert untouched <= set(found)
        for row in bad:
            assert (
                row["raw"]
                == lines[row["line"] - 1].rstrip(b"\r").decode("utf-8", "backslashreplace").replace("\0", "\\x00")[:4000]
            )


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(damage(), min_size=1, max_size=3))
def test_a_damaged_parquet_is_refused_or_read(hits: list[tuple[int, int, bytes]]) -> None:
    data = corpus.files()["Parquet: decimals"].data
    for place, gone, new in hits:
        at = place * len(data) // 1000
        data = data[:at] + new + data[at + gone :]
    with TemporaryDirectory() as folder:
        home, accepted = take_in(Path(folder), contract(source=PARQUET), data, "log.parquet")
        assert accepted.split.rows_in == accepted.split.rows_valid + len(quarantined(home, *corpus.EVERY_DAY))
