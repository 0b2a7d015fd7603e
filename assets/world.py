"""The simulated shop: who is shown what at which moment, what they then do, and with which probability.

Users have a few interests that drift from day to day, a segment and a price they like; items have a category, a price
band, a long-tailed popularity and two hidden qualities. A request shows a user about ten distinct items at one
moment. A shown item may be clicked, and a clicked one put in the cart, kept as a favourite or bought:

    P(click)     = σ(b_click + z_click)
    P(behaviour) = min(P(click), P(click | n) · σ(b_behaviour + z_behaviour))
                   behaviour: cart, favourite, buy; only after a click, and then independent of each other

The logits are z = n + h. What history explains, h, is read from the user's own clicks and carts in strictly earlier requests
(`assets.past`); n is all the rest. P(·| n) is without h, so that what history says of a purchase is not what it says of the
click that the purchase needs: click's h does not enter, but where the bound does. Two knobs set how much the behaviours
disagree about h; neither changes base rates or the spread of h. Nothing a user does changes what another one does, so users
are processed in blocks and, within a block, the k-th requests of the day of all users at once; memory is a few hundred
bytes a user and an item.

The intercepts b hold the base rates. Unheld, histories fill, raise the probabilities, and fill faster. So each day is
rehearsed on the first block of users, with the same random numbers, until the intercepts that would give the rates, and the
scale that gives h its spread, are those that it was run with; then it is run. They are a few numbers a day, which stand still
once a week's history is there: the only things in a probability that a user's own strictly earlier past does not explain.

Files, days of a calendar and columns of a contract are in `assets.simulator`.
Letters: V users · R requests · C columns of a request · B rows (impressions) · L remembered events · K interests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assets.past import BEHAVIOURS, OPPOSED, REMEMBERED, Floats, Ints, Memory, Scale, intent, selection

BASE_RATES = {"click": 0.15, "cart": 0.04, "favourite": 0.03, "buy": 0.02}
"""Positives per impression that the calibration holds."""

SEGMENTS = 5
PRICE_BANDS = 5
INTERESTS = np.array([0.5, 0.3, 0.2])
"""Weights of a user's interests, strongest first."""

INTEREST_CHANGES = 0.04
"""Chance a day that one interest of a user is replaced."""

REQUEST_SIZES = (6, 14)
DRAWS = 18
"""Items drawn for one request, of which the best distinct ones are shown."""

BLOCK = 50_000
"""Users simulated at once: bounds the memory of a day whatever the number of users."""

REHEARSALS = 8
"""Most rehearsals of one day; usually two, and about five on the first, when memory starts empty."""

SETTLED = 0.03
"""When the intercepts, and the history of every row, move by less than this, the day is not rehearsed again."""


def sigmoid(x: Floats) -> Floats:
    out: Floats = 1 / (1 + np.exp(-x))
    return out


@dataclass(frozen=True)
class Impressions:
    """B rows ordered by (user, time, position). Users and items are positions in the world's tables; time is epoch ms.

    other (n), raw (selection of each behaviour, intent), sign (of the intent), history (h), probability, label:
    (B, 4), raw (B, 5), in the order of `BEHAVIOURS`.
    """

    user: Ints
    item: Ints
    time: Ints
    position: Ints
    other: Floats
    raw: Floats
    sign: Floats
    history: Floats
    probability: Floats
    label: NDArray[np.int8]

    def take(self, rows: Ints) -> Impressions:
        return Impressions(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class World:
    """All tables and the state of one simulated shop. The same arguments and the same days give the same world."""

    def __init__(
        self, users: int, items: int, seed: int, start: int, *, sign_conflict: float = 0.5, selection_conflict: float = 0.5
    ) -> None:
        """`start`: epoch ms that the world's hours are counted from. Raises ValueError for a conflict outside [0, 1]."""
        for name, conflict in (("sign_conflict", sign_conflict), ("selection_conflict", selection_conflict)):
            if not 0 <= conflict <= 1:
                raise ValueError(f"{name} {conflict} came; it is a number from 0 (the tasks agree) to 1 (they are opposed)")
        rng = np.random.default_rng([seed, 0])
        self.seed, self.start = seed, start
        self.categories = max(4, min(400, items // 100))

        self.item_category = np.sort(rng.integers(0, self.categories, items)).astype(np.int32)
        self.item_price = np.clip(np.round(rng.normal(3, 1.1, items)), 1, PRICE_BANDS).astype(np.int32)
        self.appeal = rng.normal(0, 1, items)
        self.worth = 0.4 * self.appeal + 0.9 * rng.normal(0, 1, items)
        weight = (1 + rng.permutation(items)) ** -0.8 * np.exp(0.3 * self.appeal)
        self.popularity = np.cumsum(weight / weight.sum())
        self.fame = np.log(weight / weight.mean())
        # Items lie ordered by category, so a category is a span of the cumulated popularity.
        edges = np.searchsorted(self.item_category, np.arange(self.categories + 1))
        self.category_edge = np.concatenate([[0.0], self.popularity])[edges]
        self.item_id = 1 + rng.permutation(items)

        self.segment = rng.integers(0, SEGMENTS, users).astype(np.int32)
        self.activity = rng.lognormal(0, 0.7, users)
        self.activity /= self.activity.sum()
        self.eagerness = rng.normal(0, 0.3, users)
        self.price_liked = np.clip(1 + self.segment + rng.normal(0, 0.7, users), 1, PRICE_BANDS)
        self.interest = self._draw_categories(rng, (users, len(INTERESTS)))

        self.selection_conflict = selection_conflict
        # Nested: a category that is opposed at one conflict is so at every greater one.
        self.opposed = rng.permutation(self.categories) < round(sign_conflict * self.categories)
        self.memory = {name: Memory(users) for name in ("click", "cart")}
        self.scale = Scale()
        rates = np.array(list(BASE_RATES.values()))
        self.intercept = np.log(rates / (1 - rates))

    @property
    def users(self) -> int:
        return len(self.segment)

    def _draw_items(self, rng: np.random.Generator, category: Ints) -> Ints:
        """An item of each category by popularity."""
        low, high = self.category_edge[category], self.category_edge[category + 1]
        drawn = np.searchsorted(self.popularity, low + rng.random(category.shape) * (high - low), side="right")
        item: Ints = np.minimum(drawn, len(self.popularity) - 1)
        return item

    def _draw_categories(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Ints:
        """Categories, those of more and better known items more often."""
        drawn = np.searchsorted(self.popularity, rng.random(shape), side="right")
        category: Ints = self.item_category[np.minimum(drawn, len(self.popularity) - 1)]
        return category

    def day(self, ordinal: int, opens: int, closes: int, impressions: int) -> Iterator[Impressions]:
        """The day `ordinal` between the epoch ms `opens` and `closes`, about `impressions` rows, a block of users at a time."""
        for first in range(0, self.users, BLOCK):
            users = slice(first, min(first + BLOCK, self.users))
            self._drift(np.random.default_rng([self.seed, ordinal, first, 1]), users)

            def run(seed: tuple[int, ...] = (self.seed, ordinal, first, 2), users: slice = users) -> Impressions:
                return self._block(np.random.default_rng(seed), users, opens, closes, impressions)

            if first == 0:
                self._rehearse(run, users)
            yield run()

    def _drift(self, rng: np.random.Generator, users: slice) -> None:
        """Replace an interest of some users."""
        changed = users.start + np.flatnonzero(rng.random(users.stop - users.start) < INTEREST_CHANGES)
        self.interest[changed, rng.integers(0, len(INTERESTS), len(changed))] = self._draw_categories(rng, (len(changed),))

    def _rehearse(self, run: Callable[[], Impressions], users: slice) -> None:
        """Find the day's intercepts by running it and forgetting it."""
        for _ in range(REHEARSALS):
            kept = {name: memory.copy(users) for name, memory in self.memory.items()}
            rows = run()
            for name, memory in self.memory.items():
                memory.restore(users, kept[name])
            if not len(rows.user):
                return
            before = self.intercept
            self.scale = Scale.fit(rows.raw, rows.sign)
            history = self.scale.history(rows.raw, rows.sign)
            self.intercept = solve_intercepts(rows.other, history, before)
            if max(np.abs(self.intercept - before).max(), np.abs(history - rows.history).max()) < SETTLED:
                return

    def _block(self, rng: np.random.Generator, users: slice, opens: int, closes: int, impressions: int) -> Impressions:
        """One day of a block of users, in slices of everybody's first request, second, …"""
        requests = rng.poisson(self.activity[users] * impressions / np.mean(REQUEST_SIZES))
        user = np.repeat(np.arange(users.start, users.stop), requests)
        # Two humps: people shop at noon and in the evening.
        evening = rng.random(len(user)) < 0.6
        moment = np.where(evening, rng.normal(20.5, 2.0, len(user)), rng.normal(12.5, 3.0, len(user))) % 24 / 24
        time = opens + (moment * (closes - opens)).astype(np.int64)
        distinct = np.unique(np.stack([user, time], axis=1), axis=0)  # a request is one user at one moment
        user, time = distinct[:, 0], distinct[:, 1]
        order = np.arange(len(user)) - np.searchsorted(user, user)
        parts = [_no_impressions()]
        for k in range(order.max(initial=-1) + 1):
            now = order == k
            parts.append(self._slice(rng, user[now], time[now], opens))
        joined = Impressions(*(np.concatenate([getattr(p, name) for p in parts]) for name in Impressions.__dataclass_fields__))
        return joined.take(np.lexsort((joined.position, joined.time, joined.user)))

    def _slice(self, rng: np.random.Generator, user: Ints, time: Ints, opens: int) -> Impressions:
        """One request of each user (R,): shown, answered, and only then remembered."""
        request, item, position = self._expose(rng, user)
        who, when = user[request], time[request]
        other = self.others(who, item, position, (when - opens) / 3_600_000)
        raw, sign = self.signals(who, item, self.hours(when))
        history = self.scale.history(raw, sign)
        probability = probabilities(other, history, self.intercept)
        chance = probability.copy()
        chance[:, 1:] /= chance[:, :1]
        label = rng.random(chance.shape) < chance
        label[:, 1:] &= label[:, :1]
        for name, memory in self.memory.items():
            done = label[:, BEHAVIOURS.index(name)]
            memory.push(who[done], item[done], self.hours(when[done]))
        return Impressions(who, item, when, position, other, raw, sign, history, probability, label.astype(np.int8))

    def hours(self, time: Ints) -> Floats:
        """Hours since the world's start, the unit of its memory."""
        return ((time - self.start) / 3_600_000).astype(np.float32)

    def _expose(self, rng: np.random.Generator, user: Ints) -> tuple[Ints, Ints, Ints]:
        """What requests of users (R,) show: (request, item, position), each (B,), positions from 1 in the order of display.

        The policy draws from the user's interests, from what the user clicked or carted before, and from everything, by
        popularity; then prefers the known and the matching. So what is shown is no random sample of what there is.
        """
        shape = (len(user), DRAWS)
        source = rng.random(shape)
        interest = np.searchsorted(np.cumsum(INTERESTS), rng.random(shape) * 0.999)
        category = np.where(source < 0.5, self.interest[user[:, None], interest], self._draw_categories(rng, shape))
        clicked = self.memory["click"].item[user[:, None], rng.integers(0, REMEMBERED, shape)]
        category = np.where((source > 0.7) & (clicked >= 0), self.item_category[clicked], category)
        item = self._draw_items(rng, category)
        carted = self.memory["cart"].item[user[:, None], rng.integers(0, REMEMBERED, shape)]
        item = np.where((source > 0.9) & (carted >= 0), carted, item)

        score = 0.4 * self.fame[item] + 2.0 * self._interest(user[:, None], item) + rng.gumbel(0, 1, shape)
        by_item = np.argsort(item, axis=1, kind="stable")
        ordered = np.take_along_axis(item, by_item, 1)
        again = np.zeros(shape, bool)
        np.put_along_axis(again, by_item[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
        score[again] = -np.inf
        display = np.argsort(-score, axis=1, kind="stable")
        size = np.minimum(rng.integers(REQUEST_SIZES[0], REQUEST_SIZES[1] + 1, len(user)), DRAWS - again.sum(1))
        request, column = np.nonzero(np.arange(DRAWS) < size[:, None])
        return request, np.take_along_axis(item, display, 1)[request, column], column + 1

    def _interest(self, user: Ints, item: Ints) -> Floats:
        """Weight of the item's category among the user's interests; 0 when it is none of them."""
        match = self.interest[user] == self.item_category[item][..., None]
        out: Floats = match @ INTERESTS
        return out

    def others(self, user: Ints, item: Ints, position: Ints, hour: Floats) -> Floats:
        """n: what decides the four behaviours besides history and intercepts, (B, 4), from (B,) each; `hour` of the day."""
        interest = self._interest(user, item)
        off_price = np.abs(self.item_price[item] - self.price_liked[user])
        n = np.empty((len(user), len(BEHAVIOURS)))
        n[:, 0] = 0.55 * self.appeal[item] + 1.2 * interest + self.eagerness[user] - 0.25 * off_price
        n[:, 0] += -0.4 * np.log(position) + 0.3 * np.cos((hour - 21) * np.pi / 12)
        n[:, 1] = 0.85 * self.worth[item] - 0.3 * off_price
        n[:, 2] = 0.35 * self.appeal[item] + 1.2 * interest
        n[:, 3] = 0.4 * self.worth[item] - 0.4 * off_price + 0.3 * np.cos((hour - 13) * np.pi / 12)
        return n

    def signals(self, user: Ints, item: Ints, now: Floats) -> tuple[Floats, Floats]:
        """What history is made of, as `Scale.history` takes it: raw (B, 5) and sign (B, 4); `now` in hours of the world."""
        clicks, carts = (self.memory[name].read(user, now) for name in ("click", "cart"))
        selected = selection(clicks, item, self.item_category, self.item_price, self.selection_conflict)
        meant = intent(carts, item, self.item_category)
        sign = np.where(self.opposed[self.item_category[item]][:, None] & OPPOSED, -1.0, 1.0)
        return np.concatenate([selected, meant[:, None]], axis=1), sign


def probabilities(other: Floats, history: Floats, intercept: Floats) -> Floats:
    """P (B, 4) of each behaviour, by the formula at the top: n and h (B, 4), b (4,)."""
    p: Floats = sigmoid(other + history + intercept)
    without = sigmoid(other[:, :1] + intercept[0])
    p[:, 1:] = np.minimum(p[:, :1], without * p[:, 1:])
    return p


def solve_intercepts(other: Floats, history: Floats, start: Floats) -> Floats:
    """Intercepts (4,) that bring the means of `probabilities` to `BASE_RATES`; `start` when there is no row.

    Newton's steps on increasing functions of one intercept each, click's first; bounded, since they are flat far out.
    """
    found = np.array(start)
    for index, rate in enumerate(BASE_RATES.values()):
        gate: Floats = np.ones(len(other))
        bound: Floats = np.full(len(other), np.inf)
        if index:
            gate, bound = sigmoid(other[:, 0] + found[0]), sigmoid(other[:, 0] + history[:, 0] + found[0])
        for _ in range(50 if len(other) else 0):
            each = sigmoid(other[:, index] + history[:, index] + found[index])
            p = np.minimum(bound, gate * each)
            slope = (p * (1 - each) * (p < bound)).mean()
            step = np.clip((rate - p.mean()) / max(slope, 1e-9), -1, 1)
            found[index] += step
            if abs(step) < 1e-6:
                break
    return found


def _no_impressions() -> Impressions:
    none, real = np.empty(0, np.int64), np.empty((0, len(BEHAVIOURS)))
    return Impressions(none, none, none, none, real, np.empty((0, 5)), real, real, real, real.astype(np.int8))
