"""Training on a device that is not the processor, tried where there is none.

A tensor on `meta` has a shape and no values: whatever asks one for a value, a GPU would have to be waited for, raises; so does
what mixes devices. And the tables of ids read as a whole, as a GPU does, come to the same weights.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import exposures
from models import training
from models.batches import CPU, Loader
from models.config import named
from models.embeddings import Shape
from models.network import Network
from models.vocabulary import Vocabulary

META = torch.device("meta")
SAMPLES = 3000


@pytest.fixture(scope="module")
def vocabulary() -> tuple[Any, Vocabulary]:
    requests = exposures.draw(SAMPLES, 200, 1).requests
    return requests, Vocabulary.fit(requests, exposures.CONTRACT, [requests])


@pytest.fixture
def no_gpu_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch does only with a GPU at hand: pinning memory, autocast, the fused step. Nothing else is replaced."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    monkeypatch.setattr(torch, "autocast", lambda *args, **more: contextlib.nullcontext())
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *args, **more: None)


@pytest.mark.usefixtures("no_gpu_needed")
@pytest.mark.parametrize(
    "name", ["mmoe", "mmoe-plain", "dtrn", "dmt", "dtrn+ple", "dtrn+slim", "pepnet", "stem", "dtrn+single-task"]
)
def test_an_epoch_asks_a_device_for_no_value_and_mixes_it_with_no_other(name: str, vocabulary: tuple[Any, Vocabulary]) -> None:
    requests, fitted = vocabulary
    recipe = named("pooled-plain+mmoe" if name == "mmoe-plain" else name)
    network = Network(recipe, Shape.of(exposures.CONTRACT, fitted)).to(META)
    loader = training.loader_of(recipe, fitted, requests, META)
    optimiser = training.optimiser_of(network, learning_rate=0.01, embedding_decay=0.01)
    for group in optimiser.param_groups:
        group["fused"] = False
    weight = torch.ones(3, device=META)
    losses = [
        training.learn(network, optimiser, batch, weight)
        for batch in loader.batches(1000, None, (0.1, np.random.default_rng(1)))
    ]
    optimiser.settle()
    assert len(losses) >= 3
    assert {loss.device for loss in losses} == {META}
    assert all(optimiser.state[table]["exp_avg"].device == META for table in network.id_tables())


def test_what_the_test_above_would_see() -> None:
    rows = torch.ones(3, dtype=torch.int64, device=META)
    for asked in (lambda: rows.sum().item(), lambda: rows[rows > 0], lambda: rows + torch.ones(3)):
        with pytest.raises((RuntimeError, NotImplementedError)):
            asked()


def test_a_device_reads_its_tables_of_ids_as_a_whole(
    vocabulary: tuple[Any, Vocabulary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    requests, fitted = vocabulary
    loader = training.loader_of(named("dtrn"), fitted, requests, META)
    assert loader.tables == tuple(fitted.sizes(("user", "item")))
    batch = next(iter(loader))
    assert (len(batch.users), len(batch.items)) == loader.tables
    assert training.loader_of(named("dtrn"), fitted, requests).tables is None


@pytest.mark.parametrize("name", ["pooled-plain+mmoe", "dtrn", "pepnet", "stem"])
def test_tables_read_as_a_whole_come_to_the_same_weights(name: str, vocabulary: tuple[Any, Vocabulary]) -> None:
    requests, fitted = vocabulary
    recipe, encoded = named(name), fitted.encode(requests)
    user, item = fitted.sizes(("user", "item"))
    slots = (1,) if recipe.matches else ()
    weights, losses = [], []
    for tables in (None, (user, item)):
        torch.manual_seed(1)
        network = Network(recipe, Shape.of(exposures.CONTRACT, fitted)).double()
        optimiser = training.optimiser_of(network, learning_rate=0.01, embedding_decay=0.01)
        optimiser.eps = 1e-30  # the only thing that a row which waits is treated otherwise in (models/optimiser.py)
        batches = Loader(encoded, slots, CPU, tables).batches(300, None, (0.1, np.random.default_rng(1)))
        losses.append(
            torch.stack([training.learn(network, optimiser, batch, torch.ones(3, dtype=torch.float64)) for batch in batches])
        )
        optimiser.settle()
        weights.append(network.state_dict())
    torch.testing.assert_close(*losses, atol=1e-6, rtol=1e-6)
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], atol=1e-5, rtol=1e-5, msg=key)
