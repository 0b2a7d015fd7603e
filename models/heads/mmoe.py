"""MMoE: Ma et al., KDD 2018, 'Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts'.

E experts are shared, each task has a gate over them and a tower:  y[t] = tower[t](Σ_e softmax(G[t]·x)_e · expert_e(x)).
Where every task brings its own stream, experts and gate of task t read x[t].
"""

from __future__ import annotations

from torch import Tensor, nn

from models.config import Recipe
from models.embeddings import Shape
from models.experts import mixture
from models.parts import Head, Split
from models.towers import Grouped, Towers, weights


class MMoE(Head):
    splits = True

    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        self.first = nn.Linear(inputs, recipe.experts * wide)
        self.second = Grouped(recipe.experts, wide, narrow)
        self.gate = weights(shape.tasks, inputs, recipe.experts)
        self.towers = Towers(recipe, shape.tasks, narrow)

    def forward(self, x_SBI: Tensor | Split) -> Tensor:
        """x: (T, B, inputs), or (1, B, inputs) where the tasks share one bottom, which may come in two parts; logits (B, T)."""
        logits: Tensor = self.towers(mixture(self.gate, self.first, self.second, x_SBI))
        return logits


HEAD = MMoE
