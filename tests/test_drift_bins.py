"""The bins that drift is measured in: each value in the one that its label says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets import drift, drift_bins
from models.keys import number_keys, text_key
from models.requests import NULL_KEY


def test_of_a_list_each_entry_counts_alike_and_an_empty_slot_not() -> None:
    lists = [[], [1], [2, 3], [4, 5, 6]] * 3000
    slots = np.array([row + [NULL_KEY] * (3 - len(row)) for row in lists], np.int64)
    drawn = drift.one_entry(slots).tolist()
    assert all(entry in row if row else entry == NULL_KEY for entry, row in zip(drawn, lists, strict=True))
    for row in lists[:4]:
        for entry in row:
            assert drawn.count(entry) == pytest.approx(3000 / len(row), rel=0.1)
    assert drawn == drift.one_entry(slots).tolist()


@given(st.lists(st.integers(0, 40), min_size=1), st.lists(st.integers(0, 60), min_size=1))
def test_a_length_is_in_the_bin_that_its_label_says(reference: list[int], served: list[int]) -> None:
    bins = drift_bins.lengths(np.array(reference), np.array(served))
    for values, labels in zip((reference, served), bins.labels(), strict=True):
        for value, label in zip(values, labels, strict=True):
            first, _, last = label.partition(" to ")
            low = int(first.removesuffix(" or more"))
            high = int(last) if last else 10**9 if "more" in label else low
            assert low <= value <= high


@given(st.lists(st.integers(0, 30), min_size=1), st.lists(st.integers(0, 60), min_size=1))
def test_a_key_has_its_own_bin_if_it_is_among_the_most_frequent(reference: list[int], served: list[int]) -> None:
    counts = pd.Series(reference).value_counts()
    most = sorted(counts.index, key=lambda k: (-counts[k], k))[: drift_bins.TOP]
    bins = drift_bins.keys(np.array(reference), np.array(served))
    expected = [[str(v) if v in most else "other" for v in side] for side in (reference, served)]
    assert [list(side) for side in bins.labels()] == expected


@given(st.lists(st.floats(0, 1), min_size=1), st.lists(st.floats(0, 1), min_size=1), st.floats(1e-9, 1))
def test_probabilities_have_bins_of_distinct_names_with_a_tenth_of_the_reference_each(
    reference: list[float], served: list[float], narrow: float
) -> None:
    values = np.array(reference) * narrow
    bins = drift_bins.probabilities(values, np.array(served))
    assert len(set(bins.names)) == len(bins.names) <= 10
    before = bins.shares()[0]
    if len(set(values)) == len(values) >= 20:
        assert max(before.values()) <= 0.1 + 1 / len(values) + 1e-6


def test_a_measure_has_bins_of_its_own_size_and_a_text_its_own_name() -> None:
    values = np.random.default_rng(0).lognormal(size=1000)
    values[:50] = np.nan
    bins = drift_bins.measures(number_keys(values), number_keys(np.array([np.nan, 1e9, 1e-9])))
    told = np.sort(values[~np.isnan(values)])
    assert bins.names[0] == "missing"
    assert len(bins.names) == 11
    assert bins.served.tolist() == [0, 10, 1]
    counts = np.bincount(bins.reference, minlength=11)
    assert counts[0] == 50
    assert counts[1:].min() >= 90
    assert bins.names[1] == f"below {np.quantile(told, 0.1):.3g}"
    keys = np.array([text_key("Times")] * 3 + [text_key("Post")] * 2)
    named = drift_bins.keys(keys, keys, {text_key(t): t for t in ("Times", "Post")})
    assert named.shares()[0] == {"Times": 0.6, "Post": 0.4, "other": 0.0}
