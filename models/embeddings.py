"""The embedding tables, the same for every bottom, and the sizes that they have. Row 0 of a table is 'unknown'."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batches import GAPS, Batch, Bucket
from models.config import Recipe
from models.contract import Contract
from models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """What comes from the data: embedding rows per field ('unknown' included), tasks, actions, longest history.

    `given`: for each task the place of the task that it is conditional on, or -1; empty where none is.
    """

    user: tuple[int, ...]
    item: tuple[int, ...]
    context: tuple[int, ...]
    tasks: int
    actions: int
    length: int
    given: tuple[int, ...] = ()

    @classmethod
    def of(cls, contract: Contract, vocabulary: Vocabulary) -> Shape:
        """The shape of the data that a contract describes and a vocabulary was fitted on."""
        user, item, context = (
            tuple(vocabulary.sizes(fields)) for fields in (contract.user_fields, contract.item_fields, contract.context_fields)
        )
        places = {None: -1} | {name: place for place, name in enumerate(contract.tasks)}
        given = tuple(places[task.given] for task in contract.tasks.values())
        return cls(user, item, context, len(contract.tasks), len(contract.actions), max(contract.lengths), given)

    @property
    def fields(self) -> int:
        """F of a stream: the sample's own fields, and an interest per action."""
        return len(self.user) + len(self.item) + len(self.context) + self.actions


class Fields(nn.Module):
    """A table per field. A history token shares the candidate's item tables."""

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

    def candidate(self, fields_BFD: Tensor) -> Tensor:
        """(B, D): the candidate as a token, out of what `forward` gave."""
        first = len(self.user)
        return fields_BFD[:, first : first + len(self.item)].sum(1)


class Moment(nn.Module):
    """What a token's item does not say: how long ago, how many events ago, and by which action."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.gap = _table(GAPS, recipe)
        self.age = _table(shape.length, recipe)
        self.action = _table(shape.actions, recipe)

    def forward(self, bucket: Bucket) -> Tensor:
        """(N, L, D), to be added to the tokens."""
        extra: Tensor = self.gap(bucket.gap_NL) + self.age(bucket.age_NL) + self.action(bucket.action_N)[:, None]
        return extra


def placed(outs: list[Tensor], batch: Batch, streams: int, like: Tensor) -> Tensor:
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
