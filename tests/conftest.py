"""What several test files share because it takes seconds to make: small trained homes, and one home with a built bento."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assets import packaging, served
from bentos.ranking import Ranking
from models import artifact
from models.home import Home
from tests import demonstrated, judged, serving

if TYPE_CHECKING:
    from tests import board

ENDED = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An exposure log with side features, trained. Not to be changed: tests that write take a copy (`copied`)."""
    return serving.laid(tmp_path_factory.mktemp("shown"), serving.SHOWN)


@pytest.fixture(scope="session")
def ranker(shown: Home) -> artifact.NeuralRanker:
    return artifact.load(shown.model("dtrn", serving.JUDGED))


@pytest.fixture
def asked(shown: Home, tmp_path: Path) -> Home:
    """A home of the test's own, beside `shown`, that a service writes to."""
    return serving.beside(shown, tmp_path)


@pytest.fixture
def ranking(asked: Home, ranker: artifact.NeuralRanker) -> Ranking:
    """The service's state, over `asked`."""
    return serving.opened(asked, ranker)


@pytest.fixture(scope="session")
def bought(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An event log, trained. Not to be changed."""
    return serving.laid(tmp_path_factory.mktemp("bought"), serving.BOUGHT)


@pytest.fixture(scope="session")
def daily(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An event log that knows days only, trained. Not to be changed."""
    return serving.laid(tmp_path_factory.mktemp("daily"), serving.DAILY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Every model trained for two judged days, none judged. Not to be changed: take a copy (`judged.copied`)."""
    return judged.laid(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def built(shown: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same with a verdict that promotes, the packaged model, the bento and its parity. Not to be changed.

    Its folder is hidden, as the default home is.
    """
    home = Home(tmp_path_factory.mktemp("built") / ".dtrn", shown.dataset)
    shutil.copytree(shown.root, home.root, dirs_exist_ok=True)
    serving.judge(home)
    packaging.package(home, serving.SHOWN, serving.JUDGED, "run-1")
    packaging.build_bento(home, serving.SHOWN, serving.JUDGED)
    packaging.compare(home, serving.SHOWN, serving.JUDGED)
    return home


@pytest.fixture
def copied(built: Home, tmp_path: Path) -> Home:
    """A copy of `built` that a test may change."""
    shutil.copytree(built.root, tmp_path / "home", ignore=shutil.ignore_patterns("served-*"))  # `service` may run there
    return Home(tmp_path / "home", built.dataset)


@pytest.fixture(scope="session")
def service(built: Home) -> Iterator[served.Served]:
    """The built bento as a process, started for replay with the histories of the days before the judged one."""
    bento = packaging.read(built.promotion("bento", serving.JUDGED))["tag"]
    with served.start(built, bento, replay=True, until="2026-03-31", logged=False) as running:
        yield running


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tensors as small as those of tests only lose by threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> demonstrated.Ran:
    """The demo on a small simulated log. Not to be changed, though it may be run once more: that changes nothing."""
    return demonstrated.small(tmp_path_factory.mktemp("ran"))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their number: packed ones hold the second of packing, and workers must agree."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[ENDED] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without taking the interpreter apart, as `./dtrn` does: DuckDB's pages about connections would bury the result."""
    sys.stdout.flush()
    sys.stderr.flush()
    if ENDED in config.stash:
        os._exit(config.stash[ENDED])


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> board.SmallWorld:
    """A small simulated world as the leaderboard reads it. Not to be changed."""
    from tests import board  # and with it the whole benchmark, which few tests need

    return board.simulated(tmp_path_factory.mktemp("board"))
