"""Every metric against scikit-learn or its written definition: with ties, weights, masks, one class and no rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score, roc_curve

from models import metrics

Row = tuple[int, float, int, int]
rows = st.lists(
    st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 6).map(lambda n: n / 6), st.integers(0, 3), st.integers(0, 4))
)
"""(label, score, weight, user): few distinct scores, so that ties within and across classes are common."""


def columns(drawn: list[Row]) -> tuple[Any, Any, Any, Any]:
    labels, scores, weights, users = zip(*drawn, strict=True) if drawn else ((), (), (), ())
    return np.array(labels, np.int8), np.array(scores, float), np.array(weights, float), np.array(users, np.int64)


def pairwise(drawn: list[tuple[int, float, float]]) -> float:
    """AUC as its definition reads: over every pair of a positive and a negative."""
    won = pairs = 0.0
    for label, score, weight in drawn:
        for other_label, other_score, other_weight in drawn:
            if label == 1 and other_label == 0:
                pairs += weight * other_weight
                won += weight * other_weight * (1.0 if score > other_score else 0.5 if score == other_score else 0.0)
    return won / pairs if pairs else math.nan


def same(came: float, expected: float) -> bool:
    return came == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(deadline=None)
@given(rows)
def test_auc_is_the_share_of_pairs_won(drawn: list[Row]) -> None:
    labels, scores, weights, _ = columns(drawn)
    assert same(metrics.auc(labels, scores), pairwise([(y, s, 1.0) for y, s, _, _ in drawn]))
    assert same(metrics.auc(labels, scores, weights), pairwise([(y, s, w) for y, s, w, _ in drawn]))


def test_auc_agrees_with_scikit_learn_on_many_rows_with_weights() -> None:
    random = np.random.default_rng(3)
    labels, scores = random.integers(0, 2, 5000), random.random(5000).round(2)
    weights = random.integers(1, 5, 5000)
    assert metrics.auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert metrics.auc(labels, scores, weights) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("chunk", [1, 700, 1 << 18], ids=["one at a time", "some at a time", "at once"])
def test_a_resampled_auc_is_that_of_the_rows_written_out(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    random = np.random.default_rng(5)
    labels, scores, users = random.integers(-1, 2, 300), random.random(300).round(1), random.integers(0, 20, 300)
    counts = random.integers(0, 4, (7, 20))
    came = metrics.resampled_auc(labels, scores, users, counts)
    for resample, count in enumerate(counts):
        copies = np.repeat(np.arange(300), np.where(labels >= 0, count[users], 0))
        assert came[resample] == pytest.approx(roc_auc_score(labels[copies], scores[copies]), abs=1e-12)


def test_a_resample_without_a_class_is_nan_and_the_others_are_not() -> None:
    labels, scores, users = np.array([1, 0, 0]), np.array([0.9, 0.1, 0.95]), np.array([0, 1, 2])
    came = metrics.resampled_auc(labels, scores, users, np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0], [2, 1, 3]]))
    np.testing.assert_array_equal(came, [np.nan, np.nan, 1.0, 0.25])


@settings(deadline=None)
@given(rows)
def test_gauc_is_the_mean_over_users_weighted_by_their_rows(drawn: list[Row]) -> None:
    labels, scores, _, users = columns(drawn)
    known = [(y, s, u) for y, s, _, u in drawn if y >= 0]
    total = weight = counted = 0.0
    everybody = {u for _, _, u in known}
    for user in everybody:
        own = [(y, s, 1.0) for y, s, u in known if u == user]
        value = pairwise(own)
        if not math.isnan(value):
            total, weight, counted = total + len(own) * value, weight + len(own), counted + 1
    came = metrics.gauc(labels, scores, users)
    assert same(came.value, total / weight if weight else math.nan)
    assert same(came.users, counted / len(everybody) if everybody else math.nan)
    assert same(came.rows, weight / len(known) if known else math.nan)


@settings(deadline=None)
@given(rows, st.integers(1, 7))
def test_ece_is_its_written_definition_in_any_row_order(drawn: list[Row], bins: int) -> None:
    labels, scores, _, _ = columns(drawn)
    known = sorted((s, y) for y, s, _, _ in drawn if y >= 0)
    binned: dict[int, list[tuple[float, int]]] = {}
    for probability, label in known:
        first = [s for s, _ in known].index(probability)
        binned.setdefault(math.floor(bins * first / len(known)), []).append((probability, label))
    gaps = [len(b) * abs(sum(s for s, _ in b) / len(b) - sum(y for _, y in b) / len(b)) for b in binned.values()]
    expected = sum(gaps) / len(known) if known else math.nan
    assert same(metrics.ece(labels, scores, bins), expected)
    assert same(metrics.ece(labels[::-1], scores[::-1], bins), expected)


def test_calibration_bins_hold_equally_many_rows_when_nothing_ties() -> None:
    random = np.random.default_rng(2)
    probabilities = random.permutation(1000) / 50_000  # all below 0.02: bins of equal width would be one bin
    predicted, observed, counts = metrics.calibration(random.random(1000) < probabilities, probabilities)
    assert counts.tolist() == [100.0] * 10
    assert (np.diff(predicted) > 0).all()
    assert len(observed) == 10


def test_a_model_that_is_right_in_each_bin_has_no_calibration_error() -> None:
    labels = np.array([0, 1, 0, 1, 1, 1, 0, 0, 0, 1])
    assert metrics.ece(labels, np.full(10, 0.5)) == 0
    assert metrics.ece(labels, np.full(10, 0.7)) == pytest.approx(0.2)


def test_log_loss_agrees_with_scikit_learn_and_leaves_masked_rows_out() -> None:
    random = np.random.default_rng(4)
    labels, probabilities = random.integers(0, 2, 400), random.random(400)
    probabilities[:4], labels[:4] = [0, 1, 0, 1], [0, 0, 1, 1]
    expected = sklearn_log_loss(labels, probabilities)
    assert metrics.log_loss(labels, probabilities) == pytest.approx(expected, abs=1e-9)
    with_masked = metrics.log_loss(np.append(labels, [-1, -1]), np.append(probabilities, [0.5, 0.0]))
    assert with_masked == metrics.log_loss(labels, probabilities)


def test_entropy_is_the_log_loss_of_the_base_rate() -> None:
    labels = np.array([1, 0, 0, 0, -1, 1, 0])
    assert metrics.entropy(labels) == pytest.approx(sklearn_log_loss(labels[labels >= 0], np.full(6, 2 / 6)), abs=1e-12)
    assert metrics.entropy(np.array([1, 1, -1])) == 0
    assert math.isnan(metrics.entropy(np.array([-1])))


@settings(deadline=None)
@given(rows)
def test_roc_passes_through_the_points_of_scikit_learn_and_holds_the_auc(drawn: list[Row]) -> None:
    labels, scores, _, _ = columns(drawn)
    x, y = metrics.roc(labels, scores)
    known = labels >= 0
    if len(set(labels[known].tolist())) < 2:
        assert not len(x)
        return
    expected_x, expected_y, _ = roc_curve(labels[known], scores[known], drop_intermediate=False)
    np.testing.assert_allclose(x, expected_x, atol=1e-12)
    np.testing.assert_allclose(y, expected_y, atol=1e-12)
    assert np.trapezoid(y, x) == pytest.approx(metrics.auc(labels, scores), abs=1e-12)


@pytest.mark.parametrize("labels", [[], [-1, -1]], ids=["no rows", "all masked"])
def test_what_no_row_defines_is_nan(labels: list[int]) -> None:
    y, p = np.array(labels, np.int8), np.full(len(labels), 0.5)
    assert math.isnan(metrics.auc(y, p))
    assert math.isnan(metrics.log_loss(y, p))
    assert math.isnan(metrics.ece(y, p))
    assert math.isnan(metrics.gauc(y, p, np.arange(len(y))).rows)


@pytest.mark.parametrize(
    ("function", "labels", "scores", "message"),
    [
        (metrics.auc, [0, 1], [0.5, math.nan], "1 of 2 scores are not finite"),
        (metrics.log_loss, [0, 1, 1], [0.5, 0.5], r"labels \(3,\) and scores \(2,\)"),
        (metrics.auc, [0, 2], [0.5, 0.5], r"labels \[2\] came; a label is 0, 1 or -1"),
        (metrics.log_loss, [0, 1], [0.5, 1.5], "1 of 2 probabilities lie outside"),
        (metrics.ece, [0, 1], [-0.1, 1.5], "2 of 2 probabilities lie outside"),
    ],
)
def test_what_cannot_be_measured_is_said(function: Any, labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(np.array(labels), np.array(scores))


def test_a_masked_row_may_hold_any_score() -> None:
    assert metrics.auc(np.array([0, 1, -1]), np.array([0.1, 0.9, math.nan])) == 1.0
