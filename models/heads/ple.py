"""PLE: Tang et al., RecSys 2020, 'Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
Recommendations'. Two extraction layers, each with experts of every task's own and shared ones.

    layer 1  task t's gate reads x[t] and mixes its own experts of x[t] with the shared experts of x[shared];
             the shared gate reads x[shared] and mixes all experts, the tasks' included
    layer 2  the same on what layer 1 gave, without a shared gate; then a tower per task

Half of the recipe's E experts are each task's own and as many are shared, so that a task sees as many as in MMoE. Where the
tasks share one bottom every stream is that one. A task-specific bottom gives one stream more than there are tasks: to DTRN
'shared' is one more task, with an embedding for the hypernetwork and a refinement of its own, which no tower of its own
follows and which the tasks train through the shared experts. (The alternative, the mean of the tasks' streams, would put each
task's refinement into what all others read.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import Recipe
from models.embeddings import Shape
from models.experts import experts, mixed
from models.parts import Head
from models.towers import Grouped, Towers, weights


class Extraction(nn.Module):
    """One layer: `experts` two-layer experts per stream, the last stream being the shared one."""

    def __init__(self, recipe: Recipe, tasks: int, inputs: int, *, last: bool) -> None:
        super().__init__()
        wide, narrow = recipe.expert_widths
        self.tasks, each = tasks, max(1, recipe.experts // 2)
        self.first = Grouped(tasks + 1, inputs, each * wide)
        self.second = Grouped((tasks + 1) * each, wide, narrow)
        self.gate = weights(tasks, inputs, 2 * each)
        self.shared_gate = None if last else weights(1, inputs, (tasks + 1) * each)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """(T + 1, B, inputs) or (1, B, inputs) → (T + 1, B, narrow), or (T, B, narrow) from the last layer."""
        out = experts(self.first, self.second, x_SBI)  # (T + 1, B, e, narrow)
        seen = torch.cat([out[:-1], out[-1:].expand(self.tasks, -1, -1, -1)], dim=2)  # (T, B, 2e, narrow)
        x = x_SBI.expand(self.tasks + 1, -1, -1)
        own = mixed(torch.bmm(x[:-1], self.gate), seen)
        if self.shared_gate is None:
            return own
        everything = out.transpose(0, 1).flatten(1, 2)[None]
        return torch.cat([own, mixed(torch.bmm(x[-1:], self.shared_gate), everything)])


class PLE(Head):
    extra = 1

    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        narrow = recipe.expert_widths[1]
        self.one = Extraction(recipe, shape.tasks, inputs, last=False)
        self.two = Extraction(recipe, shape.tasks, narrow, last=True)
        self.towers = Towers(recipe, shape.tasks, narrow)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """x: (T + 1, B, inputs), the shared stream last, or (1, B, inputs) where the tasks share one; logits (B, T)."""
        logits: Tensor = self.towers(self.two(self.one(x_SBI)))
        return logits


HEAD = PLE
