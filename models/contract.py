"""The contract: everything the program knows of one log, read from one TOML file in `datasets/`.

One declaration projects into the parser, the schema, the samples, the model's fields and the calendar; nothing else
holds a column name. It does not hold paths (those are `models.home`) nor the log's location (that is an argument).
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.checks import Checks

DATASETS = Path(__file__).resolve().parent.parent / "datasets"

NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")
CONDITION = re.compile(r"^\s*([A-Za-z_]\w*)\s*(?:(>=|<=|==|!=|>|<)\s*(-?\d+(?:\.\d+)?))?\s*$")
RESERVED = {"user", "item", "time", "behaviour", "request", "sampled"}


class ContractError(ValueError):
    """A contract that cannot be used; the message names file, key, what is wrong and what would be right."""


def _name(value: str) -> str:
    if not NAME.match(value):
        raise ValueError(f"'{value}' is not a name: lower-case letters, digits and _, starting with a letter")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"'{value}' is not a time zone; an IANA name such as 'Europe/Paris' is") from None
    return value


def _condition(value: str) -> str:
    if not CONDITION.match(value):
        raise ValueError(f"'{value}' is not a condition; a column ('is_click') or a comparison ('rating >= 4') is")
    return value


Name = Annotated[str, AfterValidator(_name)]
Condition = Annotated[str, AfterValidator(_condition)]


def parse_condition(text: str) -> tuple[str, str, float]:
    """(column, operator, number) of a condition; a bare column means `column > 0`.

    >>> parse_condition("rating >= 4"), parse_condition("is_click")
    (('rating', '>=', 4.0), ('is_click', '>', 0.0))
    """
    match = CONDITION.match(text)
    assert match, text
    return match[1], match[2] or ">", float(match[3] or 0)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """How the files are written. `columns` names a header-less CSV's columns in their order."""

    format: Literal["csv", "parquet"]
    header: bool = True
    delimiter: str = Field(",", min_length=1, max_length=1)
    columns: tuple[str, ...] = ()


class Columns(Section):
    """Our name → the source's column. `behaviour` is only there in an event log."""

    user: str
    item: str
    behaviour: str | None = None


class Time(Section):
    """`kind` says how a time is written; a bare `date` has no time within the day, so all of a day are ties."""

    column: str
    kind: Literal["epoch_s", "epoch_ms", "timestamp", "date"]
    format: str | None = Field(None, description="strptime format of 'timestamp' and 'date'; ISO 8601 when left out")
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"

    @property
    def resolution(self) -> Literal["millisecond", "second", "day"]:
        return {"epoch_s": "second", "epoch_ms": "millisecond", "timestamp": "second", "date": "day"}[self.kind]  # type: ignore[return-value]


class Calendar(Section):
    first_day: date
    last_day: date | None = None
    accept_from: date | None = None


class Context(Section):
    """Fields of the moment: `columns` (our name → source column) and those derived from the time itself."""

    derived: tuple[Literal["hour", "weekday"], ...] = ()
    columns: dict[Name, str] = {}


class Behaviour(Section):
    """An action type with a history of its own: raw `values` (event log) or a condition `when` (exposure log).

    In an exposure log the action is known `horizon_hours` after the impression, and enters a history only then.
    """

    values: tuple[str | int, ...] = ()
    when: Condition | None = None
    horizon_hours: float = Field(0, ge=0)
    length: int = Field(50, ge=1, le=1000)


class Task(Section):
    """One label. Event log: one of `behaviours` within the horizon. Exposure log: the condition `label`.

    `given` names the task that must be positive for this one to count (else its label is masked).
    """

    behaviours: tuple[str, ...] = ()
    label: Condition | None = None
    horizon_hours: float = Field(0, ge=0)
    given: str | None = None
    weight: float = Field(1.0, gt=0)


class Histories(Section):
    days: int = Field(30, ge=1)


class Samples(Section):
    """`negatives` are drawn per positive, event logs only (an exposure log has its own)."""

    negatives: int = Field(4, ge=0, le=100)
    seed: int = 7


class Validation(Section):
    """`repeats`: identical rows in one file are `real` events or `duplicates` of one event."""

    max_bad_share: float = Field(0.01, ge=0, le=1)
    repeats: Literal["real", "duplicates"] = "real"


class Training(Section):
    window_days: int = Field(14, ge=2)
    candidates: tuple[Literal["dtrn", "mmoe"], ...] = ("dtrn", "mmoe")
    references: tuple[Literal["popularity", "lightgbm"], ...] = ("popularity", "lightgbm")
    epochs: int = Field(12, ge=1)
    patience: int = Field(3, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    embedding_decay: float = Field(3e-2, ge=0, lt=1, description="share that a step takes of each user and item id row")
    width: int = Field(16, ge=2)
    batch_samples: int = Field(2048, ge=1)
    seed: int = 1
    device: str = "auto"


class Serving(Section):
    """Weights of the tasks in the combined score; a task left out weighs 0, none at all means all alike."""

    weights: dict[str, float] = {}


class Monitoring(Section):
    """Thresholds of the drift verdict: Evidently's drift score of one field, and the served AUC's fall."""

    drift_share: float = Field(0.3, gt=0)


class Schedule(Section):
    hour: int = Field(5, ge=0, le=23)


class Contract(Section):
    name: Name
    description: str = ""
    shape: Literal["events", "exposures"]
    source: Source
    columns: Columns
    time: Time
    calendar: Calendar
    item_features: dict[Name, str] = {}
    user_features: dict[Name, str] = {}
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
        if events != (self.columns.behaviour is not None):
            raise ValueError(
                f"columns.behaviour: shape '{self.shape}' "
                + ("needs the column that says what happened" if events else "has no behaviour column; remove it")
            )
        raw: dict[str, str] = {}
        for name, behaviour in self.behaviours.items():
            if events and (not behaviour.values or behaviour.when or behaviour.horizon_hours):
                raise ValueError(
                    f"behaviours.{name}: an event log needs 'values' (raw values that mean it) and no other source"
                )
            if not events and (behaviour.values or not behaviour.when):
                raise ValueError(
                    f"behaviours.{name}: an exposure log needs 'when' (a label column or comparison), not 'values'"
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
        names = [*self.item_features, *self.user_features, *self.context_fields]
        if clash := {n for n in names if names.count(n) > 1 or n in RESERVED}:
            raise ValueError(f"item_features/user_features/context: {sorted(clash)} used twice or reserved; rename")
        if clash := (RESERVED | set(names)) & set(self.label_columns):
            raise ValueError(
                f"behaviours/tasks: label columns {sorted(clash)} are names the lake uses itself; rename the source column"
            )
        if self.time.resolution == "day" and "hour" in self.context.derived:
            raise ValueError("context.derived: 'hour' needs a time within the day, and time.kind is 'date'")
        if not self.source.header and self.source.format == "csv":
            if not self.source.columns:
                raise ValueError("source.columns: a CSV without header needs its columns named in order")
            if unknown := set(self.source_columns) - set(self.source.columns):
                raise ValueError(f"source.columns: {sorted(unknown)} are used but not among {list(self.source.columns)}")
        first, last = self.calendar.first_day, self.calendar.last_day
        if last is not None and last < first:
            raise ValueError(f"calendar.last_day: {last} is before first_day {first}")
        if self.calendar.accept_from is not None and self.calendar.accept_from > first:
            raise ValueError(f"calendar.accept_from: {self.calendar.accept_from} is after first_day {first}")
        return self

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
        return ("item", *self.item_features)

    @property
    def user_fields(self) -> tuple[str, ...]:
        return ("user", *self.user_features)

    @property
    def context_fields(self) -> tuple[str, ...]:
        return (*self.context.derived, *self.context.columns)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Longest history kept, per action."""
        return tuple(b.length for b in self.behaviours.values())

    @property
    def features(self) -> dict[str, str]:
        """Every side feature and context column carried in the lake: our name → source column; all 64-bit integers."""
        return {**self.item_features, **self.user_features, **self.context.columns}

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Source columns that conditions read (exposure log); numbers, kept under their own names."""
        conditions = [b.when for b in self.behaviours.values()] + [t.label for t in self.tasks.values()]
        return tuple(dict.fromkeys(parse_condition(c)[0] for c in conditions if c))

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Every column that a source file must have."""
        own = [self.columns.user, self.columns.item, self.time.column, self.columns.behaviour]
        return tuple(dict.fromkeys(c for c in (*own, *self.features.values(), *self.label_columns) if c))

    # time

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time.zone)

    def day_start(self, day: date | str) -> int:
        """Epoch milliseconds of the local midnight that opens `day`."""
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return round(datetime.combine(day, time(), self.zone).timestamp() * 1000)

    def day_end(self, day: date | str) -> int:
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return self.day_start(day + timedelta(days=1))

    def day_of(self, time_ms: int) -> date:
        """The local day that holds a moment."""
        return datetime.fromtimestamp(time_ms / 1000, self.zone).date()

    @property
    def horizon_ms(self) -> int:
        """The longest wait until a sample's labels are known."""
        return round(3_600_000 * max(t.horizon_hours for t in self.tasks.values()))

    def days(self, last: date | None = None) -> list[str]:
        """The calendar's days up to `last_day` or `last`, the earlier of the two that are given."""
        ends = [d for d in (last, self.calendar.last_day) if d is not None]
        if not ends:
            raise ValueError("a calendar without last_day needs the last day of the log")
        return [str(self.calendar.first_day + timedelta(days=n)) for n in range((min(ends) - self.calendar.first_day).days + 1)]

    def mature(self, day: date | str, last_ingested: date | str) -> bool:
        """Whether every label of `day`'s samples is known once `last_ingested` and all days before it are in."""
        return self.day_end(day) + self.horizon_ms <= self.day_end(last_ingested)

    def training_days(self, judged_day: date | str) -> list[str]:
        """Days of samples for training and, last, for early stopping: base time + horizon ≤ start of `judged_day`."""
        judged = date.fromisoformat(judged_day) if isinstance(judged_day, str) else judged_day
        newest = judged - timedelta(days=1)
        while self.day_end(newest) + self.horizon_ms > self.day_start(judged):
            newest -= timedelta(days=1)
        oldest = max(self.calendar.first_day, newest - timedelta(days=self.training.window_days - 1))
        return [str(oldest + timedelta(days=n)) for n in range((newest - oldest).days + 1)]

    def history_days(self, first: date | str, last: date | str) -> list[str]:
        """Calendar days whose events may stand in the history of a sample of `first`…`last`."""
        oldest = date.fromisoformat(str(first)) - timedelta(days=self.histories.days)
        newest = date.fromisoformat(str(last))
        oldest = max(oldest, self.calendar.first_day)
        return [str(oldest + timedelta(days=n)) for n in range((newest - oldest).days + 1)]

    def history_start(self, day: date | str) -> int:
        """Epoch ms: the oldest moment that a history of a sample of `day` may reach."""
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return self.day_start(day - timedelta(days=self.histories.days))

    def digest(self, *sections: str) -> str:
        """Content hash of the named sections (all when none is named): a stage depends on what it reads, no more."""
        data = self.model_dump(mode="json")
        chosen = {s: data[s] for s in sections} if sections else data
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


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
