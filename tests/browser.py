"""A headless Chromium for tests, spoken to by its own protocol: open a page, wait for words, take a picture of all of it."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from assets.served import free_port

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found() -> str:
    """The browser of this machine. Without one the test is skipped, and fails where CI= says that there must be one."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        told = f"no browser found (looked for {', '.join(BROWSERS)})"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    return browser


def until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, patience: float = 120) -> None:
    """Wait for `ready`; fails with `log` when the process ends before, or after `patience` seconds."""
    end = time.monotonic() + patience
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, f"not there after {patience} s; {log.read_text()}"
        time.sleep(0.3)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


class Page:
    """One tab."""

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

    def says(self, expression: str) -> Any:
        """The value of an expression on the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def text(self) -> str:
        return str(self.says("document.body ? document.body.innerText : ''"))

    def waits_for(self, *words: str, patience: float = 60) -> str:
        end = time.monotonic() + patience
        while any(word not in (text := self.text()) for word in words):
            assert time.monotonic() < end, f"{[w for w in words if w not in text]} did not appear; the page reads:\n{text}"
            time.sleep(0.5)
        return text

    def size(self, width: int, height: int) -> None:
        """Make the window so large, in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScrollbarsHidden", hidden=True)

    def picture(self) -> Image.Image:
        """What the window shows."""
        return Image.open(io.BytesIO(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])))


@contextmanager
def command(words: list[str], folder: Path, address: str) -> Iterator[None]:
    """`./dtrn` with these words, run from `folder` until the block ends; the block begins once `address` answers."""
    kept = {k: v for k, v in os.environ.items() if k not in {"DATASET", "LOG", "DTRN_HOME", "PORT", "PYTHONPATH"}}
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [ROOT / "dtrn", *words], cwd=folder, env=kept, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            until(lambda: answers(address), process, folder / "log")
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def dagster(folder: Path, dataset: str, root: Path) -> Iterator[str]:
    """Address of Dagster's UI, started from `folder`, with a data set of the home `root`."""
    port = free_port()
    words = ["ui", "--dataset", dataset, "--home", str(root), "--port", str(port)]
    with command(words, folder, f"http://127.0.0.1:{port}/server_info"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """A tab of a browser that keeps what it keeps in `folder`; ends with the block."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1600,1000"]
    process = subprocess.Popen(
        [found(), *flags, f"--user-data-dir={folder / 'browser'}", "--remote-debugging-port=0", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = folder / "browser" / "DevToolsActivePort"
        until(lambda: told.is_file() and len(told.read_text().split()) == 2, process, Path(os.devnull), 60)
        port = told.read_text().split()[0]
        tabs = httpx.get(f"http://127.0.0.1:{port}/json", timeout=30, trust_env=False).json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(20)
