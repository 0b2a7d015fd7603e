"""The simulated log: its shape, rates and repeatability; its truth: true, and drawn from the past alone."""

from __future__ import annotations

import json
import tracemalloc
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from assets import world as shop
from assets.past import BEHAVIOURS, SPREAD
from assets.simulator import Simulated, simulate
from assets.world import BASE_RATES, Impressions, World, probabilities, solve_intercepts
from benchmarks.oracle import soft_auc
from models.contract import Contract, load

SMALL = {"users": 600, "items": 800, "impressions": 8_000}
HOUR = 3_600_000


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load("simulated")


@pytest.fixture(scope="module")
def made(contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulated]:
    home = tmp_path_factory.mktemp("simulated")
    return home, simulate(home / "raw", contract, truth=home / "truth", days=contract.days()[:6], **SMALL)


@pytest.fixture(scope="module")
def rows(made: tuple[Path, Simulated]) -> pd.DataFrame:
    """Log and truth side by side, with the day that each row was filed under."""
    home, simulated = made
    parts = []
    for day, name in simulated.files.items():
        log, truth = pd.read_parquet(home / "raw" / name), pd.read_parquet(home / "truth" / f"day={day}.parquet")
        parts.append(pd.concat([log, truth], axis=1).assign(day=day))
    return pd.concat(parts, ignore_index=True)


def play(world: World, days: int, impressions: int) -> list[Impressions]:
    """The first days of a world, without files: one entry a day."""
    out = []
    for n in range(days):
        blocks = list(world.day(n, n * 24 * HOUR, (n + 1) * 24 * HOUR, impressions))
        out.append(Impressions(*(np.concatenate([getattr(b, f) for b in blocks]) for f in Impressions.__dataclass_fields__)))
    return out


# shape


def test_files_are_in_the_contracts_shape(made: tuple[Path, Simulated], contract: Contract) -> None:
    home, simulated = made
    assert sorted(p.name for p in (home / "raw").iterdir()) == [f"day={d}.parquet" for d in contract.days()[:6]]
    for day, name in simulated.files.items():
        schema = pq.read_schema(home / "raw" / name)
        assert tuple(schema.names) == contract.source_columns
        assert {str(schema.field(c).type) for c in contract.source_columns if c not in contract.label_columns} == {"int64"}
        log = pd.read_parquet(home / "raw" / name)
        assert log.timestamp_ms.between(contract.day_start(day), contract.day_end(day) - 1).all()
        assert set(np.unique(log[list(contract.label_columns)])) == {0, 1}
        assert len(log) == simulated.days[day].impressions == pytest.approx(SMALL["impressions"], rel=0.15)


def test_a_request_shows_distinct_items_in_positions_from_one(rows: pd.DataFrame, made: tuple[Path, Simulated]) -> None:
    requests = rows.groupby(["user_id", "timestamp_ms"])
    assert len(requests) == made[1].total.requests
    assert requests.position.apply(lambda p: list(p) == list(range(1, len(p) + 1))).all()
    assert (requests.item_id.nunique() == requests.size()).all()
    assert 8 < requests.size().mean() < 11
    assert (rows.groupby("item_id")[["category_id", "price_band"]].nunique() == 1).all(axis=None)
    assert (rows.groupby("user_id").segment.nunique() == 1).all()
    assert not rows[rows.is_click == 0][["is_cart", "is_favourite", "is_buy"]].any(axis=None)


def test_items_are_long_tailed(rows: pd.DataFrame) -> None:
    shown = rows.item_id.value_counts()
    assert shown.head(len(shown) // 10).sum() > 0.3 * len(rows)


def test_an_event_log_tells_what_the_truth_allows(tmp_path: Path) -> None:
    taobao = load("taobao")
    simulated = simulate(tmp_path / "raw", taobao, truth=tmp_path / "truth", days=taobao.days()[:2], **SMALL)
    total, names = simulated.total, list(taobao.source.columns)
    log = pd.concat(pd.read_csv(tmp_path / "raw" / f, header=None, names=names) for f in simulated.files.values())
    for raw, behaviour in {"pv": "click", "cart": "cart", "fav": "favourite", "buy": "buy"}.items():
        assert (log.behavior_type == raw).sum() == round(total.rate[behaviour] * total.impressions)
    truth = pd.concat(pd.read_parquet(tmp_path / "truth" / f"day={d}.parquet") for d in simulated.days)
    shown = set(zip(truth.user, truth.item, truth.time // 1000, strict=True))
    assert set(zip(log.user_id, log.item_id, log.unix_timestamp, strict=True)) <= shown


# rates


@pytest.mark.parametrize(
    ("users", "impressions", "days"),
    [(600, 8_000, 6), (60, 12_000, 4), (300, 1_500, 30)],
    ids=["ordinary", "twenty requests a user and day", "a month"],
)
def test_base_rates_are_held_on_every_day(users: int, impressions: int, days: int) -> None:
    for part in play(World(users, 500, seed=3, start=0), days, impressions):
        for index, rate in enumerate(BASE_RATES.values()):
            assert part.probability[:, index].mean() == pytest.approx(rate, rel=0.05)
            assert part.label[:, index].mean() == pytest.approx(rate, abs=4.5 * np.sqrt(rate / len(part.user)))


def test_unheld_rates_run_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intercepts that are right for users without a past, kept as they are, let clicks breed clicks."""
    world = World(60, 500, seed=3, start=0)
    shown = play(world, 1, 12_000)[0]
    loose = World(60, 500, seed=3, start=0)
    history = loose.scale.history(*loose.signals(shown.user, shown.item, loose.hours(shown.time)))
    loose.intercept = solve_intercepts(shown.other, history, loose.intercept)
    monkeypatch.setattr(shop, "REHEARSALS", 0)
    assert play(loose, 2, 12_000)[1].label[:, 0].mean() > 1.7 * BASE_RATES["click"]


def test_intercepts_solve_their_equation() -> None:
    rng = np.random.default_rng(0)
    other, history = rng.normal(0, 2, (4_000, 4)), rng.normal(0, 1.5, (4_000, 4))
    b = solve_intercepts(other, history, np.zeros(4))
    click, without = 1 / (1 + np.exp(-other[:, 0] - history[:, 0] - b[0])), 1 / (1 + np.exp(-other[:, 0] - b[0]))
    assert click.mean() == pytest.approx(0.15, rel=1e-4)
    for index, rate in ((1, 0.04), (2, 0.03), (3, 0.02)):
        free = without / (1 + np.exp(-other[:, index] - history[:, index] - b[index]))
        assert (free > click).any()  # so that the bound is in the equation
        assert np.minimum(free, click).mean() == pytest.approx(rate, rel=1e-4)
    assert solve_intercepts(other[:0], history[:0], b) == pytest.approx(b)


def test_no_conflict_changes_base_rates_or_how_much_history_explains() -> None:
    """In the second week, in every corner and the middle: rates, spreads and worth of history hold; the bound is rare."""
    gains: list[list[float]] = [[] for _ in BEHAVIOURS]
    for sign, selection in ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)):
        world = World(900, 1_000, seed=3, start=0, sign_conflict=sign, selection_conflict=selection)
        late = play(world, 9, 8_000)[-1]
        assert late.probability.mean(0) == pytest.approx(list(BASE_RATES.values()), rel=0.05)
        assert late.history.std(0) == pytest.approx(SPREAD, rel=0.05)
        assert late.history.mean(0) == pytest.approx(np.zeros(4), abs=0.05)
        assert (late.probability[:, 1:] < late.probability[:, :1]).mean() > 0.93
        none = np.zeros_like(late.history)
        blind = probabilities(late.other, none, solve_intercepts(late.other, none, world.intercept))
        for index in range(4):
            p = late.probability[:, index]
            gains[index].append(soft_auc(p, p) - soft_auc(p, blind[:, index]))
    assert all(min(gain) > 0.85 * gain[0] > 0.015 for gain in gains)


@pytest.mark.parametrize("knob", ["sign_conflict", "selection_conflict"])
def test_a_conflict_is_a_number_from_0_to_1(knob: str, contract: Contract, tmp_path: Path) -> None:
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"{knob} {wrong} came; it is a number from 0 .* to 1"):
            simulate(tmp_path / "raw", contract, truth=tmp_path / "truth", **{knob: wrong})
    assert not list(tmp_path.iterdir())


# repeatability


def test_the_same_seed_gives_the_same_bytes_and_a_shorter_log_its_first_files(
    made: tuple[Path, Simulated], contract: Contract, tmp_path: Path
) -> None:
    home, _ = made
    short = simulate(tmp_path / "raw", contract, truth=tmp_path / "truth", days=contract.days()[:3], **SMALL)
    for day, name in short.files.items():
        assert (tmp_path / "raw" / name).read_bytes() == (home / "raw" / name).read_bytes()
        assert (tmp_path / "truth" / f"day={day}.parquet").read_bytes() == (home / "truth" / f"day={day}.parquet").read_bytes()
    other = simulate(tmp_path / "other", contract, truth=tmp_path / "aside", days=contract.days()[:1], seed=8, **SMALL)
    name = next(iter(other.files.values()))
    assert (tmp_path / "other" / name).read_bytes() != (home / "raw" / name).read_bytes()


def test_a_rerun_does_nothing_and_a_damaged_file_is_written_again(contract: Contract, tmp_path: Path) -> None:
    def run(**changes: int) -> Simulated:
        sizes = {"users": 50, "items": 200, "impressions": 500} | changes
        return simulate(tmp_path / "raw", contract, truth=tmp_path / "truth", days=contract.days()[:2], **sizes)

    first = run()
    assert first.recomputed
    file = tmp_path / "raw" / first.files[contract.days()[1]]
    before, stamp = file.read_bytes(), file.stat().st_mtime_ns
    again = run()
    assert not again.recomputed
    assert file.stat().st_mtime_ns == stamp
    assert (again.days, again.total, again.files) == (first.days, first.total, first.files)
    for damaged in (file, tmp_path / "truth" / f"day={contract.days()[0]}.parquet"):
        damaged.write_bytes(b"damaged")
        assert run().recomputed
        assert file.read_bytes() == before
    assert run(impressions=600).recomputed
    assert run(selection_conflict=1).recomputed
    assert json.loads((tmp_path / "truth" / "simulation.json").read_text())["call"]["arguments"]["selection_conflict"] == 1


def test_memory_does_not_grow_with_the_days(contract: Contract, tmp_path: Path) -> None:
    peaks = []
    for days in (2, 8):
        tracemalloc.start()
        simulate(tmp_path / f"{days}", contract, truth=tmp_path / f"t{days}", days=contract.days()[:days], **SMALL)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0]


def test_blocks_of_users_make_one_log(monkeypatch: pytest.MonkeyPatch, contract: Contract, tmp_path: Path) -> None:
    monkeypatch.setattr(shop, "BLOCK", 150)
    simulated = simulate(tmp_path / "raw", contract, truth=tmp_path / "truth", days=contract.days()[:2], **SMALL)
    for day, name in simulated.files.items():
        log = pd.read_parquet(tmp_path / "raw" / name)
        assert log.user_id.is_monotonic_increasing
        assert ((log.user_id - 1) // 150).nunique() == 4
        assert simulated.days[day].rate["click"] == pytest.approx(BASE_RATES["click"], rel=0.15)


def test_every_block_and_day_has_random_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop, "BLOCK", 200)
    world = World(400, 500, seed=1, start=0)
    world.activity[:] = 1 / 400  # so that the same numbers would give the same requests
    before = world.interest.copy()
    moments = []
    for n in range(2):
        moments += [
            set((block.time % (24 * HOUR)).tolist()) for block in world.day(n, n * 24 * HOUR, (n + 1) * 24 * HOUR, 4_000)
        ]
    assert len(moments) == 4
    assert all(len(a & b) < 0.1 * len(a) for n, a in enumerate(moments) for b in moments[:n])
    changed = np.flatnonzero((world.interest != before).any(1))
    first, second = set(changed[changed < 200]), set(changed[changed >= 200] - 200)
    assert len(first & second) < 0.5 * len(first)


# truth


def test_truth_is_aligned_and_calibrated(rows: pd.DataFrame) -> None:
    assert (rows.user == rows.user_id).all()
    assert (rows.item == rows.item_id).all()
    assert (rows.time == rows.timestamp_ms).all()
    for behaviour in BEHAVIOURS:
        bucket = pd.qcut(rows[behaviour], 8)
        told, drawn = (
            rows.groupby(bucket, observed=True)[behaviour].mean(),
            rows.groupby(bucket, observed=True)[f"is_{behaviour}"],
        )
        assert (np.abs(drawn.mean() - told) < 4 * np.sqrt(told / drawn.size())).all()
        assert told.iloc[-1] > 4 * told.iloc[0]


def test_best_reachable_auc_is_that_of_scikit_learn(rows: pd.DataFrame, made: tuple[Path, Simulated]) -> None:
    total, last = made[1].total, made[1].days[rows.day.iloc[-1]]
    day = rows[rows.day == rows.day.iloc[-1]]
    for behaviour in BEHAVIOURS:
        assert total.auc[behaviour] == pytest.approx(roc_auc_score(rows[f"is_{behaviour}"], rows[behaviour]), abs=1e-3)
        assert last.auc[behaviour] == pytest.approx(roc_auc_score(day[f"is_{behaviour}"], day[behaviour]), abs=1e-3)
        p = rows[behaviour].to_numpy()
        both = np.repeat([1, 0], len(p))
        expected = roc_auc_score(both, np.tile(p, 2), sample_weight=np.concatenate([p, 1 - p]))
        assert total.expected_auc[behaviour] == pytest.approx(expected, abs=1e-3)


def test_a_request_is_decided_by_strictly_earlier_requests_of_its_user_alone() -> None:
    """Every request of a day is decided again by an empty world that is told what the log says happened before, one by one."""
    world, twin = World(40, 300, seed=5, start=0), World(40, 300, seed=5, start=0)
    rows = play(world, 1, 3_000)[0]
    twin.interest, twin.scale = world.interest, world.scale
    edges = np.flatnonzero(np.r_[True, (np.diff(rows.user) != 0) | (np.diff(rows.time) != 0), True])
    assert len(edges) > 200
    for start, end in pairwise(edges):
        one = rows.take(np.arange(start, end))
        history = twin.scale.history(*twin.signals(one.user, one.item, twin.hours(one.time)))
        p = probabilities(twin.others(one.user, one.item, one.position, one.time / HOUR), history, world.intercept)
        np.testing.assert_allclose(p, one.probability, rtol=1e-5)
        for name, memory in twin.memory.items():
            done = one.label[:, BEHAVIOURS.index(name)] > 0
            memory.push(one.user[done], one.item[done], twin.hours(one.time[done]))


# effects


def test_an_empty_past_says_nothing() -> None:
    """Whatever the item and however long the world has run."""
    world = World(1, 400, seed=1, start=0)
    same = np.zeros(400, int), np.arange(400)
    early, late = (world.signals(*same, np.full(400, t, np.float32))[0] for t in (1, 1_000))
    assert not early.any()
    assert not late.any()


def test_position_and_hour_count() -> None:
    world = World(1_500, 1_000, seed=1, start=0)
    rows = play(world, 4, 30_000)[-1]
    click, hour = rows.label[:, 0], rows.time / HOUR % 24
    assert click[rows.position <= 2].mean() > 1.3 * click[rows.position >= 8].mean()
    assert click[hour > 18].mean() > 1.1 * click[(hour > 6) & (hour < 12)].mean()

    def decided(position: int, hour: float) -> list[float]:
        """Logits without history, at another hour of the day: nothing else differs."""
        return [float(v) for v in world.others(np.array([3]), np.array([5]), np.array([position]), np.array([hour]))[0]]

    assert decided(1, 12)[0] > decided(10, 12)[0] + 0.5
    assert decided(1, 21)[0] > decided(1, 9)[0] + 0.3
    assert decided(1, 13)[3] > decided(1, 1)[3] + 0.3


def test_history_is_needed_even_by_one_who_knows_all_hidden_tables() -> None:
    world = World(600, 1_000, seed=4, start=0)
    rows = play(world, 6, 10_000)[-1]
    none = np.zeros_like(rows.history)
    p = probabilities(rows.other, none, solve_intercepts(rows.other, none, world.intercept))
    for index, gain in ((0, 0.02), (1, 0.03), (3, 0.03)):
        with_history = roc_auc_score(rows.label[:, index], rows.probability[:, index])
        assert with_history > roc_auc_score(rows.label[:, index], p[:, index]) + gain


def test_item_popularity_is_far_from_the_best(contract: Contract, tmp_path: Path) -> None:
    """At the default size, the demo's: clicks leave room between the smoothed popularity of an item and the truth."""
    simulated = simulate(tmp_path / "raw", contract, truth=tmp_path / "truth")
    log = [pd.read_parquet(tmp_path / "raw" / name) for name in simulated.files.values()]
    past, last = pd.concat(log[:-1]), log[-1]
    clicks = past.groupby("item_id").is_click.agg(["sum", "count"])
    mean = past.is_click.mean()
    popularity = last.item_id.map((clicks["sum"] + 20 * mean) / (clicks["count"] + 20)).fillna(mean)
    best = simulated.days[contract.days()[-1]].auc["click"]
    assert best is not None
    assert 0.55 < roc_auc_score(last.is_click, popularity) < 0.68
    assert 0.74 < best < 0.86


def test_interests_drift() -> None:
    world = World(2_000, 1_000, seed=4, start=0)
    before = world.interest.copy()
    play(world, 10, 500)
    assert 0.05 < (world.interest != before).mean() < 0.2


# mistakes


def test_mistakes_are_told(contract: Contract, tmp_path: Path) -> None:
    raw, truth = tmp_path / "raw", tmp_path / "truth"
    days = contract.days()[:2]
    for call, told in (
        ({"users": 0}, r"at least 1 of each.*'users': 0"),
        ({"days": days[::-1]}, "distinct and in order"),
        ({"truth": raw / "truth"}, "inside the log's folder"),
    ):
        with pytest.raises(ValueError, match=told):
            simulate(raw, contract, **({"truth": truth} | call))
    for change, told in (
        ({"item_features": {"colour": "colour"}}, r"no colour \(features are category, "),
        ({"tasks": {"share": {"label": "is_share"}}, "serving": {}}, "no column is_share"),
        ({"tasks": {"click": {"label": "stars >= 4"}}, "serving": {}}, "no column stars"),
        ({"context": {}, "time": {"column": "day", "kind": "date"}}, r"time.kind 'date' is not simulated"),
    ):
        strange = Contract.model_validate(contract.model_dump(mode="json") | change)
        with pytest.raises(ValueError, match=told):
            simulate(raw, strange, truth=truth, days=days)
    assert not raw.exists()
    raw.mkdir()
    (raw / "another.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds another.parquet"):
        simulate(raw, contract, truth=truth, days=days)


def test_days_follow_the_contracts_clock(tmp_path: Path) -> None:
    """The day on which Paris loses an hour has 23 of them."""
    spring, contract = date(2026, 3, 29), load("simulated")
    simulate(tmp_path / "raw", contract, truth=tmp_path / "truth", days=[str(spring), str(spring + timedelta(days=1))], **SMALL)
    log = pd.read_parquet(tmp_path / "raw" / f"day={spring}.parquet")
    local = pd.to_datetime(log.timestamp_ms, unit="ms", utc=True).dt.tz_convert("Europe/Paris")
    assert set(local.dt.date) == {spring}
    assert log.timestamp_ms.max() - log.timestamp_ms.min() < 23 * HOUR
