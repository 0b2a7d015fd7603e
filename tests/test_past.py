"""What users remember and what each behaviour reads of it, against a plain loop over events; the two knobs at both ends."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import pytest

from assets.past import BEHAVIOURS, INTENT, RECENT, REMEMBERED, SPREAD, WEEK, Memory, Scale
from assets.world import World, probabilities

Event = tuple[str, int, float]
"""Behaviour, item, hour."""

NOW = 1_000.0


def mind(events: list[Event], **conflicts: float) -> World:
    """A world whose only user remembers these events."""
    world = World(1, 600, seed=1, start=0, **conflicts)
    for behaviour, item, hour in sorted(events, key=lambda e: e[2]):
        world.memory[behaviour].push(np.array([0]), np.array([item]), np.array([hour], np.float32))
    return world


def read_plainly(world: World, events: list[Event], item: int, selection_conflict: float) -> list[float]:
    """Selection of the four behaviours and intent, an event at a time."""
    kept = {n: sorted((e for e in events if e[0] == n), key=lambda e: e[2])[-REMEMBERED:] for n in ("click", "cart")}
    latest = sorted((h for _, _, h in kept["click"]), reverse=True)[:RECENT]
    amount = dict.fromkeys(BEHAVIOURS, 0.0)
    for _, other, hour in kept["click"]:
        if hour < NOW - WEEK:
            continue
        dearer = int(world.item_price[other]) - int(world.item_price[item])
        if world.item_category[other] == world.item_category[item]:
            mine = "click" if len(latest) < RECENT or hour >= latest[-1] else "buy"
            for behaviour in BEHAVIOURS:
                amount[behaviour] += 1 - selection_conflict
        else:
            mine = {0: "cart", 1: "favourite"}.get(dearer, "")
        if mine:
            amount[mine] += selection_conflict
    carts = [h for _, i, h in kept["cart"] if world.item_category[i] == world.item_category[item] and h >= NOW - WEEK]
    return [*(math.tanh(amount[b]) for b in BEHAVIOURS), math.tanh(len(carts))]


def drawn(world: World, rng: np.random.Generator) -> list[Event]:
    """Some events, near ones of a few categories, some at the same hour, some too old, some too many to remember."""
    near = np.flatnonzero(world.item_category < 2)
    return [
        (str(rng.choice(["click", "click", "click", "cart"])), int(rng.choice(near)), float(NOW - rng.integers(1, 200)))
        for _ in range(rng.integers(0, 30))
    ]


def history(world: World, item: int) -> Any:
    """(4,): h of the user's view of one item, at a scale of no centre."""
    return world.scale.history(*world.signals(np.array([0]), np.array([item]), np.array([NOW], np.float32)))[0]


def selections(world: World, item: int) -> Any:
    """(4,): the selection of each behaviour of one item."""
    return world.signals(np.array([0]), np.array([item]), np.array([NOW], np.float32))[0][0, :4]


@pytest.mark.parametrize("conflict", [0.0, 0.3, 1.0])
def test_what_is_read_is_what_a_plain_loop_reads(conflict: float) -> None:
    rng, seen = np.random.default_rng(4), np.zeros(5)
    for _ in range(60):
        events = drawn(World(1, 600, seed=1, start=0), rng)
        events = list({(n, h): (n, i, h) for n, i, h in events}.values()) if len(events) > REMEMBERED else events
        world = mind(events, selection_conflict=conflict)
        for item in rng.choice(np.flatnonzero(world.item_category < 2), 5):
            told = world.signals(np.array([0]), np.array([item]), np.array([NOW], np.float32))[0][0]
            assert told == pytest.approx(read_plainly(world, events, int(item), conflict))
            seen += told > 0
    assert (seen > 10).all()


def test_the_parts_that_history_has_in_the_logits_are_those_of_the_written_formula() -> None:
    rng = np.random.default_rng(0)
    raw, sign = rng.random((50, 5)), rng.choice([-1.0, 1.0], (50, 4))
    told = Scale.fit(raw, sign).history(raw, sign)
    part = (raw - raw.mean(0)) / raw.std(0)
    for b in range(4):
        whole = part[:, b] + INTENT * sign[:, b] * part[:, 4]
        assert told[:, b] == pytest.approx(SPREAD[b] * (whole - whole.mean()) / whole.std())


def test_a_day_without_a_past_is_not_blown_up() -> None:
    raw = np.zeros((400, 5))
    raw[0] = 1
    told = Scale.fit(raw, np.ones((400, 4))).history(raw, np.ones((400, 4)))
    assert np.abs(told).max() < 12
    assert (told.std(0) < 0.4 * SPREAD).all()
    assert not Scale.fit(raw[1:], np.ones((399, 4))).history(raw[1:], np.ones((399, 4))).any()


@pytest.mark.parametrize(("conflict", "opposed"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_signs_agree_at_0_and_are_opposed_at_1(conflict: float, opposed: float) -> None:
    """What one more cart in the category does to each behaviour, category by category: its size never depends on the knob."""
    reference = mind([("cart", 5, NOW - 5)])
    size = np.abs(history(reference, 5) - history(mind([]), 5))
    against = []
    for category in range(reference.categories):
        item = int(np.flatnonzero(reference.item_category == category)[0])
        with_cart, without = (mind(e, sign_conflict=conflict) for e in ([("cart", item, NOW - 5)], []))
        effect = history(with_cart, item) - history(without, item)
        assert np.abs(effect) == pytest.approx(size)
        assert effect[1] > 0
        assert effect[3] > 0
        assert effect[0] * effect[2] > 0
        against.append(effect[0] < 0)
    assert np.mean(against) == pytest.approx(opposed, abs=1e-9)


def test_a_category_that_is_opposed_stays_so_at_a_greater_conflict() -> None:
    before = np.zeros(6, bool)
    for conflict in (0, 0.2, 0.5, 0.8, 1):
        opposed = mind([], sign_conflict=conflict).opposed
        assert (opposed >= before).all()
        before = opposed
    assert before.all()


@pytest.mark.parametrize("conflict", [0.0, 0.4, 1.0])
def test_behaviours_read_the_same_clicks_at_0_and_disjoint_ones_at_1(conflict: float) -> None:
    """Each click in turn becomes one of an item that nobody reads: whose selection changes?"""
    rng, readers = np.random.default_rng(7), set()
    for _ in range(40):
        clicks = [e for e in drawn(mind([]), rng) if e[0] == "click"][:REMEMBERED]
        world = mind(clicks, selection_conflict=conflict)
        item = int(rng.choice(np.flatnonzero(world.item_category < 2)))
        dearer = world.item_price - world.item_price[item]
        unread = int(np.flatnonzero((world.item_category == 5) & (dearer != 0) & (dearer != 1))[0])
        whole = selections(world, item)
        for place, (name, _, hour) in enumerate(clicks):
            changed = [*clicks[:place], (name, unread, hour), *clicks[place + 1 :]]
            readers.add(tuple(np.flatnonzero(whole != selections(mind(changed, selection_conflict=conflict), item)).tolist()))
    one, every = {(0,), (1,), (2,), (3,)}, (0, 1, 2, 3)
    assert readers == {0.0: {(), every}, 0.4: {(1,), (2,), every, ()}, 1.0: {(), *one}}[conflict]


def test_what_a_purchase_reads_does_not_move_the_click_nor_the_other_way() -> None:
    """At full conflict, in the probabilities: an old click moves buy alone, a recent one click alone, a like price cart."""
    world = mind([])
    item = next(i for i in range(600) if world.item_price[i] == 2)
    kin = next(i for i in range(600) if world.item_category[i] == world.item_category[item] and i != item)
    strange = [i for i in range(600) if world.item_category[i] != world.item_category[item]]
    unread, priced = (next(i for i in strange if world.item_price[i] == price) for price in (1, 2))
    latest = [("click", unread, NOW - hour) for hour in (1, 2, 3, 4)]

    def chances(events: list[Event]) -> Any:
        told = mind(events, selection_conflict=1)
        other = told.others(np.array([0]), np.array([item]), np.array([1]), np.array([12.0]))
        return probabilities(other, history(told, item)[None], np.array([-2.0, -2.0, -2.0, -2.0]))[0]

    nothing = chances(latest)
    for added, moved in (
        ([("click", kin, NOW - 50), *latest], [3]),
        ([("click", kin, NOW - 0.5), *latest], [0]),
        ([("click", priced, NOW - 50), *latest], [1]),
        ([("click", kin, NOW - WEEK - 1), *latest], []),
    ):
        assert np.flatnonzero(np.abs(chances(added) - nothing) > 1e-12).tolist() == moved
        assert (chances(added) >= nothing).all()


def test_clicks_of_one_moment_are_the_latest_together() -> None:
    """A log does not say which of a request's clicks came first, so no reader may need to know."""
    memory = Memory(1)
    for hour in (1.0, 2.0, 2.0, 3.0, 4.0, 4.0):
        memory.push(np.array([0]), np.array([7]), np.array([hour], np.float32))
    _, counts, latest = memory.read(np.array([0]), np.array([10.0], np.float32))
    hours = memory.hour[0]
    assert sorted(hours[latest[0]]) == [2.0, 2.0, 3.0, 4.0, 4.0]
    assert counts.sum() == 6


def test_memory_keeps_the_last_events_of_each_user() -> None:
    rng = np.random.default_rng(2)
    memory, plain = Memory(5), [deque[tuple[int, float]](maxlen=REMEMBERED) for _ in range(5)]
    for hour in range(60):
        user = np.sort(rng.integers(0, 5, rng.integers(0, 12)))
        item = rng.integers(0, 100, len(user))
        memory.push(user, item, np.full(len(user), hour, np.float32))
        for u, i in zip(user, item, strict=True):
            plain[u].append((i, hour))
    kept = memory.copy(slice(1, 3))
    for u in range(5):
        assert sorted(zip(memory.item[u], memory.hour[u], strict=True)) == sorted(plain[u])
    memory.push(np.array([1, 2]), np.array([1, 2]), np.array([99.0, 99.0], np.float32))
    memory.restore(slice(1, 3), kept)
    assert all(sorted(zip(memory.item[u], memory.hour[u], strict=True)) == sorted(plain[u]) for u in range(5))
