"""What a step of training could not be faster than on a device, and what the device was measured to do.

A step has F floating-point operations in its matrix products and B bytes that must move, however well it is written: it takes
max(F / peak, B / bandwidth) seconds at least (the roofline; Williams, Waterman & Patterson, CACM 2009). Peak and bandwidth are
measured here, not read off a data sheet: the largest of a few products, and a copy.

B counts what no fusing of operations saves: the batch read once; every tensor kept for the backward pass written once and read
once; every parameter outside the tables of ids read twice, its gradient written and read, and it and both moments of Adam read
and written; and of the tables of ids the same for the rows that the batch reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.batches import Batch
from models.network import Network

SIDES = (512, 1024, 2048, 4096)
"""Of the square products that a peak is looked for among."""

COPIED = 1 << 28
"""Bytes of a copy: beyond any cache."""

PASSES = 2 + 2 + 2 * 3
"""Times that a parameter's bytes move in a step: both passes read it, its gradient is written and read, θ, m, v likewise."""


@dataclass(frozen=True)
class Device:
    """What a device was measured to do a second."""

    flops: float
    bytes: float

    @classmethod
    def measured(cls, device: torch.device, kind: torch.dtype) -> Device:
        """The best of a few tries, products in `kind`."""
        best = 0.0
        for side in SIDES:
            a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
            best = max(best, 2 * side**3 / _seconds(partial(torch.mm, a, b), device))
        source = torch.ones(COPIED // 4, device=device)
        target = torch.empty_like(source)
        return cls(best, 2 * COPIED / _seconds(lambda: target.copy_(source), device))


@dataclass(frozen=True)
class Work:
    """What one step on a batch has to do."""

    samples: int
    flops: int
    bytes: int

    @classmethod
    def of(cls, network: Network, batch: Batch, weight_T: Tensor) -> Work:
        """Counted while the loss and its gradients are worked out once; the weights stay, their gradients are dropped."""
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage
            return tensor

        formulas = {torch.ops.aten.addmm_: _addmm}
        with FlopCounterMode(display=False, custom_mapping=formulas) as counted:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss, _ = network.loss(batch, weight_T)
            torch.autograd.backward(loss)
        network.zero_grad(set_to_none=True)
        given = [x for part in (batch, *batch.buckets) for x in vars(part).values() if isinstance(x, Tensor)]
        own = {x.untyped_storage().data_ptr() for x in (*given, *network.parameters())}
        ids = {id(table) for table in network.id_tables()}
        rows = sum(len(read) * table.shape[1] for read, table in zip(network.id_rows(batch), network.id_tables(), strict=True))
        rest = sum(p.numel() for p in network.parameters() if id(p) not in ids)
        moved = sum(x.nbytes for x in given) + 2 * sum(storage.nbytes() for place, storage in kept.items() if place not in own)
        return cls(len(batch.item_BF), counted.get_total_flops(), moved + 4 * PASSES * (rows + rest))

    def most(self, device: Device) -> tuple[float, str]:
        """(samples a second that the device allows, by what)."""
        seconds = {"products": self.flops / device.flops, "bytes": self.bytes / device.bytes}
        by = max(seconds, key=lambda name: seconds[name])
        return self.samples / seconds[by], by


def reached(speed: float | None, work: Work, device: Device) -> dict[str, Any]:
    """`speed` in samples a second beside what the device allows, and all that this comes from."""
    most, by = work.most(device)
    return {
        "speed": speed,
        "most": most,
        "limit": by,
        "fraction": None if speed is None else speed / most,
        "flops_per_sample": work.flops / work.samples,
        "bytes_per_sample": work.bytes / work.samples,
        "device_flops": device.flops,
        "device_bytes": device.bytes,
    }


def _addmm(own: Any, a: Any, b: Any, *args: Any, out_shape: Any = None, **more: Any) -> int:
    """Operations of the product in `own += a @ b`, from shapes."""
    del own, args, out_shape, more
    return int(2 * a[0] * a[1] * b[1])


def _seconds(work: Callable[[], object], device: torch.device, tries: int = 5) -> float:
    """The least of a few times, by the clock; a GPU is waited for."""

    def once() -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(tries))
