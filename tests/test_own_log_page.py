"""docs/your-own-log.md is true: its commands are run in a folder of their own, and print what the page shows below them.

In what is shown a line that is only `…` stands for any lines, and `…` within a line for any text; all else must be printed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from assets.served import free_port
from tests import pages
from tests.logs import EVENTS, contract
from tests.pages import ROOT

PAGE = (ROOT / "docs" / "your-own-log.md").read_text()
TAOBAO = ROOT.parent / "shared" / "data" / "taobao_user_behavior_head.csv"
MARK = "…"


def steps(title: str) -> list[tuple[str, list[str]]]:
    """(command, what is shown below it) of a section."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    found: list[tuple[str, list[str]]] = []
    for line in (line.removeprefix("    ") for line in section.splitlines() if line.startswith("    ") or not line):
        if pages.is_command(line):
            found.append((line, []))
        elif found:
            found[-1][1].append(line)
    return [(command, "\n".join(shown).strip().splitlines()) for command, shown in found]


def pattern(shown: list[str]) -> str:
    """A regular expression of what is shown."""
    lines = ["(?:.*\n)*?" if line == MARK else ".*".join(map(re.escape, line.split(MARK))) + "\n" for line in shown]
    return "".join(lines)


def require_printed(shown: list[str], printed: str) -> None:
    plain = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    assert re.fullmatch(pattern(shown), plain), f"the page shows\n{chr(10).join(shown)}\n\nprinted was\n{plain}"


class Checkout:
    """The repository by links in an empty folder, which a reader's commands may fill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in (path for path in ROOT.iterdir() if path.name not in {".git", ".dtrn"}):
            (folder / path.name).symlink_to(path)
        given = {k: v for k, v in os.environ.items() if k not in {"DATASET", "LOG", "PORT", "PYTHONPATH"}}
        self.environment = given | {"DTRN_HOME": str(folder / ".dtrn"), "COLUMNS": "200", "TERM": "dumb", "NO_PROXY": "*"}

    def run(self, command: str) -> tuple[int, str]:
        """(exit status, what was printed, without the home that only tests name)."""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, timeout=900, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout.replace(f" DTRN_HOME={self.folder / '.dtrn'}", "")


def test_a_line_that_is_not_printed_is_missed() -> None:
    shown = ["a … c", MARK, "d"]
    require_printed(shown, "a b c\nd\n")
    require_printed(shown, "a b c  \nx\ny\nd\n")
    for printed in ("a b c\n", "x\na b c\nd\n", "a b c\nd\nx\n", "a b\nd\n"):
        with pytest.raises(AssertionError, match="the page shows"):
            require_printed(shown, printed)


def test_every_command_can_be_given() -> None:
    found = pages.commands([line.strip() for line in PAGE.splitlines() if line.startswith("    ")])
    assert {words[0] for words in found} == pages.PROGRAMS
    for words in found:
        pages.require_given(words, {"shop.toml", "my.toml"})


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_the_bookshop_goes_from_its_script_to_a_service_that_takes_its_texts(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    *told, (serve, _), (asked, _) = steps("A bookshop")
    assert [command.split()[0] for command, _ in told] == ["python3", "head", "./dtrn", "./dtrn", "make"]
    for command, shown in told:
        status, printed = checkout.run(command)
        assert status == 0, printed
        require_printed(shown, printed)
    answer, body = asking(checkout, serve, asked), json.loads(shlex.split(asked)[-1])
    assert sorted(answer["item_ids"]) == sorted(body["item_ids"])
    assert answer["score"] == sorted(answer["score"], reverse=True), "in rank order"
    assert len({*answer["score"]}) == len(answer["score"]), "known items of different genres are told apart"


def asking(checkout: Checkout, serve: str, asked: str) -> dict[str, Any]:
    """The answer of the service that `serve` starts, at a port of its own, to what is `asked` of it."""
    port = free_port()
    with (checkout.folder / "served.txt").open("w") as file:
        process = subprocess.Popen(
            shlex.split(f"{serve} PORT={port}"), cwd=checkout.folder, env=checkout.environment,
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + 300
        while "Ctrl-C ends it" not in (said := (checkout.folder / "served.txt").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.2)
        status, printed = checkout.run(asked.replace("localhost:3001", f"127.0.0.1:{port}"))
        assert status == 0, printed
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
    answer: dict[str, Any] = json.loads(printed)
    return answer


@pytest.mark.skipif(not TAOBAO.is_file(), reason=f"Taobao's log is not at {TAOBAO}; it may not be given away with this project")
def test_the_file_without_a_header_asks_and_takes_answers(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    (tmp_path / "UserBehavior.csv").symlink_to(TAOBAO)
    (asks, question), (answers, drafted) = steps("A file without a header")
    status, printed = checkout.run(asks)
    assert status == 1
    require_printed(question, printed)
    assert not (tmp_path / "my.toml").exists()
    status, printed = checkout.run(answers)
    assert status == 0, printed
    require_printed(drafted, printed)


def test_the_answers_given_are_among_those_that_were_asked_for() -> None:
    (_, question), (answers, _) = steps("A file without a header")
    offered = set(re.findall(r"--answer (\S+)", "\n".join(question)))
    user, item = re.findall(r"--answer (\S+)", answers)
    assert user in offered
    assert item.replace("item=", "user=") in offered - {user}


# the tables


def rows(title: str) -> list[str]:
    """The first cell of each row of a section's table."""
    table = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")][2:]


def test_every_way_to_write_a_feature_is_one() -> None:
    written = [tomllib.loads(cell.strip("`")) for cell in rows("What a feature may be")]
    assert len(written) == 4
    for feature in written:
        contract(EVENTS, item_features=feature)
    (pointer,) = re.findall(r'`user = "(/.+?)"`', PAGE)
    jsonl = {"source": {"format": "jsonl"}, "columns": {**EVENTS["columns"], "user": pointer}}
    assert contract(EVENTS, **jsonl).columns.user == pointer


def test_what_it_is_said_to_say_is_said_by_the_program() -> None:
    program = "".join(
        path.read_text() for folder in ("assets", "models", "orchestration") for path in (ROOT / folder).glob("*.py")
    )
    said = [match[1] for cell in rows("When it says no") if (match := re.match(r"`(.+?)`", cell))]
    assert len(said) == len(rows("When it says no")) == 10
    assert [text for text in said if text not in program] == []
