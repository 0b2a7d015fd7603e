"""Single-task: a whole network per task, embeddings included; the yardstick of negative transfer.

Each is as large as the shared-bottom network of all tasks. They are trained side by side, which is the same as one after the
other, since no parameter is in two losses; what they have in common is the batches, and the epoch that is kept as the best.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.config import Recipe
from models.embeddings import Shape
from models.parts import Head
from models.towers import Grouped, Towers


class SingleTask(Head):
    separate = True

    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        self.first = Grouped(shape.tasks, inputs, recipe.experts * wide)
        self.second = Grouped(shape.tasks, recipe.experts * wide, narrow)
        self.towers = Towers(recipe, shape.tasks, narrow)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """x: (T, B, inputs), each task's own bottom; logits (B, T)."""
        logits: Tensor = self.towers(torch.relu(self.second(torch.relu(self.first(x_SBI)))))
        return logits


HEAD = SingleTask
