"""README is true: what it names is there and what is there is named, its commands are run, its printed output is compared.

Of the demo's table the figures are masked: it is compared with what a small demo prints, in shape and wording.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from rich.console import Console

from assets.served import free_port
from bentos.door import application
from bentos.opening import describe, open_ranking
from models import artifact
from models.contract import load
from models.home import Home
from models.judgement import decide
from orchestration import summary
from tests import pages
from tests.demonstrated import Ran
from tests.pages import ROOT
from tests.serving import BOUGHT, JUDGED, beside, logged

README = (ROOT / "README.md").read_text()


def tracked() -> list[str]:
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return out.stdout.splitlines()


def test_the_tree_names_every_folder_and_no_other() -> None:
    tree = README.split("<!-- tree -->")[1]
    named = set(re.findall(r"^    (\w+)/ ", tree, re.MULTILINE))
    there = {path.split("/")[0] for path in tracked() if "/" in path and not path.startswith(".")}
    assert named == there


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_link_and_every_file_named_is_there(page: str) -> None:
    text, folder = (ROOT / page).read_text(), (ROOT / page).parent
    for path, _, anchor in (link.partition("#") for link in re.findall(r"\]\((?!http)([^)]+)\)", text)):
        assert (folder / path).is_file(), path
        assert not anchor or anchor in headings(folder / path), anchor
    named = set(re.findall(r"`((?:assets|bentos|datasets|docs|models|orchestration|tests)/[\w/]+\.\w+)`", text))
    assert {path for path in named if not (ROOT / path).is_file()} <= {"models/heads/direct.py"}  # the one that a reader adds


def test_every_make_command_named_is_one_and_every_one_is_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) == targets - {"help"}


def test_every_contract_named_is_one() -> None:
    named = set(re.findall(r"datasets/(\w+)\.toml", README))
    assert named == {Path(path).stem for path in tracked() if path.startswith("datasets/")}


# the commands


def code() -> list[str]:
    """Lines of the code blocks, a line that goes on joined with the next; the demo's output is none of them."""
    text = README.replace("\\\n", " ").split("<!-- demo -->")
    after = text[1].split("\nThat is ")[1]
    return [line.strip() for line in (text[0] + after).splitlines() if line.startswith("    ")]


def test_every_command_of_a_code_block_can_be_given() -> None:
    found = pages.commands(code())
    assert len(found) >= 5
    for words in found:
        pages.require_given(words, {"my.toml"})


def test_the_table_names_the_commands_that_help_lists_and_their_ports() -> None:
    told = subprocess.run([ROOT / "dtrn", "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    listed = set(re.findall(r"(?m)^\W*([a-z]+) {2,}", told.split("Commands")[1]))
    (row,) = [line for line in README.splitlines() if line.startswith("| `./dtrn --help`")]
    assert set(re.findall(r"`([a-z]+)`", row)) == listed
    for command in ("ui", "serve", "reports"):
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `make {command}`")]
        help_text = subprocess.run([ROOT / "dtrn", command, "--help"], capture_output=True, text=True, check=True, timeout=60)
        (port,) = re.findall(r"default: (\d+)", help_text.stdout)
        assert f"127.0.0.1:{port} |" in row


# what the demo prints


def demo_output() -> list[str]:
    block = README.split("<!-- demo -->")[1].split("\nThat is ")[0]
    return [line[4:].rstrip() for line in block.splitlines() if line.startswith("    ") or not line]


def winner() -> str:
    """The challenger of the demo that the page shows."""
    return str(table_and_facts(demo_output())[1]["verdict of 2017-12-02"].split(" wins: ")[0])


def table_and_facts(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    """The table's lines, and label → text, its folded lines joined."""
    lines = [line for line in lines if line.strip()]
    first = next(n for n, line in enumerate(lines) if line.startswith("rows"))
    facts: dict[str, str] = {}
    for line in lines[first:]:
        label, _, text = line.partition("  ")
        if label:
            name, facts[label] = label, text.strip()
        else:
            facts[name] += f" {text.strip()}"
    return lines[:first], facts


def masked(text: str, dataset: str, challenger: str) -> str:
    """The text without what differs from log to log."""
    text = re.sub(rf"dtrn-{dataset}:[-\d]+-[\w+]+-[0-9a-f]{{10}}", "TAG", text.replace(".dtrn/", "HOME/")).replace(
        dataset, "DATASET"
    )
    text = re.sub(rf"\b{re.escape(challenger)}\b", "CHALLENGER", text)
    text = re.sub(r"\d{4}-\d\d-\d\d", "DAY", text)
    text = re.sub(r"\d[\d,]*(\.\d+)?(e[-+]\d+)?", "N", text)
    text = re.sub(r"N–N|too few", "CI", text)
    return re.sub(r"\s+", " ", re.sub("─+", "─", text)).strip()


def printed(ran: Ran) -> list[str]:
    out = io.StringIO()
    summary.show(Console(file=out, width=200), ran.home, ran.told, serve="make serve DATASET=small")
    return out.getvalue().replace(str(ran.home.root), ".dtrn").splitlines()


def test_the_demos_table_has_the_shape_that_a_demo_prints(ran: Ran) -> None:
    challenger = ran.told["verdict"]["challenger"]
    ours = [masked(line, "taobao", winner()) for line in table_and_facts(demo_output())[0]]
    theirs = [masked(line, "small", challenger) for line in table_and_facts(printed(ran))[0]]
    heading = next(n for n, line in enumerate(ours) if line == "─") + 1
    assert ours[:heading] == theirs[:heading]

    def rows(lines: list[str], tasks: list[str]) -> set[str]:
        return {re.sub(rf"^({'|'.join(tasks)}) ", "TASK ", line) for line in lines[heading:]}

    told = rows(theirs, list(ran.contract.tasks))
    assert rows(ours, list(load("taobao").tasks)) == told, "the same models, figures and masks in each row"
    assert len(told) == 4


def test_the_demos_facts_are_worded_as_a_demo_words_them(ran: Ran) -> None:
    ours, theirs = (table_and_facts(lines)[1] for lines in (demo_output(), printed(ran)))
    theirs.pop("why", None)  # is only there when an earlier verdict crowned the champion
    names = [[re.sub(r"\d{4}-\d\d-\d\d", "DAY", name) for name in facts] for facts in (ours, theirs)]
    assert names[0] == names[1]
    challenger = ran.told["verdict"]["challenger"]
    for (name, text), other in zip(ours.items(), theirs.values(), strict=True):
        if not name.startswith("verdict of"):
            assert masked(text, "taobao", winner()) == masked(other, "small", challenger), name


def test_the_demos_reasons_are_those_that_its_figures_give() -> None:
    told = table_and_facts(demo_output())[1]["verdict of 2017-12-02"]
    figures = r"(\w+) \(AUC ([-+.\d]+), 95% interval ([-+.\d]+) to ([-+.\d]+)\)"
    beaten, *warned = (re.findall(figures, part) for part in told.split("Warning"))
    assert beaten
    assert all(warned)

    def comparison(low: float, high: float, difference: float) -> dict[str, Any]:
        return {"difference": difference, "low": low, "high": high, "judged": True, "note": ""}

    def rows(figures: list[tuple[str, ...]]) -> dict[str, Any]:
        known = {name: comparison(float(low), float(high), float(d)) for name, d, low, high in figures}
        return {t: known.get(t, comparison(-0.01, 0.05, 0.02)) for t in ("click", "cart", "buy", "mean")}

    promote, reasons = decide(
        winner(), {"champion": rows(beaten), "lightgbm": rows([told for part in warned for told in part])}
    )  # type: ignore[arg-type]
    assert promote
    assert " ".join(reasons) == told


# asking the service


@pytest.fixture
def address(bought: Home, tmp_path: Path) -> Iterator[tuple[str, Home]]:
    """(where a test model answers over HTTP, the home that its log goes to)."""
    home = beside(bought, tmp_path)
    ranking = open_ranking(artifact.load(bought.model("dtrn", JUDGED)), "dtrn-tiny:tag", home, {"click": 1.0, "buy": 3.0})
    app = application()
    app.state.ranking, app.state.lineage = ranking, describe(ranking, {})
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"127.0.0.1:{port}", home
    server.should_exit = True
    thread.join(10)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_the_curl_commands_are_answered_as_it_says(address: tuple[str, Home]) -> None:
    where, home = address
    asked, told, placed = (line for line in code() if line.startswith("curl"))
    assert set(json.loads(shlex.split(placed)[-1])["context"]) == set(load("simulated").context.columns)
    assert told.count('"cart"') == 1
    # An action of the test's contract, and a user whose history is not full of it.
    asked, told = (line.replace('"user_id": 1', '"user_id": 777').replace('"cart"', '"buy"') for line in (asked, told))

    def run(line: str) -> dict[str, Any]:
        words = shlex.split(line.replace("localhost:3001", where))
        done = subprocess.run([*words, "--noproxy", "*"], capture_output=True, text=True, check=True, timeout=30)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    answer = run(asked)
    body = json.loads(shlex.split(asked)[-1])
    assert sorted(answer["item_ids"]) == sorted(body["item_ids"])
    assert answer["score"] == sorted(answer["score"], reverse=True), "in rank order"
    assert set(answer["probabilities"]) == set(BOUGHT.task_names)
    assert all(len(column) == 3 for column in answer["probabilities"].values())
    assert answer["model"] == "dtrn-tiny:tag"
    assert answer["request_id"]
    assert logged(home)[-1]["history_length"] == {"view": 0, "buy": 0}
    run(told)
    run(asked)
    assert logged(home)[-1]["history_length"] == {"view": 0, "buy": 1}, "the next ranking of that user knows"
