"""The embedding tables, the same for every bottom, and the sizes that they have. Row 0 of a table is 'unknown'."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.batches import COUNTS, GAPS, Batch
from models.config import Recipe
from models.contract import Contract
from models.statistics import BINS
from models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """What comes from the data: embedding rows per field ('unknown' included), tasks, actions, longest history.

    `given`: for each task the place of the task that it is conditional on, or -1; empty where none is. `slots`: columns of each
    field, those of the user, then the item, then the context; empty where each has one (only a list has more). `told`: rows of
    the table of statistics, 0 where there are none.
    """

    user: tuple[int, ...]
    item: tuple[int, ...]
    context: tuple[int, ...]
    tasks: int
    actions: int
    length: int
    given: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()
    told: int = 0

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
            BINS * len(contract.tasks) if vocabulary.statistics else 0,
        )

    @property
    def fields(self) -> int:
        """F of a stream: the sample's own fields, and an interest per action."""
        return len(self.user) + len(self.item) + len(self.context) + self.actions


class Fields(nn.Module):
    """A table per field, for a list the mean over its entries. A history token shares the candidate's item tables.

    To the embeddings of a sample's user and item ids that of their statistics is added, which starts at 0.
    """

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.user = _tables(shape.user, recipe)
        self.item = _tables(shape.item, recipe)
        self.context = _tables(shape.context, recipe)
        slots = shape.slots or (1,) * (len(shape.user) + len(shape.item) + len(shape.context))
        users, items = len(shape.user), len(shape.user) + len(shape.item)
        told = shape.told if recipe.statistics else 0
        self.told = nn.ParameterList(torch.zeros(told, recipe.width) for _ in range(2 if told else 0))
        self.columns = (_places(slots[:users]), _places(slots[users:items]), _places(slots[items:]))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, F, D): user, item and context fields of every sample; (Q, D): every token, the sum of its item's fields."""
        read = _read(self.item[0], batch.items)
        tokens = [_looked_up(t, batch.token_QF, c) for t, c in self._item_tables(read)]
        user_UFD, candidate_BFD = self._looked_up(batch, read)
        return torch.cat([taken(user_UFD, batch.request_B), candidate_BFD], dim=1), torch.stack(tokens).sum(0)

    def pooled(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(U, Fu, D): user fields; (B, F - Fu, D): item and context fields; (U, A, D): the mean of each history's tokens.

        No token is laid out: a history is one bag of rows, and 0 where it is empty.
        """
        read = _read(self.item[0], batch.items)
        share_Q = batch.share_Q.to(read.dtype)
        bags = [_bags(t, batch.token_QF, c, share_Q, batch.begin_H) for t, c in self._item_tables(read)]
        means = torch.stack(bags).sum(0)
        means = taken(torch.cat([means.new_zeros(1, means.shape[1]), means]), batch.history_UA)
        return *self._looked_up(batch, read), means

    def _item_tables(self, read: Tensor) -> list[tuple[Tensor, int | slice]]:
        """Table and columns of each field of an item; that of the id is `read`, of which the rows hold places."""
        return list(zip([read, *map(_weight, self.item[1:])], self.columns[1], strict=True))

    def _looked_up(self, batch: Batch, read: Tensor) -> tuple[Tensor, Tensor]:
        """(U, Fu, D) and (B, F - Fu, D): the fields of each request's user; of each sample's item and context."""
        users = [_read(self.user[0], batch.users), *map(_weight, self.user[1:])]
        user = [_looked_up(t, batch.user_UF, c) for t, c in zip(users, self.columns[0], strict=True)]
        item = [_looked_up(t, batch.item_BF, c) for t, c in self._item_tables(read)]
        for side, rows, table in zip((user, item), (batch.user_told_UT, batch.item_told_BT), self.told, strict=False):
            side[0] = side[0] + F.embedding_bag(rows, table, mode="sum")
        context = [_looked_up(_weight(t), batch.context_BC, c) for t, c in zip(self.context, self.columns[2], strict=True)]
        return torch.stack(user, dim=1), torch.stack([*item, *context], dim=1)

    def ids(self, batch: Batch) -> Tensor:
        """(B, 2·D): the embeddings of the user's and of the item's id."""
        user = taken(_read(self.user[0], batch.users), batch.user_UF[batch.request_B, 0])
        item = taken(_read(self.item[0], batch.items), batch.item_BF[:, 0])
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
        gap, age = taken(self.gap.weight, batch.gap_Q), taken(self.age.weight, batch.age_Q)
        return gap + age + of_action(self.action.weight, batch.action_QA)


class Matches(nn.Module):
    """What a softmax over a history cannot say: how often and how lately the candidate itself, or a feature of it, is in it,
    and how often a feature of it without those before it: another category of the same price is not the same category.

    It holds for items without a row too, which all look alike to an embedding. Starts at 0, so that a network begins as its
    paper has it. Ours; counts and recencies are also what the trees of `models.baselines` live on.
    """

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(shape.actions * 2 * len(shape.item) * (COUNTS + GAPS), recipe.width))

    def forward(self, batch: Batch) -> Tensor:
        """(B, A, D), exactly 0 for an empty history."""
        told = F.embedding_bag(batch.match_BAK2.flatten(2).flatten(0, 1), self.table, mode="sum")
        told = told.view(*batch.place_BA.shape, -1)
        return told * (batch.place_BA > 0).unsqueeze(-1)


def taken(rows: Tensor, places: Tensor) -> Tensor:
    """rows[places], of which the gradient is added up in one order: that of an index adds as threads come, and so differently
    from one run to the next. On the processor that of a selection has one order too, and is three times as fast."""
    flat = places.flatten()
    found = rows.index_select(0, flat) if rows.device.type == "cpu" else F.embedding(flat, rows.flatten(1))
    return found.view(*places.shape, *rows.shape[1:])


def of_action(values_AD: Tensor, action_QA: Tensor) -> Tensor:
    """(…, Q, D): of values (…, A, D) those of each action; a product, whose gradient is one too and not so many additions."""
    return action_QA.to(values_AD.dtype) @ values_AD


def placed(outs: list[Tensor], batch: Batch, streams: int, like: Tensor) -> Tensor:
    """(streams, B, A, D): the buckets' outputs (streams, N·R, D) in their samples' places, exactly 0 for empty histories."""
    width = like.shape[-1]
    laid = torch.cat([like.new_zeros(streams, 1, width), *outs], dim=1)
    return laid.index_select(1, batch.place_BA.flatten()).view(streams, *batch.place_BA.shape, width)


def _places(slots: tuple[int, ...]) -> list[int | slice]:
    """The column of each field, or the columns of a list."""
    ends = list(accumulate(slots, initial=0))
    return [begin if count == 1 else slice(begin, begin + count) for begin, count in zip(ends, slots, strict=False)]


def _read(table: nn.Module, ids: Tensor | None) -> Tensor:
    """The rows `ids` of an id's table, once each: its gradient is sparse in just these, which `models.optimiser` goes by.

    None: all rows, and the gradient is of the whole table.
    """
    return _weight(table) if ids is None else F.embedding(ids, _weight(table), sparse=True)


def _looked_up(table: Tensor, rows: Tensor, columns: int | slice) -> Tensor:
    """(…, D) of a field's `columns` in `rows` (…, columns). Of a list: the mean of its known entries, or 'unknown'."""
    entries = taken(table, rows[..., columns])
    return (
        entries
        if isinstance(columns, int)
        else (entries * _entry_shares(rows[..., columns], table.dtype).unsqueeze(-1)).sum(-2)
    )


def _bags(table: Tensor, rows_QF: Tensor, columns: int | slice, share_Q: Tensor, starts: Tensor) -> Tensor:
    """(bags, D): the sums of what `_looked_up` gives of the rows of each bag, weighted by `share_Q`."""
    rows, share = rows_QF[:, columns], share_Q
    if not isinstance(columns, int):
        share, starts = (share[:, None] * _entry_shares(rows, table.dtype)).flatten(), starts * rows.shape[1]
    if table.device.type != "cpu":
        return F.embedding_bag(rows.flatten(), table, starts, mode="sum", per_sample_weights=share)
    return cast("Tensor", _Bags.apply(table, rows.flatten(), starts, share))  # type: ignore[no-untyped-call]


class _Bags(torch.autograd.Function):
    """`F.embedding_bag` whose weights need no gradient, on the processor: there the table's is added up token by token, where
    its own sorts them first."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, starts: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(rows, starts, share)
        ctx.rows = len(table)
        return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=share)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bags: Tensor) -> tuple[Tensor | None, ...]:
        rows, starts, share = ctx.saved_tensors
        lengths = torch.diff(starts, append=starts.new_tensor([len(rows)]))
        of_token = torch.repeat_interleave(grad_bags, lengths, dim=0, output_size=len(rows)).mul_(share[:, None])
        return grad_bags.new_zeros(ctx.rows, grad_bags.shape[1]).index_add_(0, rows, of_token), None, None, None


def _entry_shares(rows: Tensor, number: torch.dtype) -> Tensor:
    """Weight of each entry of lists (…, entries): alike for the known ones; the first one's row, 'unknown', where none is."""
    known = rows > 0
    known[..., 0] |= ~known.any(-1)
    return known / known.sum(-1, keepdim=True, dtype=number)


def _weight(table: nn.Module) -> Tensor:
    assert isinstance(table, nn.Embedding)
    return table.weight


def _table(rows: int, recipe: Recipe) -> nn.Embedding:
    table = nn.Embedding(rows, recipe.width)
    nn.init.normal_(table.weight, std=recipe.embedding_std)
    return table


def _tables(sizes: tuple[int, ...], recipe: Recipe) -> nn.ModuleList:
    return nn.ModuleList(_table(rows, recipe) for rows in sizes)
