"""The embedding tables, the same for every bottom, and the sizes that they have. Row 0 of a table is 'unknown'."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from models.batches import GAPS, Batch, Bucket
from models.config import Recipe
from models.contract import Contract
from models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """What comes from the data: embedding rows per field ('unknown' included), tasks, actions, longest history.

    `given`: for each task the place of the task that it is conditional on, or -1; empty where none is. `slots`: columns of each
    field, those of the user, then the item, then the context; empty where each has one (only a list has more).
    """

    user: tuple[int, ...]
    item: tuple[int, ...]
    context: tuple[int, ...]
    tasks: int
    actions: int
    length: int
    given: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()

    @classmethod
    def of(cls, contract: Contract, vocabulary: Vocabulary) -> Shape:
        """The shape of the data that a contract describes and a vocabulary was fitted on."""
        columns = (contract.user_fields, contract.item_fields, contract.context_fields)
        user, item, context = (tuple(vocabulary.sizes(tuple(dict.fromkeys(fields)))) for fields in columns)
        slots = tuple(fields.count(field) for fields in columns for field in dict.fromkeys(fields))
        places = {None: -1} | {name: place for place, name in enumerate(contract.tasks)}
        given = tuple(places[task.given] for task in contract.tasks.values())
        return cls(
            user,
            item,
            context,
            len(contract.tasks),
            len(contract.actions),
            max(contract.lengths),
            given,
            slots if max(slots) > 1 else (),
        )

    @property
    def fields(self) -> int:
        """F of a stream: the sample's own fields, and an interest per action."""
        return len(self.user) + len(self.item) + len(self.context) + self.actions


class Fields(nn.Module):
    """A table per field, for a list the mean over its entries. A history token shares the candidate's item tables."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.user = _tables(shape.user, recipe)
        self.item = _tables(shape.item, recipe)
        self.context = _tables(shape.context, recipe)
        slots = shape.slots or (1,) * (len(shape.user) + len(shape.item) + len(shape.context))
        users, items = len(shape.user), len(shape.user) + len(shape.item)
        self.columns = (_places(slots[:users]), _places(slots[users:items]), _places(slots[items:]))

    def forward(self, batch: Batch) -> Tensor:
        """(B, F, D): user, item and context fields of every sample."""
        users, items, contexts = self.columns
        user_BF = batch.user_UF[batch.request_B]
        user = [_looked_up(t, user_BF, c) for t, c in zip(self.user, users, strict=True)]
        item = [_looked_up(t, batch.item_BF, c) for t, c in zip(self.item, items, strict=True)]
        context = [_looked_up(t, batch.context_BC, c) for t, c in zip(self.context, contexts, strict=True)]
        return torch.stack([*user, *item, *context], dim=1)

    def ids(self, batch: Batch) -> Tensor:
        """(B, 2·D): the embeddings of the user's and of the item's id."""
        user, item = self.user[0], self.item[0]
        return torch.cat([user(batch.user_UF[batch.request_B, 0]), item(batch.item_BF[:, 0])], dim=-1)

    def token(self, token_NLF: Tensor) -> Tensor:
        """(N, L, D): the sum of a token's item and item-feature embeddings."""
        return torch.stack([_looked_up(t, token_NLF, c) for t, c in zip(self.item, self.columns[1], strict=True)]).sum(0)

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


def _places(slots: tuple[int, ...]) -> list[int | slice]:
    """The column of each field, or the columns of a list."""
    ends = list(accumulate(slots, initial=0))
    return [begin if count == 1 else slice(begin, begin + count) for begin, count in zip(ends, slots, strict=False)]


def _looked_up(table: nn.Module, rows: Tensor, columns: int | slice) -> Tensor:
    """(…, D) of a field's `columns` in `rows` (…, columns). Of a list: the mean of its known entries, or 'unknown'."""
    assert isinstance(table, nn.Embedding)
    entries: Tensor = table(rows[..., columns])
    if isinstance(columns, int):
        return entries
    known = (rows[..., columns] > 0).unsqueeze(-1)
    mean = (entries * known).sum(-2) / known.sum(-2).clamp(min=1)
    return torch.where(known.any(-2), mean, table.weight[0])


def _table(rows: int, recipe: Recipe) -> nn.Embedding:
    table = nn.Embedding(rows, recipe.width)
    nn.init.normal_(table.weight, std=recipe.embedding_std)
    return table


def _tables(sizes: tuple[int, ...], recipe: Recipe) -> nn.ModuleList:
    return nn.ModuleList(_table(rows, recipe) for rows in sizes)
