"""AdamW in which a table of ids is worked on only where a batch reads it, with the result of working on all of it.

A step of AdamW changes every row of a table: the decay and the moments' own decay go on where there is no gradient. But what k
such steps do to a row is known in closed form, so a row is left alone until it is read again, and then brought up to date. With
θ, m, v as they were at the row's last step s, d the share that the decay takes, ρ = β₁/√β₂, c₁(j) = 1 - β₁ʲ, c₂(j) = 1 - β₂ʲ:

    θ ← (1 - d)^(t-s)·θ - lr·S(s, t)·m / (√v + ε√c₂(s)),     S(s, t) = Σ_{j=s+1..t} (1 - d)^(t-j)·ρ^(j-s)·√c₂(j)/c₁(j)
    m ← β₁^(t-s)·m,     v ← β₂^(t-s)·v

S grows by a step as S(s, t) = (1 - d)·S(s, t-1) + ρ^(t-s)·√c₂(t)/c₁(t), one number for every past s. The only liberty taken
is with ε, which here shrinks as √v does while a row waits. AdamW: Loshchilov & Hutter, ICLR 2019. Lazy variants (torch's
SparseAdam) leave waiting rows as they are: a rare id then moves a tenth as far for the same gradient, and never decays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

LONGEST = 512
"""Steps after which ρ^k no longer adds to a float64 (0.9005^512 < 1e-23)."""

CHUNK = 8192
"""Rows that `settle` works on at once."""

MOST_OWED = 4096
"""Steps after which all rows are settled, so that what is kept of past steps stays small beside a step's work."""


class Deferred(torch.optim.AdamW):
    """AdamW; the parameters in `tables` have row-sparse gradients, and `share` of every row is taken a step.

    A step is `prepare` with the rows that the batch reads, a read of just those, backward, `step`. `settle` brings all rows
    up to date: before the tables are read as a whole, and before the state is kept. Prepared with no table's rows, a step is
    AdamW's own, of gradients of whole tables: what a GPU has the bandwidth for. One way or the other, for good.
    """

    def __init__(self, tables: list[nn.Parameter], rest: Iterable[nn.Parameter], *, lr: float, share: float) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"embedding_decay is the share of a row that a step takes: {share} is not in [0, 1)")
        groups: list[dict[str, Any]] = [{"params": tables, "weight_decay": share / lr}]  # AdamW multiplies the two
        super().__init__([*groups, {"params": list(rest), "weight_decay": 0.0}], lr=lr, fused=True)
        self.tables, self.lr, self.share = tables, lr, share
        (self.beta1, self.beta2), self.eps = self.defaults["betas"], self.defaults["eps"]
        for table in tables:
            self.state[table] = {
                "step": torch.zeros((), device=table.device),
                "exp_avg": torch.zeros_like(table),
                "exp_avg_sq": torch.zeros_like(table),
            }
        self.read = [self._rows(table, torch.empty(0, dtype=torch.int64, device=table.device)) for table in tables]
        """By table: the rows of the last `prepare`, and what is in them of the table, m and v as of now."""
        self._settled(0)

    def _rows(self, table: nn.Parameter, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        whole = table.detach(), self.state[table]["exp_avg"], self.state[table]["exp_avg_sq"]
        row, m, v = (tensor.index_select(0, rows) for tensor in whole)
        return rows, row, m, v

    def _settled(self, now: int) -> None:
        """Every row is as of step `now`: of the steps before it nothing is owed."""
        self.now = self.first = now
        self.last = [torch.full((len(table),), self.now, device=table.device) for table in self.tables]
        self.owed = torch.zeros(1, dtype=torch.float64)  # S(first + i, now)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._settled(int(self.state[self.tables[0]]["step"]))

    @torch.no_grad()
    def prepare(self, rows: list[Tensor]) -> None:
        """Bring these rows of each table up to date; ascending, distinct. None at all: tables are read as a whole."""
        if not rows:
            self.read = []
            return
        factors = self._factors()
        self.read = [self._rows(table, read) for table, read in zip(self.tables, rows, strict=True)]
        for table, (read, row, m, v), last in zip(self.tables, self.read, self.last, strict=True):
            self._catch_up(row, m, v, last[read], factors.to(table))
            table.index_copy_(0, read, row)

    def _factors(self) -> Tensor:
        """(5, steps since `first`), for each last step s: what θ, m, m and v are multiplied by, and what is added to √v."""
        last = torch.arange(self.first, self.now + 1, dtype=torch.float64)
        wait = self.now - last
        floor = self.eps * (1 - self.beta2 ** last.clamp(min=1)).sqrt()
        return torch.stack([(1 - self.share) ** wait, -self.lr * self.owed, self.beta1**wait, self.beta2**wait, floor])

    def _catch_up(self, rows: Tensor, m: Tensor, v: Tensor, since: Tensor, factors: Tensor) -> None:
        """The closed form, in place, of rows whose last steps were `since`."""
        keep, move, fade1, fade2, floor = factors[:, since - self.first, None]
        rows.mul_(keep).addcdiv_(move * m, v.sqrt().add_(floor))
        m.mul_(fade1)
        v.mul_(fade2)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of AdamW, of the tables only in the rows of the last `prepare`."""
        if not self.read:
            super().step(closure)
            return
        gradients = [table.grad for table in self.tables]
        for table in self.tables:
            table.grad = None
        super().step(closure)
        self.now += 1
        unbiased1, unbiased2 = 1 - self.beta1**self.now, 1 - self.beta2**self.now
        for table, gradient, (read, row, m, v), last in zip(self.tables, gradients, self.read, self.last, strict=True):
            state = self.state[table]
            if gradient is None:
                state["step"] += 1
            else:
                if gradient._nnz() != len(read):  # a table that was read twice has each row twice
                    gradient = gradient.coalesce()
                adamw(
                    [row], [gradient._values()], [m], [v], [], [state["step"]], fused=True, amsgrad=False, maximize=False,
                    beta1=self.beta1, beta2=self.beta2, lr=self.lr, weight_decay=self.share / self.lr, eps=self.eps,
                )  # fmt: skip
            for tensor, part in ((table, row), (state["exp_avg"], m), (state["exp_avg_sq"], v)):
                tensor.index_copy_(0, read, part)
            last.index_fill_(0, read, self.now if gradient is not None else self.now - 1)
        self.owed = torch.cat([self.owed * (1 - self.share), torch.zeros(1, dtype=torch.float64)])
        count = min(len(self.owed) - 1, LONGEST)
        recent = torch.arange(count, 0, -1, dtype=torch.float64)  # t - s of all s < t that still count
        gained = (self.beta1 / math.sqrt(self.beta2)) ** recent * (math.sqrt(unbiased2) / unbiased1)
        self.owed[len(self.owed) - 1 - count : -1] += gained
        if self.now - self.first >= MOST_OWED:
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Bring every row up to date."""
        if self.now == self.first:
            return
        factors = self._factors()
        for table, last in zip(self.tables, self.last, strict=True):
            state, of_table = self.state[table], factors.to(table)
            for begin in range(0, len(table), CHUNK):  # small enough to stay in the cache from one factor to the next
                part = slice(begin, begin + CHUNK)
                self._catch_up(table[part], state["exp_avg"][part], state["exp_avg_sq"][part], last[part], of_table)
        self._settled(self.now)
