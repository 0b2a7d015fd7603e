"""The pages for readers, taken at their word: the commands in their code blocks, and whether each can be given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from models.contract import load
from orchestration.command_line import app

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {"make", "./dtrn", "curl", "python3", "head"}


def commands(lines: list[str]) -> list[list[str]]:
    """The words of each line that is a command, comments left out."""
    return [words for line in lines if is_command(line) and (words := shlex.split(line, comments=True))]


def is_command(line: str) -> bool:
    return line.split(" ", 1)[0] in PROGRAMS


def require_given(words: list[str], drafted: set[str]) -> None:
    """Fails for a target, a variable, an option or a contract that there is not. `drafted`: contracts that the reader makes."""
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        variables = set(re.search(r"foreach name,([A-Z_ ]+),", makefile)[1].split())  # type: ignore[index]
        assert re.search(rf"(?m)^{words[1]}:.*## ", makefile), words
        given = dict(word.split("=", 1) for word in words[2:])
        assert set(given) <= variables, words
        if given.get("DATASET", next(iter(drafted))) not in drafted:
            load(given["DATASET"])
    elif words[0] == "./dtrn" and words[1] != "--help":
        told = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert told.exit_code == 0, words
        for option in (word for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", told.output), words
