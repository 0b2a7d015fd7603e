"""The runs of the leaderboard, kept one by one: a line of JSON each, found again by what the run was asked to do.

A run's *key* holds the log, the model, its recipe and the terms of training. Source code is not in it: the code's digest is
kept for people to see. So a run that is there is not made again when only code moved, unless that is asked for. Nor is the
log's content in it, known only once the log is there; but runs of other content are not those of the log at hand.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from assets import lake
from benchmarks.worlds import World
from models.config import Recipe
from models.contract import Contract
from models.requests import Requests, Sequences

Record = dict[str, Any]

MODEL, GRADIENTS = "model", "gradients"
"""Kinds of run: a model that is trained and scored; the angle between the tasks' gradients while one is trained."""


@dataclass(frozen=True)
class Where:
    """The log that a run learns from, and the day it is scored on: a simulated world's last, or a day of a real log."""

    dataset: str
    day: str
    world: World | None = None

    @property
    def name(self) -> str:
        return self.world.name if self.world else f"{self.dataset} {self.day}"

    def to_json(self) -> Record:
        return {"dataset": self.dataset, "day": self.day, "world": asdict(self.world) if self.world else None}


@dataclass(frozen=True)
class Variant:
    """What an ablation changes: parts of the recipe, the longest history that is kept, an action that is left out."""

    name: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    longest: int | None = None
    without: str | None = None

    def contract(self, contract: Contract) -> Contract:
        """The contract with its histories cut; an action is left out by `reads`, since files count actions by place."""
        if self.longest is None:
            return contract
        most = self.longest
        cut = {n: b.model_copy(update={"length": min(b.length, most)}) for n, b in contract.behaviours.items()}
        return contract.model_copy(update={"behaviours": cut})

    def reads(self, contract: Contract, requests: Sequence[Requests]) -> tuple[Contract, list[Requests]]:
        """Contract and requests without the action that is left out; the tasks stay as they are."""
        if self.without is None:
            return contract, list(requests)
        place = contract.actions.index(self.without)
        rest = {name: behaviour for name, behaviour in contract.behaviours.items() if name != self.without}
        return contract.model_copy(update={"behaviours": rest}), [_without(r, place) for r in requests]


def _without(requests: Requests, action: int) -> Requests:
    keep = [a for a in range(requests.start.shape[1]) if a != action]
    told = requests.sequences
    parts = ([part[a] for a in keep] for part in (told.offsets, told.tokens, told.times))
    return replace(requests, start=requests.start[:, keep], end=requests.end[:, keep], sequences=Sequences(told.users, *parts))


@dataclass(frozen=True)
class Run:
    """One thing to do: `model` with `recipe` (None: a baseline without one), trained on `where` by `terms`."""

    where: Where
    model: str
    recipe: Recipe | None
    terms: Record
    variant: Variant = Variant()
    kind: str = MODEL

    def key(self, contract: Contract) -> Record:
        """What the result depends on, as the file will give it back; `contract`: of the log, before the variant's change."""
        read = self.variant.contract(contract)
        key = {
            "kind": self.kind,
            "where": self.where.to_json(),
            "model": self.model,
            "variant": self.variant.name,
            "without": self.variant.without,
            "recipe": self.recipe.to_json() if self.recipe else None,
            "terms": self.terms,
            "data": {
                "fields": [*read.user_columns, *read.item_columns, *read.context_columns],
                "lengths": dict(zip(read.actions, read.lengths, strict=True)),
                "history_days": read.histories.days,
                "tasks": list(read.tasks),
                "days": read.training_days(self.where.day),
            },
        }
        written: Record = json.loads(json.dumps(key))
        return written


def digest(key: Record) -> str:
    """A short name of a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Store:
    """A folder of runs, a file a model and a run a line. A file is replaced whole and under a lock: a kill leaves it as it was,
    two writers lose nothing.
    """

    folder: Path

    def records(self) -> list[Record]:
        """All runs on file, of each model the oldest first. Raises ValueError naming the line that is none."""
        found = []
        for path in sorted(self.folder.glob("*.jsonl")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                try:
                    found.append(json.loads(line))
                except ValueError as error:
                    raise ValueError(
                        f"{path}, line {number}: not a run ({error}); delete the line, and it is made again"
                    ) from None
        return found

    def keep(self, record: Record) -> None:
        """Add one run."""
        path = self.folder / f"{record['model']}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            lines = path.read_text() if path.is_file() else ""
            lake.write_text(path, lines + json.dumps(record, allow_nan=False) + "\n")


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock on a folder or file that is there; False, at once, where another process has it and `wait` is off.

    The kernel lets go of it however the process ends.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def found(records: Sequence[Record], key: Record, *, content: str | None = None, code: str | None = None) -> Record | None:
    """The newest run on file with this key, of this content and code where they are named."""
    for record in reversed(records):
        same = all(record[name] == value for name, value in key.items() if name != "recipe")
        if (
            same
            and same_recipe(record["recipe"], key["recipe"])
            and content in (None, record["content"])
            and code in (None, record["code"])
        ):
            return record
    return None


def same_recipe(one: Record | None, other: Record | None) -> bool:
    """Whether two recipes as written are one. A part that there was not yet when one was written is at its default."""
    if one is None or other is None:
        return one is other
    try:
        return Recipe.from_json(one) == Recipe.from_json(other)
    except ValueError:  # it holds a part that is none any more
        return False
