"""DMT: one Transformer per behaviour type, the target item as query, shared by all tasks.

Gu et al., CIKM 2020, 'Deep Multifaceted Transformers for Multi-objective Ranking in Large-Scale E-commerce Recommender
Systems'. Only their bottom: their bias network is left out, since position is a context field here, and their MMoE is a head
like any other. Tokens, encoder and target attention are those of DTRN (`models.transformer`), and that is the point: from
DMT to DTRN's TIM only this changes, that A Transformers of their own weights become one whose γ, β depend on task and action.

    H[a]  = item (+ features) + time gap + age + action embeddings
    v[a]  = Transformer[a](H[a], query = candidate), γ[a] and β[a] learned as they are in any LayerNorm;  empty: exactly 0

With `copies` k it has k Transformers an action, and all k·A interests stand in the stream: a control of ours for capacity.
"""

from __future__ import annotations

from dataclasses import replace

from models.bottoms.dtrn import DTRN
from models.config import Recipe
from models.embeddings import Shape


class DMT(DTRN):
    """(1, B, F·D): fields, and per action its Transformer's interest."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__(replace(recipe, interest="dmt", refinement="none"), shape)


BOTTOM = DMT
