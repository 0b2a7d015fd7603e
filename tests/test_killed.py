"""`kill -9` at any moment, then the same command again: the home is, file by file, that of a run that was left alone.

Not only the content hashes: a file more would be rubbish that grows with every kill. And between the kill and the next run
nobody finds half of anything.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from assets import lake, training
from models.home import Home
from tests import serving, tiny_log
from tests.dying import COMMIT, HALF, ROOT, Dying
from tests.tiny_log import DAY2, START, put, row

CREATED = {"model.yaml", "bento.yaml"}
"""They tell when they were written, in one line."""


@pytest.fixture(scope="module")
def dying() -> Iterator[Dying]:
    with Dying.started() as process:
        yield process


def files(root: Path) -> dict[str, str]:
    """Every file below a root (or the root itself) with the hash of its content, and every empty folder."""
    found = {}
    for path in (root, *sorted(root.rglob("*"))):
        if path.is_file():
            found[path.relative_to(root).as_posix()] = _timeless(path) if path.name in CREATED else lake.content_hash(path)
        elif path.is_dir() and not any(path.iterdir()):
            found[path.relative_to(root).as_posix()] = "empty"
    return found


def _timeless(path: Path) -> str:
    return "".join(line for line in path.read_text().splitlines(keepends=True) if "creation_time:" not in line)


def chosen(moments: list[str], commits: int, halves: int, others: int) -> list[int]:
    """Numbers (from 1) of so many moments, evenly spread: before something takes its place, within a file, and others."""
    kinds: tuple[list[int], list[int], list[int]] = ([], [], [])
    for number, event in enumerate(moments, 1):
        kinds[0 if event == COMMIT else 1 if event == HALF else 2].append(number)
    picked = [kind[n] for kind, count in zip(kinds, (commits, halves, others), strict=True)
              for n in np.linspace(0, len(kind) - 1, min(count, len(kind))).astype(int)]  # fmt: skip
    return sorted(picked)


def killed(dying: Dying, stage: str, start: Path, read: str, commits: int, halves: int = 0, others: int = 0) -> Home:
    """Hold runs that were killed at the moments of `chosen` against one that was left alone; the home of that.

    What `read` matches is taken by readers as soon as it is there: after the kill it must be as before or as at the end.
    """
    whole = start.parent / f"{stage}-whole"
    shutil.copytree(start, whole)
    moments = dying.run(stage, whole)
    expected = files(whole)
    assert expected != files(start)
    for die in chosen(moments, commits, halves, others):
        root = start.parent / f"{stage}-{die}"
        shutil.copytree(start, root)
        dying.run(stage, root, die)
        for place in root.glob(read):
            ends = [files(home / place.relative_to(root)) for home in (start, whole)]
            assert files(place) in ends, f"{stage} killed before {moments[die - 1]}, {die} of {len(moments)}: half of {place}"
        dying.run(stage, root)
        found = files(root)
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        assert not wrong, (
            f"{stage} killed before {moments[die - 1]}, {die} of {len(moments)}: missing, too many or others: {wrong}"
        )
    return Home(whole, next(p.name for p in whole.iterdir() if p.name != "bentoml"))


def test_scratch_goes_when_neither_its_owner_nor_a_service_lives(tmp_path: Path) -> None:
    home = Home(tmp_path, "tiny")
    code = (
        "import os, pathlib, subprocess, sys\nfrom assets import lake\nfrom models.home import Home\n"
        "home = Home(pathlib.Path(sys.argv[1]), 'tiny')\n"
        "with lake.scratch(home, 'alone'), lake.scratch(home, 'served') as folder, lake.keeping(folder) as kept:\n"
        "    service = subprocess.Popen(['sleep', '60'], pass_fds=(kept,), stdout=-3, stderr=-3)\n"  # -3: DEVNULL
        "    print(service.pid, *(p.name for p in home.staging.iterdir()), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    service, *folders = killed.stdout.split()
    assert len(folders) == 2
    try:
        with lake.scratch(home, "spill") as own:
            assert {p.name for p in home.staging.iterdir()} == {own.name, *(f for f in folders if f.startswith("served"))}
    finally:
        os.kill(int(service), signal.SIGKILL)
    until = time.monotonic() + 10
    while list(home.staging.iterdir()) and time.monotonic() < until:
        with lake.scratch(home, "spill"):
            pass
    assert not list(home.staging.iterdir())


@pytest.fixture
def log(tmp_path: Path, dying: Dying) -> Path:
    """A home that holds a first delivery, a second one beside it: a late row, a new day, bad rows with a day and without."""
    (tmp_path / "in").mkdir()
    tiny_log.contract(tmp_path, limit=1)
    put(
        tmp_path,
        "1.csv",
        "".join(row(day, user, item, 60 * user) for day in (0, 1, 2, 3) for user in (1, 2) for item in (1, 2)),
    )
    root = tmp_path / "home"
    dying.run("ingest", root)
    put(tmp_path, "2.csv", row(2, item=9) + row(3) + "x\n" + f"1,1,zz,{START + 86_400}\n")
    return root


def test_ingest(dying: Dying, log: Path) -> None:
    home = killed(dying, "ingest", log, "tiny/lake/*/[!.]*/[!.]*", commits=10, halves=2, others=1)
    assert len(tiny_log.rows_of(home, DAY2)) == 5
    assert not list(home.staging.iterdir())


def test_sampling(dying: Dying, log: Path) -> None:
    dying.run("ingest", log)
    home = killed(dying, "sample", log, "tiny/lake/*/[!.]*/[!.]*", commits=4, halves=2, others=1)
    assert lake.require(home, "samples", DAY2).counts["samples"] > 0


def test_training(dying: Dying, shown: Home, tmp_path: Path) -> None:
    """What a kill within an epoch leaves is in `test_checkpoint`; here are checkpoint, artifact and manifest."""
    start = Home(tmp_path / "start", shown.dataset)
    shutil.copytree(shown.root, start.root)
    shutil.rmtree(start.model("dtrn", serving.JUDGED).parent)
    start.manifest("dtrn", serving.JUDGED).unlink()
    home = killed(dying, "train", start.root, "shown/models/*/[!.]*", commits=3)
    assert lake.require(home, "dtrn", serving.JUDGED).content == lake.content_hash(home.model("dtrn", serving.JUDGED))


def test_a_training_that_goes_on_says_so(shown: Home, tmp_path: Path) -> None:
    start = Home(tmp_path, shown.dataset)
    shutil.copytree(shown.root, start.root, dirs_exist_ok=True)
    contract = serving.SHOWN.model_copy(update={"training": serving.SHOWN.training.model_copy(update={"epochs": 3})})

    def stopped(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match=r"^epoch 1: "):
        training.train(start, contract, "dtrn", serving.JUDGED, stopped)
    told = list[str]()
    training.train(start, contract, "dtrn", serving.JUDGED, told.append)
    assert told[0].startswith("epoch 2 (goes on from the checkpoint of epoch 1): validation score")
    assert not any("goes on" in line for line in told[1:])


def test_packaging(dying: Dying, shown: Home, tmp_path: Path) -> None:
    start = Home(tmp_path / "start", shown.dataset)
    shutil.copytree(shown.root, start.root)
    serving.judge(start)
    packaged = killed(dying, "package", start.root, "bentoml/models/*/*/", commits=4, halves=8, others=2)
    assert list(packaged.stored("models").glob("*/artifact/weights.safetensors"))
    home = killed(dying, "bento", packaged.root, "bentoml/bentos/*/*/", commits=2, halves=1)  # a build takes seconds
    assert list(home.stored("bentos").glob("*/bento.yaml"))
