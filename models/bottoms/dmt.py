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
from torch.nn import functional as F

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

    def forward(self, h_NLD: Tensor, present_NL: Tensor, candidate_NRD: Tensor) -> Tensor:
        """(N, R, D) interests of N histories of this action, for the R candidates of each."""
        out: Tensor = self.transformer(h_NLD, present_NL, candidate_NRD, self.gamma[None, None], self.beta[None, None])
        return out.view(candidate_NRD.shape)


class DMT(Bottom):
    """Fields, and per action its Transformer's interest."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__(recipe, shape)
        self.moment = Moment(recipe, shape)
        self.actions = nn.ModuleList(Multifaceted(recipe) for _ in range(shape.actions))

    def forward(self, batch: Batch) -> Tensor:
        """(1, B, F·D)."""
        fields = self.fields(batch)
        candidate = self.fields.candidate(fields)
        outs = [self._interests(bucket, F.embedding(bucket.candidate_NR.clamp(0), candidate)) for bucket in batch.buckets]
        return torch.cat([fields[None], placed(outs, batch, 1, fields)], dim=2).flatten(2)

    def _interests(self, bucket: Bucket, candidate_NRD: Tensor) -> Tensor:
        """(1, N·R, D): each action's histories through its own Transformer, and back in the bucket's order."""
        h = self.fields.token(bucket.token_NLF) + self.moment(bucket)
        order = bucket.action_N.argsort(stable=True)
        ends = bucket.action_N.bincount(minlength=len(self.actions)).cumsum(0).tolist()
        parts, begin = [], 0
        for action, end in zip(self.actions, ends, strict=True):
            rows = order[begin:end]
            if len(rows):
                parts.append(action(h[rows], bucket.present_NL[rows], candidate_NRD[rows]))
            begin = end
        return torch.cat(parts)[order.argsort()].flatten(0, 1)[None]


BOTTOM = DMT
