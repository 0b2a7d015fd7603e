"""What the heads are built of: grouped layers, and the tower that ends each task."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.config import Recipe


class Grouped(nn.Module):
    """`groups` linear layers side by side, each drawn as nn.Linear draws its weight, biases at 0."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = weights(groups, inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(groups, 1, outputs))

    def forward(self, x_GBI: Tensor) -> Tensor:
        """(groups, B, inputs) → (groups, B, outputs); (1, B, inputs) is read by every group."""
        return torch.baddbmm(self.bias, x_GBI.expand(len(self.weight), -1, -1), self.weight)


class Towers(nn.Module):
    """A hidden layer and a logit per task."""

    def __init__(self, recipe: Recipe, tasks: int, inputs: int) -> None:
        super().__init__()
        self.hidden = Grouped(tasks, inputs, recipe.tower)
        self.last = Grouped(tasks, recipe.tower, 1)

    def forward(self, x_TBI: Tensor) -> Tensor:
        """Logits (B, T)."""
        logits: Tensor = self.last(torch.relu(self.hidden(x_TBI)))
        return logits.squeeze(-1).T

    def start_from(self, base_rates: Tensor) -> None:
        """Let every task start at its base rate (T,)."""
        with torch.no_grad():
            self.last.bias.copy_(torch.logit(base_rates.clamp(1e-4, 1 - 1e-4))[:, None, None])


def weights(*shape: int) -> nn.Parameter:
    """(groups, in, out), each group drawn as nn.Linear draws."""
    bound = 1 / math.sqrt(shape[-2])
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
