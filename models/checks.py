"""What the contract says of a plausible day: how far it may differ from the days before it, and what follows when it does.

Only thresholds; what is measured stands in `assets/tally.py`, and what is compared in `assets/plausibility.py`.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Check(BaseModel):
    """`severity`: a day that fails is told of (`warn`), or nobody may read it and its run fails (`error`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    severity: Literal["warn", "error"] = "warn"


class Volume(Check):
    """Rows of the day, as multiples of the median of the trailing days."""

    smallest: float = Field(0.3, ge=0, le=1)
    largest: float = Field(3.0, ge=1)


class Freshness(Check):
    """Hours without any event at the day's end, from 24 on also a whole day; a log of day resolution has only to have one."""

    silent_hours: float = Field(6.0, gt=0)


class UnknownBehaviours(Check):
    """Share of the day's rows whose behaviour is none of the contract's; event logs only."""

    share: float = Field(0.005, ge=0, le=1)


class NullRates(Check):
    """By how much a column's share of nulls may lie above its mean of the trailing days."""

    rise: float = Field(0.1, ge=0, le=1)


class IdRanges(Check):
    """`factor`: how many times larger or smaller ids may become; `distinct`: how many times more or fewer different ones."""

    factor: float = Field(100.0, gt=1)
    distinct: float = Field(5.0, gt=1)


class Checks(BaseModel):
    """Of the `days` before a day those count that are there, hold rows, are not blocked and not among `unusual_days`.

    With less than `fewest_days` of them nothing is compared. `unusual_days` are known to be unlike others (a sale): nothing
    is held against them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    days: int = Field(7, ge=1)
    fewest_days: int = Field(3, ge=1)
    unusual_days: tuple[date, ...] = ()
    volume: Volume = Volume()
    freshness: Freshness = Freshness()
    unknown_behaviours: UnknownBehaviours = UnknownBehaviours()
    null_rates: NullRates = NullRates()
    id_ranges: IdRanges = IdRanges()

    @model_validator(mode="after")
    def _can_be_met(self) -> Checks:
        if self.fewest_days > self.days:
            raise ValueError(f"fewest_days: {self.fewest_days} of the {self.days} days before a day can never be there")
        return self
