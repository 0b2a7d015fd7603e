"""PEPNet's PPNet: Chang et al., KDD 2023, 'PEPNet: Parameter and Embedding Personalized Network for Infusing with
Personalized Prior Information' (arXiv 2302.01115). Every task has a network of its own, and who is shown what scales the
units of each of its hidden layers:

    H[t,l] = relu(W[t,l]·O[t,l-1] + b[t,l]),   O[t,l] = δ[t,l] ⊙ H[t,l],   O[t,0] = x[t]
    δ[t,l] = GateNU[t,l]([E(user) ; E(item) ; stop-gradient(x[t])]) ∈ (0, 2)                GateNU: `models.gates`

The prior are the ids' embeddings as the tables have them, before the bottom does anything to them; it trains them. **Ours**:
the author of an item, in the paper's prior too, is not among our roles and left out; 'hidden units' are read as what a layer
gives, so x[t] itself is not scaled; no two gates share a layer. The hidden layers are those of the single-task network and of
the tower.

With the bottom `pepnet` it is PEPNet, as far as that bottom is.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from models.config import Recipe
from models.embeddings import Shape
from models.gates import GateUnit
from models.parts import Head
from models.towers import Grouped, Towers


class PPNet(Head):
    personal = True

    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        self.inputs, prior = inputs, 2 * recipe.width
        self.first = Grouped(shape.tasks, inputs, recipe.experts * wide)
        self.second = Grouped(shape.tasks, recipe.experts * wide, narrow)
        self.towers = Towers(recipe, shape.tasks, narrow)
        self.gates = nn.ModuleList(
            GateUnit(recipe, shape.tasks, prior, inputs, outputs) for outputs in (recipe.experts * wide, narrow, recipe.tower)
        )

    def forward(self, x_SBI: Tensor) -> Tensor:
        """x: (T, B, inputs + 2·D), or (1, B, inputs + 2·D) where the tasks share one bottom; logits (B, T)."""
        x, prior = x_SBI[..., : self.inputs], x_SBI[..., self.inputs :]
        hidden = x
        for layer, gate in zip((self.first, self.second, self.towers.hidden), self.gates, strict=True):
            hidden = torch.relu(layer(hidden)) * gate(prior, x)
        return cast("Tensor", self.towers.last(hidden)).squeeze(-1).T


HEAD = PPNet
