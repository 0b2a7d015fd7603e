"""What the fast way of training costs in quality: AUC that it reaches minus AUC that the plain way reaches, on the same epochs.

The plain way is the textbook's: samples shuffled one by one, each with its own copy of its history, and Adam over whole tables.
A difference is paired: a seed draws one log, one start of the weights and one order of epochs' generators for both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks import exposures
from benchmarks.ours import adam_over_all, network_of, shape_of, train_on
from benchmarks.standing import LEVEL, estimate
from models.batches import Loader
from models.metrics import auc
from models.requests import Requests
from models.training import base_rates, optimiser_of, predict
from models.vocabulary import Vocabulary

BATCH, EPOCHS, HELD_OUT = 512, 2, 0.2
LEARNING_RATE, EMBEDDING_DECAY = 4e-3, 1e-2
"""For so small a log, both ways alike: with the contract's defaults, made for more steps, it hardly learns in two epochs."""


@dataclass(frozen=True)
class Way:
    """How to train: what the batches of an epoch are made of, and what steps."""

    name: str
    requests: Callable[[Requests], Requests]
    optimiser: Callable[..., Any]


def one_by_one(requests: Requests) -> Requests:
    """Every sample a request of its own, with its own span of the same histories."""
    each = requests.request
    return replace(
        requests,
        user=requests.user[each],
        time=requests.time[each],
        offsets=np.arange(len(each) + 1),
        start=requests.start[each],
        end=requests.end[each],
    )


FAST = Way("whole requests, the trainer's optimiser", lambda requests: requests, optimiser_of)
PLAIN = Way("shuffled samples, Adam over whole tables", one_by_one, adam_over_all)
WAYS = {"fast": FAST, "plain": PLAIN}


def split(requests: Requests, share: float) -> tuple[Requests, Requests]:
    """(earlier, later): the later `share` of the requests are held out."""
    order = np.argsort(requests.time, kind="stable")
    cut = round(len(order) * (1 - share))
    return requests.take(np.sort(order[:cut])), requests.take(np.sort(order[cut:]))


def reached(model: str, way: Way, seen: Requests, held_out: Requests, *, rows: int, seed: int) -> list[float]:
    """Per task the AUC on `held_out` of a network trained on `seen`; the item table has `rows` rows or more."""
    vocabulary = Vocabulary.fit(seen, exposures.CONTRACT)
    network = network_of(model, shape_of(exposures.CONTRACT, vocabulary, rows), seed)
    network.start_from(torch.from_numpy(base_rates(seen)).float())
    optimiser = way.optimiser(network, learning_rate=LEARNING_RATE, embedding_decay=EMBEDDING_DECAY)
    loader = Loader(way.requests(vocabulary.encode(seen)), ())
    for epoch in range(EPOCHS):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(loader.requests.time))
        train_on(network, optimiser, loader.batches(BATCH, order, (network.recipe.id_dropout, random)))
    scores = predict(network, Loader(vocabulary.encode(held_out), ()))
    return [auc(held_out.label[:, task], scores[:, task]) for task in range(scores.shape[1])]


def compare(models: Sequence[str], seeds: Sequence[int], *, samples: int, items: int, rows: int) -> dict[str, Any]:
    """By model: AUC by seed and task of both ways, the mean difference over tasks with its interval; beside it the true AUC."""
    aucs: dict[str, dict[str, list[list[float]]]] = {model: {way: [] for way in WAYS} for model in models}
    best = []
    for seed in seeds:
        drawn = exposures.draw(samples, items, seed)
        label, p = drawn.requests.label, drawn.probability
        best.append([auc(label[:, task], p[:, task]) for task in range(p.shape[1])])
        seen, held_out = split(drawn.requests, HELD_OUT)
        for model, reaches in aucs.items():
            for name, way in WAYS.items():
                reaches[name].append(reached(model, way, seen, held_out, rows=rows, seed=seed))
            told = ", ".join(f"{name} {np.mean(reach[-1]):.4f}" for name, reach in reaches.items())
            print(f"  AUC, seed {seed}, {model}: {told}; of the true probabilities {np.mean(best[-1]):.4f}", flush=True)
    found: dict[str, Any] = {
        "tasks": list(exposures.RATES),
        "seeds": list(seeds),
        "of_true_probabilities": best,
        "level": LEVEL,
        "ways": {name: way.name for name, way in WAYS.items()},
        "settings": {
            "samples": samples,
            "items": items,
            "rows": rows,
            "batch": BATCH,
            "epochs": EPOCHS,
            "learning_rate": LEARNING_RATE,
            "embedding_decay": EMBEDDING_DECAY,
        },
        "models": {},
    }
    for model, reaches in aucs.items():
        differences = (np.mean(reaches["fast"], axis=1) - np.mean(reaches["plain"], axis=1)).tolist()
        told = estimate(differences)
        assert told is not None
        found["models"][model] = {**reaches, "difference": told.mean, "interval": (told.low, told.high)}
    return found
