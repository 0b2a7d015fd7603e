"""Dagster's UI and daemon as `./dtrn ui` starts them: the lineage in its groups, seen by a real browser, from any folder."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from assets.served import free_port
from orchestration.build import STAGES

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOADED = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename
  ... on PythonError { message } } } } } assetNodes { groupName assetKey { path } } }"""


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the UI, started in a folder whose own `models` and `assets` must not be taken for ours."""
    folder = tmp_path_factory.mktemp("ui")
    for decoy in ("models", "assets", "orchestration"):
        (folder / decoy).mkdir()
        (folder / decoy / "__init__.py").write_text("raise ImportError('a folder of the caller was taken for ours')")
    port = free_port()
    command = [ROOT / "dtrn", "ui", "--dataset", "taobao", "--home", str(folder / "home"), "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if k not in {"DATASET", "LOG", "DTRN_HOME", "PORT", "PYTHONPATH"}}
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _until(lambda: _answers(f"http://127.0.0.1:{port}/server_info"), process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _until(ready: Any, process: subprocess.Popen[bytes], log: Path, patience: float = 120) -> None:
    end = time.monotonic() + patience
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, f"not there after {patience} s; {log.read_text()}"
        time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_the_project_is_loaded(ui: str) -> None:
    data = httpx.post(f"{ui}/graphql", json={"query": LOADED}, timeout=60, trust_env=False).json()["data"]
    (location,) = data["workspaceOrError"]["locationEntries"]
    assert location["name"] == "dtrn"
    assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
    assert {node["groupName"] for node in data["assetNodes"]} == set(STAGES)
    assert all(node["assetKey"]["path"][0] == "taobao" for node in data["assetNodes"])


def test_the_lineage_stands_in_its_groups(ui: str, tmp_path: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        told = f"no browser found (looked for {', '.join(BROWSERS)})"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    with _page(browser, tmp_path) as page:
        page.open(f"{ui}/asset-groups")
        text = page.waits_for(*STAGES)
        assert "Join the Dagster community" not in text, "nothing lies over the lineage"
        picture = tmp_path / "lineage.png"
        picture.write_bytes(page.picture())
        assert picture.stat().st_size > 10_000
        page.open(f"{ui}/assets/taobao/samples?view=overview")
        text = page.waits_for("samples", "Who could have been shown what")
        assert "Error" not in text.splitlines()


class Page:
    """One tab, spoken to by the browser's own protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.calls = socket, 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": parameters}))
        while True:
            told: dict[str, Any] = json.loads(self.socket.recv(timeout=60))
            if told.get("id") == self.calls:
                return dict(told["result"])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def text(self) -> str:
        told = self.call("Runtime.evaluate", expression="document.body ? document.body.innerText : ''", returnByValue=True)
        return str(told["result"].get("value", ""))

    def waits_for(self, *words: str, patience: float = 60) -> str:
        end = time.monotonic() + patience
        while any(word not in (text := self.text()) for word in words):
            assert time.monotonic() < end, f"{[w for w in words if w not in text]} did not appear; the page reads:\n{text}"
            time.sleep(0.5)
        return text

    def picture(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def _page(browser: str, folder: Path) -> Iterator[Page]:
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1600,1000"]
    process = subprocess.Popen(
        [browser, *flags, f"--user-data-dir={folder / 'browser'}", "--remote-debugging-port=0", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = folder / "browser" / "DevToolsActivePort"
        _until(lambda: told.is_file() and len(told.read_text().split()) == 2, process, Path(os.devnull), 60)
        port = told.read_text().split()[0]
        tabs = httpx.get(f"http://127.0.0.1:{port}/json", timeout=30, trust_env=False).json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(20)
