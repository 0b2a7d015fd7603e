"""What every bottom and every head is. `models.network` puts one of each together; docs/models.md shows how to add one.

A stream is one representation of the batch's samples: a bottom that the tasks share gives one, a task-specific one gives
a stream per task. Letters: S streams · B samples · T tasks · F fields · D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import Batch
from models.config import Recipe
from models.embeddings import Fields, Matches, Shape
from models.towers import Towers


@dataclass(frozen=True)
class Split:
    """The only stream, its columns that are a request's apart from those that are a sample's: a layer may read the former once.

    request (U, J) · sample (B, K) · of (B,) each sample's request, ascending · at: the sample's columns in the stream.
    """

    request_UJ: Tensor
    sample_BK: Tensor
    of_B: Tensor
    at: slice


class Bottom(nn.Module, ABC):
    """Reads a batch. `outputs`: width of a stream, which begins with the user's, item's and context's fields, D each."""

    outputs: int

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """(S, B, outputs): S = 1 where the tasks share the representation, else `shape.tasks`, in the tasks' order."""

    def split(self, batch: Batch) -> Split | None:
        """What `forward` gives, in two parts; None where this bottom has no columns that are a request's alone, or only few."""
        return None

    def tables(self) -> list[Fields]:
        """Its sets of embedding tables: one, or one a stream."""
        return [module for module in self.modules() if isinstance(module, Fields)]

    def ids(self, batch: Batch) -> Tensor:
        """(1 or S, B, 2·D): embeddings of the user's and of the item's id as they are in each set of tables."""
        return torch.stack([fields.ids(batch) for fields in self.tables()])

    def id_tables(self) -> list[nn.Parameter]:
        """The embeddings of user and item ids: they overfit first, so they alone are decayed."""
        return [table[0].weight for fields in self.tables() for table in (fields.user, fields.item)]  # type: ignore[misc]

    def id_rows(self, batch: Batch) -> list[Tensor]:
        """The rows of each of `id_tables` that the batch reads, distinct; none where it reads the tables as a whole."""
        return [rows for _ in self.tables() for rows in (batch.users, batch.items) if rows is not None]


class Tabled(Bottom):
    """A bottom with one set of tables, `fields`, for all tasks."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.fields = Fields(recipe, shape)
        self.matches = Matches(recipe, shape) if recipe.matches else None
        self.outputs = shape.fields * recipe.width

    def matched(self, interests: Tensor, batch: Batch) -> Tensor:
        """(…, B, A, D) interests, and what `Matches` adds to them."""
        return interests if self.matches is None else interests + self.matches(batch)


class Separate(nn.ModuleList, Bottom):
    """Bottoms side by side, each of one stream: nothing is shared, embeddings included."""

    def __init__(self, bottoms: Iterable[Bottom]) -> None:
        super().__init__(bottoms)
        self.outputs = next(iter(self)).outputs  # type: ignore[assignment]

    def forward(self, batch: Batch) -> Tensor:
        """(S, B, outputs)."""
        return torch.cat([bottom(batch) for bottom in self])


class Head(nn.Module, ABC):
    """Reads the bottom's streams and gives the tasks' logits; the loss is its own. Ends in `towers`, one a task."""

    extra: ClassVar[int] = 0
    """Streams that it reads beyond the tasks' own, behind them; a task-specific bottom treats each as one task more."""

    separate: ClassVar[bool] = False
    """Whether every task gets a whole bottom to itself, embeddings included; it is built for that one task."""

    splits: ClassVar[bool] = False
    """Whether `forward` also takes a `Split` for the only stream."""

    personal: ClassVar[bool] = False
    """Whether the bottom's `ids` follow each stream, so that it reads (S, B, inputs + 2·D)."""

    towers: Towers

    @abstractmethod
    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        """`inputs`: the width of a stream."""
        super().__init__()

    @abstractmethod
    def forward(self, x_SBI: Tensor) -> Tensor:
        """Logits (B, T) of streams (S, B, inputs), S as the bottom gives them."""

    def loss(self, logits_BT: Tensor, label_BT: Tensor, known_BT: Tensor) -> Tensor:
        """Per task (T,) the mean cross-entropy over its known labels; 0 where none is known."""
        each = F.binary_cross_entropy_with_logits(logits_BT.float(), label_BT, reduction="none")
        return (each * known_BT).sum(0) / known_BT.sum(0).clamp(min=1)

    def start_from(self, base_rates: Tensor) -> None:
        """Let every task start at its base rate (T,)."""
        self.towers.start_from(base_rates)
