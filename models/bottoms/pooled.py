"""The plain shared bottom: one representation for all tasks, the order of a history left out."""

from __future__ import annotations

import torch
from torch import Tensor

from models.batches import Batch
from models.embeddings import taken
from models.parts import Split, Tabled


class Pooled(Tabled):
    """Fields, and per action the mean of the history's token embeddings (item and item features; no time, age or action)."""

    def forward(self, batch: Batch) -> Tensor:
        """(1, B, F·D)."""
        user, candidate, means = self.fields.pooled(batch)
        interests = self.matched(taken(means, batch.request_B), batch)
        return torch.cat([taken(user, batch.request_B), candidate, interests], dim=1).flatten(1)[None]

    def split(self, batch: Batch) -> Split | None:
        """User and histories are the request's, unless what matches tell is added to the latter."""
        if self.matches is not None:
            return None
        user, candidate, means = (x.flatten(1) for x in self.fields.pooled(batch))
        at = slice(user.shape[1], user.shape[1] + candidate.shape[1])
        return Split(torch.cat([user, means], dim=1), candidate, batch.request_B, at)


BOTTOM = Pooled
