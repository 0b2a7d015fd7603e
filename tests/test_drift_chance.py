"""Few users who are like those of the training window are no drift, whatever bins they happen to leave empty."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

from assets import drift

DECILES = np.full(10, 0.1)
KEYS = 1 / np.arange(1, 22) / (1 / np.arange(1, 22)).sum()


def psi(reference: np.ndarray, served: np.ndarray) -> float:
    """As Evidently gives it."""
    definition = DataDefinition(categorical_columns=["x"])
    sides = (
        Dataset.from_pandas(pd.DataFrame({"x": side.astype(str)}), data_definition=definition) for side in (served, reference)
    )
    return float(Report([ValueDrift(column="x", method="psi")]).run(*sides).dict()["metrics"][0]["value"])


@pytest.mark.parametrize("shares", [DECILES, KEYS], ids=["deciles", "keys"])
@pytest.mark.parametrize("users", [4, 15, 60])
def test_draws_of_the_reference_itself_stay_below(shares: np.ndarray, users: int) -> None:
    random = np.random.default_rng(users)
    reference = np.repeat(np.arange(len(shares)), np.round(shares * 5000).astype(int))
    limit = drift.by_chance(shares, users)
    scores = [psi(reference, random.choice(len(shares), users, p=shares)) for _ in range(60)]
    assert max(scores) < limit
    assert limit < 3 * max(scores), "and not by much"


def test_many_users_of_another_kind_do_not() -> None:
    random = np.random.default_rng(1)
    other = np.roll(KEYS, 3)
    reference = np.repeat(np.arange(21), np.round(KEYS * 5000).astype(int))
    assert psi(reference, random.choice(21, 400, p=other)) > 3 * drift.by_chance(KEYS, 400)
    assert drift.by_chance(KEYS, 20_000) < 0.01
