"""The optimiser that leaves waiting rows alone, against torch's AdamW working on whole tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import names, optimiser, training
from models.batches import Loader
from models.optimiser import Deferred
from tests.shops import Sizes, encoded, lively
from tests.test_dtrn_reference import SMALL

ROWS, WIDTH, STEPS, LR, SHARE = 40, 3, 150, 0.01, 0.02


def steps(seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(rows, their gradients, the gradient of what is no table): row 0 always, 1 in three steps, 39 never, the rest rarely."""
    random = torch.Generator().manual_seed(seed)
    for number in range(STEPS):
        chosen = torch.rand(ROWS, generator=random) < 0.05
        chosen[0], chosen[1], chosen[39] = True, number in (2, 3, 140), False
        rows = chosen.nonzero()[:, 0]
        yield rows, torch.randn(len(rows), WIDTH, generator=random).double(), torch.randn(5, generator=random).double()


def start(share: float) -> tuple[nn.Parameter, nn.Parameter, Deferred]:
    torch.manual_seed(1)
    table, rest = nn.Parameter(torch.randn(ROWS, WIDTH).double()), nn.Parameter(torch.randn(5).double())
    return table, rest, Deferred([table], [rest], lr=LR, share=share)


def sparse(rows: Tensor, gradient: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], gradient, (ROWS, WIDTH), check_invariants=True)


@pytest.mark.parametrize("share", [0.0, SHARE, 0.5])
@pytest.mark.parametrize(("settled", "owed"), [(60, 10**9), (10**9, 10**9), (10**9, 50)])
def test_every_row_is_where_adamw_on_the_whole_table_has_it_whenever_it_is_read(
    share: float, settled: int, owed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimiser, "CHUNK", 7)
    monkeypatch.setattr(optimiser, "MOST_OWED", owed)
    table, rest, deferred = start(share)
    whole, plain = nn.Parameter(table.detach().clone()), nn.Parameter(rest.detach().clone())
    adamw = torch.optim.AdamW(
        [{"params": [whole], "weight_decay": share / LR}, {"params": [plain], "weight_decay": 0.0}], lr=LR
    )
    left_alone = 0
    for number, (rows, gradient, other) in enumerate(steps(3)):
        deferred.prepare([rows])
        torch.testing.assert_close(table[rows], whole[rows], rtol=1e-6, atol=1e-8)
        left_alone += int((~torch.isclose(table, whole, rtol=1e-6, atol=1e-8)).any(1).sum())
        table.grad, rest.grad = sparse(rows, gradient), other.clone()
        whole.grad, plain.grad = sparse(rows, gradient).to_dense(), other.clone()
        deferred.step()
        adamw.step()
        assert len(deferred.owed) <= owed
        if number % settled == settled - 1 or number == STEPS - 1:
            deferred.settle()
            torch.testing.assert_close(table, whole, rtol=1e-6, atol=1e-8)
            for moment in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(deferred.state[table][moment], adamw.state[whole][moment], rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(rest, plain)
    assert left_alone > STEPS  # rows really waited


def test_the_state_that_is_kept_goes_on_as_if_nothing_had_happened() -> None:
    table, rest, deferred = start(SHARE)
    resumed_table, resumed_rest, resumed = start(SHARE)
    everything = list(steps(4))
    for half in (everything[:70], everything[70:]):
        for rows, gradient, other in half:
            for one_table, one_rest, one in ((table, rest, deferred), (resumed_table, resumed_rest, resumed)):
                one.prepare([rows])
                one_table.grad, one_rest.grad = sparse(rows, gradient), other.clone()
                one.step()
        deferred.settle()
        resumed.settle()
        with torch.no_grad():
            resumed_table, resumed_rest = (nn.Parameter(p.detach().clone()) for p in (resumed_table, resumed_rest))
        again = Deferred([resumed_table], [resumed_rest], lr=LR, share=SHARE)
        again.load_state_dict(resumed.state_dict())
        resumed = again
    torch.testing.assert_close(resumed_table, table, rtol=0, atol=0)
    torch.testing.assert_close(resumed_rest, rest, rtol=0, atol=0)


def test_a_table_that_was_read_twice_steps_by_the_sum_and_one_that_was_not_read_stays() -> None:
    table, idle, rest = (nn.Parameter(torch.randn(n).double()[:, None]) for n in (6, 4, 1))
    whole, left = (nn.Parameter(p.detach().clone()) for p in (table, idle))
    deferred, adamw = Deferred([table, idle], [rest], lr=LR, share=0.0), torch.optim.AdamW([whole], lr=LR, weight_decay=0.0)
    rows, gradient = torch.tensor([1, 4]), torch.tensor([[2.0], [-3.0]]).double()
    for _ in range(3):
        deferred.prepare([rows, torch.empty(0, dtype=torch.int64)])
        twice = torch.sparse_coo_tensor(
            rows.repeat(2)[None], torch.cat([gradient, 5 * gradient]), (6, 1), check_invariants=True
        )
        table.grad, whole.grad = twice, torch.zeros(6, 1).double().index_copy_(0, rows, 6 * gradient)
        deferred.step()
        adamw.step()
    deferred.settle()
    torch.testing.assert_close(table, whole)
    torch.testing.assert_close(idle, left, rtol=0, atol=0)


def test_a_row_that_was_read_without_a_gradient_goes_on_as_one_that_waits() -> None:
    table, rest, deferred = start(SHARE)
    whole = nn.Parameter(table.detach().clone())
    adamw = torch.optim.AdamW([whole], lr=LR, weight_decay=SHARE / LR)
    rows = torch.tensor([1, 4])
    for gradient in (torch.ones(2, WIDTH).double(), None, torch.ones(2, WIDTH).double(), None, None):
        deferred.prepare([rows])
        table.grad, rest.grad = None if gradient is None else sparse(rows, gradient), torch.zeros(5).double()
        whole.grad = torch.zeros(ROWS, WIDTH).double() if gradient is None else sparse(rows, gradient).to_dense()
        deferred.step()
        adamw.step()
    deferred.settle()
    torch.testing.assert_close(table, whole, rtol=1e-6, atol=1e-8)


def test_a_share_beyond_the_whole_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"embedding_decay .* 1\.5 is not in"):
        start(1.5)


@pytest.mark.parametrize("name", ["dtrn", "mmoe", "single-task", "stem", "pepnet"])
def test_a_network_learns_what_it_would_learn_with_adamw_on_whole_tables(name: str) -> None:
    """PEPNet reads its ids twice, STEM and single-task networks have several tables."""
    sizes = Sizes(requests=60, item=(300, 7))
    bottom, head = names.split(name)
    recipe = replace(SMALL, head=head, **names.settings(bottom))
    fast, whole = (lively(recipe, sizes.shape, 1) for _ in range(2))
    ids = {id(p) for p in whole.id_tables()}
    groups: list[dict[str, Any]] = [
        {"params": whole.id_tables(), "weight_decay": SHARE / LR},
        {"params": [p for p in whole.parameters() if id(p) not in ids], "weight_decay": 0.0},
    ]
    plain, deferred = torch.optim.AdamW(groups, lr=LR), training.optimiser_of(fast, learning_rate=LR, embedding_decay=SHARE)
    weight = torch.ones(3).double()
    for _ in range(3):
        for batch in Loader(encoded(sizes, 2)).batches(20):
            training.learn(fast, deferred, batch, weight)
            plain.zero_grad()
            whole.loss(batch, weight)[0].backward()
            for parameter in whole.parameters():
                parameter.grad = None if parameter.grad is None else parameter.grad.to_dense()
            plain.step()
    deferred.settle()
    for (part, mine), theirs in zip(fast.named_parameters(), whole.parameters(), strict=True):
        apart = (mine - theirs).abs()  # Adam makes a whole step of a gradient near 0, whose sign ε in a table can turn
        assert (apart > LR / 10).double().mean() <= 0.02, part
        assert apart.max() < LR, part
