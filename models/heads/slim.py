"""A smaller MMoE, ours: its gates stand before the second layer, and its experts are groups of one network's hidden units.

    h = relu(W₁·x[t] + b₁), E groups of ⌈wide ÷ E⌉ units · s = E·softmax(G[t]·x[t]) · y[t] = relu(Σ_e s_e·W₂[e]·h_e + b₂)

What is mixed are the groups' contributions to one second layer, rather than what E second layers gave; kin to LHUC
(Swietojanski & Renals, SLT 2014), which scales single units. It has a quarter of MMoE's units at E = 4, and of its
S·E·(I·W + W·N) products a sample S·I·W + T·W·N are left: a quarter where every task has a stream, 40 % at the benchmark's
widths where all share one. At uniform gates it is an ordinary network of two layers. Letters: S streams, 1 or T · B samples ·
I inputs · E experts · W wide · N narrow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.config import Recipe
from models.embeddings import Shape
from models.parts import Head
from models.towers import Towers, weights


class Slim(Head):
    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        wide = recipe.experts * math.ceil(wide / recipe.experts)
        self.first = nn.Linear(inputs, wide)
        self.gate = weights(shape.tasks, inputs, recipe.experts)
        self.second = nn.Linear(wide, narrow)
        self.towers = Towers(recipe, shape.tasks, narrow)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """x: (T, B, inputs), or (1, B, inputs) where the tasks share one bottom; logits (B, T)."""
        experts = self.gate.shape[-1]
        hidden = torch.relu(self.first(x_SBI)).view(*x_SBI.shape[:2], experts, -1)  # (S, B, E, W / E)
        share = experts * (x_SBI @ self.gate).softmax(-1)  # (T, B, E)
        mixed = torch.relu(self.second((share[..., None] * hidden).flatten(2)))
        logits: Tensor = self.towers(mixed)
        return logits


HEAD = Slim
