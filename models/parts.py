"""What every bottom and every head is. `models.network` puts one of each together; docs/models.md shows how to add one.

A stream is one representation of the batch's samples: a bottom that the tasks share gives one, a task-specific one gives
a stream per task. Letters: S streams · B samples · T tasks · F fields · D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import Batch
from models.config import Recipe
from models.embeddings import Fields, Shape
from models.towers import Towers


class Bottom(nn.Module, ABC):
    """Reads a batch. Sets `fields` (its embedding tables) and `outputs` (width of a stream)."""

    fields: Fields
    outputs: int

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        super().__init__()
        self.fields = Fields(recipe, shape)
        self.outputs = shape.fields * recipe.width

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """(S, B, outputs): S = 1 where the tasks share the representation, else `shape.tasks`, in the tasks' order."""

    def id_tables(self) -> list[nn.Parameter]:
        """The embeddings of user and item ids: they overfit first, so they alone are decayed."""
        return [self.fields.user[0].weight, self.fields.item[0].weight]  # type: ignore[list-item]

    def id_rows(self, batch: Batch) -> list[Tensor]:
        """The rows of each of `id_tables` that the batch reads."""
        return [batch.users, batch.items]


class Head(nn.Module, ABC):
    """Reads the bottom's streams and gives the tasks' logits; the loss is its own. Ends in `towers`, one a task."""

    extra: ClassVar[int] = 0
    """Streams that it reads beyond the tasks' own, behind them; a task-specific bottom treats each as one task more."""

    separate: ClassVar[bool] = False
    """Whether every task gets a whole bottom to itself, embeddings included; it is built for that one task."""

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


class Separate(nn.ModuleList):
    """A bottom per task, one behind the other: what a head with `separate` reads."""

    def __init__(self, bottoms: list[Bottom]) -> None:
        super().__init__(bottoms)
        self.outputs = bottoms[0].outputs

    def forward(self, batch: Batch) -> Tensor:
        """(T, B, outputs)."""
        return torch.cat([bottom(batch) for bottom in self])

    def id_tables(self) -> list[nn.Parameter]:
        return [table for bottom in self for table in bottom.id_tables()]  # type: ignore[operator]

    def id_rows(self, batch: Batch) -> list[Tensor]:
        return [rows for bottom in self for rows in bottom.id_rows(batch)]  # type: ignore[operator]
