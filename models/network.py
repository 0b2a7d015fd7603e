"""bottom × head: the neural rankers. A network reads a `Batch`, gives logits (B, T) and owns its loss."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from models import bottoms, heads
from models.batches import Batch
from models.config import Recipe
from models.embeddings import Shape
from models.parts import Bottom, Separate


class Network(nn.Module):
    """One recipe, built for one shape of data."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.recipe = recipe
        self.tasks = shape.tasks
        bottom, head = bottoms.named(recipe.bottom), heads.named(recipe.head)
        if head.separate:
            one = replace(shape, tasks=1, given=())
            self.bottom: Bottom = Separate(bottom(recipe, one) for _ in range(shape.tasks))
        else:
            self.bottom = bottom(recipe, replace(shape, tasks=shape.tasks + head.extra))
        self.head = head(recipe, shape, self.bottom.outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, T)."""
        split = self.bottom.split(batch) if self.head.splits else None
        if split is not None:
            return cast("Tensor", self.head(split))
        x_SBI = self.bottom(batch)
        if self.head.personal:
            ids = self.bottom.ids(batch)
            streams = max(len(x_SBI), len(ids))
            x_SBI = torch.cat([x_SBI.expand(streams, -1, -1), ids.expand(streams, -1, -1)], dim=-1)
        return cast("Tensor", self.head(x_SBI))

    def loss(self, batch: Batch, weight_T: Tensor) -> tuple[Tensor, Tensor]:
        """(weighted sum over tasks, per task (T,)) of what the head holds the logits' error to be."""
        per_task = self.head.loss(self(batch), batch.label_BT, batch.known_BT)
        return (per_task * weight_T).sum(), per_task

    def start_from(self, base_rates: Tensor) -> None:
        """Let every task start at its base rate (T,)."""
        self.head.start_from(base_rates)

    def id_tables(self) -> list[nn.Parameter]:
        """The embeddings of user and item ids, of every set of tables."""
        return self.bottom.id_tables()

    def id_rows(self, batch: Batch) -> list[Tensor]:
        """The rows of each of `id_tables` that the batch reads, distinct; none where it reads the tables as a whole."""
        return self.bottom.id_rows(batch)
