"""Where the tasks of a model pull its shared parameters: the cosine between the tasks' gradients while it is trained.

For tasks s, t and their losses L of one batch, over the elements of the parameters that both losses reach,

    cos(s, t) = ∇L_s · ∇L_t ÷ (|∇L_s| |∇L_t|)

Below 0 a step that helps one task hurts the other (Yu et al., NeurIPS 2020, 'Gradient Surgery for Multi-Task Learning').
Elements that one task alone moves (its tower, its gate, its rescaling) are in neither norm: there is nothing to disagree
about. An element counts as reached when its gradient is not exactly 0. A task's weight in the loss does not matter here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.batches import Batch
from models.config import Recipe
from models.contract import Contract
from models.embeddings import Shape
from models.network import Network
from models.requests import Requests
from models.training import base_rates, learn, loader_of, optimiser_of
from models.vocabulary import Vocabulary

POINTS = 24
"""Times that the gradients are looked at, evenly over the steps."""

BATCHES = 8
"""Batches that each look takes the mean over: of one batch, a rare task's gradient is mostly noise."""


def cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> float | None:
    """The cosine over the elements where neither is 0, all tensors together; None where there are none.

    >>> cosine([torch.tensor([3.0, 0.0, 1.0])], [torch.tensor([3.0, 5.0, -1.0])])
    0.8
    """
    dot, left, right = 0.0, 0.0, 0.0
    for a, b in zip(one, other, strict=True):
        both = (a != 0) & (b != 0)
        x, y = a[both].double(), b[both].double()
        dot, left, right = dot + float(x @ y), left + float(x @ x), right + float(y @ y)
    return dot / (left * right) ** 0.5 if left * right > 0 else None


def per_task(network: Network, batches: Sequence[Batch]) -> list[list[Tensor]]:
    """Per task the gradient of its own loss, mean over batches, for every parameter (zeros where it does not reach)."""
    parameters = list(network.parameters())
    weight = torch.ones(network.tasks)
    sums = [[torch.zeros_like(p) for p in parameters] for _ in range(network.tasks)]
    for batch in batches:
        _, losses = network.loss(batch, weight)
        for t in range(network.tasks):
            grads = torch.autograd.grad(losses[t], parameters, retain_graph=t + 1 < network.tasks, allow_unused=True)
            for total, grad in zip(sums[t], grads, strict=True):
                if grad is not None:
                    total += grad.to_dense() / len(batches)
    return sums


def angles(recipe: Recipe, contract: Contract, training: Requests, epochs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Train as `models.training` does, for a fixed number of epochs on the CPU, and look at the gradients on the way.

    {'epoch': [of each look], 'cosines': {'a, b': [...]}}. The batches looked at are drawn from the training rows, by the
    same seed for every model, and are not the ones stepped on.
    """
    settings = contract.training
    vocabulary = Vocabulary.fit(training, contract, (training,) if recipe.statistics else ())
    torch.manual_seed(settings.seed)
    network = Network(recipe, Shape.of(contract, vocabulary))
    network.start_from(torch.from_numpy(base_rates(training)).float())
    optimiser = optimiser_of(network, learning_rate=settings.learning_rate, embedding_decay=settings.embedding_decay)
    weight = torch.tensor([t.weight for t in contract.tasks.values()])
    loader = loader_of(recipe, vocabulary, training)
    steps = epochs * len(loader.requests.chunks(settings.batch_samples))
    looks = {round(n * (steps - 1) / (POINTS - 1)) for n in range(POINTS)}
    pairs = list(itertools.combinations(range(network.tasks), 2))
    names = list(contract.tasks)
    found: dict[str, Any] = {"epoch": [], "cosines": {f"{names[s]}, {names[t]}": [] for s, t in pairs}}
    step = 0
    for epoch in range(1, epochs + 1):
        random = np.random.default_rng([settings.seed, epoch])
        order = random.permutation(len(loader.requests.time))
        for batch in loader.batches(settings.batch_samples, order, (recipe.id_dropout, random)):
            network.train()
            if step in looks:
                drawn = np.random.default_rng([settings.seed, 0, step]).permutation(len(order))
                seen = itertools.islice(loader.batches(settings.batch_samples, drawn), BATCHES)
                optimiser.settle()
                gradients = per_task(network, list(seen))
                found["epoch"].append(step * epochs / steps)
                for s, t in pairs:
                    found["cosines"][f"{names[s]}, {names[t]}"].append(cosine(gradients[s], gradients[t]))
            learn(network, optimiser, batch, weight)
            step += 1
        say(f"    epoch {epoch}: cosines {', '.join(f'{k} {_shown(v)}' for k, v in found['cosines'].items())}")
    return found


def _shown(values: list[float | None]) -> str:
    return "none" if not values or values[-1] is None else f"{values[-1]:+.3f}"
