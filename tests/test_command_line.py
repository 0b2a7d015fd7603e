"""The command line: help with an example everywhere, and a person's mistake told in one line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from assets import ingest, ledger, registry, served, simulator
from assets.served import free_port
from bentos import messages
from bentos.fields import id_keys
from models.contract import DATASETS, load
from models.home import Home
from orchestration import days, log_source, summary
from orchestration.command_line import app, main
from orchestration.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
NEWCOMERS = ("init", "check")
"""They take a log that belongs to no data set yet."""
COMMANDS = (
    *NEWCOMERS,
    "demo",
    "ingest",
    "backfill",
    "train",
    "evaluate",
    "serve",
    "simulate",
    "models",
    "ui",
    "reports",
    "forget",
)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATASET", "LOG", "DTRN_HOME", "PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """(exit status, what was printed to stderr) of the command line."""
    monkeypatch.setattr("sys.argv", ["dtrn", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().err


def test_every_command_of_the_issue_is_there() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_with_an_example_that_parses(command: str) -> None:
    told = CliRunner().invoke(app, [command, "--help"])
    assert told.exit_code == 0
    (example,) = re.findall(r"Example:\s+\./dtrn (.+?)\s*$", told.output, re.MULTILINE)
    words = example.split()
    assert words[0] == command
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"(?m)^.*{option}\b", told.output), f"{option} of the example is not an option of {command}"
    assert ("--dataset" in told.output) == (command not in NEWCOMERS)
    assert ("--home" in told.output) == (command not in NEWCOMERS)


def test_a_log_of_bad_rows_only_says_where_the_reasons_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path, "simulated")
    ledger.accept(home, "ab" * 32, "log.csv", datetime(2026, 3, 2, tzinfo=UTC))
    monkeypatch.setattr(ingest, "last_day", lambda *_: None)
    with pytest.raises(ValueError, match=r"holds no good row from 2026-03-02 to 2026-03-13; why .* stands in .*unknown"):
        days.of_log(home, load("simulated"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("demo", "--dataset", "nowhere"),
            r"^dtrn: .*nowhere\.toml: no such contract\. DATASET= takes one of \['kuairand', 'rees46', .*'taobao', 'tmall'\]",
        ),
        (("demo", "--dataset", "taobao"), r"^dtrn: where is the log of taobao\? LOG= takes a file, a folder or a glob"),
        (("ingest", "--dataset", "taobao", "--log", "/nowhere.csv"), r"^dtrn: log_files: .*nowhere\.csv"),
        (("serve",), r"^dtrn: no champion of simulated in .*; make one first: make demo DTRN_HOME="),
        (("reports",), r"^dtrn: no drift report of simulated in .*; make one first: make demo DTRN_HOME="),
        (
            ("train",),
            r"^dtrn: no file of the log was ingested into .*simulated yet; run \./dtrn ingest or \./dtrn backfill first",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_1(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = said(monkeypatch, capsys, *words, "--home", str(tmp_path))
    assert status == 1
    assert re.search(message, told), told
    assert "Traceback" not in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [(("demo", "--what"), "No such option"), (("serve", "--port", "x"), "--port"), (("fly",), "No such command")],
)
def test_a_wrong_call_is_status_2(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = said(monkeypatch, capsys, *words)
    assert status == 2
    assert message in told
    assert "Traceback" not in told


def test_a_fault_of_the_program_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr("orchestration.command_line.load", broken)
    monkeypatch.setattr("sys.argv", ["dtrn", "models"])
    with pytest.raises(KeyError):
        main()


def _crown(home: Home, built: Home) -> None:
    """Let the bento of `built` reign in `home`."""
    shutil.copytree(built.bentoml, home.bentoml, symlinks=True)
    (bento,) = (p.name for p in (home.bentoml / "bentos" / "dtrn-shown").iterdir() if p.is_dir())
    registry.promote(
        home,
        judged_day="2026-04-01",
        name="dtrn",
        tag="dtrn-shown:x",
        bento=f"dtrn-shown:{bento}",
        against=None,
        who="",
        why="",
        when=datetime.now(UTC),
    )


def test_a_serve_that_is_asked_to_end_leaves_no_service(built: Home, tmp_path: Path) -> None:
    home = Home(tmp_path, "simulated")
    _crown(home, built)
    port = free_port()
    command = [ROOT / "dtrn", "serve", "--home", str(tmp_path), "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    end = time.monotonic() + 120
    while "Ctrl-C ends it" not in (told := (tmp_path / "log").read_text()):
        assert process.poll() is None, told
        assert time.monotonic() < end, told
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2, "a supervisor and its worker"
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)


@pytest.mark.parametrize("command", ["ui", "serve"])
def test_a_port_in_use_is_said_plainly(
    command: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = Home(tmp_path, "simulated")
    if command == "serve":
        _crown(home, request.getfixturevalue("built"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, told = said(monkeypatch, capsys, command, "--home", str(tmp_path), "--port", str(port))
    assert status == 1
    assert told.startswith(f"dtrn: port {port} of 127.0.0.1"), told
    assert re.search(r"PORT=\d+", told), "what to do is said"


def test_a_day_must_be_one_of_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--dataset", "taobao", "--home", str(tmp_path))
    log = tmp_path / "log.csv"
    log.write_text("1,2,3,pv,1511600000\n1,2,3,pv,1511700000\n")  # 2017-11-25 and 2017-11-26 in Shanghai
    status, told = said(monkeypatch, capsys, "ingest", *common, "--log", str(log), "--day", "2017-11-30")
    assert (status, told) == (1, "dtrn: 2017-11-30 is not a day of the log; those are 2017-11-25 to 2017-11-26\n")
    status, told = said(monkeypatch, capsys, "ingest", *common, "--log", str(log), "--day", "tomorrow")
    assert (status, told) == (1, "dtrn: 'tomorrow' is not a day; YYYY-MM-DD is, for example 2017-11-26\n")
    status, told = said(monkeypatch, capsys, "train", *common)
    assert told.startswith("dtrn: the log ends on 2017-11-26, too early to judge a day")
    status, told = said(monkeypatch, capsys, "ingest", *common, "--log", str(log), "--day", "2017-11-25")
    assert status == 0
    home = Home(tmp_path, "taobao")
    assert home.samples("2017-11-25").is_file()
    assert not home.samples("2017-11-26").is_file()
    home.drift_project.mkdir(parents=True)
    (home.evidently / "another").mkdir()
    status, told = said(monkeypatch, capsys, "forget", *common, "--yes")
    assert status == 0
    assert not home.base.exists()
    assert [p.name for p in home.evidently.iterdir()] == ["another"]


def test_the_root_script_works_from_any_folder(tmp_path: Path) -> None:
    """A `models` folder of the caller's must not be taken for ours; DTRN_HOME is the checkout's unless it is said."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise ImportError('the caller's folder was imported')")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"DTRN_HOME": "mine", "COLUMNS": "200"}
    told = subprocess.run([ROOT / "dtrn", "models"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert "no champion yet" in told.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"models"}, "listing writes nothing"


@pytest.mark.parametrize("text", [(), ("user",), ("item",), ("user", "item")])
def test_the_example_of_serve_is_one_line_that_the_service_takes(
    text: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = tmp_path / "shop.toml"
    taobao = (DATASETS / "taobao.toml").read_text()
    contract.write_text(taobao.replace("[columns]", f"[columns]\ntext = {json.dumps(text)}"))
    monkeypatch.setenv("COLUMNS", "40")
    champion = SimpleNamespace(bento="dtrn-taobao:1", tag="dtrn-taobao:2017-12-02-dtrn-0000000000")
    monkeypatch.setattr(registry, "champion", lambda home: champion)

    class Service:
        url, log = "http://127.0.0.1:3001", tmp_path / "service.log"

        def wait(self) -> int:
            raise KeyboardInterrupt

    @contextmanager
    def start(*_: Any, **__: Any) -> Iterator[Service]:
        yield Service()

    monkeypatch.setattr(served, "start", start)
    monkeypatch.setattr("sys.argv", ["dtrn", "serve", "--dataset", str(contract), "--home", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "/rank" in one]
    body = shlex.split(line)[-1]
    asked = messages.decode(body.encode(), msgspec.json.Decoder(messages.RankRequest))
    terms = load(str(contract))
    assert len(id_keys(terms, "user", [asked.user_id], "user_id")) == 1
    assert len(id_keys(terms, "item", asked.item_ids, "item_ids[]")) == len(set(asked.item_ids)) > 1


def test_reports_of_another_data_set_are_pointed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = said(monkeypatch, capsys, "reports", "--home", str(tmp_path), "--port", str(free_port()))
    assert status == 1
    assert re.search(r"no drift report of simulated in \S+; make one first: make demo DTRN_HOME=", told)
    (tmp_path / "news" / "reports").mkdir(parents=True)
    (tmp_path / "news" / "reports" / "drift-2024-04-02.html").touch()
    _, told = said(monkeypatch, capsys, "reports", "--home", str(tmp_path), "--port", str(free_port()))
    assert "no drift report of simulated" in told
    assert "but of news: say so with DATASET=" in told


def test_the_table_of_a_demo_is_as_wide_as_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = "bought_within_a_week_of_the_first_view"
    measured = {
        "auc": 0.7123, "auc_low": 0.701, "auc_high": 0.734, "gauc": 0.645, "gauc_users_share": 0.98, "gauc_rows_share": 0.99,
        "logloss": 0.3456, "ece": 0.0123, "positives": 12_345_678,
    }  # fmt: skip
    models = {"dtrn": {task: measured}, "popularity": {task: measured | {"auc": 0.5}}}
    monkeypatch.setattr(summary.evaluation, "read", lambda home, day: {"models": models})
    verdict = {
        "judged_day": "2026-04-01",
        "judged_days": ["2026-04-01"],
        "promote": False,
        "reasons": ["No model is promoted."],
    }
    told = {
        "dataset": "shop", "verdict": verdict, "served": None, "parity": None, "champion": None, "drift_report": None,
        "rows_in": 1, "rows_valid": 1, "rows_quarantined": 0, "rows_left_out": 1234, "samples": 1, "days": 1,
    }  # fmt: skip
    out = StringIO()
    summary.show(Console(file=out, width=80), Home(tmp_path, "shop"), told, serve="")
    assert "1 in, 1 valid, 0 quarantined; 1,234 left out by the contract" in " ".join(out.getvalue().split())
    rows = [line.split() for line in out.getvalue().splitlines() if "0.3456" in line]
    figures = ["0.701–0.734", "0.645", "98%", "99%", "0.3456", "0.0123"]
    assert rows == [[task, "dtrn", "0.7123", *figures, "12,345,678"], ["popularity", "0.5000", *figures]]


def test_make_lists_every_command() -> None:
    told = subprocess.run(["make", "-C", ROOT, "--no-print-directory"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"(?m)^  ([a-z-]+) ", told)) >= {
        "setup",
        "demo",
        "test",
        "check",
        "ui",
        "serve",
        "bench-train",
        "forget",
    }


def test_a_simulated_world_stays_as_it_was_asked_for(tmp_path: Path) -> None:
    """Whoever needs the log afterwards finds that world, and does not write the default one over it."""
    words = "simulate --users 40 --items 100 --impressions 300 --sign-conflict 0.5 --selection-conflict 1 --seed 3"
    told = CliRunner().invoke(app, [*words.split(), "--home", str(tmp_path)])
    assert told.exit_code == 0, told.output
    home, contract = Home(tmp_path, "simulated"), load("simulated")
    record = (home.truth / "simulation.json").read_bytes()
    sizes = {"users": 40, "items": 100, "impressions": 300, "seed": 3}
    assert simulator.asked(home.truth) == sizes | {"sign_conflict": 0.5, "selection_conflict": 1.0}
    with Progress(Console(quiet=True)) as progress:
        log_source.ready(contract, home, "", progress)
    assert (home.truth / "simulation.json").read_bytes() == record
    assert CliRunner().invoke(app, ["simulate", "--sign-conflict", "1.5"]).exit_code == 2
