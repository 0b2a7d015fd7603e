"""Dagster's own home: made on first use, telemetry off, and cleaned of what a killed command left."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import sqlalchemy.event
from sqlalchemy.engine import Engine

from models.contract import Contract
from models.home import Home

CONFIG = """\
# Written once by `make demo`, `make ui` or `./dtrn`; yours to change.
telemetry:
  enabled: false
nux:
  enabled: false          # no newsletter over the lineage
concurrency:
  pools:
    default_limit: 1      # one neural training at a time (pool `gpu`)
"""

COMMAND = "dtrn/command"
"""Run tag: the data set that a command of ours, and not the daemon, ran it for."""

QUIET = {"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "DAGSTER_DISABLE_TELEMETRY": "1"}
"""No tool of this process, or of those that it starts, reports to its makers."""


class Busy(ValueError):
    """Another command works on the same data set of the same home."""


def prepare(home: Home) -> None:
    """Write `dagster.yaml` when there is none and point this process and its children to it."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    config = home.dagster / "dagster.yaml"
    if not config.is_file():
        config.write_text(CONFIG)
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    os.environ.update(QUIET)


@contextmanager
def working(home: Home, contract: Contract) -> Iterator[dg.DagsterInstance]:
    """The instance, for the one command that may work on this data set. Raises Busy."""
    prepare(home)
    home.base.mkdir(parents=True, exist_ok=True)
    with home.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another command works on {home.base}; wait until it ends, or choose another DTRN_HOME=") from None
        with _swift_history(), dg.DagsterInstance.from_config(str(home.dagster)) as instance:
            _close_killed(instance, contract)
            yield instance


@contextmanager
def _swift_history() -> Iterator[None]:
    """Spare the disk a wait with each of Dagster's events, of which a range of 400 days has thousands.

    Dagster opens and closes its SQLite files for every event. The last connection to close moves the whole log into the file,
    so one is kept open; and a commit waits for the disk no more than WAL needs it to (a power cut may cost the last events of
    the history, never the file).
    """
    kept: dict[str, sqlite3.Connection] = {}

    def opened(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")
        [(_, _, path)] = connection.execute("PRAGMA database_list").fetchall()
        if path and path not in kept:
            kept[path] = sqlite3.connect(path, check_same_thread=False)
            kept[path].execute("SELECT count(*) FROM sqlite_master").fetchall()

    sqlalchemy.event.listen(Engine, "connect", opened)
    try:
        yield
    finally:
        sqlalchemy.event.remove(Engine, "connect", opened)
        for connection in kept.values():
            connection.close()


def _close_killed(instance: dg.DagsterInstance, contract: Contract) -> None:
    """Runs of commands that were killed still read as running and hold the pool `gpu`: nothing could ever take it again.

    Who holds the lock knows that no other command runs, so whatever one of them left open is closed.
    """
    unfinished = dg.RunsFilter(
        tags={COMMAND: contract.name},
        statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED],
    )
    for run in instance.get_runs(unfinished):
        instance.report_run_failed(run, "the command that ran it was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
