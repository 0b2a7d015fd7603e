"""Our side of the training benchmark; `benchmarks/side.py` runs it as a process.

It takes the raw-key log of `benchmarks.exposures` as the trainer gets a window from the lake, fits the vocabulary and encodes.
A pass over samples is what `models.training` does in an epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import exposures
from benchmarks.limits import Work
from benchmarks.padded import PlainDTRN, collate
from models import names
from models.batches import Batch, Loader
from models.config import Recipe, named
from models.contract import Contract
from models.embeddings import Shape
from models.heads.mmoe import MMoE
from models.network import Network
from models.optimiser import Deferred
from models.training import learn, optimiser_of
from models.vocabulary import Vocabulary

EXPERTS, EXPERT_WIDTHS, TOWER, WIDTH = 4, (128, 64), 16, 16
"""The same on both sides."""

TOLD, PADDED, ON_GPU = "-told", "-padded", "-cuda"
TERMS = exposures.CONTRACT.training


class NormedMMoE(MMoE):
    """MMoE with what torch-rechub's has besides: BatchNorm behind every linear layer, gates and towers included."""

    splits = False

    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        self.norm_first = nn.BatchNorm1d(recipe.experts * wide)
        self.norm_second = nn.BatchNorm1d(recipe.experts * narrow)
        self.norm_gate = nn.BatchNorm1d(shape.tasks * recipe.experts)
        self.norm_tower = nn.BatchNorm1d(shape.tasks * recipe.tower)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """As `MMoE`, of one stream (1, B, inputs)."""
        x, experts = x_SBI.squeeze(0), self.gate.shape[-1]
        hidden = torch.relu(self.norm_first(self.first(x))).view(len(x), experts, -1).transpose(0, 1)
        out = torch.relu(_normed(self.norm_second, self.second(hidden)))  # (E, B, narrow)
        gates = _normed(self.norm_gate, torch.matmul(x, self.gate)).softmax(-1)  # (T, B, E)
        mixed = (gates.transpose(0, 1) @ out.transpose(0, 1)).transpose(0, 1)  # (T, B, narrow)
        hidden = torch.relu(_normed(self.norm_tower, self.towers.hidden(mixed)))
        logits: Tensor = self.towers.last(hidden)
        return logits.squeeze(-1).T


def _normed(norm: nn.BatchNorm1d, x_GBI: Tensor) -> Tensor:
    """`norm` over the columns of all groups side by side."""
    groups, samples, width = x_GBI.shape
    out: Tensor = norm(x_GBI.transpose(0, 1).reshape(samples, groups * width))
    return out.view(samples, groups, width).transpose(0, 1)


def recipe_of(name: str) -> Recipe:
    """The recipe of a model with the benchmark's widths and the papers' inputs, which are the peer's too.

    Behind `-told` it also reads matches and statistics, as a model does by default.
    """
    bottom, head = names.split(name.removesuffix(TOLD))
    recipe = named(f"{bottom if name.endswith(TOLD) else f'{bottom}-plain'}+{head}")
    return replace(recipe, width=WIDTH, experts=EXPERTS, expert_widths=EXPERT_WIDTHS, tower=TOWER)


def network_of(name: str, shape: Shape, seed: int) -> Network:
    """A model by its name, or `mmoe-normed`, which has BatchNorm as torch-rechub's has."""
    torch.manual_seed(seed)
    recipe = recipe_of(name.removesuffix("-normed"))
    network = Network(recipe, shape)
    if name.endswith("-normed"):
        network.head = NormedMMoE(recipe, shape, network.bottom.outputs)
    return network.train()


def shape_of(contract: Contract, vocabulary: Vocabulary, items: int) -> Shape:
    """The log's shape, with a row in the item table for each of the shop's items, seen or not."""
    shape = Shape.of(contract, vocabulary)
    return replace(shape, item=(max(items + 1, shape.item[0]), *shape.item[1:]))


def adam_over_all(network: Network, *, learning_rate: float, embedding_decay: float) -> torch.optim.Optimizer:
    """Adam, every row of every table at every step, and the trainer's decay of the id tables, as plain torch does them."""
    ids = network.id_tables()
    rest = [p for p in network.parameters() if all(p is not table for table in ids)]
    groups = [
        {"params": ids, "weight_decay": embedding_decay / learning_rate},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def plain_step(network: Network, optimiser: torch.optim.Optimizer, batch: Batch, weight: Tensor) -> Tensor:
    """As `models.training.learn`, with gradients of whole tables."""
    optimiser.zero_grad(set_to_none=True)
    loss, per_task = network.loss(batch, weight)
    torch.autograd.backward(loss)
    for table in network.id_tables():
        table.grad = None if table.grad is None else table.grad.to_dense()
    optimiser.step()
    return per_task.detach()


def train_on(network: Network, optimiser: torch.optim.Optimizer, batches: Iterator[Batch]) -> float:
    """One pass, as the trainer makes it; the mean loss."""
    weight = torch.ones(network.tasks, device=next(network.parameters()).device)
    if isinstance(optimiser, Deferred):
        losses = [learn(network, optimiser, batch, weight) for batch in batches]
        optimiser.settle()
    else:
        losses = [plain_step(network, optimiser, batch, weight) for batch in batches]
    return float(torch.stack(losses).sum(1).mean())


class Trainer:
    """The log, encoded, and a network of each name that was asked for."""

    def __init__(self, log: Path, items: int, batch: int, seed: int, device: str = "cpu") -> None:
        self.batch, self.seed, self.items, self.device = batch, seed, items, torch.device(device)
        raw = exposures.load(log)
        began = time.perf_counter()
        vocabulary = Vocabulary.fit(raw, exposures.CONTRACT)
        fitted = time.perf_counter()
        self.requests = vocabulary.encode(raw)
        encoded = time.perf_counter()
        self.loader = Loader(self.requests, (), self.device)
        order = np.random.default_rng(seed).permutation(len(raw.time))
        next(self.loader.batches(batch, order, (0.1, np.random.default_rng(seed))))
        self.raw = raw  # the trainer holds it as well while it trains
        ready = time.perf_counter()
        self.first_batch = {
            "seconds": ready - began,
            "fit": fitted - began,
            "encode": encoded - fitted,
            "batch": ready - encoded,
        }
        self.shape = shape_of(exposures.CONTRACT, vocabulary, items)
        self.made: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {}

    @cached_property
    def told(self) -> tuple[Loader, Shape]:
        """The same log with what a model by default is told beside its embeddings, and the shape that it then has."""
        vocabulary = Vocabulary.fit(self.raw, exposures.CONTRACT, [self.raw])
        return Loader(vocabulary.encode(self.raw), None, self.device), shape_of(exposures.CONTRACT, vocabulary, self.items)

    def work(self, what: str) -> Work:
        """What a step of the network `what`, told of no matches, has to do on a batch that is drawn as a pass draws them."""
        order = np.random.default_rng(self.seed).permutation(len(self.requests.time))
        return Work.of(network_of(what, self.shape, self.seed), next(Loader(self.requests, ()).batches(self.batch, order)))

    def pass_over(self, what: str, samples: int, seed: int) -> dict[str, Any]:
        """Train the network `what` on whole requests drawn by `seed`, about `samples` samples of them; how long that took."""
        module, optimiser = self._made(what)
        run = self._plainly if what.endswith(PADDED) else self._fast
        began, busy = time.perf_counter(), time.process_time()
        random = np.random.default_rng(seed)
        order = random.permutation(len(self.requests.time))
        reached = np.cumsum(np.diff(self.requests.offsets)[order])
        order = order[: np.searchsorted(reached, samples) + 1]
        loss = run(module, optimiser, order, random)
        return {
            "samples": int(reached[len(order) - 1]),
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - busy,
            "loss": loss,
        }

    def _made(self, what: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        if what not in self.made:
            shape = self.told[1] if what.endswith(TOLD) else self.shape
            network = network_of(what.removesuffix(PADDED).removesuffix(ON_GPU), shape, self.seed).to(self.device)
            padded = what.endswith(PADDED)
            made = adam_over_all if padded else optimiser_of
            optimiser = made(network, learning_rate=TERMS.learning_rate, embedding_decay=TERMS.embedding_decay)
            self.made[what] = PlainDTRN(network) if padded else network, optimiser
        return self.made[what]

    def _fast(self, network: Network, optimiser: torch.optim.Optimizer, order: Any, random: np.random.Generator) -> float:
        loader = self.told[0] if network.recipe.statistics else self.loader
        return train_on(network, optimiser, loader.batches(self.batch, order, (network.recipe.id_dropout, random)))

    def _plainly(self, plain: PlainDTRN, optimiser: torch.optim.Optimizer, order: Any, random: np.random.Generator) -> float:
        del random
        losses = []
        for part in map(self.requests.take, self.requests.chunks(self.batch, order)):
            optimiser.zero_grad(set_to_none=True)
            loss = plain.loss(collate(part, exposures.LENGTH))
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())
