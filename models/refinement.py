"""TRM, DTRN's task-specific representation refinement: one SENet-like network per task rescales every field.

Liu et al., CIKM 2023, state one SENet-like network a task over the field embeddings and TIM's interests; our reading is
w[t] = 2·sigmoid(W2[t]·relu(W1[t]·mean_over_D(X[t]))), which starts at 1, the identity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Refinement(nn.Module):
    def __init__(self, tasks: int, fields: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, fields // reduction)
        self.squeeze = nn.Parameter(torch.randn(tasks, fields, hidden) / math.sqrt(fields))
        self.squeeze_bias = nn.Parameter(torch.zeros(tasks, 1, hidden))
        self.excite = nn.Parameter(torch.zeros(tasks, hidden, fields))
        self.excite_bias = nn.Parameter(torch.zeros(tasks, 1, fields))

    def forward(self, x_TBFD: Tensor) -> Tensor:
        """The same shape, each field scaled by a weight in (0, 2) of its task and sample."""
        hidden = torch.relu(torch.baddbmm(self.squeeze_bias, x_TBFD.mean(-1), self.squeeze))
        weight = 2 * torch.sigmoid(torch.baddbmm(self.excite_bias, hidden, self.excite))
        return x_TBFD * weight[..., None]
