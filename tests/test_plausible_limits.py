"""How far a day may differ before a check finds it, on numbers alone: just within each limit, and just beyond it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest

from assets import plausibility
from assets.plausibility import Day
from models.checks import Freshness
from models.contract import Contract
from tests.test_plausibility import START, contract, day_of


def numbers(day: int, events: int = 100, newest: float = 1.0, **columns: dict[str, Any]) -> Day:
    """A day in numbers; newest: hours before its end."""
    last = START * 1000 + day * 86_400_000 - int(newest * 3_600_000)
    return Day(day_of(day), events, 0, events, last if events else None, columns)


def holds(check: str, terms: Contract, day: Day, trailing: list[Day]) -> bool:
    return plausibility.CHECKS[check](terms, day, trailing).wrong is None


@pytest.mark.parametrize(("events", "right"), [(29, False), (30, True), (100, True), (300, True), (301, False), (0, False)])
def test_volume_holds_up_to_its_limits(tmp_path: Path, events: int, right: bool) -> None:
    trailing = [numbers(1, 10), numbers(2, 100), numbers(3, 5000)]
    assert holds("volume", contract(tmp_path), numbers(4, events), trailing) is right
    assert holds("volume", contract(tmp_path), numbers(4, events), trailing[:2])


@pytest.mark.parametrize(("newest", "right"), [(0, True), (6, True), (6.001, False), (23.9, False)])
def test_freshness_holds_up_to_its_hours(tmp_path: Path, newest: float, right: bool) -> None:
    assert holds("freshness", contract(tmp_path), numbers(2, newest=newest), []) is right


def test_freshness_of_a_log_of_days_is_that_the_day_is_there(tmp_path: Path) -> None:
    terms = contract(tmp_path)
    by_day = terms.model_copy(update={"time": terms.time.model_copy(update={"kind": "date"})})
    assert holds("freshness", by_day, numbers(2, newest=24), [])
    assert not holds("freshness", by_day, numbers(2, events=0), [])
    assert not holds("freshness", terms, numbers(2, events=0), [])
    for hours, right in ((23.9, False), (24, True)):
        checks = terms.checks.model_copy(update={"freshness": Freshness(silent_hours=hours)})
        patient = terms.model_copy(update={"checks": checks})
        assert holds("freshness", patient, numbers(2, events=0), []) is right, "a whole day without an event is 24 hours"


@pytest.mark.parametrize(("unknown", "right"), [(0, True), (5, True), (6, False)])
def test_unknown_behaviours_hold_up_to_their_share(tmp_path: Path, unknown: int, right: bool) -> None:
    day = replace(numbers(1), rows_in=1000, unknown=unknown)
    assert holds("unknown_behaviours", contract(tmp_path), day, []) is right
    assert holds("unknown_behaviours", contract(tmp_path), replace(day, rows_in=0, unknown=0), [])


@pytest.mark.parametrize("events", [1, 2, 4, 7, 8, 20, 100, 3000])
def test_null_rates_hold_up_to_the_mean_and_the_rise_and_what_chance_adds(tmp_path: Path, events: int) -> None:
    shares = [(100, 20), (1000, 100), (10, 6)]  # the mean of the shares is 0.3, and the rise 0.1
    trailing = [numbers(n, rows, brand={"nulls": found}) for n, (rows, found) in enumerate(shares, 1)]

    def chance(nulls: int) -> Fraction:
        """Of so many nulls or more, where each row has one in two of five cases."""
        many = sum(comb(events, n) * 2**n * 3 ** (events - n) for n in range(nulls, events + 1))
        return Fraction(many, 5**events)

    right = [
        holds("null_rates", contract(tmp_path), numbers(4, events, brand={"nulls": n}, new={"nulls": events}), trailing)
        for n in range(0, events + 1, max(1, events // 100))
    ]
    expected = [chance(n) >= Fraction(1, 1000) for n in range(0, events + 1, max(1, events // 100))]
    assert right == expected
    assert all(right) == (events < 8)  # 0.4 ** 7 is more than a thousandth, 0.4 ** 8 less


@pytest.mark.parametrize(
    ("low", "high", "right"),
    [
        (5, 900, True),
        (0, 100_000, True),
        (0, 100_001, False),
        (0, 5, True),
        (0, 4, False),
        (-1, 900, False),
        (None, None, True),
    ],
)
def test_ids_stay_within_their_magnitude(tmp_path: Path, low: int | None, high: int | None, right: bool) -> None:
    trailing = [numbers(n, user={"low": 3, "high": top}) for n, top in enumerate((500, 700, 1000), 1)]
    assert holds("id_ranges", contract(tmp_path), numbers(4, user={"low": low, "high": high}), trailing) is right


def test_ids_that_were_negative_before_may_be_so_again_up_to_the_factor(tmp_path: Path) -> None:
    trailing = [numbers(n, user={"low": -3 if n == 2 else 0, "high": 7}) for n in (1, 2, 3)]
    assert holds("id_ranges", contract(tmp_path), numbers(4, user={"low": -700, "high": 7}), trailing)
    assert not holds("id_ranges", contract(tmp_path), numbers(4, user={"low": -701, "high": 7}), trailing)


@pytest.mark.parametrize(
    ("events", "distinct", "right"),
    [(100, 10, True), (100, 9, False), (100, 250, True), (100, 251, False), (10, 1, True), (1000, 2500, True)],
)
def test_different_ids_follow_the_rows(tmp_path: Path, events: int, distinct: int, right: bool) -> None:
    """50 different ones in 100 rows before: between a fifth and five times that, and with fewer or more rows further."""
    trailing = [numbers(n, user={"distinct": 50}) for n in (1, 2, 3)]
    assert holds("id_ranges", contract(tmp_path), numbers(4, events, user={"distinct": distinct}), trailing) is right


@pytest.mark.parametrize(
    ("nulls", "distinct", "right"),
    [(90, 1, True), (80, 2, True), (90, 26, False), (98, 1, True), (100, 0, True), (0, 250, True), (0, 251, False)],
)
def test_different_entries_follow_the_rows_that_have_one(tmp_path: Path, nulls: int, distinct: int, right: bool) -> None:
    """5 different ones in the 10 rows of 100 with a value before: as above of those rows; with none, none is missed."""
    trailing = [numbers(n, tag_3={"nulls": 90, "distinct": 5}) for n in (1, 2, 3)]
    terms = contract(tmp_path)
    assert holds("id_ranges", terms, numbers(4, 100, tag_3={"nulls": nulls, "distinct": distinct}), trailing) is right
    empty = numbers(3, tag_3={"nulls": 100, "distinct": 0})
    assert holds("id_ranges", terms, numbers(4, 100, tag_3={"nulls": 90, "distinct": 5}), [empty] * 3)
