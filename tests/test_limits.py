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
    assert limits.Work.of(network, batch).flops == expected


@pytest.mark.parametrize("name", ["mmoe", "dtrn"])
def test_bytes_are_those_of_the_batch_and_of_what_it_reads_of_parameters_and_moments(name: str) -> None:
    shape, batch = drawn()
    network = ours.network_of(name, shape, 1)
    tables = {id(table) for table in network.id_tables()}
    weights = sum(p.numel() for p in network.parameters() if id(p) not in tables)
    assert batch.users is not None
    assert batch.items is not None
    rows = (len(batch.users) + len(batch.items)) * WIDTH
    work = limits.Work.of(network, batch)
    assert work.bytes == 4 * 3 * 2 * (weights + rows) + sum(x.nbytes for x in given(batch))
    assert work.samples == len(batch.item_BF)
    assert all(p.grad is None for p in network.parameters())


def test_a_larger_table_is_no_more_work_when_no_more_of_it_is_read() -> None:
    works = []
    for items in (ITEMS, 50 * ITEMS):
        shape, batch = drawn(items)
        works.append(limits.Work.of(Network(ours.recipe_of("mmoe"), shape), batch))
    assert works[0] == works[1]


@pytest.mark.parametrize(("kind", "calls"), [("cpu", 1), ("cuda", 20)])
def test_a_device_is_the_best_product_of_its_kind_and_the_bytes_of_a_copy_both_ways(
    kind: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that says what a call is to take; the first of six tries is the slowest."""
    clock, waits, seen = [0.0], list[str](), list[Any]()
    sides = {64: 1.0, 128: 1.0, 256: 100.0}
    monkeypatch.setattr(limits, "SIDES", {kind: tuple(sides)})
    monkeypatch.setattr(limits, "COPIED", 4096)
    monkeypatch.setattr(limits.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append("waited"))
    for name in ("randn", "ones"):  # made here, whatever the device
        made = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *shape, device, made=made: made(*shape))

    def mm(a: Tensor, b: Tensor) -> None:
        seen.append((len(a), a.dtype, b.dtype, a.shape == b.shape))
        clock[0] += sides[len(a)] * (3 if seen.count(seen[-1]) <= calls else 1)

    def copy(target: Tensor, source: Tensor) -> None:
        seen.append(source.nbytes)
        clock[0] += 0.5

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(Tensor, "copy_", copy)
    found = limits.Device.measured(torch.device(kind), torch.bfloat16)
    assert found.flops == pytest.approx(2 * 128**3 / 1.0)
    assert found.bytes == pytest.approx(2 * 4096 / 0.5)
    assert seen.count(4096) == 6 * calls
    assert set(seen) == {(side, torch.bfloat16, torch.bfloat16, True) for side in sides} | {4096}
    assert len(waits) == (0 if kind == "cpu" else 4 * 6)


@pytest.mark.parametrize(("device", "most", "by"), [((6.0, 100.0), 4.0, "products"), ((100.0, 2.0), 4.0, "bytes")])
def test_the_larger_of_both_limits_counts(device: tuple[float, float], most: float, by: str) -> None:
    work = limits.Work(samples=8, flops=12, bytes=4)
    found = limits.reached(1.0, work, limits.Device(*device))
    assert (found["most"], found["limit"], found["fraction"]) == (most, by, 0.25)
    assert (found["flops_per_sample"], found["bytes_per_sample"]) == (1.5, 0.5)
