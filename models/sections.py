"""The parts of a contract as written in TOML, each held against itself; `models.contract` holds them against each other."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from models import names

NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")
BARE = r"[A-Za-z_]\w*|/[^\s<>=!]+"
CONDITION = re.compile(rf"^\s*(?:({BARE})|'((?:[^']|'')+)')\s*(?:(>=|<=|==|!=|>|<)\s*(-?\d+(?:\.\d+)?))?\s*$")

EPOCH_DAY = {"epoch_s": 86_400, "epoch_ms": 86_400_000}
"""Format of a date that is written as its UTC midnight → how much of it a day is."""
YEAR_HOURS = 366 * 24
FIRST, LAST = date(1970, 1, 1), date(2200, 12, 31)


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
        raise ValueError(
            f"'{value}' is not a condition; a column ('is_click', '/said/click'; one with blanks or signs in its own quotes: "
            "\"'is click?'\") or a comparison ('rating >= 4') is"
        )
    return value


def _delimiter(value: str) -> str:
    if not 1 <= len(value) <= 3 or set(value) & set('"\r\n'):
        raise ValueError(
            f"{value!r} is not a delimiter; one character, such as '\\t', or two or three ('::'), none a quote or line end"
        )
    return value


def _candidates(value: tuple[str, ...]) -> tuple[str, ...]:
    known = tuple(names.canonical(name) for name in value)
    for place, name in enumerate(known):
        if name in known[:place]:
            raise ValueError(f"'{value[place]}' is '{value[known.index(name)]}' once more; name a model once")
    return known


Name = Annotated[str, AfterValidator(_name)]
Condition = Annotated[str, AfterValidator(_condition)]


def parse_condition(text: str) -> tuple[str, str, float]:
    """(column, operator, number) of a condition; a column alone means `column > 0`, one of any name stands in quotes.

    >>> parse_condition("rating >= 4"), parse_condition("'rating:float' >= 4"), parse_condition("/feedback/clicked")
    (('rating', '>=', 4.0), ('rating:float', '>=', 4.0), ('/feedback/clicked', '>', 0.0))
    """
    match = CONDITION.match(text)
    assert match, text
    return match[1] or match[2].replace("''", "'"), match[3] or ">", float(match[4] or 0)


def in_condition(column: str) -> str:
    """A column as a condition names it.

    >>> in_condition("rating"), in_condition("guest's rating")
    ('rating', "'guest''s rating'")
    """
    return column if re.fullmatch(BARE, column) else "'" + column.replace("'", "''") + "'"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(Section):
    """How files are written, plain, gzipped or as zstd.

    `columns` names a header-less CSV's columns in their order; of a delimiter of several characters nothing is quoted. A column
    of JSON lines is a key of the object, or, starting with a slash, a pointer into it ('/user/id').
    """

    format: Literal["csv", "jsonl", "parquet"]
    header: bool = True
    delimiter: Annotated[str, AfterValidator(_delimiter)] = ","
    columns: tuple[str, ...] = ()

    @field_validator("columns")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(f"{twice} stand there more than once; every column has a name of its own")
        return value


class Side(Source):
    """A second file, of items or users: a row a key. `features` are those of the contract that stand in it and not in the log.

    `file`: a path or glob relative to the log's own folder · `key`: its column of item (user) ids.
    """

    file: str = Field(min_length=1)
    key: str
    features: tuple[str, ...] = Field(min_length=1)


class Columns(Section):
    """Our name → the source's column. `behaviour` is only there in an event log, and not in one of a single behaviour.

    `text`: which of the ids are text. All others are whole numbers of 64 bits. `left_out`: raw values of the behaviour whose
    rows are no events of an item (a search, a login): they are counted and passed over, whatever else stands in them.
    """

    user: str
    item: str
    behaviour: str | None = None
    left_out: tuple[str | int, ...] = ()
    text: tuple[Literal["user", "item"], ...] = ()


class Time(Section):
    """`kind` says how a time is written; a bare `date` has no time within the day, so all of a day are ties."""

    column: str
    kind: Literal["epoch_s", "epoch_ms", "epoch_us", "timestamp", "date"]
    format: str | None = Field(
        None, description="strptime format of 'timestamp' and 'date', or of 'date' epoch_s or epoch_ms; ISO 8601 when left out"
    )
    year: int | None = Field(None, ge=1970, le=2200, description="of dates that are written without one (format '%m%d')")
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Time:
        if self.format and self.kind not in ("timestamp", "date"):
            raise ValueError(f"format: kind '{self.kind}' is a number and has none; remove it, or say 'timestamp' or 'date'")
        if self.year is not None and (not self.format or "%y" in self.format.lower()):
            raise ValueError("year: is for a format without one, such as '%m%d'; remove it, or the year from the format")
        if self.format in EPOCH_DAY and self.kind == "timestamp":
            raise ValueError(f"format: '{self.format}' is that of a date; say kind = '{self.format}' of a moment")
        if self.year is None and self.format and self.format not in EPOCH_DAY and "%y" not in self.format.lower():
            raise ValueError(f"year: '{self.format}' has no year; say which one it is, for example year = 2015")
        return self

    @property
    def resolution(self) -> Literal["millisecond", "second", "day"]:
        return {"epoch_s": "second", "timestamp": "second", "date": "day"}.get(self.kind, "millisecond")  # type: ignore[return-value]


class Feature(Section):
    """A field beside the ids; in TOML only its source column where all else is as here.

    kind: `id`, a whole number that names something · `text`, the same as text · `number`, a measure, cut into about `bins`
    equally frequent bins of the training window. `separator` makes a list of an id or text, of which the first `most` are kept.
    """

    column: str
    kind: Literal["id", "text", "number"] = "id"
    bins: int = Field(16, ge=2, le=1000)
    separator: str | None = Field(None, min_length=1, max_length=1)
    most: int = Field(8, ge=1, le=64)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Feature:
        if self.kind == "number" and self.separator:
            raise ValueError("separator: a list holds ids or texts, not numbers")
        return self

    @property
    def slots(self) -> int:
        """Columns that it takes: one, or for a list as many as are kept."""
        return self.most if self.separator else 1


def _feature(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


Day = Annotated[date, Field(ge=FIRST, le=LAST)]
Features = dict[Name, Annotated[Feature, BeforeValidator(_feature)]]


class Calendar(Section):
    first_day: Day
    last_day: Day | None = None
    accept_from: Day | None = None


class Context(Section):
    """Fields of the moment: `columns` of the log and those derived from the time itself."""

    derived: tuple[Literal["hour", "weekday"], ...] = ()
    columns: Features = {}


class Behaviour(Section):
    """An action type with a history of its own: raw `values` (event log) or a condition `when` (exposure log).

    In an exposure log the action is known `horizon_hours` after the impression, and enters a history only then.
    """

    values: tuple[str | int, ...] = ()
    when: Condition | None = None
    horizon_hours: float = Field(0, ge=0, le=YEAR_HOURS)
    length: int = Field(50, ge=1, le=1000)


class Task(Section):
    """One label. Event log: one of `behaviours` within the horizon. Exposure log: the condition `label`.

    `given` names the task that must be positive for this one to count (else its label is masked).
    """

    behaviours: tuple[str, ...] = ()
    label: Condition | None = None
    horizon_hours: float = Field(0, ge=0, le=YEAR_HOURS)
    given: str | None = None
    weight: float = Field(1.0, gt=0)

    @property
    def meaning(self) -> str:
        """What makes a sample positive, in words."""
        what = self.label or f"{' or '.join(self.behaviours)} within {self.horizon_hours:g} hours"
        return f"{what}, of rows with {self.given}" if self.given else what


class Histories(Section):
    days: int = Field(30, ge=1, le=3660)


class Samples(Section):
    """`negatives` are drawn per positive, event logs only (an exposure log has its own)."""

    negatives: int = Field(4, ge=0, le=100)
    seed: int = 7


class Validation(Section):
    """`repeats`: identical rows in one file are `real` events or `duplicates` of one event."""

    max_bad_share: float = Field(0.01, ge=0, le=1)
    repeats: Literal["real", "duplicates"] = "real"


class Training(Section):
    window_days: int = Field(14, ge=2, le=3660)
    judged_days: int = Field(
        1, ge=1, le=366, description="that a verdict is of, the judged day last; early stopping has up to as many"
    )
    candidates: Annotated[tuple[str, ...], AfterValidator(_candidates)] = ("dtrn", "mmoe")
    references: tuple[Literal["popularity", "lightgbm"], ...] = ("popularity", "lightgbm")
    epochs: int = Field(12, ge=1)
    patience: int = Field(3, ge=1)
    learning_rate: float = Field(4e-3, gt=0)
    embedding_decay: float = Field(1e-1, ge=0, lt=1, description="share that a step takes of each user and item id row")
    averaging: float = Field(0.5, ge=0, lt=1, description="share of the averaged weights that an epoch leaves as they are")
    width: int = Field(16, ge=2, multiple_of=2)
    batch_samples: int = Field(2048, ge=1)
    seed: int = 1
    device: str = "auto"


class Serving(Section):
    """Weights of the tasks in the combined score; a task left out weighs 0, none at all means all alike."""

    weights: dict[str, float] = {}


class Monitoring(Section):
    """The threshold of the drift verdict: the drift score of one field (PSI) from which on it has drifted."""

    drift_share: float = Field(0.3, gt=0)


class Schedule(Section):
    hour: int = Field(5, ge=0, le=23)
