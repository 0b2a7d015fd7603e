"""TRM, DTRN's task-specific representation refinement: one SENet-like network per task rescales every field.

Liu et al., CIKM 2023, state one SENet-like network a task over the field embeddings and TIM's interests; our reading is
w[t] = 2·sigmoid(W2[t]·relu(W1[t]·mean_over_D(X[t]))), which starts at 1, the identity.

A recipe's `refinement` is `task` (TRM), `shared` (one such network for all tasks, a control of ours) or `none`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.config import Recipe


class Refinement(nn.Module):
    def __init__(self, tasks: int, fields: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, fields // reduction)
        self.squeeze = nn.Parameter(torch.randn(tasks, fields, hidden) / math.sqrt(fields))
        self.squeeze_bias = nn.Parameter(torch.zeros(tasks, 1, hidden))
        self.excite = nn.Parameter(torch.zeros(tasks, hidden, fields))
        self.excite_bias = nn.Parameter(torch.zeros(tasks, 1, fields))

    def forward(self, x_SBFD: Tensor) -> Tensor:
        """(S or T, B, F, D): each field scaled by a weight in (0, 2) of its task and sample.

        One stream is read by the networks of all tasks, one network reads all streams.
        """
        streams = max(len(x_SBFD), len(self.squeeze))
        mean = x_SBFD.mean(-1).expand(streams, -1, -1)
        hidden = torch.relu(torch.baddbmm(self.squeeze_bias, mean, self.squeeze.expand(streams, -1, -1)))
        weight = 2 * torch.sigmoid(torch.baddbmm(self.excite_bias, hidden, self.excite.expand(streams, -1, -1)))
        return x_SBFD * weight[..., None]


def refinement(recipe: Recipe, tasks: int, fields: int) -> nn.Module:
    """What the recipe's `refinement` names."""
    if recipe.refinement == "none":
        return nn.Identity()
    return Refinement(tasks if recipe.refinement == "task" else 1, fields, recipe.reduction)
