"""The embedding tables, the same for every bottom, and the sizes that they have. Row 0 of a table is 'unknown'."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import COUNTS, GAPS, Batch
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

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, F, D): user, item and context fields of every sample; (Q, D): every token, the sum of its item's fields."""
        samples = len(batch.item_BF)
        user = [x[batch.request_B] for x in _side(self.user, self.columns[0], batch.user_UF, batch.users)]
        item = _side(self.item, self.columns[1], torch.cat([batch.item_BF, batch.token_QF]), batch.items)
        context = [_looked_up(_weight(t), batch.context_BC, c) for t, c in zip(self.context, self.columns[2], strict=True)]
        fields = torch.stack([*user, *(x[:samples] for x in item), *context], dim=1)
        return fields, torch.stack([x[samples:] for x in item]).sum(0)

    def ids(self, batch: Batch) -> Tensor:
        """(B, 2·D): the embeddings of the user's and of the item's id."""
        user = F.embedding(batch.users, _weight(self.user[0]), sparse=True)[batch.user_UF[batch.request_B, 0]]
        item = F.embedding(batch.items, _weight(self.item[0]), sparse=True)[batch.item_BF[:, 0]]
        return torch.cat([user, item], dim=-1)

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

    def forward(self, batch: Batch) -> Tensor:
        """(Q, D), to be added to the tokens."""
        spans = [self.action.weight[action].expand(end - begin, -1) for action, begin, end, _ in batch.actions()]
        action = torch.cat([self.action.weight[:0], *spans])
        extra: Tensor = self.gap(batch.gap_Q) + self.age(batch.age_Q) + action
        return extra


class Matches(nn.Module):
    """What a softmax over a history cannot say: how often and how lately the candidate itself, or a feature of it, is in it.

    It holds for items without a row too, which all look alike to an embedding. Starts at 0, so that a network begins as its
    paper has it. Ours; counts and recencies are also what the trees of `models.baselines` live on.
    """

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(shape.actions * (1 + len(shape.item)) * (COUNTS + GAPS), recipe.width))

    def forward(self, batch: Batch) -> Tensor:
        """(B, A, D), exactly 0 for an empty history."""
        told = F.embedding_bag(batch.match_BAK2.flatten(2).flatten(0, 1), self.table, mode="sum")
        told = told.view(*batch.place_BA.shape, -1)
        return told * (batch.place_BA > 0).unsqueeze(-1)


def placed(outs: list[Tensor], batch: Batch, streams: int, like: Tensor) -> Tensor:
    """(streams, B, A, D): the buckets' outputs (streams, N·R, D) in their samples' places, exactly 0 for empty histories."""
    width = like.shape[-1]
    laid = torch.cat([like.new_zeros(streams, 1, width), *outs], dim=1)
    return laid.index_select(1, batch.place_BA.flatten()).view(streams, *batch.place_BA.shape, width)


def _places(slots: tuple[int, ...]) -> list[int | slice]:
    """The column of each field, or the columns of a list."""
    ends = list(accumulate(slots, initial=0))
    return [begin if count == 1 else slice(begin, begin + count) for begin, count in zip(ends, slots, strict=False)]


def _side(tables: nn.ModuleList, columns: list[int | slice], rows: Tensor, ids: Tensor) -> list[Tensor]:
    """(…, D) of every field of users or items, whose ids in column 0 are places in `ids`.

    The id's gradient is sparse: the rows `ids` once each, which is what `models.optimiser` goes by.
    """
    read = F.embedding(ids, _weight(tables[0]), sparse=True)
    own = _looked_up(read, rows, columns[0])
    return [own, *(_looked_up(_weight(t), rows, c) for t, c in zip(tables[1:], columns[1:], strict=True))]


def _looked_up(table: Tensor, rows: Tensor, columns: int | slice) -> Tensor:
    """(…, D) of a field's `columns` in `rows` (…, columns). Of a list: the mean of its known entries, or 'unknown'."""
    entries = F.embedding(rows[..., columns], table)
    if isinstance(columns, int):
        return entries
    known = (rows[..., columns] > 0).unsqueeze(-1)
    mean = (entries * known).sum(-2) / known.sum(-2).clamp(min=1)
    return torch.where(known.any(-2), mean, table[0])


def _weight(table: nn.Module) -> Tensor:
    assert isinstance(table, nn.Embedding)
    return table.weight


def _table(rows: int, recipe: Recipe) -> nn.Embedding:
    table = nn.Embedding(rows, recipe.width)
    nn.init.normal_(table.weight, std=recipe.embedding_std)
    return table


def _tables(sizes: tuple[int, ...], recipe: Recipe) -> nn.ModuleList:
    return nn.ModuleList(_table(rows, recipe) for rows in sizes)
