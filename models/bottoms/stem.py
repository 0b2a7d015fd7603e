"""STEM's shared and task-specific embeddings: Su et al., AAAI 2024, 'STEM: Unleashing the Power of Embeddings for Multi-task
Recommendation' (arXiv 2308.13537).

A set of embedding tables for each task and a shared one, against the collapse of all tasks' tastes into one vector of a user:

    x[s] = fields and interests, all looked up in the tables of stream s ∈ {1 … T, shared}

The shared stream, the last one, is there for heads that read such a one: `stem`, which with this bottom is the paper's
STEM-Net, and `ple`. Under any other head no table is shared.

The paper's samples have no histories. Ours are encoded per stream as the recipe's `base` does, which is a whole bottom of its
own for every stream: mean-pooled, or by DMT's Transformers in the variant `stem-dmt`.
"""

from __future__ import annotations

from dataclasses import replace

from models import bottoms
from models.config import Recipe
from models.embeddings import Shape
from models.parts import Separate


class STEM(Separate):
    """(S, B, F·D)."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        base, one = replace(recipe, bottom=recipe.base, base="pooled"), replace(shape, tasks=1, given=())
        super().__init__(bottoms.named(recipe.base)(base, one) for _ in range(shape.tasks))


BOTTOM = STEM
