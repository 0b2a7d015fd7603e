"""PEPNet's EPNet: Chang et al., KDD 2023, 'PEPNet: Parameter and Embedding Personalized Network for Infusing with
Personalized Prior Information' (arXiv 2302.01115). A gate made of the domain's features scales every number of the embedding:

    δ = GateNU([E(domain) ; stop-gradient(E)]) ∈ (0, 2),   O = δ ⊙ E          GateNU: `models.gates`

The formulas are the paper's as its public implementations have them. Theirs is one model for several apps and pages. **Ours
is a reconstruction**: a log here is of one domain, and what stands for it are the context fields (hour, weekday, position,
…), which E holds too; without context fields δ depends on E alone. E is the stream of the recipe's `base`: fields and
mean-pooled histories, or DMT's interests in the variant `pepnet-dmt`. Where the base has a stream for each task the one gate
reads them all.

With the head `ppnet` it is PEPNet, so far.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from models import bottoms
from models.batches import Batch
from models.config import Recipe
from models.embeddings import Shape
from models.gates import GateUnit
from models.parts import Bottom


class PEPNet(Bottom):
    """(S, B, F·D), S as the base has it."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.base = bottoms.named(recipe.base)(replace(recipe, bottom=recipe.base, base="pooled"), shape)
        self.outputs = self.base.outputs
        begin = len(shape.user) + len(shape.item)
        self.context = slice(begin * recipe.width, (begin + len(shape.context)) * recipe.width)
        self.gate = GateUnit(recipe, 1, len(shape.context) * recipe.width, self.outputs, self.outputs)

    def forward(self, batch: Batch) -> Tensor:
        x_SBI: Tensor = self.base(batch)
        x = x_SBI.flatten(0, 1)[None]
        gate: Tensor = self.gate(x[..., self.context], x)
        return x_SBI * gate.view(x_SBI.shape)


BOTTOM = PEPNet
