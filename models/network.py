"""bottom × head: the neural rankers. A network reads a `Batch`, gives logits (B, T) and owns its loss.

Bottoms: `Pooled` gives every task the same fields and mean-pooled histories; `DTRN` gives each task its own (TIM, TRM).
Letters: B samples · U requests · T tasks · A actions · L length · F fields · D width · N histories of a bucket · R candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import GAPS, Batch, Bucket
from models.config import Recipe
from models.contract import Contract
from models.heads import MMoE
from models.interest import Interest
from models.refinement import Refinement
from models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """Sizes that come from the data: embedding rows per field ('unknown' included), tasks, actions, longest history."""

    user: tuple[int, ...]
    item: tuple[int, ...]
    context: tuple[int, ...]
    tasks: int
    actions: int
    length: int

    @classmethod
    def of(cls, contract: Contract, vocabulary: Vocabulary) -> Shape:
        """The shape of the data that a contract describes and a vocabulary was fitted on."""
        user, item, context = (
            tuple(vocabulary.sizes(fields)) for fields in (contract.user_fields, contract.item_fields, contract.context_fields)
        )
        return cls(user, item, context, len(contract.tasks), len(contract.actions), max(contract.lengths))


class Fields(nn.Module):
    """The embedding tables. A history token shares the candidate's item tables. Row 0 is 'unknown'."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.user = _tables(shape.user, recipe)
        self.item = _tables(shape.item, recipe)
        self.context = _tables(shape.context, recipe)

    def forward(self, batch: Batch) -> Tensor:
        """(B, F, D): user, item and context fields of every sample."""
        user = [table(batch.user_UF[:, f][batch.request_B]) for f, table in enumerate(self.user)]
        item = [table(batch.item_BF[:, f]) for f, table in enumerate(self.item)]
        context = [table(batch.context_BC[:, f]) for f, table in enumerate(self.context)]
        return torch.stack([*user, *item, *context], dim=1)

    def token(self, token_NLF: Tensor) -> Tensor:
        """(N, L, D): the sum of a token's item and item-feature embeddings."""
        return torch.stack([table(token_NLF[..., f]) for f, table in enumerate(self.item)]).sum(0)


class Pooled(nn.Module):
    """One bottom for all tasks: fields, and per action the mean of the history's token embeddings."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.fields = Fields(recipe, shape)
        self.outputs: int = (len(shape.user) + len(shape.item) + len(shape.context) + shape.actions) * recipe.width

    def forward(self, batch: Batch) -> Tensor:
        """(1, B, F·D)."""
        outs = []
        for bucket in batch.buckets:
            present = bucket.present_NL[..., None]
            mean = (self.fields.token(bucket.token_NLF) * present).sum(1) / present.sum(1)
            outs.append(mean[:, None].expand(-1, bucket.candidate_NR.shape[1], -1).reshape(1, -1, mean.shape[-1]))
        fields = self.fields(batch)
        interests = _placed(outs, batch, 1, fields)
        return torch.cat([fields[None], interests], dim=2).flatten(2)


class DTRN(nn.Module):
    """A bottom per task: fields and TIM's interests, rescaled by TRM (Liu et al., CIKM 2023; see those modules)."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.tasks = shape.tasks
        self.fields = Fields(recipe, shape)
        self.action = _table(shape.actions, recipe)
        self.gap = _table(GAPS, recipe)
        self.age = _table(shape.length, recipe)
        self.interest = Interest(recipe, shape.tasks, shape.actions)
        fields = len(shape.user) + len(shape.item) + len(shape.context) + shape.actions
        self.refinement = Refinement(shape.tasks, fields, recipe.reduction)
        self.outputs: int = fields * recipe.width

    def forward(self, batch: Batch) -> Tensor:
        """(T, B, F·D)."""
        fields = self.fields(batch)
        users = batch.user_UF.shape[1]
        candidate = fields[:, users : users + batch.item_BF.shape[1]].sum(1)
        affine = self.interest.hypernetwork()
        outs = [
            self.interest(self._tokens(b), b, F.embedding(b.candidate_NR.clamp(0), candidate), affine) for b in batch.buckets
        ]
        interests = _placed(outs, batch, self.tasks, fields)
        x = torch.cat([fields.expand(self.tasks, -1, -1, -1), interests], dim=2)
        return cast("Tensor", self.refinement(x)).flatten(2)

    def _tokens(self, bucket: Bucket) -> Tensor:
        extra: Tensor = self.gap(bucket.gap_NL) + self.age(bucket.age_NL) + self.action(bucket.action_N)[:, None]
        return self.fields.token(bucket.token_NLF) + extra


BOTTOMS: dict[str, type[Pooled] | type[DTRN]] = {"pooled": Pooled, "dtrn": DTRN}
HEADS = {"mmoe": MMoE}


class Network(nn.Module):
    """One recipe, built for one shape of data."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.recipe = recipe
        self.bottom = BOTTOMS[recipe.bottom](recipe, shape)
        self.head = HEADS[recipe.head](recipe, shape.tasks, self.bottom.outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, T)."""
        logits: Tensor = self.head(self.bottom(batch))
        return logits

    def loss(self, batch: Batch, weight_T: Tensor) -> tuple[Tensor, Tensor]:
        """(weighted sum over tasks, per task (T,)) of the mean cross-entropy over known labels; 0 where none is known."""
        each = F.binary_cross_entropy_with_logits(self(batch).float(), batch.label_BT, reduction="none")
        per_task = (each * batch.known_BT).sum(0) / batch.known_BT.sum(0).clamp(min=1)
        return (per_task * weight_T).sum(), per_task

    def id_tables(self) -> list[nn.Parameter]:
        """The embeddings of user and item ids: they overfit first, so they alone are decayed."""
        fields = self.bottom.fields
        assert isinstance(fields, Fields)
        return [fields.user[0].weight, fields.item[0].weight]  # type: ignore[list-item]


def _placed(outs: list[Tensor], batch: Batch, streams: int, like: Tensor) -> Tensor:
    """(streams, B, A, D): the buckets' outputs (streams, N·R, D) in their samples' places, exactly 0 for empty histories."""
    width = like.shape[-1]
    laid = torch.cat([like.new_zeros(streams, 1, width), *outs], dim=1)
    return laid.index_select(1, batch.place_BA.flatten()).view(streams, *batch.place_BA.shape, width)


def _table(rows: int, recipe: Recipe) -> nn.Embedding:
    table = nn.Embedding(rows, recipe.width)
    nn.init.normal_(table.weight, std=recipe.embedding_std)
    return table


def _tables(sizes: tuple[int, ...], recipe: Recipe) -> nn.ModuleList:
    return nn.ModuleList(_table(rows, recipe) for rows in sizes)
