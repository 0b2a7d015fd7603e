"""Two sides that train in turns on one log: their processes, and the peer's environment.

The peer is torch-rechub in a virtual environment of its own, made once for the versions that requirements.txt pins, so that it
runs as its users run it. Each side is a process (`benchmarks.side`); it waits while another has its turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
PEER = ("torch-rechub", "torch")


ENVIRONMENT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""What the Makefile and `./dtrn` set: how threads wait, and how much memory is kept for the next step."""


class PeerMissing(RuntimeError):
    """The peer's environment could not be made; the message says why, in pip's words."""


class Side:
    """A process that trains when told to. Ends with its `with`, or with the benchmark."""

    def __init__(
        self,
        python: Path,
        file: str,
        log: Path,
        *,
        items: int,
        batch: int,
        seed: int,
        threads: int,
        bare: bool = False,
        device: str | None = None,
    ) -> None:
        """`bare`: without what our commands set in the environment. `device`: where it trains, for a file that has a choice."""
        isolated = "-I" if file == "peer.py" else "-P"  # no folder of the script on the path
        words = [HERE / "side.py", HERE / file, log, items, batch, seed, threads, *([device] if device else [])]
        inherited = {name: value for name, value in os.environ.items() if not bare or name not in ENVIRONMENT}
        env = {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
        self.name = f"{file}, {items} items"
        self.told = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [python, isolated, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.told,
            env=env,
            cwd=ROOT,
            text=True,
        )

    def __enter__(self) -> Side:
        try:
            self.ready = self._answer()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.told.close()

    def turn(self, what: str, samples: int, seed: int) -> dict[str, Any]:
        """Train `what` on about so many samples drawn by `seed`. Raises RuntimeError, with what it said, when the side died."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"what": what, "samples": samples, "seed": seed}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.told.seek(0)
            raise RuntimeError(f"{self.name}: the process ended ({self.process.wait()}):\n" + self.told.read()[-2000:])
        answer: dict[str, Any] = json.loads(line)
        return answer


def peer_python(folder: Path) -> Path:
    """The interpreter of the peer's environment in `folder`, made if it is not there with today's pins.

    PIP_ARGS is handed to pip, as in `make setup`. Raises PeerMissing.
    """
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.split("==")[0] in PEER]
    python, stamp = folder / "bin" / "python", folder / "pins"
    if stamp.is_file() and stamp.read_text().splitlines() == pins:
        return python
    print(f"making the peer's environment in {folder}: {', '.join(pins)}", flush=True)
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet", *os.environ.get("PIP_ARGS", "").split()]
    for words in (
        [sys.executable, "-m", "venv", "--clear", folder],
        [python, *install, *pins, "-c", ROOT / "constraints.txt"],
    ):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise PeerMissing(" ".join([*pins, "could not be installed:", *last]))
    stamp.write_text("\n".join(pins) + "\n")
    return python
