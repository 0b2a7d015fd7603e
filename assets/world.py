"""The simulated shop: who is shown what at which moment, what they then do, and with which probability.

Users have a few interests that drift from day to day, a segment and a price they like; items have a category, a price
band, a long-tailed popularity and two hidden qualities. A request shows a user about ten distinct items at one
moment. A shown item may be clicked, and a clicked one put in the cart, kept as a favourite or bought:

    P(click)     = σ(b_click + z_click)
    P(behaviour) = P(click) · σ(b_behaviour + z_behaviour)      behaviour: cart, favourite, buy; independent given the click

The logits z see the user's own past of strictly earlier requests, each behaviour another part of it: a click follows
recent clicks of the category, a cart the favourites of the category and earlier clicks of the item, a purchase follows
carts of the category that have ripened for a day or two; a purchase in the category makes the next ones unlikely for
some days. Nothing a user does changes what another one does, so users are processed in blocks and, within a block, the
k-th requests of the day of all users at once; memory is a few hundred bytes a user and an item.

The intercepts b hold the base rates. Unheld, histories fill, raise the probabilities, and fill faster. So each day is
rehearsed on the first block of users, with the same random numbers, until the intercepts that would give the rates are
those that it was run with; then it is run. They are one number a behaviour and day: the only thing in a probability that
a user's own strictly earlier past does not explain.

Files, days of a calendar and columns of a contract are in `assets.simulator`.
Letters: V users · R requests · C columns of a request · B rows (impressions) · L remembered events · K interests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

BASE_RATES = {"click": 0.15, "cart": 0.04, "favourite": 0.03, "buy": 0.02}
"""Positives per impression that the calibration holds."""

BEHAVIOURS = tuple(BASE_RATES)
SEGMENTS = 5
PRICE_BANDS = 5
INTERESTS = np.array([0.5, 0.3, 0.2])
"""Weights of a user's interests, strongest first."""

INTEREST_CHANGES = 0.04
"""Chance a day that one interest of a user is replaced."""

REQUEST_SIZES = (6, 14)
DRAWS = 18
"""Items drawn for one request, of which the best distinct ones are shown."""

REMEMBERED = 16
"""Events of each behaviour that a user's memory keeps; no fewer than a request has items, so none overwrites itself."""

BLOCK = 50_000
"""Users simulated at once: bounds the memory of a day whatever the number of users."""

REHEARSALS = 8
"""Most rehearsals of one day; usually one, and three or four on the first, when memory starts empty."""

SETTLED = 0.03
"""An intercept that moves by less than this is not rehearsed again."""


def sigmoid(x: Floats) -> Floats:
    out: Floats = 1 / (1 + np.exp(-x))
    return out


class Memory:
    """The last `REMEMBERED` events of one behaviour of every user, as a ring: items (−1: empty) and hours, each (V, L)."""

    def __init__(self, users: int) -> None:
        self.item = np.full((users, REMEMBERED), -1, np.int32)
        self.hour = np.zeros((users, REMEMBERED), np.float32)
        self.pushed = np.zeros(users, np.int64)

    def push(self, user: Ints, item: Ints, hour: Floats) -> None:
        """Remember events (N,), ordered by user; at most `REMEMBERED` of a user in one call."""
        first = np.searchsorted(user, user)  # of equal users the first row, so the difference counts within the user
        slot = (self.pushed[user] + np.arange(len(user)) - first) % REMEMBERED
        self.item[user, slot] = item
        self.hour[user, slot] = hour
        np.add.at(self.pushed, user, 1)

    def copy(self, users: slice) -> list[NDArray[Any]]:
        """What these users remember, to be given to `restore`."""
        return [self.item[users].copy(), self.hour[users].copy(), self.pushed[users].copy()]

    def restore(self, users: slice, kept: list[NDArray[Any]]) -> None:
        """Make these users remember what they did at `copy`."""
        self.item[users], self.hour[users], self.pushed[users] = kept


@dataclass(frozen=True)
class Impressions:
    """B rows ordered by (user, time, position). Users and items are positions in the world's tables; time is epoch ms.

    logit (before intercepts), probability, label: (B, 4), in the order of `BEHAVIOURS`.
    """

    user: Ints
    item: Ints
    time: Ints
    position: Ints
    logit: Floats
    probability: Floats
    label: NDArray[np.int8]

    def take(self, rows: Ints) -> Impressions:
        return Impressions(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class World:
    """All tables and the state of one simulated shop. The same arguments and the same days give the same world."""

    def __init__(self, users: int, items: int, seed: int, start: int) -> None:
        """`start`: epoch ms that the world's hours are counted from."""
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

        self.memory = {name: Memory(users) for name in BEHAVIOURS}
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
            z = run().logit
            for name, memory in self.memory.items():
                memory.restore(users, kept[name])
            before = self.intercept
            self.intercept = solve_intercepts(z, before)
            if np.abs(self.intercept - before).max() < SETTLED:
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
        z = self.logits(who, item, position, when, (when - opens) / 3_600_000)
        probability = sigmoid(z + self.intercept)
        label = rng.random(z.shape) < probability
        label[:, 1:] &= label[:, :1]
        probability[:, 1:] *= probability[:, :1]
        for index, name in enumerate(BEHAVIOURS):
            done = label[:, index]
            self.memory[name].push(who[done], item[done], self.hours(when[done]))
        return Impressions(who, item, when, position, z, probability, label.astype(np.int8))

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

    def logits(self, user: Ints, item: Ints, position: Ints, time: Ints, hour: Floats) -> Floats:
        """What decides the four behaviours, without intercepts: (B, 4), from (B,) each; `hour` is that of the day."""
        now = self.hours(time)
        clicks_age, clicks_alike = self._past("click", user, item, now)
        carts_age, carts_alike = self._past("cart", user, item, now)
        favourites_age, favourites_alike = self._past("favourite", user, item, now)
        buys_age, buys_alike = self._past("buy", user, item, now)
        recent_clicks = np.tanh((clicks_alike * np.exp(-clicks_age / 36)).sum(1))
        ripe_carts = np.tanh((carts_alike * carts_age / 36 * np.exp(1 - carts_age / 36)).sum(1))
        favourites = np.tanh((favourites_alike * np.exp(-favourites_age / 96)).sum(1))
        sated = np.tanh((buys_alike * np.exp(-buys_age / 96)).sum(1))
        seen = (self.memory["click"].item[user] == item[:, None]).any(1)

        interest = self._interest(user, item)
        off_price = np.abs(self.item_price[item] - self.price_liked[user])
        z = np.empty((len(user), len(BEHAVIOURS)))
        z[:, 0] = 0.55 * self.appeal[item] + 1.8 * interest + 1.9 * recent_clicks - 0.8 * sated - 0.6 * seen
        z[:, 0] += self.eagerness[user] - 0.25 * off_price - 0.4 * np.log(position) + 0.3 * np.cos((hour - 21) * np.pi / 12)
        z[:, 1] = 0.5 * self.worth[item] + 1.5 * favourites + 1.0 * seen - 0.3 * off_price
        z[:, 2] = 0.5 * self.appeal[item] + 1.5 * interest - 1.5 * favourites
        z[:, 3] = 0.5 * self.worth[item] + 2.4 * ripe_carts - 2.4 * sated - 0.4 * off_price
        z[:, 3] += 0.3 * np.cos((hour - 13) * np.pi / 12)
        return z

    def _past(self, behaviour: str, user: Ints, item: Ints, now: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Ages in hours (B, L) of a behaviour's remembered events, and which are of the item's category."""
        memory = self.memory[behaviour]
        before = memory.item[user]
        alike = (before >= 0) & (self.item_category[before] == self.item_category[item][:, None])
        return now[:, None] - memory.hour[user], alike


def solve_intercepts(z: Floats, start: Floats) -> Floats:
    """Intercepts (4,) that bring the mean probabilities of logits `z` (B, 4) to `BASE_RATES`; `start` when there is no row."""
    found = np.array(start)
    gate: Floats = np.ones(len(z))
    for index, rate in enumerate(BASE_RATES.values()):
        for _ in range(30 if len(z) else 0):  # Newton's steps on an increasing function; bounded, since it is flat far out
            p = sigmoid(z[:, index] + found[index])
            step = (rate * len(z) - (gate * p).sum()) / (gate * p * (1 - p)).sum()
            found[index] += np.clip(step, -1, 1)
            if abs(step) < 1e-6:
                break
        if index == 0:
            gate = sigmoid(z[:, 0] + found[0])  # what comes after the click needs the click
    return found


def _no_impressions() -> Impressions:
    none, real = np.empty(0, np.int64), np.empty((0, len(BEHAVIOURS)))
    return Impressions(none, none, none, none, real, real, real.astype(np.int8))
