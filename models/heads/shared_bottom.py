"""Shared-bottom: Caruana, Machine Learning 1997, 'Multitask Learning': one network for all tasks, a tower for each.

The network is as wide as all of MMoE's experts together, (E·wide, narrow), so that the two have the same capacity before
their towers. Where every task brings its own stream, the same network reads x[t] for task t.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import Recipe
from models.embeddings import Shape
from models.parts import Head
from models.towers import Towers


class SharedBottom(Head):
    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        self.tasks = shape.tasks
        self.first = nn.Linear(inputs, recipe.experts * wide)
        self.second = nn.Linear(recipe.experts * wide, narrow)
        self.towers = Towers(recipe, shape.tasks, narrow)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """x: (T, B, inputs), or (1, B, inputs) where the tasks share one bottom; logits (B, T)."""
        shared = torch.relu(self.second(torch.relu(self.first(x_SBI))))
        logits: Tensor = self.towers(shared.expand(self.tasks, -1, -1))
        return logits


HEAD = SharedBottom
