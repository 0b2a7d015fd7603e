"""Dagster's UI and daemon as `./dtrn ui` starts them: the lineage in its groups, seen by a real browser, from any folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from orchestration.build import STAGES, TEAM
from tests import browser, pictures

LOADED = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename
  ... on PythonError { message } } } } } assetNodes { groupName assetKey { path } } }"""


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the UI, started in a folder whose own `models` and `assets` must not be taken for ours."""
    folder = tmp_path_factory.mktemp("ui")
    for decoy in ("models", "assets", "orchestration"):
        (folder / decoy).mkdir()
        (folder / decoy / "__init__.py").write_text("raise ImportError('a folder of the caller was taken for ours')")
    with browser.dagster(folder, "taobao", folder / "home") as address:
        yield address


def test_the_project_is_loaded(ui: str) -> None:
    data = httpx.post(f"{ui}/graphql", json={"query": LOADED}, timeout=60, trust_env=False).json()["data"]
    (location,) = data["workspaceOrError"]["locationEntries"]
    assert location["name"] == "dtrn"
    assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
    assert {node["groupName"] for node in data["assetNodes"]} == set(STAGES)
    assert all(node["assetKey"]["path"][0] == "taobao" for node in data["assetNodes"])


def test_the_lineage_stands_in_its_groups(ui: str, tmp_path: Path) -> None:
    with browser.page(tmp_path) as page:
        picture = pictures.lineage(page, ui)
        text = page.waits_for(*STAGES, "log_files", "champion", "drift")
        assert "Join the Dagster community" not in text, "nothing lies over the lineage"
        # Wider than high, since it flows to the right; and its 14 boxes are drawn: their dark outlines and names.
        assert picture.width > 1.5 * picture.height > 600
        dark = np.asarray(picture.convert("L")) < 140
        assert 0.002 < dark.mean() < 0.2
        left, right = dark[:, : picture.width // 4], dark[:, -picture.width // 4 :]
        assert left.any()
        assert right.any()
        page.open(f"{ui}/assets/taobao/samples?view=overview")
        text = page.waits_for("samples", "Who could have been shown what", TEAM.removeprefix("team:"), "dtrn/stage: samples")
        assert "Error" not in text.splitlines()
