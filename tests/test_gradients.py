"""The angle between two tasks' gradients: against its formula, on the parameters that both tasks reach and no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import gradients
from benchmarks.gradients import angles, cosine, per_task
from models.batches import Loader
from models.config import named
from models.network import Network
from tests.shops import Sizes, encoded, lively, shop, terms

pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_is_the_cosine_of_the_elements_that_both_move() -> None:
    random = np.random.default_rng(1)
    a, b = ([torch.from_numpy(random.normal(size=shape)) for shape in ((3, 4), (5,))] for _ in range(2))
    a[0][0] = 0  # moved by the other alone
    b[1][2] = 0
    x, y = (np.concatenate([p.numpy().ravel() for p in part]) for part in (a, b))
    both = (x != 0) & (y != 0)
    assert both.sum() == 12
    x, y = x[both], y[both]
    assert cosine(a, b) == pytest.approx(x @ y / np.sqrt(x @ x) / np.sqrt(y @ y))
    assert cosine(a, a) == pytest.approx(1)
    assert cosine(a, [-p for p in a]) == pytest.approx(-1)
    assert cosine([torch.tensor([1.0, 0.0])], [torch.tensor([0.0, 1.0])]) is None


def test_a_tasks_gradient_is_that_of_its_own_loss_over_all_batches() -> None:
    sizes = Sizes()
    network = lively(named("mmoe"), sizes.shape, seed=1)
    batches = [next(iter(Loader(encoded(sizes, seed)))) for seed in (1, 2)]
    found = per_task(network, batches)
    for t in range(sizes.tasks):
        network.zero_grad()
        for batch in batches:
            (network.loss(batch, torch.ones(sizes.tasks))[1][t] / 2).backward()
        for parameter, grad in zip(network.parameters(), found[t], strict=True):
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
            torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("name", ["shared-bottom", "mmoe", "dtrn"])
def test_what_one_task_alone_moves_is_left_out(name: str) -> None:
    sizes = Sizes()
    network: Network = lively(named(name), sizes.shape, seed=2)
    found = per_task(network, [next(iter(Loader(encoded(sizes, seed=3))))])
    own = ("head.towers.", "head.gate", "refinement.")
    names = [n for n, _ in network.named_parameters()]
    shared = [n for n, p, q in zip(names, found[0], found[1], strict=True) if ((p != 0) & (q != 0)).any()]
    assert shared
    assert not [n for n in shared if any(part in n for part in own)]
    assert any("fields.item" in n for n in shared)
    kept = [place for place, n in enumerate(names) if n in shared]
    whole, part = (cosine([found[0][k] for k in chosen], [found[1][k] for k in chosen]) for chosen in (range(len(names)), kept))
    assert whole == part


def test_tasks_that_want_the_same_agree_and_tasks_that_want_the_opposite_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step, of two tasks with one tower; later, and with a tower each, a tower turns the sign itself."""

    class OneTower(Network):
        def start_from(self, base_rates: torch.Tensor) -> None:
            super().start_from(base_rates)
            with torch.no_grad():
                for layer in (self.head.towers.hidden, self.head.towers.last):
                    layer.weight[1] = layer.weight[0]

    monkeypatch.setattr(gradients, "POINTS", 3)
    monkeypatch.setattr(gradients, "Network", OneTower)
    contract = terms(epochs=2)
    same = shop(contract, "2026-03-30", seed=1, requests=60)
    same.label[:, 1] = same.label[:, 0]
    told: list[str] = []
    found = angles(named("shared-bottom"), contract, same, 2, told.append)
    (pair,) = found["cosines"]
    assert len(found["epoch"]) == len(found["cosines"][pair]) == 3
    assert found["epoch"][0] == 0
    assert found["epoch"] == sorted(found["epoch"])
    assert 1 < found["epoch"][-1] < 2
    assert len(told) == 2
    assert found["cosines"][pair][0] == pytest.approx(1, abs=1e-6)
    assert found == angles(named("shared-bottom"), contract, same, 2, told.append)
    same.label[:, 1] = 1 - same.label[:, 0]
    assert angles(named("shared-bottom"), contract, same, 2, told.append)["cosines"][pair][0] < -0.9
