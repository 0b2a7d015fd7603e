"""The exposure log that training is measured on: drawn in memory from a seed, raw keys as in any log, labels to be learned.

A shop has items in groups; a user takes to a few groups and is more or less active, by a log-normal law, so that lengths of
histories have a long tail. A request shows about ten items. Label t of an impression is drawn with probability

    sigmoid(b_t + q_t[item] + s · z[item]·m / |m| − f · position)

b_t makes the base rates about 15, 4 and 2 %, q_t is how good the item is, z its place among the groups, m the mean of z over
the user's events of the task's behaviour before the request (without one the term is 0). So ids, histories and positions say
all that there is to know, and an AUC means something.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.contract import Contract
from models.requests import Ints, Requests, Sequences

ACTIONS = {"view": 23.0, "cart": 5.0, "favourite": 3.0, "buy": 2.0}
"""Behaviour → events of a user of average activity."""
LENGTH = 50
RATES = {"click": 0.15, "cart": 0.04, "buy": 0.02}
IMPRESSIONS = 10
FOLLOWS = ("view", "cart", "buy")
"""The behaviour that each task follows from."""
GROUPS, FAVOURITES, PLACES, SEGMENTS = 64, 3, 8, 8
QUALITY, STRENGTH, FADING, OFFSET = 0.8, 2.5, 0.1, 0.8
HOUR = 3_600_000
DAY = 24 * HOUR
FLAT = tuple(f.name for f in dataclasses.fields(Requests) if f.name not in ("sequences", "told"))
RAGGED = ("offsets", "tokens", "times")

CONTRACT = Contract.model_validate(
    {
        "name": "exposures",
        "shape": "exposures",
        "source": {"format": "parquet"},
        "columns": {"user": "user", "item": "item"},
        "time": {"column": "time", "kind": "epoch_ms", "zone": "UTC"},
        "calendar": {"first_day": "2026-03-02"},
        "user_features": {"segment": "segment"},
        "context": {"derived": ["hour"], "columns": {"position": "position"}},
        "behaviours": {name: {"when": f"is_{name}", "length": LENGTH} for name in ACTIONS},
        "tasks": {name: {"label": f"is_{name}"} for name in RATES},
    }
)
"""Four behaviours of at most 50 events, three tasks; a user has a segment, an item nothing but its id."""


@dataclass(frozen=True)
class Drawn:
    """Requests of raw keys, and what each label was drawn with (B, T)."""

    requests: Requests
    probability: NDArray[np.float64]


def draw(samples: int, items: int, seed: int) -> Drawn:
    """About `samples` impressions, ten a request, two requests a user on average; whole requests by (user, time)."""
    random = np.random.default_rng(seed)
    count = max(1, samples // IMPRESSIONS)
    users = max(2, count // 2)
    item_key, user_key = random.permutation(_keys(random, items)), _keys(random, users)
    group = random.integers(0, GROUPS, items)
    member = np.argsort(group, kind="stable")  # items of group g: member[first[g]:first[g + 1]]
    first = np.searchsorted(group[member], np.arange(GROUPS + 1))
    favourite = random.integers(0, GROUPS, (users, FAVOURITES))
    activity = random.lognormal(-0.5, 1.0, users)  # of mean 1

    def items_of(user: Ints, loyal: float) -> Ints:
        """An item for each user: of a favourite group with probability `loyal`, the popular ones of a group more often."""
        chosen = favourite[user, random.integers(0, FAVOURITES, len(user))]
        chosen = np.where(random.random(len(user)) < loyal, chosen, random.integers(0, GROUPS, len(user)))
        place = first[chosen] + (np.diff(first)[chosen] * random.random(len(user)) ** 2).astype(np.int64)
        return np.asarray(member[np.minimum(place, items - 1)], np.int64)

    who = [np.repeat(np.arange(users), random.poisson(mean * activity)) for mean in ACTIONS.values()]
    what = [items_of(user, 0.8) for user in who]
    sequences = Sequences.from_events(
        who, [item[:, None] for item in what], [random.integers(0, 30 * DAY, len(u)) for u in who]
    )
    user = random.choice(users, count, p=np.sqrt(activity) / np.sqrt(activity).sum())
    time = random.integers(23 * DAY, 30 * DAY, count)
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    start, end = sequences.span(user, time, np.zeros_like(time), CONTRACT.lengths)
    offsets = np.concatenate([[0], np.cumsum(1 + random.poisson(IMPRESSIONS - 1, count))]).astype(np.int64)
    request = np.repeat(np.arange(count), np.diff(offsets))
    item = items_of(user[request], 0.5)
    position = np.arange(len(request)) - offsets[request]
    probability = _probability(random, sequences, start, end, request, item, position, group)
    requests = Requests(
        user=np.stack([user_key[user], favourite[user, 0] % SEGMENTS], axis=1),
        time=time,
        offsets=offsets,
        item=item_key[item][:, None],
        context=np.stack([time[request] // HOUR % 24, position], axis=1),
        label=(random.random(probability.shape) < probability).astype(np.int8),
        start=start,
        end=end,
        # Keys of users ascend with their places, so the order stays.
        sequences=replace(sequences, users=user_key[sequences.users], tokens=[item_key[tokens] for tokens in sequences.tokens]),
    )
    return Drawn(requests, probability)


def _keys(random: np.random.Generator, count: int) -> Ints:
    """As many distinct 62-bit keys, ascending."""
    keys = np.unique(random.integers(0, 2**62, count + 10))
    return np.sort(random.permutation(keys)[:count])


def _probability(
    random: np.random.Generator,
    sequences: Sequences,
    start: Ints,
    end: Ints,
    request: Ints,
    item: Ints,
    position: Ints,
    group: Ints,
) -> NDArray[np.float64]:
    """(B, T) by the formula at the top."""
    z = random.normal(size=(GROUPS, PLACES))[group] + 0.5 * random.normal(size=(len(group), PLACES))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    quality = random.normal(0, QUALITY, (len(RATES), len(group)))
    logits = []
    for place, (rate, behaviour) in enumerate(zip(RATES.values(), FOLLOWS, strict=True)):
        action = list(ACTIONS).index(behaviour)
        reached = np.concatenate([np.zeros((1, PLACES)), np.cumsum(z[sequences.tokens[action][:, 0]], axis=0)])
        direction = reached[end[:, action]] - reached[start[:, action]]
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
        liking = (z[item] * direction[request]).sum(1)
        logits.append(np.log(rate / (1 - rate)) - OFFSET + quality[place, item] + STRENGTH * liking - FADING * position)
    return np.stack([1 / (1 + np.exp(-logit)) for logit in logits], axis=1)


def save(requests: Requests, folder: Path) -> None:
    """Every array as a .npy file of its own; `sequences.tokens` and the like are numbered by action. No statistics."""
    folder.mkdir(parents=True)
    for name in FLAT:
        np.save(folder / f"{name}.npy", getattr(requests, name))
    np.save(folder / "users.npy", requests.sequences.users)
    for name in RAGGED:
        for action, array in enumerate(getattr(requests.sequences, name)):
            np.save(folder / f"{name}-{action}.npy", array)


def load(folder: Path) -> Requests:
    """What `save` wrote."""
    ragged = [[np.load(folder / f"{name}-{action}.npy") for action in range(len(ACTIONS))] for name in RAGGED]
    sequences = Sequences(np.load(folder / "users.npy"), *ragged)
    return Requests(**{name: np.load(folder / f"{name}.npy") for name in FLAT}, sequences=sequences)
