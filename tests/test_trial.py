"""`dtrn check`: what the first rows of a log come to under a contract, and what is said of them."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from assets import trial
from models.checks import Checks
from models.contract import Contract, load
from orchestration import newcomer
from tests.damaged_log import START, contract
from tests.drafts import NOW, drafted, shop


def told(folder: Path, terms: Contract, text: str) -> str:
    log, out = folder / "log.csv", io.StringIO()
    log.write_text(text)
    newcomer.tell_trial(terms, "mine.toml", str(log), Console(file=out, width=200, soft_wrap=True))
    return out.getvalue()


def test_a_file_of_which_no_row_can_be_used_has_no_line(tmp_path: Path) -> None:
    said = told(tmp_path, contract(source={"header": True}), "a,b\n1,2\n")
    assert "1 × missing_columns, first in log.csv: no column 'u'" in said
    assert "line 0" not in said


def test_the_cost_is_of_the_days_that_the_log_has(tmp_path: Path) -> None:
    rows = [
        f"{user},{(user * 7 + n) % 50},{n % 5},{'buy' if n % 9 == 0 else 'pv'},{START + day * 86_400 + user * 40 + n}"
        for day in range(3) for user in range(40) for n in range(12)
    ]  # fmt: skip
    calendar = {"first_day": "2024-01-01", "last_day": "2024-04-30"}
    terms = contract(calendar=calendar, tasks={"buy": {"behaviours": ["buy"], "horizon_hours": 12}})
    said = told(tmp_path, terms, "\n".join(rows) + "\n")
    samples = next(int(line.split()[0].replace(",", "")) for line in said.splitlines() if line.endswith(" samples"))
    assert samples > 900
    assert f"3 days of about {samples / 3:,.0f}, " in said


def test_a_check_counts_what_is_valid_and_what_is_not(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv", days=4)
    contract, _ = drafted(source, tmp_path)
    with source.open("a") as file:
        file.write("1,2,3,view,never\n1,2,3,lick,1741000000\n")
    contract = contract.model_copy(update={"training": contract.training.model_copy(update={"candidates": ("mmoe",)})})
    found = trial.attempt(contract, str(source), NOW)
    assert (found.rows_in, found.valid, found.share) == (1602, 1600, 1.0)
    assert {rule: (b.rows, b.line, b.raw) for rule, b in found.rules.items()} == {
        "unknown_behaviour": (1, 1603, "1,2,3,lick,1741000000"),
        "unreadable_time": (1, 1602, "1,2,3,view,never"),
    }
    assert found.days == dict.fromkeys(["2025-03-03", "2025-03-04", "2025-03-05", "2025-03-06"], 400)
    assert set(found.speed) == {"mmoe"}
    assert found.samples > 3 * 300
    assert not (tmp_path / "home").exists()


def test_a_check_reads_the_first_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "ROWS", 500)
    source = shop(tmp_path / "log.csv", days=4)
    contract, _ = drafted(source, tmp_path)
    found = trial.attempt(contract, str(source), NOW)
    assert found.rows_in == 500, "the header is no row"
    assert found.share == pytest.approx(501 / 1601, rel=0.05)


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: pa.compress(data, "zstd", asbytes=True)])
def test_the_share_of_a_packed_log_is_that_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    source = shop(tmp_path / "log.csv", days=4, rows=10_000)
    contract, _ = drafted(source, tmp_path)
    source.write_bytes(pack(source.read_bytes()))
    with trial._cut(contract, str(source), tmp_path / "all") as (_, share, _):
        assert share == 1
    monkeypatch.setattr(trial, "ROWS", 10_000)
    with trial._cut(contract, str(source), tmp_path / "some") as (folder, share, _):
        assert 0.24 < share < 0.5, "a chunk more than was needed may have been read"
        assert next(folder.iterdir()).read_bytes().count(b"\n") == 10_001


def test_a_check_names_the_file_and_the_days_that_are_unusual(tmp_path: Path) -> None:
    (folder := tmp_path / "logs").mkdir()
    header, *rows = shop(tmp_path / "all.csv", days=5).read_text().splitlines()
    rows = rows[:400] + rows[400:402] + rows[800:]
    (folder / "a.csv").write_text("\n".join([header, *rows[:500]]) + "\n")
    (folder / "b.csv").write_text("\n".join([header, *rows[500:], "1,2,3,view,never"]) + "\n")
    contract, _ = drafted(folder, tmp_path)
    contract = contract.model_copy(update={"training": contract.training.model_copy(update={"candidates": ("mmoe",)})})
    told = Console(record=True, width=200)
    newcomer.tell_trial(contract, "mine.toml", str(folder), told)
    text = told.export_text()
    assert f"first in line {len(rows) - 500 + 2} of b.csv: ts: 'never'" in text
    assert re.findall(r"unusual_days = \[(.*)\] under \[checks\]", text) == ["2025-03-04"]
    assert "2025-03-04 has 2 rows, the median day 400" in text


@pytest.mark.parametrize(
    ("volumes", "odd", "there", "told", "limits"),
    [
        ([400] * 7 + [20, 40, 60, 80, 100], 5, 12, "400 rows, 20 to 100", "smallest = 0.05, largest = 3"),
        ([80] * 7 + [400, 300, 320, 380, 260], 5, 12, "80 rows, 260 to 400", "smallest = 0.3, largest = 5"),
        ([400] * 7 + [20, 0, 60, 80, 100], 4, 11, "400 rows, 0 to 100", "smallest = 0, largest = 3"),
    ],
)
def test_a_log_of_many_unusual_days_is_told_how_wide_its_limits_would_be(
    tmp_path: Path, volumes: list[int], odd: int, there: int, told: str, limits: str
) -> None:
    source = tmp_path / "log.csv"
    header, *rows = shop(source, days=12).read_text().splitlines()
    kept = [row for day, count in enumerate(volumes) for row in rows[400 * day : 400 * day + count]]
    source.write_text("\n".join([header, *kept]) + "\n")
    contract, draft = drafted(source, tmp_path)
    terms = contract.training.model_copy(update={"candidates": ("mmoe",)})
    out = Console(record=True, width=200)
    unlimited = contract.model_copy(update={"training": terms, "checks": Checks()})
    newcomer.tell_trial(unlimited, "mine.toml", str(source), out)
    text = out.export_text()
    assert f"{odd} of {there} days are far from the median day's {told}" in text
    assert f"begin with volume = {{ {limits} }} under [checks]" in text
    assert "unusual_days" not in text
    wide = tmp_path / "wide.toml"
    wide.write_text(draft.split("\n[checks]")[0] + f"\n[checks]\nvolume = {{ {limits} }}\n")
    assert load(wide).checks.volume.largest >= 3


@pytest.mark.parametrize(("bad", "runs"), [(20, True), (120, False)])
def test_a_contract_that_a_demo_would_stop_at_is_not_said_to_be_ready(tmp_path: Path, bad: int, runs: bool) -> None:
    source = shop(tmp_path / "log.csv", days=5)
    contract, _ = drafted(source, tmp_path)
    contract = contract.model_copy(update={"training": contract.training.model_copy(update={"candidates": ("mmoe",)})})
    with source.open("ab") as file:
        file.write(b"1,2,3,caf\xe9,1741000000\n" * bad)
    out = Console(record=True, width=200)
    assert newcomer.tell_trial(contract, "mine.toml", str(source), out) is runs
    text = out.export_text()
    assert ("next:  make demo" in text) == runs
    assert ("a demo would stop at its bad rows" in text) != runs
    assert "iconv -f LATIN1 -t UTF-8" in text


def test_a_log_of_one_user_says_what_cannot_be_learned(tmp_path: Path) -> None:
    source = shop(tmp_path / "log.csv", users=1, rows=60)
    contract, _ = drafted(source, tmp_path)
    told = Console(record=True, width=200)
    assert newcomer.tell_trial(contract, "mine.toml", str(source), told) in (True, False)
    assert "samples" in told.export_text()
