"""When the rows of an unknown log happened: which column says it, and how it is written, with the evidence."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pandas as pd

from assets.profile import Column, Profile, plain
from assets.reading import ISO_DATE, ISO_OFFSET, ISO_TIME
from models.sections import EPOCH_DAY

Ask = Callable[[str, str, Sequence[tuple[str, str]]], str]
"""(key of the answer, the question, possible answers each with its evidence) → the answer."""

TIME = re.compile(r"time|date|(^|_)(ts|dt|day|when|created|stamp)(_|$)")
FORMATS = (
    *(
        "%Y-%m-%d %H:%M:%S UTC",
        "%Y-%m-%d %H:%M:%S %z",
        "%Y-%m-%dT%H:%M:%S.%f%z",
        "%Y/%m/%d %H:%M:%S",
        "%Y/%m/%d %H:%M",
        "%Y/%m/%d",
    ),
    *("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p"),
    *(
        "%d.%m.%Y %H:%M:%S",
        "%d.%m.%Y %H:%M",
        "%d.%m.%Y",
        "%d/%m/%Y %H:%M:%S",
        "%m/%d/%Y %H:%M:%S",
        "%d/%m/%Y %H:%M",
        "%m/%d/%Y %H:%M",
    ),
    *("%d/%m/%Y", "%m/%d/%Y", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y", "%Y%m%d%H%M%S", "%Y%m%d %H:%M:%S", "%Y%m%d"),
)

TRIED = 400
ENOUGH = 0.98


@dataclass(frozen=True)
class Moment:
    """How a column writes a time: a contract's `time.kind` and format, and the evidence."""

    column: str
    kind: Literal["epoch_s", "epoch_ms", "epoch_us", "timestamp", "date"]
    format: str | None
    evidence: str


def guess(seen: Profile, ask: Ask) -> Moment:
    """When the rows of a log happened. Raises ValueError when no column says it, and for an answer that names none."""
    found = [m for c in seen.columns.values() if c.filled for m in moments(c, seen.rows[c.name])]
    if not found:
        shown = ", ".join(f"{c.name} ({next(iter(c.common), '')!r}…)" for c in seen.columns.values())
        raise ValueError(f"no column of {seen.files[0].name} reads as a time; its columns are {shown}")
    if told := ask("time", "", []):
        return _told_moment(told, found)
    named = [m for m in found if TIME.search(plain(m.column))] or found
    finest = max(_fineness(m) for m in named)
    best = [m for m in named if _fineness(m) == finest]
    if len(best) == 1:
        return best[0]
    options = [(_written(m), m.evidence) for m in best]
    return _told_moment(ask("time", "which column says when it happened (and in which format)?", options), found)


def _told_moment(told: str, found: Sequence[Moment]) -> Moment:
    """The way to read times that an answer names, a column alone or with its format."""
    chosen = next((m for m in found if told in (m.column, _written(m))), None)
    if chosen is None:
        raise ValueError(f"time: '{told}' does not read as a time; what does is {', '.join(map(_written, found))}")
    return chosen


def _written(moment: Moment) -> str:
    return f"{moment.column} {moment.format}" if moment.format else moment.column


def _fineness(moment: Moment) -> int:
    return 0 if moment.kind == "date" else 1


def moments(column: Column, values: pd.Series) -> list[Moment]:
    """The ways in which a column reads as times."""
    texts = values.dropna().drop_duplicates().head(TRIED).astype(str).tolist()
    example = f"for example {texts[0]!r}"
    if column.number >= 0.99:
        return _numeric(column, pd.to_numeric(pd.Series(texts), errors="coerce").dropna(), texts, example)
    if _share(texts, lambda text: re.fullmatch(ISO_DATE, text) is not None) >= ENOUGH:
        return [Moment(column.name, "date", None, f"ISO dates, {example}")]
    if _share(texts, lambda text: re.fullmatch(ISO_TIME, re.sub(ISO_OFFSET, "", text)) is not None) >= ENOUGH:
        return [Moment(column.name, "timestamp", None, f"ISO 8601, {example}")]
    return _formatted(column.name, texts, example)


def _numeric(column: Column, numbers: pd.Series, texts: list[str], example: str) -> list[Moment]:
    named = TIME.search(plain(column.name)) is not None
    for kind, scale in (("epoch_s", 1), ("epoch_ms", 1_000), ("epoch_us", 1_000_000)):
        if numbers.between(631_152_000 * scale, 4_102_444_800 * scale).mean() < ENOUGH:  # 1990 to 2100
            continue
        if kind in EPOCH_DAY and (numbers % EPOCH_DAY[kind] == 0).all():
            return [Moment(column.name, "date", kind, f"midnights of UTC, {example}")]
        if named or column.distinct > 100:  # without a telling name a few distinct numbers of that size are ids
            unit = {"epoch_s": "seconds", "epoch_ms": "milliseconds", "epoch_us": "microseconds"}[kind]
            return [Moment(column.name, kind, None, f"{unit} since 1970, {example}")]  # type: ignore[arg-type]
    found = _formatted(column.name, texts, example)
    if not found and named and column.distinct <= 366:
        padded = [text.removesuffix(".0").zfill(4) for text in texts]
        if _share(padded, lambda text: _parses(f"2000{text}", "%Y%m%d")) == 1:
            return [Moment(column.name, "date", "%m%d", f"month and day without a year, {example}")]
    return found


def _formatted(name: str, texts: list[str], example: str) -> list[Moment]:
    found = [form for form in FORMATS if _share(texts, lambda text, form=form: _parses(text, form)) >= ENOUGH]  # type: ignore[misc]
    return [Moment(name, "timestamp" if "%M" in form else "date", form, f"as {form}, {example}") for form in found]


def _parses(text: str, form: str) -> bool:
    try:
        year = datetime.strptime(text, form).year
    except ValueError:
        return False
    return 1990 <= year <= 2100


def _share(texts: list[str], holds: Callable[[str], bool]) -> float:
    return sum(map(holds, texts)) / max(len(texts), 1)
