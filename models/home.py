"""Where everything the program writes lies: one root, one data set, one frozen object whose properties are the paths.

Nothing else composes a path. The constructor touches no disk: whoever writes makes the folder it writes to.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import NAMESPACE_URL, uuid5

UNKNOWN_DAY = "unknown"
"""The quarantine partition of rows without a readable time."""

EARLIER_DAY = "earlier"
"""The partition of valid rows between the contract's `accept_from` and `first_day`: history, not days of their own."""

UNUSABLE = {
    errno.ENOSPC: "the disk is full; free some of it, or take another DTRN_HOME",
    errno.EDQUOT: "the quota of the disk is used up; free some of it, or take another DTRN_HOME",
    errno.EROFS: "the disk is read-only; take another DTRN_HOME",
    errno.EACCES: "permission denied; let it be read and written, or take another DTRN_HOME",
    errno.EPERM: "permission denied; let it be read and written, or take another DTRN_HOME",
    errno.ENOTDIR: "a part of this path is a file where a folder is needed",
}


def unusable(error: OSError) -> str | None:
    """What to tell a person whose disk or folder cannot be used; None for an error that is a fault of the program."""
    words = UNUSABLE.get(error.errno or 0)
    return words and f"{error.filename or 'while writing'}: {words}"


@dataclass(frozen=True)
class Home:
    """The paths of one data set below `root` (`DTRN_HOME`).

    >>> Home(Path("/h"), "taobao").events("2017-12-01").as_posix()
    '/h/taobao/lake/events/day=2017-12-01/part.parquet'
    """

    root: Path
    dataset: str

    def __post_init__(self) -> None:
        """Raises ValueError for a root that the engine cannot open files below."""
        shown = os.fsencode(self.root).decode("utf-8", "backslashreplace")
        if shown != str(self.root) or any(mark in shown for mark in "\\?\n\r"):
            raise ValueError(
                f"{shown!r} cannot be DTRN_HOME: a backslash, '?', a line end or bytes that are not UTF-8 stand in it"
            )

    @classmethod
    def from_environment(cls, dataset: str) -> Home:
        """The home that `DTRN_HOME` names (default `.dtrn` below the current folder)."""
        return cls(Path(os.environ.get("DTRN_HOME") or ".dtrn").absolute(), dataset)

    @property
    def base(self) -> Path:
        """The folder of this data set."""
        return self.root / self.dataset

    # shared by the data sets of one root

    @property
    def dagster(self) -> Path:
        """`DAGSTER_HOME`: runs, events and schedules."""
        return self.root / "dagster"

    @property
    def bentoml(self) -> Path:
        """`BENTOML_HOME`: the registry of models and bentos."""
        return self.root / "bentoml"

    @property
    def evidently(self) -> Path:
        """Evidently's workspace: a project a data set."""
        return self.root / "evidently"

    def stored(self, kind: Literal["models", "bentos"]) -> Path:
        """The folder of this data set's models, or bentos, in the registry: one folder a version."""
        return self.bentoml / kind / f"dtrn-{self.dataset}"

    # the lake

    @property
    def raw(self) -> Path:
        """Where the simulator writes its log, and the default source of the `simulated` contract."""
        return self.base / "raw"

    @property
    def truth(self) -> Path:
        """What the simulator drew from, aside: the probabilities that no model may see."""
        return self.base / "truth"

    @property
    def lock(self) -> Path:
        """Held by the one command that works on this data set; let go by the kernel however that command ends."""
        return self.base / "working.lock"

    @property
    def lake(self) -> Path:
        return self.base / "lake"

    @property
    def catalogue(self) -> Path:
        """A DuckDB file of views over the Parquet, for people; can be rebuilt from the files at any time."""
        return self.lake / "lake.duckdb"

    @property
    def ledger(self) -> Path:
        """JSON lines: every source file ever accepted (content hash, name, first seen)."""
        return self.lake / "ledger.jsonl"

    def split(self, file_hash: str) -> Path:
        """Folder of one source file's rows, split by day once (`day=….parquet`, `bad.parquet`, `split.json`)."""
        return self.lake / "files" / file_hash

    def side(self, entity: Literal["item", "user"]) -> Path:
        """Folder of the side table of items (users): `table.parquet`, `bad.parquet`, `side.json`."""
        return self.lake / "sides" / entity

    def partition(self, stage: str, day: str) -> Path:
        """The one Parquet file of a stage's day."""
        return self.lake / stage / f"day={day}" / "part.parquet"

    def events(self, day: str) -> Path:
        return self.partition("events", day)

    def quarantine(self, day: str) -> Path:
        return self.partition("quarantine", day)

    def histories(self, day: str) -> Path:
        return self.partition("histories", day)

    def samples(self, day: str) -> Path:
        return self.partition("samples", day)

    def predictions(self, day: str) -> Path:
        return self.partition("predictions", day)

    def outcomes(self, day: str) -> Path:
        return self.partition("outcomes", day)

    @property
    def prediction_inbox(self) -> Path:
        """Where running services append what they ranked, one JSON-lines file a process."""
        return self.base / "inbox"

    @property
    def online_events(self) -> Path:
        """Where running services append the events they were told of, so that a restart knows them again."""
        return self.base / "online"

    def manifest(self, stage: str, partition: str) -> Path:
        return self.base / "manifests" / stage / f"{partition}.json"

    # models and verdicts, by judged day

    def model(self, name: str, judged_day: str) -> Path:
        """Folder of the artifact that candidate or reference `name` became when retrained for `judged_day`."""
        return self.base / "models" / name / judged_day

    def checkpoint(self, name: str, judged_day: str) -> Path:
        """Folder of the training in flight; gone when the artifact is complete."""
        return self.base / "checkpoints" / name / judged_day

    def verdict(self, judged_day: str) -> Path:
        return self.base / "verdicts" / f"{judged_day}.json"

    def verdict_page(self, judged_day: str) -> Path:
        return self.base / "verdicts" / f"{judged_day}.html"

    def promotion(self, stage: str, judged_day: str) -> Path:
        """What a step between verdict and champion left: the tags that it stored, the numbers that it measured."""
        return self.base / "promotions" / judged_day / f"{stage}.json"

    @property
    def champions(self) -> Path:
        """JSON lines, one a change of champion; the last complete line is the pointer."""
        return self.base / "champions.jsonl"

    def drift_report(self, day: str) -> Path:
        return self.base / "reports" / f"drift-{day}.html"

    def drift(self, day: str) -> Path:
        """The drift verdict in numbers, beside the report."""
        return self.base / "reports" / f"drift-{day}.json"

    @property
    def drift_project(self) -> Path:
        """This data set's project in Evidently's workspace, which knows it by an id."""
        return self.evidently / str(uuid5(NAMESPACE_URL, f"dtrn/{self.dataset}"))

    def drift_run(self, day: str) -> Path:
        """The drift report of a day as a run of that project."""
        return self.drift_project / "snapshots" / f"{uuid5(NAMESPACE_URL, f'dtrn/{self.dataset}/{day}')}.json"

    @property
    def staging(self) -> Path:
        """Scratch: bento builds, temporary files. Safe to delete when nothing runs."""
        return self.base / "staging"

    @property
    def summary(self) -> Path:
        return self.base / "summary.json"
