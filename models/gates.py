"""PEPNet's gates: Chang et al., KDD 2023 (arXiv 2302.01115)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import Recipe
from models.towers import Grouped


class GateUnit(nn.Module):
    """Gate NU: δ = 2·sigmoid(W₂·relu(W₁·[prior ; stop-gradient(x)])), `groups` of them side by side.

    So what the gate is given of x does not train x, while the prior is trained. Ours: it starts at 1, the identity, and its
    hidden layer is as wide as an expert's last one.
    """

    def __init__(self, recipe: Recipe, groups: int, prior: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Grouped(groups, prior + inputs, recipe.expert_widths[1])
        self.second = Grouped(groups, recipe.expert_widths[1], outputs)
        nn.init.zeros_(self.second.weight)

    def forward(self, prior_GBP: Tensor, x_GBI: Tensor) -> Tensor:
        """(groups, B, outputs), each in (0, 2); one stream (1, B, …) is read by every group."""
        hidden = torch.relu(self.first(torch.cat([prior_GBP, x_GBI.detach()], dim=-1)))
        return 2 * torch.sigmoid(self.second(hidden))
