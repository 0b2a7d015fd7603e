"""The contract: everything the program knows of one log, read from one TOML file in `datasets/`.

One declaration projects into the parser, the schema, the samples, the model's fields and the calendar; nothing else
holds a column name. It does not hold paths (those are `models.home`) nor the log's location (that is an argument).
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from models.checks import Checks
from models.days import Days
from models.sections import (
    Behaviour,
    Calendar,
    Columns,
    Context,
    Feature,
    Features,
    Histories,
    Monitoring,
    Name,
    Samples,
    Schedule,
    Section,
    Serving,
    Side,
    Source,
    Task,
    Time,
    Training,
    Validation,
    parse_condition,
)

DATASETS = Path(__file__).resolve().parent.parent / "datasets"

SERVED = {"request_id", "model", "place", "rank", "score", "unknown_user", "unknown_items"}
"""Columns of what was served, beside which stand features but no labels."""

RESERVED = SERVED | {
    *("user", "item", "time", "behaviour", "request", "sampled", "action"),
    *("number", "day", "part", "rule", "detail", "raw", "text", "damaged", "open", "fields", "found", "expected", "broken"),
    *("filename", "times", "copy"),
}
"""Columns that the lake has of its own, or that stand beside a row while it is read, judged and merged."""

LEARNED_FROM = (
    *("name", "shape", "time", "calendar", "item_features", "user_features", "context"),
    *("behaviours", "tasks", "histories", "samples", "training"),
)
"""The sections that a trained model depends on; the others say how it is scheduled, served and watched."""


class ContractError(ValueError):
    """A contract that cannot be used; the message names file, key, what is wrong and what would be right."""


class Contract(Days, Section):
    name: Name
    description: str = ""
    shape: Literal["events", "exposures"]
    source: Source
    columns: Columns
    time: Time
    calendar: Calendar
    item_features: Features = Field(default={})
    user_features: Features = Field(default={})
    item_table: Side | None = None
    user_table: Side | None = None
    context: Context = Context()
    behaviours: dict[Name, Behaviour] = Field(min_length=1)
    tasks: dict[Name, Task] = Field(min_length=1)
    histories: Histories = Histories()
    samples: Samples = Samples()
    validation: Validation = Validation()
    checks: Checks = Checks()
    training: Training = Training()
    serving: Serving = Serving()
    monitoring: Monitoring = Monitoring()
    schedule: Schedule = Schedule()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Contract:
        events = self.shape == "events"
        if not events and self.columns.behaviour is not None:
            raise ValueError("columns.behaviour: shape 'exposures' has no behaviour column; remove it")
        if events and self.columns.behaviour is None and len(self.behaviours) > 1:
            raise ValueError(
                f"columns.behaviour: needs the column that says which of {list(self.behaviours)} happened; only a log of one "
                "behaviour does without"
            )
        if self.columns.left_out and self.columns.behaviour is None:
            raise ValueError(
                "columns.left_out: holds values of columns.behaviour, and there is none; name it, or remove 'left_out'"
            )
        raw = dict.fromkeys(map(str, self.columns.left_out), "left_out")
        for name, behaviour in self.behaviours.items():
            if events and (behaviour.when or behaviour.horizon_hours or not behaviour.values) and self.columns.behaviour:
                raise ValueError(
                    f"behaviours.{name}: an event log needs 'values' (raw values that mean it) and no other source"
                )
            if events and self.columns.behaviour is None and (behaviour.when or behaviour.horizon_hours or behaviour.values):
                raise ValueError(
                    f"behaviours.{name}: without columns.behaviour every row is one; remove 'values', or name the column"
                )
            if not events and (behaviour.values or not behaviour.when):
                raise ValueError(
                    f"behaviours.{name}: an exposure log needs 'when' (a label column or comparison), not 'values'"
                )
            if self.time.resolution == "day" and behaviour.horizon_hours % 24:
                raise ValueError(
                    f"behaviours.{name}.horizon_hours: {behaviour.horizon_hours:g} came, and a log whose times are days "
                    "can only tell whole ones; a multiple of 24, not less than it takes"
                )
            for value in map(str, behaviour.values):
                if value in raw:
                    raise ValueError(
                        f"behaviours.{name}.values: '{value}' already means '{raw[value]}'; a raw value has one meaning"
                    )
                raw[value] = name
        for name, task in self.tasks.items():
            if name == "mean":
                raise ValueError("tasks.mean: 'mean' stands for the mean over tasks in every verdict; rename the task")
            if events and (task.label or not task.behaviours or task.horizon_hours <= 0):
                raise ValueError(f"tasks.{name}: an event log needs 'behaviours' and 'horizon_hours' > 0, and no 'label'")
            if not events and (task.behaviours or not task.label):
                raise ValueError(
                    f"tasks.{name}: an exposure log needs 'label' (a label column or comparison), not 'behaviours'"
                )
            if unknown := set(task.behaviours) - set(self.behaviours):
                raise ValueError(f"tasks.{name}.behaviours: {sorted(unknown)} not among behaviours {list(self.behaviours)}")
            if task.given is not None and (task.given not in self.tasks or task.given == name):
                raise ValueError(f"tasks.{name}.given: '{task.given}' is not another task; tasks are {list(self.tasks)}")
            chain = [name]
            while (given := self.tasks[chain[-1]].given) is not None:
                if given not in self.tasks or given in chain:
                    raise ValueError(f"tasks.{name}.given: {' -> '.join([*chain, given])} does not end in a task of its own")
                chain.append(given)
        if unknown := set(self.serving.weights) - set(self.tasks):
            raise ValueError(f"serving.weights: {sorted(unknown)} not among tasks {list(self.tasks)}")
        self._check_names()
        self._check_sides()
        if self.time.resolution == "day" and "hour" in self.context.derived:
            raise ValueError("context.derived: 'hour' needs a time within the day, and time.kind is 'date'")
        _check_columns("source", self.source, self.source_columns)
        first, last = self.calendar.first_day, self.calendar.last_day
        if last is not None and last < first:
            raise ValueError(f"calendar.last_day: {last} is before first_day {first}")
        if self.calendar.accept_from is not None and self.calendar.accept_from > first:
            raise ValueError(f"calendar.accept_from: {self.calendar.accept_from} is after first_day {first}")
        if (most := self.most_judged) is not None and self.training.judged_days > most:
            raise ValueError(
                f"training.judged_days: {self.training.judged_days} came, and the calendar has {len(self.days())} days; at "
                f"most half of them, {most}, so that there is something to learn from"
            )
        return self

    @property
    def most_judged(self) -> int | None:
        """Days that a verdict may be of: half of a closed calendar, so that something is left to learn from."""
        return max(len(self.days()) // 2, 1) if self.calendar.last_day else None

    def _check_names(self) -> None:
        names = [*self.item_columns[1:], *self.user_columns[1:], *self.context_columns, *self.text_columns.values()]
        own = {f"{kind}_{task}" for task in self.tasks for kind in ("label", "p")}
        own |= RESERVED | {f"history_length_{action}" for action in self.behaviours}
        if clash := {n for n in names if names.count(n) > 1 or n in own}:
            raise ValueError(f"item_features/user_features/context: {sorted(clash)} used twice or reserved; rename")
        if clash := (RESERVED - SERVED | set(names)) & set(self.label_columns):
            raise ValueError(
                f"behaviours/tasks: label columns {sorted(clash)} are names the lake uses itself; rename the source column"
            )

    def _check_sides(self) -> None:
        for part, side, features in (
            ("item_table", self.item_table, self.item_features),
            ("user_table", self.user_table, self.user_features),
        ):
            if side is None:
                continue
            if unknown := [name for name in side.features if name not in features]:
                of = part.replace("table", "features")
                raise ValueError(f"{part}.features: {unknown} not among {of} {list(features)}; say there which column it is")
            _check_columns(part, side, [side.key, *(features[name].column for name in side.features)])

    # names, in the order that every array keeps

    @property
    def actions(self) -> tuple[str, ...]:
        """Behaviour names; the A axis."""
        return tuple(self.behaviours)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Task names; the T axis."""
        return tuple(self.tasks)

    @property
    def item_fields(self) -> tuple[str, ...]:
        """The field of each item column: a list's columns are one field, and share its embeddings."""
        return ("item", *_repeated(self.item_features))

    @property
    def item_slots(self) -> tuple[int, ...]:
        """Columns of each field of an item: one, or as many as a list has entries."""
        return (1, *(feature.slots for feature in self.item_features.values()))

    @property
    def user_fields(self) -> tuple[str, ...]:
        return ("user", *_repeated(self.user_features))

    @property
    def context_fields(self) -> tuple[str, ...]:
        return (*self.context.derived, *_repeated(self.context.columns))

    @property
    def item_columns(self) -> tuple[str, ...]:
        """The item's columns in the lake and in every array; the kept entries of a list `tags` are tags, tags_2, tags_3…"""
        return ("item", *_numbered(self.item_features))

    @property
    def user_columns(self) -> tuple[str, ...]:
        return ("user", *_numbered(self.user_features))

    @property
    def context_columns(self) -> tuple[str, ...]:
        return (*self.context.derived, *_numbered(self.context.columns))

    @property
    def features(self) -> dict[str, Feature]:
        """Every side feature and context column carried in the lake."""
        return {**self.item_features, **self.user_features, **self.context.columns}

    @property
    def log_features(self) -> dict[str, Feature]:
        """Those of `features` that stand in the log itself."""
        elsewhere = {name for side in (self.item_table, self.user_table) if side for name in side.features}
        return {name: feature for name, feature in self.features.items() if name not in elsewhere}

    def kind(self, field: str) -> Literal["id", "text", "number"]:
        """What a field's values are in the log: of an id, a feature or what is derived from the time."""
        if field in ("user", "item"):
            return "text" if field in self.columns.text else "id"
        return self.features[field].kind if field in self.features else "id"

    @property
    def text_columns(self) -> dict[str, str]:
        """Field of kind text → the column of the lake that keeps it as it was written."""
        fields = [name for name in ("user", "item", *self.features) if self.kind(name) == "text"]
        return {name: f"{name}_text" for name in fields}

    @property
    def lengths(self) -> tuple[int, ...]:
        """Longest history kept, per action."""
        return tuple(b.length for b in self.behaviours.values())

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Source columns that conditions read (exposure log); numbers, kept under their own names."""
        conditions = [b.when for b in self.behaviours.values()] + [t.label for t in self.tasks.values()]
        return tuple(dict.fromkeys(parse_condition(c)[0] for c in conditions if c))

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Every column that a source file must have."""
        own = [self.columns.user, self.columns.item, self.time.column, self.columns.behaviour]
        features = [feature.column for feature in self.log_features.values()]
        return tuple(dict.fromkeys(c for c in (*own, *features, *self.label_columns) if c))

    def digest(self, *sections: str) -> str:
        """Content hash of the named sections (all when none is named): a stage depends on what it reads, no more."""
        data = self.model_dump(mode="json")
        chosen = {s: data[s] for s in sections} if sections else data
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def _numbered(features: dict[str, Feature]) -> list[str]:
    return [name if n == 1 else f"{name}_{n}" for name, f in features.items() for n in range(1, f.slots + 1)]


def _repeated(features: dict[str, Feature]) -> list[str]:
    return [name for name, feature in features.items() for _ in range(feature.slots)]


def _check_columns(part: str, source: Source, used: Sequence[str]) -> None:
    if source.header or source.format != "csv":
        return
    if not source.columns:
        raise ValueError(f"{part}.columns: a CSV without header needs its columns named in order")
    if unknown := set(used) - set(source.columns):
        raise ValueError(f"{part}.columns: {sorted(unknown)} are used but not among {list(source.columns)}")


def load(name_or_path: str | Path) -> Contract:
    """The contract named `name` in `datasets/`, or that of a TOML file.

    Raises ContractError, naming the file, the key, what is wrong and what would be right.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = DATASETS / f"{name_or_path}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in DATASETS.glob("*.toml"))
        raise ContractError(f"{path}: no such contract. DATASET= takes one of {known}, or the path of a .toml file")
    try:
        with path.open("rb") as file:
            return Contract.model_validate(tomllib.load(file))
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: not UTF-8 text: {error}") from None
    except ValidationError as error:
        raise ContractError("\n".join(_explain(path, e) for e in error.errors())) from None


def _explain(path: Path, error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        parent = Contract.model_fields
        for part in error["loc"][:-1]:
            kind = getattr(parent.get(part), "annotation", None) if isinstance(parent, dict) else None
            parent = getattr(kind, "model_fields", {}) if kind is not None else {}
        message = "no such key" + (f"; known here: {', '.join(parent)}" if parent else "; check its spelling")
    elif error["type"] == "missing":
        message = "is missing"
    else:
        came = error.get("input")
        if key and isinstance(came, str | int | float | bool | list):
            message += f" (came: {came!r})"
    return f"{path}: {key + ': ' if key else ''}{message}"
