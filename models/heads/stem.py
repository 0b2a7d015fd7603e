"""STEM-Net's gating, All Forward Task-specific Backward: Su et al., AAAI 2024, 'STEM: Unleashing the Power of Embeddings for
Multi-task Recommendation' (arXiv 2308.13537). Task t mixes the experts of all tasks, but trains only its own and the shared:

    o[s,e] = expert (s, e) of x[s],  s ∈ {1 … T, shared}
    h[t]   = Σ_{s,e} softmax(G[t]·(x[t] + x[shared]))_{s,e} · o[s,e],   o[s,e] behind a stop-gradient unless s is t or shared

then a tower per task. So another task's experts, and over the bottom `stem` its embeddings, are read as they are and never
moved. What the gate reads, and that the shared stream's own mixture is needed only between layers, of which there is one, is
as in the authors' code (github.com/LiangcaiSu/STEM). **Ours**: experts and linear gates as in PLE here, half of the recipe's
experts for each stream; theirs have a multi-layer gate and no activation behind an expert.

With the bottom `stem` it is the paper's model. Over a bottom that the tasks share all streams are that one, which every task
trains through its own and the shared experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.config import Recipe
from models.embeddings import Shape
from models.experts import experts, mixed
from models.parts import Head
from models.towers import Grouped, Towers, weights


class STEM(Head):
    extra = 1

    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        self.tasks, each = shape.tasks, max(1, recipe.experts // 2)
        streams = shape.tasks + 1
        self.first = Grouped(streams, inputs, each * wide)
        self.second = Grouped(streams * each, wide, narrow)
        self.gate = weights(shape.tasks, inputs, streams * each)
        self.towers = Towers(recipe, shape.tasks, narrow)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """x: (T + 1, B, inputs), the shared stream last, or (1, B, inputs) where the tasks share one; logits (B, T)."""
        out = experts(self.first, self.second, x_SBI)  # (T + 1, B, e, narrow)
        seen = torch.stack(
            [torch.cat([out[:t].detach(), out[t : t + 1], out[t + 1 : -1].detach(), out[-1:]]) for t in range(self.tasks)]
        )  # (T, T + 1, B, e, narrow)
        x = x_SBI.expand(self.tasks + 1, -1, -1)
        gate = torch.bmm(x[:-1] + x[-1], self.gate)
        logits: Tensor = self.towers(mixed(gate, seen.transpose(1, 2).flatten(2, 3)))
        return logits


HEAD = STEM
