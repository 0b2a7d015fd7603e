"""The plain shared bottom: one representation for all tasks, the order of a history left out."""

from __future__ import annotations

import torch
from torch import Tensor

from models.batches import Batch
from models.parts import Tabled


class Pooled(Tabled):
    """Fields, and per action the mean of the history's token embeddings (item and item features; no time, age or action)."""

    def forward(self, batch: Batch) -> Tensor:
        """(1, B, F·D)."""
        fields, means = self.fields.pooled(batch)
        interests = self.matched(means[batch.request_B], batch)
        return torch.cat([fields, interests], dim=1).flatten(1)[None]


BOTTOM = Pooled
