"""Training on a device that is not the processor, tried where there is none.

A tensor on `meta` has a shape and no values, so whatever asks one for a value, for which a GPU is waited for, raises. Much
that mixes it with the processor does not, nor a copy that is waited for: these the tests forbid themselves. Where there is a
GPU, torch is told to forbid a wait. And tables of ids read as a whole, as on a GPU, come to the same weights.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import exposures
from models import training
from models.batches import Batch
from models.config import Recipe, named
from models.embeddings import Shape
from models.network import Network
from models.vocabulary import Vocabulary

META = torch.device("meta")
SAMPLES = 3000


@pytest.fixture(scope="module")
def vocabulary() -> tuple[Any, Vocabulary]:
    requests = exposures.draw(SAMPLES, 200, 1).requests
    return requests, Vocabulary.fit(requests, exposures.CONTRACT, [requests])


class Apart(TorchDispatchMode):
    """Refuses what a GPU would, tensors of two devices in one operation; and a copy to it that is waited for."""

    def __init__(self, pinned: set[int]) -> None:
        super().__init__()
        self.pinned = pinned

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim()]
        if function is torch.ops.aten._to_copy.default and kwargs.get("device") == META:
            assert kwargs.get("non_blocking"), "the copy is waited for"
            assert args[0].data_ptr() in self.pinned, "the copy is of memory that is not pinned"
        else:
            assert len({x.device for x in given}) < 2, f"{function} mixes devices"
        return function(*args, **kwargs)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Where memory was pinned. What torch does only with a GPU at hand is replaced: that, autocast, its own step of AdamW."""
    places: set[int] = set()

    def pin(tensor: Tensor) -> Tensor:
        places.add(tensor.data_ptr())
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    monkeypatch.setattr(torch, "autocast", lambda *args, **more: contextlib.nullcontext())
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda optimiser, closure: None)
    return places


MODELS = (
    *("mmoe", "mmoe-plain", "dtrn", "dmt", "dtrn+ple", "dtrn+slim", "dtrn+aitm", "dtrn+esmm", "dtrn+single-task"),
    *("pepnet", "stem", "dtrn-separate"),
)


def recipe_of(name: str) -> Recipe:
    return named("pooled-plain+mmoe" if name == "mmoe-plain" else name)


@pytest.mark.parametrize("name", MODELS)
def test_an_epoch_waits_for_no_value_of_a_device_and_mixes_it_with_no_other(
    name: str, vocabulary: tuple[Any, Vocabulary], pinned: set[int]
) -> None:
    requests, fitted = vocabulary
    network = Network(recipe_of(name), Shape.of(exposures.CONTRACT, fitted)).to(META)
    loader = training.loader_of(network.recipe, fitted, requests, META)
    optimiser = training.optimiser_of(network, learning_rate=0.01, embedding_decay=0.01)
    weight = torch.ones(3, device=META)
    losses = []
    with Apart(pinned):
        for batch in loader.batches(1000, None, (0.1, np.random.default_rng(1))):
            losses.append(training.learn(network, optimiser, batch, weight))
        optimiser.settle()
        with torch.inference_mode():
            scored = [network(batch) for batch in loader]
    assert len(losses) >= 3
    assert {x.device for x in (*losses, *scored)} == {META}
    assert all(optimiser.state[table]["exp_avg"].device == META for table in network.id_tables())


def test_what_the_test_above_would_see(pinned: set[int]) -> None:
    rows, here = torch.ones(3, dtype=torch.int64, device=META), torch.ones(3, dtype=torch.int64)
    with Apart(pinned):
        for asked in (lambda: rows.sum().item(), lambda: rows[rows > 0]):
            with pytest.raises((RuntimeError, NotImplementedError)):
                asked()
        for mixed in (lambda: rows.index_select(0, here), lambda: rows[here], lambda: here.to(META), lambda: rows.copy_(here)):
            with pytest.raises(AssertionError):
                mixed()
        with pytest.raises(AssertionError, match="not pinned"):
            here.to(META, non_blocking=True)
        assert here.pin_memory().to(META, non_blocking=True).device == META


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_without_its_distinct_ids_is_learned_under_bfloat16(
    name: str, vocabulary: tuple[Any, Vocabulary], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, fitted = vocabulary
    network = Network(recipe_of(name), Shape.of(exposures.CONTRACT, fitted))
    optimiser = training.optimiser_of(network, learning_rate=0.01, embedding_decay=0.01)
    monkeypatch.setattr(training, "precision", lambda device: torch.autocast("cpu", torch.bfloat16))
    for batch in training.loader_of(network.recipe, fitted, requests).batches(1000):
        loss = training.learn(network, optimiser, whole(batch), torch.ones(3))
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
    assert all(p.isfinite().all() for p in network.parameters())


def whole(batch: Batch) -> Batch:
    """As a loader on a GPU has it: ids in place of places among the distinct ones."""
    assert batch.users is not None
    assert batch.items is not None
    back = {"user_UF": batch.users, "item_BF": batch.items, "token_QF": batch.items}
    rows = {name: getattr(batch, name).clone() for name in back}
    for name, ids in back.items():
        rows[name][:, 0] = ids[rows[name][:, 0]]
    return replace(batch, **rows, users=None, items=None)


@pytest.mark.parametrize("name", ["pooled-plain+mmoe", "dtrn", "pepnet", "stem"])
def test_tables_read_as_a_whole_come_to_the_same_weights(name: str, vocabulary: tuple[Any, Vocabulary]) -> None:
    requests, fitted = vocabulary
    weights, losses = [], []
    for form in (lambda batch: batch, whole):
        torch.manual_seed(1)
        network = Network(named(name), Shape.of(exposures.CONTRACT, fitted)).double()
        optimiser = training.optimiser_of(network, learning_rate=0.01, embedding_decay=0.01)
        optimiser.eps = 1e-30  # the only thing that a row which waits is treated otherwise in (models/optimiser.py)
        optimiser.param_groups[0]["eps"] = optimiser.eps
        batches = training.loader_of(network.recipe, fitted, requests).batches(300, None, (0.1, np.random.default_rng(1)))
        one = torch.ones(3, dtype=torch.float64)
        losses.append(torch.stack([training.learn(network, optimiser, form(batch), one) for batch in batches]))
        optimiser.settle()
        weights.append(network.state_dict())
    torch.testing.assert_close(*losses, atol=1e-6, rtol=1e-6)
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize("name", ["mmoe", "dtrn", "pepnet"])
def test_a_step_on_two_threads_is_the_same_each_time(name: str, vocabulary: tuple[Any, Vocabulary]) -> None:
    requests, fitted = vocabulary
    network = Network(recipe_of(name), Shape.of(exposures.CONTRACT, fitted))
    batch = next(iter(training.loader_of(network.recipe, fitted, requests)))
    assert len(batch.item_BF) * 2 * 16 > 2**16  # enough for torch to share the work out
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = [_gradients(network, batch) for _ in range(6)]
    finally:
        torch.set_num_threads(before)
    for key, value in found[0].items():
        assert all(torch.equal(value, other[key]) for other in found[1:]), key


def _gradients(network: Network, batch: Batch) -> dict[str, Tensor]:
    network.zero_grad()
    torch.autograd.backward(network.loss(batch, torch.ones(3))[0])
    return {name: p.grad.to_dense().clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", MODELS)
def test_torch_itself_sees_no_wait_on_a_gpu(name: str, vocabulary: tuple[Any, Vocabulary]) -> None:
    requests, fitted = vocabulary
    device = torch.device("cuda")
    network = Network(recipe_of(name), Shape.of(exposures.CONTRACT, fitted)).to(device)
    loader = training.loader_of(network.recipe, fitted, requests, device)
    optimiser = training.optimiser_of(network, learning_rate=0.01, embedding_decay=0.01)
    weight, losses = torch.ones(3, device=device), []
    for batch in loader.batches(1000, None, (0.1, np.random.default_rng(1))):
        losses.append(training.learn(network, optimiser, batch, weight))
        torch.cuda.set_sync_debug_mode("error")  # from the second on: the first makes what stays
    torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(losses).isfinite().all()
