"""What a step has to do and what a device was measured to do: counted by hand here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import exposures, limits, ours
from models.batches import Batch, Loader
from models.embeddings import Shape
from models.network import Network
from models.vocabulary import Vocabulary

ITEMS, WIDTH = 300, ours.WIDTH


def drawn(items: int = ITEMS) -> tuple[Shape, Batch]:
    requests = exposures.draw(500, ITEMS, 1).requests
    vocabulary = Vocabulary.fit(requests, exposures.CONTRACT)
    batch = next(iter(Loader(vocabulary.encode(requests), ())))
    return ours.shape_of(exposures.CONTRACT, vocabulary, items), batch


def given(batch: Batch) -> list[Tensor]:
    return [x for part in (batch, *batch.buckets) for x in vars(part).values() if isinstance(x, Tensor)]


def test_products_of_the_pooled_model_are_those_of_its_formulas() -> None:
    shape, batch = drawn()
    network = ours.network_of("mmoe", shape, 1)
    samples, requests, tasks, experts = len(batch.item_BF), len(batch.user_UF), 3, ours.EXPERTS
    wide, narrow = ours.EXPERT_WIDTHS
    columns = experts * wide + tasks * experts
    columns += -columns % 16  # rows of the first layer are padded to 64 bytes
    of_sample, of_request = (1 + 2) * WIDTH, (2 + 4) * WIDTH  # item, hour, position; user, segment, four histories
    first = samples * of_sample * columns + requests * of_request * columns
    second = samples * experts * wide * narrow
    towers = samples * tasks * (narrow * ours.TOWER + ours.TOWER)
    of_gates = samples * experts * narrow * tasks  # the gradient of what a gate weighs; what it weighs is no product
    expected = 2 * (3 * (first + second + towers) + of_gates)  # forward, and the gradients of both factors
    assert limits.Work.of(network, batch, torch.ones(3)).flops == expected


@pytest.mark.parametrize("name", ["mmoe", "dtrn"])
def test_bytes_are_those_of_the_batch_the_parameters_and_what_the_backward_pass_reads(name: str) -> None:
    shape, batch = drawn()
    network = ours.network_of(name, shape, 1)
    loss, _ = network.loss(batch, torch.ones(3))
    own = {x.untyped_storage().data_ptr() for x in (*given(batch), *network.parameters())}
    kept = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved(loss)}
    tables = {id(table) for table in network.id_tables()}
    weights = sum(p.numel() for p in network.parameters() if id(p) not in tables)
    rows = (len(batch.users) + len(batch.items)) * WIDTH
    work = limits.Work.of(network, batch, torch.ones(3))
    moved = 4 * (2 + 2 + 6) * (weights + rows) + sum(x.nbytes for x in given(batch))
    passed_on = 2 * sum(size for place, size in kept.items() if place not in own)
    assert work.bytes == pytest.approx(moved + passed_on, abs=64)  # but for a bare number that a node keeps as a tensor
    assert work.samples == len(batch.item_BF)
    assert all(p.grad is None for p in network.parameters())


def saved(loss: Tensor) -> list[Tensor]:
    """Every tensor that a node of the graph of `loss` keeps, found by walking it."""
    found: list[Tensor] = []
    seen: set[Any] = set()
    left: list[Any] = [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kept = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        kept += list(getattr(node, "saved_tensors", ()))
        flat = [x for value in kept for x in (value if isinstance(value, list | tuple) else (value,))]
        found += [x for x in flat if isinstance(x, Tensor)]
        left += [parent for parent, _ in node.next_functions]
    return found


def test_a_larger_table_is_no_more_work_when_no_more_of_it_is_read() -> None:
    works = []
    for items in (ITEMS, 50 * ITEMS):
        shape, batch = drawn(items)
        works.append(limits.Work.of(Network(ours.recipe_of("mmoe"), shape), batch, torch.ones(3)))
    assert works[0] == works[1]


def test_a_device_is_the_best_product_and_the_bytes_of_a_copy_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([1.0, 1.0, 0.5, 8.0, 0.25])
    monkeypatch.setattr(limits, "_seconds", lambda work, device: next(taken))
    found = limits.Device.measured(torch.device("cpu"), torch.float32)
    assert found == limits.Device(flops=2 * 2048**3 / 0.5, bytes=2 * 2**28 / 0.25)


@pytest.mark.parametrize(("device", "most", "by"), [((6.0, 100.0), 4.0, "products"), ((100.0, 2.0), 4.0, "bytes")])
def test_the_larger_of_both_limits_counts(device: tuple[float, float], most: float, by: str) -> None:
    work = limits.Work(samples=8, flops=12, bytes=4)
    found = limits.reached(1.0, work, limits.Device(*device))
    assert (found["most"], found["limit"], found["fraction"]) == (most, by, 0.25)
    assert (found["flops_per_sample"], found["bytes_per_sample"]) == (1.5, 0.5)
