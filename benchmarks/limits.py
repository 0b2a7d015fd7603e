"""What a step of training could not be faster than on a device, as the device was measured, with the products that it makes.

A step makes matrix products of F floating-point operations and has B bytes to move: it takes max(F / peak, B / bandwidth)
seconds at least (the roofline; Williams, Waterman & Patterson, CACM 2009). F is of the products as they are made, padding
included, and of nothing else. B is what must move however well operations are fused: the batch read once, and of every
parameter that it reads, and of its two moments of Adam, a read and a write; of the tables of ids only the rows that are read.
What passes from one operation to the next is not counted. Both speeds are measured, not read off a data sheet.
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

SIDES = {"cpu": (512, 1024, 2048, 4096), "cuda": (4096, 8192, 16384)}
"""Of the square products that a peak is looked for among."""

COPIED = 1 << 30
"""Bytes of a copy: beyond any cache."""

CALLS = {"cpu": 1, "cuda": 20}
"""Calls that are timed together: to start one on a GPU, and to wait for it, is no work of its own."""

TRIES = 5
MOVED = 2 * 3
"""Times that a parameter's bytes move in a step: θ, m, v, read and written."""


@dataclass(frozen=True)
class Device:
    """What a device was measured to do a second."""

    flops: float
    bytes: float

    @classmethod
    def measured(cls, device: torch.device, kind: torch.dtype) -> Device:
        """The best of a few tries, products in `kind`."""
        best = 0.0
        for side in SIDES[device.type]:
            a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
            best = max(best, 2 * side**3 / _seconds(partial(torch.mm, a, b), device))
        source = torch.ones(COPIED // 4, device=device)
        target = torch.empty_like(source)
        return cls(best, 2 * source.nbytes / _seconds(partial(target.copy_, source), device))


@dataclass(frozen=True)
class Work:
    """What one step on a batch has to do."""

    samples: int
    flops: int
    bytes: int

    @classmethod
    def of(cls, network: Network, batch: Batch) -> Work:
        """Counted on the processor while the loss and its gradients are worked out once; the gradients are dropped."""
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm}) as counted:
            loss, _ = network.loss(batch, torch.ones(network.tasks))
            torch.autograd.backward(loss)
        network.zero_grad(set_to_none=True)
        given = [x for part in (batch, *batch.buckets) for x in vars(part).values() if isinstance(x, Tensor)]
        ids = {id(table) for table in network.id_tables()}
        read = sum(len(rows) * table.shape[1] for rows, table in zip(network.id_rows(batch), network.id_tables(), strict=True))
        read += sum(p.numel() for p in network.parameters() if id(p) not in ids)
        return cls(len(batch.item_BF), counted.get_total_flops(), sum(x.nbytes for x in given) + 4 * MOVED * read)

    def most(self, device: Device) -> tuple[float, str]:
        """(samples a second that the device allows, by what)."""
        seconds = {"products": self.flops / device.flops, "bytes": self.bytes / device.bytes}
        by = max(seconds, key=lambda name: seconds[name])
        return self.samples / seconds[by], by


def reached(speed: float, work: Work, device: Device) -> dict[str, Any]:
    """`speed` in samples a second beside what the device allows, and all that this comes from."""
    most, by = work.most(device)
    return {
        "speed": speed,
        "most": most,
        "limit": by,
        "fraction": speed / most,
        "flops_per_sample": work.flops / work.samples,
        "bytes_per_sample": work.bytes / work.samples,
        "device_flops": device.flops,
        "device_bytes": device.bytes,
    }


def _addmm(own: Any, a: Any, b: Any, *args: Any, out_shape: Any = None, **more: Any) -> int:
    """Operations of the product in `own += a @ b`, from shapes."""
    del own, args, out_shape, more
    return int(2 * a[0] * a[1] * b[1])


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The least of a few tries, by the clock, after one that warms up; a GPU is waited for."""
    calls = CALLS[device.type]

    def once() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / calls

    once()
    return min(once() for _ in range(TRIES))
