"""A built bento as a process on this machine: started, waited for, spoken to over HTTP, stopped. For parity, replay and people.

It listens on loopback only. Each process has a BentoML home of its own that links to the one store, because BentoML wipes
the metrics of every other service of its home when it starts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from assets import lake
from models.home import Home

HOST = "127.0.0.1"
PATIENCE_S = 120.0
GRACE_S = 15.0

Say = Callable[[str], None]


class NotServed(lake.Transient):
    """A service that did not start or did not answer as it should; the message says why and what to do."""


@dataclass(frozen=True)
class Served:
    """A running service."""

    url: str
    bento: str
    log: Path
    process: subprocess.Popen[bytes]
    client: httpx.Client

    def rank(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer of POST /rank. Raises NotServed with the service's own words when it refuses."""
        return self._call("POST", "/rank", message)

    def tell(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer of POST /events."""
        return self._call("POST", "/events", {"events": events})

    def model(self) -> dict[str, Any]:
        """The answer of GET /model: what is served and where it comes from."""
        return self._call("GET", "/model")

    def wait(self) -> int:
        """Wait until the process ends; its exit status."""
        return self.process.wait()

    def _call(self, method: str, path: str, message: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self.client.request(method, path, json=message)
        except httpx.TransportError as error:
            raise NotServed(f"{self.url}{path} gave no answer ({error!r}); its log is {self.log}") from None
        if response.status_code != 200:
            raise NotServed(
                f"{response.request.url} answered {response.status_code}: {response.text[:500]}; its log is {self.log}"
            )
        answer: dict[str, Any] = response.json()
        return answer


@contextmanager
def start(
    home: Home,
    bento: str,
    *,
    port: int | None = None,
    replay: bool = False,
    until: str | None = None,
    logged: bool = True,
    say: Say = lambda _: None,
) -> Iterator[Served]:
    """Serve `bento` on `port` (a free one when left out) while the block runs.

    replay: requests may say what time it is, told events are not kept · until: the last day whose histories are read ·
    logged: whether rankings go to the prediction inbox · say: told what is happening, a line each few seconds.
    Raises NotServed when the port is in use or the service does not come up, lake.Missing when the bento is not in the store.
    """
    folder = bento_folder(home, bento)
    port = free_port() if port is None else port
    require_free(port)
    # BentoML's sockets: not in the home, whose path may be too long for them. What a killed process leaves there goes too.
    with TemporaryDirectory(prefix="dtrn-served-") as temporary, lake.scratch(home, f"served-{port}") as scratch:
        for store in ("bentos", "models"):
            (scratch / store).symlink_to(home.bentoml / store, target_is_directory=True)
        log = scratch / "service.log"
        command = [sys.executable, "-m", "bentoml", "serve", bento, "--host", HOST, "--port", str(port)]
        say(f"starting {bento} on http://{HOST}:{port}")
        with log.open("wb") as out, lake.keeping(scratch) as kept:
            process = subprocess.Popen(
                command,
                cwd=folder / "src",  # so that its own `models` is found first, whatever lies where this was called
                env=_environment(home, scratch, replay, until, logged) | {"TMPDIR": temporary},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the command that started it, which ends it in order
                pass_fds=(kept,),  # a service whose command was killed goes on with its folder
            )
        try:
            with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60, trust_env=False) as client:
                _wait(client, process, log, say)
                yield Served(f"http://{HOST}:{port}", bento, log, process, client)
        finally:
            _stop(process, scratch)


def bento_folder(home: Home, bento: str) -> Path:
    """Where a built bento lies. Raises lake.Missing, saying what to do, when it is not in the store."""
    name, version = bento.split(":")
    folder = home.bentoml / "bentos" / name / version
    if not (folder / "bento.yaml").is_file():
        raise lake.Missing(f"bento {bento} is not in the store {home.bentoml}; materialise bento of its judged day again")
    return folder


def free_port() -> int:
    """A port of the loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Raise NotServed when something listens on `port` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise NotServed(
                f"port {port} of {HOST} cannot be used ({error.strerror}); end what listens there, or take PORT={port + 1}"
            ) from None


def _environment(home: Home, scratch: Path, replay: bool, until: str | None, logged: bool) -> dict[str, str]:
    own = ("DTRN_REPLAY", "DTRN_HISTORIES_UNTIL", "DTRN_PREDICTION_LOG")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"DTRN_HOME": str(home.root), "BENTOML_HOME": str(scratch), "BENTOML_DO_NOT_TRACK": "True"}
    environment |= {"DTRN_REPLAY": "1"} if replay else {}
    environment |= {"DTRN_HISTORIES_UNTIL": until} if until else {}
    return environment | ({} if logged else {"DTRN_PREDICTION_LOG": "off"})


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path, say: Say) -> None:
    began = time.monotonic()
    told = 0.0
    while True:
        waited = time.monotonic() - began
        with suppress(httpx.TransportError):
            if client.get("/readyz", timeout=2).status_code == 200:
                say(f"ready after {time.monotonic() - began:.1f} s")
                return
        # BentoML's supervisor restarts a worker that fails for ever, so failing is read from the log.
        failed = process.poll() is not None or b"Application startup failed" in log.read_bytes()
        if failed or waited > PATIENCE_S:
            why = "ended" if failed else f"was not ready after {PATIENCE_S:.0f} s"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise NotServed(f"the service {why} before it could answer. The end of its log:\n{tail}")
        if waited - told > 5:
            told = waited
            say(f"waiting for the service, {waited:.0f} s")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes], scratch: Path) -> None:
    """End the supervisor, which ends its worker; whichever of them is left after a while is killed, and waited for.

    Known by the BentoML home that is theirs alone: the worker has a process group of its own, and no parent once its
    supervisor was killed.
    """
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    family = _family(scratch)
    for survivor in psutil.wait_procs(family, timeout=1)[1]:
        survivor.kill()
    process.wait()
    psutil.wait_procs(family, timeout=GRACE_S)


def _family(scratch: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or somebody else's
            if process.environ().get("BENTOML_HOME") == str(scratch):
                found.append(process)
    return found
