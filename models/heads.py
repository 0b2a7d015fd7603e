"""Heads: from each task's bottom representation to its logit.

MMoE: Ma et al., KDD 2018, 'Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts'. E experts
are shared, each task has a gate over them and a tower. Where every task brings its own bottom, experts and gate of task t read
x[t].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.config import Recipe


class MMoE(nn.Module):
    def __init__(self, recipe: Recipe, tasks: int, inputs: int) -> None:
        super().__init__()
        experts, (wide, narrow) = recipe.experts, recipe.expert_widths
        self.experts = experts
        self.first = nn.Linear(inputs, experts * wide)
        self.second = _weights(experts, wide, narrow)
        self.second_bias = nn.Parameter(torch.zeros(experts, 1, narrow))
        self.gate = _weights(tasks, inputs, experts)
        self.tower = _weights(tasks, narrow, recipe.tower)
        self.tower_bias = nn.Parameter(torch.zeros(tasks, 1, recipe.tower))
        self.last = _weights(tasks, recipe.tower, 1)
        self.last_bias = nn.Parameter(torch.zeros(tasks, 1, 1))

    def start_from(self, base_rates: Tensor) -> None:
        """Let every task start at its base rate (T,)."""
        with torch.no_grad():
            self.last_bias.copy_(torch.logit(base_rates.clamp(1e-4, 1 - 1e-4))[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """x: (T, B, inputs), or (1, B, inputs) where the tasks share one bottom; logits (B, T)."""
        tasks, (streams, samples, inputs) = self.gate.shape[0], x.shape
        hidden = torch.relu(self.first(x.reshape(streams * samples, inputs)))
        hidden = hidden.view(streams * samples, self.experts, -1).transpose(0, 1)
        out = torch.relu(torch.baddbmm(self.second_bias, hidden, self.second))  # (E, streams·B, narrow)
        out = out.transpose(0, 1).reshape(streams, samples, self.experts, -1)
        gates = torch.bmm(x.expand(tasks, -1, -1), self.gate).softmax(-1)  # (T, B, E)
        mixed = (gates.unsqueeze(-2) @ out).squeeze(-2)  # (T, B, narrow)
        tower = torch.relu(torch.baddbmm(self.tower_bias, mixed, self.tower))
        return torch.baddbmm(self.last_bias, tower, self.last).squeeze(-1).T


def _weights(*shape: int) -> nn.Parameter:
    """(groups, in, out), each group drawn as nn.Linear draws."""
    bound = 1 / math.sqrt(shape[-2])
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
