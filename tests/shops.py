"""Made-up requests for tests of the neural models: encoded rows of any shape, and a raw-key shop with a taste to learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.config import Recipe
from models.contract import Contract
from models.embeddings import Shape
from models.network import Network
from models.requests import Requests, Sequences
from models.training import train
from tests import logs

HOUR = 3_600_000


@dataclass(frozen=True)
class Sizes:
    """How many of each there are, and how long a history may be; `events` per action are drawn over all users."""

    tasks: int = 3
    lengths: tuple[int, ...] = (40, 7, 3)
    user: tuple[int, ...] = (5, 3)
    item: tuple[int, ...] = (9, 4)
    context: tuple[int, ...] = (4,)
    requests: int = 4
    candidates: int = 3
    events: tuple[int, ...] = (90, 12, 4)
    told: int = 7

    @property
    def shape(self) -> Shape:
        return Shape(self.user, self.item, self.context, self.tasks, len(self.lengths), max(self.lengths), told=self.told)


def rows(random: np.random.Generator, n: int, sizes: tuple[int, ...]) -> Any:
    """(n, len(sizes)) embedding rows."""
    return np.stack([random.integers(0, s, n) for s in sizes], axis=1).astype(np.int32) if sizes else np.empty((n, 0), np.int32)


def strangers(random: np.random.Generator, item: Any) -> Any:
    """A fifth of the items without a row: one of three numbers below 0, as a vocabulary gives them."""
    unknown = random.random(len(item)) < 0.2
    item[unknown, 0] = -random.integers(1, 4, unknown.sum())
    return item


def encoded(sizes: Sizes, seed: int) -> Requests:
    """Rows, not keys, so that a network of `sizes.shape` reads them without a vocabulary."""
    random = np.random.default_rng(seed)
    sequences = Sequences.from_events(
        [random.integers(0, 5, n) for n in sizes.events],
        [strangers(random, rows(random, n, sizes.item)) for n in sizes.events],
        [random.integers(0, 1000 * HOUR, n) for n in sizes.events],
    )
    user, time = random.integers(0, 6, sizes.requests), random.integers(0, 1100 * HOUR, sizes.requests)
    for u in range(0, sizes.requests, 2):  # half of the requests follow an event of their user within seconds
        place = int(np.searchsorted(sequences.users, user[u]))
        if place < len(sequences.users) and sequences.users[place] == user[u] and np.diff(sequences.offsets[0])[place]:
            time[u] = sequences.times[0][sequences.offsets[0][place + 1] - 1] + random.integers(1, 5000)
    start, end = sequences.span(user, time, np.zeros_like(time), sizes.lengths)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, sizes.candidates + 1, sizes.requests))]).astype(np.int64)
    samples = int(offsets[-1])
    label = random.choice([-1, 0, 1], (samples, sizes.tasks)).astype(np.int8)
    user_rows, item, context = (
        rows(random, n, s) for n, s in ((sizes.requests, sizes.user), (samples, sizes.item), (samples, sizes.context))
    )
    told = tuple(random.integers(0, sizes.told, (n, 2)).astype(np.int32) for n in (sizes.requests, samples))
    return Requests(user_rows, time, offsets, strangers(random, item), context, label, start, end, sequences, told)


def lively(recipe: Recipe, shape: Shape, seed: int) -> Network:
    """A float64 network no part of which is still at its start: every parameter is drawn, the zeros too."""
    torch.manual_seed(seed)
    network = Network(recipe, shape).double()
    enliven(network)
    return network


def enliven(module: torch.nn.Module) -> None:
    """Draw every parameter; biases are positive, so that few of so small a module's units are dead."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn_like(parameter) * 0.5
            parameter.copy_(drawn.abs() if name.endswith("bias") else drawn)


def shop(terms: Contract, day: str, *, seed: int, requests: int = 150, candidates: int = 6) -> Requests:
    """Raw-key requests of `logs.EVENTS`-like terms, in which a user takes to items of the parity of what they last viewed."""
    random = np.random.default_rng(seed)
    world = np.random.default_rng(99)  # the same users and pasts for every seed
    begin, users = terms.day_start(day), 30
    taste = world.integers(0, 2, users)
    who = [np.sort(world.integers(0, users, 300)) for _ in terms.actions]
    items = [2 * world.integers(0, 12, 300) + taste[u] for u in who]
    times = [begin - world.integers(1, 60 * HOUR, 300) for _ in who]
    sequences = Sequences.from_events(who, [np.stack([i + 1000, i % 4], axis=1) for i in items], times)
    user = random.integers(0, users, requests)
    time = begin + random.integers(0, 20 * HOUR, requests)
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    start, end = sequences.span(user, time, np.full_like(time, begin - 72 * HOUR), terms.lengths)
    samples = requests * candidates
    item = random.integers(0, 26, samples)
    request = np.repeat(np.arange(requests), candidates)
    liked = item % 2 == taste[user[request]]
    click = random.random(samples) < np.where(liked, 0.6, 0.05)
    buy = np.where(click, random.random(samples) < 0.5, -1)
    return Requests(
        user[:, None], time, np.arange(requests + 1) * candidates, np.stack([item + 1000, item % 4], axis=1),
        random.integers(0, 5, (samples, len(terms.context_fields))),
        np.stack([click, buy], axis=1).astype(np.int8), start, end, sequences,
    )  # fmt: skip


def terms(**training: Any) -> Contract:
    """A contract of two tasks and two behaviours whose training section is quick."""
    return logs.contract(logs.EVENTS, training={"epochs": 3, "width": 8, "batch_samples": 200, "device": "cpu", **training})


def cut_off(*arguments: Any, report: Any, **named: Any) -> Any:
    """`models.training.train`, interrupted when it tells of its first epoch."""

    def stop(epoch: Any) -> None:
        raise KeyboardInterrupt

    return train(*arguments, report=stop, **named)
