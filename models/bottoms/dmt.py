"""DMT: one Transformer per behaviour type, the target item as query, shared by all tasks.

Gu et al., CIKM 2020, 'Deep Multifaceted Transformers for Multi-objective Ranking in Large-Scale E-commerce Recommender
Systems'. Only their bottom: their bias network is left out, since position is a context field here, and their MMoE is a head
like any other. Tokens, encoder and target attention are those of DTRN (`models.transformer`), and that is the point: from
DMT to DTRN's TIM only this changes, that A Transformers of their own weights become one whose γ, β depend on task and action.

    H[a]  = item (+ features) + time gap + age + action embeddings
    v[a]  = Transformer[a](H[a], query = candidate), γ[a] and β[a] learned as they are in any LayerNorm;  empty: exactly 0
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.batches import Batch, Bucket
from models.config import Recipe
from models.embeddings import Moment, Shape, placed
from models.parts import Bottom
from models.transformer import Transformer


class Multifaceted(nn.Module):
    """The Transformer of one action, with LayerNorms of its own."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.transformer = Transformer(recipe)
        self.gamma = nn.Parameter(torch.ones(recipe.layers, 2, recipe.width))
        self.beta = nn.Parameter(torch.zeros(recipe.layers, 2, recipe.width))

    def forward(self, h_QD: Tensor, buckets: list[Bucket], candidate_BD: Tensor) -> Tensor:
        """(1, ΣN·R, D) interests of this action's buckets, for the R candidates of each of their N histories."""
        outs: Tensor = self.transformer(h_QD, buckets, candidate_BD, self.gamma[None], self.beta[None])
        return outs


class DMT(Bottom):
    """Fields, and per action its Transformer's interest."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__(recipe, shape)
        self.moment = Moment(recipe, shape)
        self.actions = nn.ModuleList(Multifaceted(recipe) for _ in range(shape.actions))

    def forward(self, batch: Batch) -> Tensor:
        """(1, B, F·D)."""
        fields, tokens = self.fields(batch)
        candidate, h = self.fields.candidate(fields), tokens + self.moment(batch)
        outs = [self.actions[action](h[begin:end], buckets, candidate) for action, begin, end, buckets in batch.actions()]
        return torch.cat([fields[None], placed(outs, batch, 1, fields)], dim=2).flatten(2)


BOTTOM = DMT
