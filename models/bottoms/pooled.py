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
        fields, tokens = self.fields(batch)
        outs = []
        for bucket in batch.buckets:
            present = bucket.present_NL[..., None]
            token = tokens[bucket.begin : bucket.end].view(*bucket.present_NL.shape, -1)
            mean = (token * present).sum(1) / present.sum(1)
            outs.append(mean[:, None].expand(-1, bucket.candidate_NR.shape[1], -1).reshape(1, -1, mean.shape[-1]))
        interests = self.interests(outs, batch, 1, fields)
        return torch.cat([fields[None], interests], dim=2).flatten(2)


BOTTOM = Pooled
