"""Pooled histories against torch's own bag: sums and gradients, of single columns and of lists, of empty bags and of none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import embeddings

ROWS, WIDTH = 9, 4


def own(table: Tensor, rows_QF: Tensor, columns: int | slice, share_Q: Tensor, starts: list[int]) -> Tensor:
    """A loop over bags, tokens and a list's entries, from the definition."""
    ends = [*starts[1:], len(rows_QF)]
    out = []
    for begin, end in zip(starts, ends, strict=True):
        total = torch.zeros(WIDTH, dtype=table.dtype)
        for q in range(begin, end):
            entries = [int(rows_QF[q, columns])] if isinstance(columns, int) else rows_QF[q, columns].tolist()
            known = [e for e in entries if e > 0 or isinstance(columns, int)] or entries[:1]
            total = total + share_Q[q] * torch.stack([table[e] for e in known]).mean(0)
        out.append(total)
    return torch.stack(out) if out else torch.zeros(0, WIDTH, dtype=table.dtype)


@pytest.mark.parametrize("columns", [0, 2, slice(1, 4)])
@pytest.mark.parametrize("starts", [[0, 3, 3, 8], [0], [0, 0, 12]])
def test_a_bag_and_its_gradient_are_those_of_the_definition(columns: int | slice, starts: list[int]) -> None:
    torch.manual_seed(3)
    table = torch.randn(ROWS, WIDTH, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(0, ROWS, (12, 4)) * (torch.rand(12, 4) < 0.7)
    share = torch.rand(12, dtype=torch.float64)
    found = embeddings._bags(table, rows, columns, share, torch.tensor(starts))
    expected = own(table, rows, columns, share, starts)
    assert torch.allclose(found, expected, atol=1e-12)
    weight = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), table)[0] for out in (found, expected))
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert ours.abs().sum() > 0


def test_without_a_token_there_is_nothing_to_learn() -> None:
    table = torch.randn(ROWS, WIDTH, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    found = embeddings._bags(table, none[:, None], 0, torch.empty(0), none)
    assert found.shape == (0, WIDTH)
    found.sum().backward()
    assert table.grad is not None
    assert table.grad.abs().sum() == 0


def test_rows_that_are_taken_many_times_have_the_gradient_of_an_embedding() -> None:
    table = torch.randn(ROWS, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    places = torch.randint(0, ROWS, (40, 2))
    weight = torch.randn(40, 2, 3, WIDTH, dtype=torch.float64)
    found, expected = embeddings.taken(table, places), F.embedding(places, table.flatten(1)).view(40, 2, 3, WIDTH)
    assert torch.equal(found, expected)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), table)[0] for out in (found, expected))
    assert torch.allclose(ours, theirs, atol=1e-12)
