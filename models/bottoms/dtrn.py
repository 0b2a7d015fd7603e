"""DTRN: a bottom per task, Liu et al., CIKM 2023, 'Deep Task-specific Bottom Representation Network for Multi-Task
Recommendation' (arXiv 2308.05996). What is the paper's and what our reconstruction stands in TIM's and TRM's modules.

A recipe's `interest` and `refinement` put something else in the place of TIM and of TRM, or nothing: DTRN's ablations and
controls are the same bottom. It has a stream per task as soon as one of the two is each task's own.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from models.batches import Batch
from models.config import Recipe
from models.embeddings import Moment, Shape, placed
from models.interest import interest
from models.parts import Tabled
from models.refinement import refinement


class DTRN(Tabled):
    """Fields and the histories' interests (`models.interest`), rescaled (`models.refinement`)."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__(recipe, shape)
        self.moment = Moment(recipe, shape)
        self.interest = interest(recipe, shape.tasks, shape.actions)
        self.side_by_side = recipe.interest == "dmt"
        fields = shape.fields + (self.interest.streams - 1) * shape.actions * self.side_by_side
        self.outputs = fields * recipe.width
        self.refinement = refinement(recipe, shape.tasks, fields)

    def forward(self, batch: Batch) -> Tensor:
        """(S, B, F·D), S = T or 1; DMT's copies stand side by side, each with its A interests."""
        fields, tokens = self.fields(batch)
        outs = self.interest(tokens + self.moment(batch), batch, self.fields.candidate(fields))
        interests = self.matched(placed(outs, batch, self.interest.streams, fields), batch)
        if self.side_by_side:
            interests = interests.transpose(0, 1).flatten(1, 2)[None]
        x = torch.cat([fields.expand(len(interests), -1, -1, -1), interests], dim=2)
        return cast("Tensor", self.refinement(x)).flatten(2)


BOTTOM = DTRN
