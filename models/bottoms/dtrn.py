"""DTRN: a bottom per task, Liu et al., CIKM 2023, 'Deep Task-specific Bottom Representation Network for Multi-Task
Recommendation' (arXiv 2308.05996). What is the paper's and what our reconstruction stands in TIM's and TRM's modules.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from models.batches import Batch
from models.config import Recipe
from models.embeddings import Moment, Shape, placed
from models.interest import Interest
from models.parts import Bottom
from models.refinement import Refinement


class DTRN(Bottom):
    """Fields and TIM's interests (`models.interest`), rescaled by TRM (`models.refinement`), for each task its own."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__(recipe, shape)
        self.tasks = shape.tasks
        self.moment = Moment(recipe, shape)
        self.interest = Interest(recipe, shape.tasks, shape.actions)
        self.refinement = Refinement(shape.tasks, shape.fields, recipe.reduction)

    def forward(self, batch: Batch) -> Tensor:
        """(T, B, F·D)."""
        fields, tokens = self.fields(batch)
        outs = self.interest(tokens + self.moment(batch), batch, self.fields.candidate(fields))
        interests = placed(outs, batch, self.tasks, fields)
        x = torch.cat([fields.expand(self.tasks, -1, -1, -1), interests], dim=2)
        return cast("Tensor", self.refinement(x)).flatten(2)


BOTTOM = DTRN
