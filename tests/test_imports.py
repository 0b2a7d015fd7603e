"""The import table of the architecture, held over the syntax tree of every file: who may import whom, and who never may."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("models", "assets", "bentos", "orchestration")

OURS = {
    "models": {"models"},
    "assets": {"assets", "models"},
    "bentos": {"bentos", "models"},
    "orchestration": {"orchestration", "assets", "models"},
}
"""Package → those of ours that it may import."""

NEVER = {
    "models": {"dagster", "duckdb", "ibis", "pandera", "bentoml", "evidently"},
    "assets": set[str](),
    "bentos": {"dagster", "duckdb", "evidently"},
    "orchestration": {"torch"},
}
"""Package → libraries that it must not import."""

FLOW = (
    *("lake", "parquet", "project", "columns", "reading", "parsing", "validation", "ledger", "splitting", "limits", "sides"),
    *("profile", "guessed_time", "roles", "guessed_days", "guessed_fields", "draft"),
    *("tally", "plausibility", "ingest", "acceptance"),
    *("histories", "samples", "past", "world", "simulator", "training", "trial", "registry"),
    *("verdict_charts", "verdict_origin", "verdict_page", "evaluation", "served", "asking", "packaging", "replay"),
    *("predictions", "outcomes", "overview", "drift_bins", "drift_page", "drift_runs", "drift"),
)
"""Modules of `assets` in the order that data flows: each imports earlier ones only."""


def imported(source: str) -> set[str]:
    """Dotted names of every module that a source text imports, at any depth and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
            "import_module",
            "__import__",
        }:
            found |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def offences(file: str, source: str) -> list[str]:
    """What in the file at this path below the root (`assets/drift.py`) breaks the table, a sentence each."""
    package, stem = file.split("/")[0], Path(file).stem
    told = []
    for name in sorted(imported(source)):
        top = name.split(".")[0]
        if name.startswith("."):
            told.append(f"{file} imports {name}: relative; ours are imported by their full name")
        elif top in PACKAGES and top not in OURS[package]:
            told.append(f"{file} imports {name}: {package} may import {', '.join(sorted(OURS[package]))} of ours")
        elif top in NEVER[package]:
            told.append(f"{file} imports {name}: {package} never imports {top}")
        elif name == "orchestration.definitions":
            told.append(f"{file} imports {name}: Dagster alone loads it")
        elif package == "assets" and stem in FLOW and top == "assets" and name.count(".") == 1:
            other = name.split(".")[1]
            if other in FLOW and FLOW.index(other) >= FLOW.index(stem):
                told.append(f"{file} imports {name}: a later stage; assets flow {' → '.join(FLOW)}")
    return told


FILES = sorted(p.relative_to(ROOT).as_posix() for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_file_keeps_the_import_table(file: str) -> None:
    assert not offences(file, (ROOT / file).read_text())


def test_every_stage_has_its_place_in_the_flow() -> None:
    modules = {p.stem for p in (ROOT / "assets").glob("*.py")} - {"__init__"}
    assert modules == set(FLOW), "assets/ and the FLOW of this test differ: say where the new module stands"


@pytest.mark.parametrize(
    ("file", "source", "offender"),
    [
        ("models/x.py", "import dagster", "dagster"),
        ("models/x.py", "def f():\n    from ibis import _", "ibis"),
        ("models/x.py", "from assets import lake", "assets"),
        ("assets/samples.py", "from orchestration.jobs import daily", "orchestration"),
        ("assets/samples.py", "import bentos.service", "bentos"),
        ("assets/samples.py", "from assets import training", "assets.training"),
        ("assets/samples.py", "from assets.training import train", "assets.training"),
        (
            "assets/lake.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from assets import ingest",
            "assets.ingest",
        ),
        ("bentos/service.py", "import duckdb", "duckdb"),
        ("bentos/service.py", "from assets.lake import read", "assets"),
        ("orchestration/build.py", "import torch.nn as nn", "torch"),
        ("orchestration/demo.py", "import importlib\nimportlib.import_module('torch')", "torch"),
        ("orchestration/demo.py", "from orchestration import definitions", "orchestration.definitions"),
        ("orchestration/demo.py", "from . import jobs", "."),
    ],
)
def test_an_offender_is_named(file: str, source: str, offender: str) -> None:
    told = offences(file, source)
    assert told
    assert all(line.startswith(f"{file} imports {offender}") for line in told)


def test_what_the_table_allows_is_let_through() -> None:
    assert not offences(
        "assets/samples.py", "import dagster\nimport numpy\nfrom assets import lake\nfrom models.home import Home"
    )
    assert not offences("orchestration/build.py", "from assets import training\nfrom models.contract import load")
