"""AITM: Xi et al., KDD 2021, 'Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task
Learning in Targeted Display Advertising'. What a step knows is handed to the next, as much of it as attention lets through:

    z[1] = q[1];   z[t] = Σ_u softmax_u(h₂(u)·h₃(u) / √k)·h₁(u)  over u ∈ {g[t-1](z[t-1]), q[t]};   q[t] = network t of x[t]

The steps are the contract's tasks in its order. h₁, h₂, h₃ are a step's own. The paper's penalty for P(step t) > P(step t - 1)
is left out: it is for steps that imply the one before, and tasks here either need not, or are probabilities given that one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.config import Recipe
from models.embeddings import Shape
from models.parts import Head
from models.towers import Grouped, Towers


class Transfer(nn.Module):
    """One step to the next: (B, H) of the step before and (B, H) of this one → (B, H)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.give = nn.Linear(width, width)
        self.value, self.left, self.right = (nn.Linear(width, width) for _ in range(3))

    def forward(self, before_BH: Tensor, own_BH: Tensor) -> Tensor:
        both = torch.stack([torch.relu(self.give(before_BH)), own_BH], dim=1)  # (B, 2, H)
        score = (self.left(both) * self.right(both)).sum(-1, keepdim=True) / math.sqrt(both.shape[-1])
        mixed: Tensor = (score.softmax(1) * self.value(both)).sum(1)
        return mixed


class AITM(Head):
    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        self.first = Grouped(shape.tasks, inputs, recipe.experts * wide)
        self.second = Grouped(shape.tasks, recipe.experts * wide, narrow)
        self.transfers = nn.ModuleList(Transfer(narrow) for _ in range(shape.tasks - 1))
        self.towers = Towers(recipe, shape.tasks, narrow)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """x: (T, B, inputs), or (1, B, inputs) where the tasks share one bottom; logits (B, T)."""
        own = torch.relu(self.second(torch.relu(self.first(x_SBI))))  # (T, B, narrow)
        steps = [own[0]]
        for transfer, mine in zip(self.transfers, own[1:], strict=True):
            steps.append(transfer(steps[-1], mine))
        logits: Tensor = self.towers(torch.stack(steps))
        return logits


HEAD = AITM
