"""A process that runs a stage of the line in children that kill themselves (`kill -9`) at a chosen moment.

Everything is imported once, here, and a child is a fork of it: forty runs cost the start-up of one. Nothing is run before a
fork, since the threads of an engine would not survive it. A moment is a change on the disk below the home that Python makes
(its audit events tell of them before they happen), or half a file written: Parquet without its end, a copy cut in two.

Reads one JSON object a line, {"stage", "root", "die"}: die is the number of the moment, 0 for a run to its end. Answers with
{"status", "moments", "trace"}: the exit status (minus the signal that ended it), the moments of a run to its end, an error's.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
COMMIT, HALF = "os.rename", "the other half of a file"
Stage = Callable[[Path], None]


class Dying:
    """The other end: `with Dying.started() as dying: dying.run("ingest", root, die=3)`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Dying]:
        command = [sys.executable, "-m", "tests.dying"]
        with (
            TemporaryDirectory() as scratch,  # what the killed leave there of BentoML's goes with it
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"TMPDIR": scratch},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as process,
        ):
            try:
                yield cls(process)
            finally:
                process.kill()

    def run(self, stage: str, root: Path, die: int = 0) -> list[str]:
        """The moments of a run to its end, each by what is about to happen. Raises AssertionError when it ended otherwise."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"stage": stage, "root": str(root), "die": die}) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        assert told["status"] == (-signal.SIGKILL if die else 0), f"{stage} with die={die} ended so: {told}\n{told['trace']}"
        moments: list[str] = told["moments"]
        return moments


def _child(stage: Stage, root: Path, die: int, answer: int) -> None:
    """Run the stage and write its moments to the descriptor `answer`, unless it is killed before."""
    moments: list[str] = []

    def moment(event: str) -> None:
        moments.append(event)
        if len(moments) == die:
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, args: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and str(args[0]).startswith(str(root)):
            moment(event)

    import pyarrow.parquet as pq

    write = pq.ParquetWriter.write_table

    def half(self: Any, *args: Any, **kwargs: Any) -> None:
        write(self, *args, **kwargs)
        moment(HALF)

    copy = shutil.copyfile

    def half_copy(source: Any, target: Any, **kwargs: Any) -> Any:
        whole = Path(source).read_bytes()
        Path(target).write_bytes(whole[: len(whole) // 2])
        moment(HALF)
        return copy(source, target, **kwargs)

    pq.ParquetWriter.write_table = half
    shutil.copyfile = half_copy
    sys.addaudithook(heard)
    stage(root)
    os.write(answer, json.dumps(moments).encode())


def main(stages: dict[str, Stage]) -> None:
    for line in sys.stdin:
        told = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(2, 1)
            try:
                _child(stages[told["stage"]], Path(told["root"]), told["die"], writer)
            except BaseException:
                os.write(writer, traceback.format_exc().encode())
                os._exit(1)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            said = answer.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it had started itself
        print(
            json.dumps({"status": status, "moments": [] if status else json.loads(said), "trace": said if status else ""}),
            flush=True,
        )


def _stages() -> dict[str, Stage]:
    """The stages by name, with all that they need imported; `in`, beside the home, holds the log of `ingest`."""
    import bentoml  # noqa: F401 - imported by a stage when it needs it, which here would be once a child
    import torch

    from assets import histories, lake, packaging, samples, training
    from models import artifact  # noqa: F401
    from models import training as learning  # noqa: F401
    from models.home import Home
    from tests import serving, tiny_log

    torch.set_num_threads(1)
    gc.freeze()  # a child would look through all that was imported at each of its collections

    def take_in(root: Path) -> None:
        tiny_log.run(root.parent, tiny_log.load(root.parent / "tiny.toml"), home=Home(root, "tiny"))

    def sample(root: Path) -> None:
        home, terms = Home(root, "tiny"), tiny_log.load(root.parent / "tiny.toml")
        days = lake.partitions(home, "events")
        for day in days:
            histories.build(home, terms, day)
        for day in days[:-1]:  # the last is `earlier`
            samples.build(home, terms, day)

    def train(root: Path) -> None:
        training.train(Home(root, serving.SHOWN.name), serving.SHOWN, "dtrn", serving.JUDGED, say=lambda _: None)

    def package(root: Path) -> None:
        packaging.package(Home(root, serving.SHOWN.name), serving.SHOWN, serving.JUDGED, "run-1")

    def bento(root: Path) -> None:
        packaging.build_bento(Home(root, serving.SHOWN.name), serving.SHOWN, serving.JUDGED)

    return {"ingest": take_in, "sample": sample, "train": train, "package": package, "bento": bento}


if __name__ == "__main__":
    main(_stages())
