"""The AUC without label noise, against its formula written out; and that a day's samples find their true probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from assets import simulator
from benchmarks.oracle import reach, soft_auc, truth
from models import window
from models.contract import Contract, load
from models.home import Home
from models.metrics import auc


def written_out(p: list[float], s: list[float]) -> float:
    won = pairs = 0.0
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j:
                weight = p[i] * (1 - p[j])
                pairs += weight
                won += weight * ((s[i] > s[j]) + 0.5 * (s[i] == s[j]))
    return won / pairs


@pytest.mark.parametrize("values", [3, 1000], ids=["many ties", "few ties"])
def test_it_is_the_written_formula(values: int) -> None:
    rng = np.random.default_rng(values)
    for _ in range(20):
        p, s = rng.random(40) ** 3, rng.integers(0, values, 40) / 7
        assert soft_auc(p, s) == pytest.approx(written_out(p.tolist(), s.tolist()), abs=1e-12)


def test_hard_labels_give_the_plain_auc_and_nothing_ranks_better_than_the_truth() -> None:
    rng = np.random.default_rng(1)
    y, s = rng.integers(0, 2, 300), rng.integers(0, 50, 300)
    assert soft_auc(y, s) == pytest.approx(auc(y, s), abs=1e-12)
    p = rng.random(300)
    assert all(soft_auc(p, p) >= soft_auc(p, p + rng.normal(0, 0.1, 300)) for _ in range(50))
    assert soft_auc(p, np.zeros(300)) == pytest.approx(0.5)


def test_drawn_labels_scatter_around_it() -> None:
    rng = np.random.default_rng(2)
    p = 0.2 * rng.random(3_000)
    s = p + rng.normal(0, 0.05, 3_000)
    drawn = [auc((rng.random(3_000) < p).astype(int), s) for _ in range(60)]
    assert np.mean(drawn) == pytest.approx(soft_auc(p, s), abs=4 * np.std(drawn) / np.sqrt(60))


def test_what_it_does_not_define_is_nan_and_what_is_wrong_is_told() -> None:
    assert np.isnan(soft_auc(np.zeros(3), np.arange(3)))
    assert np.isnan(soft_auc(np.array([0.5]), np.array([1.0])))
    assert np.isnan(soft_auc(np.empty(0), np.empty(0)))
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        soft_auc(np.array([0.1, 0.2]), np.array([1, np.nan]))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        soft_auc(np.array([0.1, 1.2]), np.arange(2))
    with pytest.raises(ValueError, match="one shape"):
        soft_auc(np.array([0.1, 0.2]), np.arange(3))


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Contract, str]:
    """A simulated day whose samples are the log's rows, in the samples' own order, and shuffled by item within a request."""
    home, contract = Home(tmp_path_factory.mktemp("oracle"), "simulated"), load("simulated")
    days = contract.days()[:2]
    simulator.simulate(home.raw, contract, truth=home.truth, users=60, items=200, impressions=900, days=days)
    for name in days:
        log = pd.read_parquet(home.raw / f"day={name}.parquet")
        log = log.sort_values(["user_id", "timestamp_ms", "item_id"])
        keep = {"user": log.user_id, "time": log.timestamp_ms, "item": log.item_id, "segment": log.segment}
        keep |= {"category": log.category_id, "price_band": log.price_band, "hour": 0 * log.user_id, "position": log.position}
        _write(home.samples(name), pd.DataFrame(keep | {f"label_{t}": log[f"is_{t}"] for t in contract.tasks}))
        _write(home.histories(name), pd.DataFrame({k: [] for k in ("action", *keep)}).astype(np.int64))
    return home, contract, days[1]


def _write(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def test_each_sample_finds_its_own_probability(day: tuple[Home, Contract, str]) -> None:
    home, contract, name = day
    requests = window.read_requests(home, contract, [name])
    told = truth(home, contract, name, requests)
    plain = {
        (r.user, r.time, r.item): (r.click, r.cart, r.buy)
        for r in pq.read_table(home.truth / f"day={name}.parquet").to_pandas().itertuples()
    }
    request = requests.request
    for b in range(len(requests)):
        key = requests.user[request[b], 0], requests.time[request[b]], requests.item[b, 0]
        assert told[b] == pytest.approx(plain[key])


def test_reach_is_that_of_the_days_rows(day: tuple[Home, Contract, str]) -> None:
    home, contract, name = day
    requests = window.read_requests(home, contract, [name])
    p = truth(home, contract, name, requests)
    scores = np.random.default_rng(3).random(p.shape)
    best, other = reach(home, contract, name, p), reach(home, contract, name, scores)
    for t, task in enumerate(contract.tasks):
        assert best[task].best_soft == best[task].soft == soft_auc(p[:, t], p[:, t]) > 0.6
        assert best[task].best_drawn == best[task].drawn == auc(requests.label[:, t], p[:, t])
        assert other[task].soft == pytest.approx(0.5, abs=0.1)
        assert other[task].best_soft == best[task].best_soft
    with pytest.raises(ValueError, match=r"scores \(3, 3\) came"):
        reach(home, contract, name, np.zeros((3, 3)))


def test_samples_of_another_world_are_refused(day: tuple[Home, Contract, str]) -> None:
    home, contract, name = day
    other = window.read_requests(home, contract, contract.days()[:1])
    with pytest.raises(ValueError, match=rf"{len(other)} of {len(other)} samples of {name} are not in"):
        truth(home, contract, name, other)
    strange = contract.model_copy(update={"tasks": {"share": contract.tasks["click"]}})
    with pytest.raises(ValueError, match="draws no share; it draws click"):
        truth(home, strange, name, other)
